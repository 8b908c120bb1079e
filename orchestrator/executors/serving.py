"""The child's side of a lane: one worker process, one pipe, one job at a time."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import logging
import os
import pickle
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.outcomes import Outcome
from orchestrator.redaction import first_line, scrub
from orchestrator.tracebacks import said

logger = logging.getLogger(__name__)

#: seconds without a job after which a worker lets go of what it keeps for the next one
IDLE = 2.0

#: sent instead of a job: end the job in flight and leave
CANCEL = b"cancel"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a worker process calls, as `module:function`, so that it can be named across processes."""

    #: once, with the settings, before any job
    prepare: str = "orchestrator.worker:prepare"
    #: for each job, with job, target and settings; returns an Outcome
    run: str = "orchestrator.worker:run_job"
    #: once, without arguments, when the worker leaves in peace
    finish: str | None = "orchestrator.worker:finish"
    #: without arguments, when no job has come for a while: others may need what it keeps
    rest: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The first thing that a worker is sent."""

    entry: Entry
    settings: object
    #: of the parent, now: a worker may have been forked from a server that was started earlier
    environ: dict[str, str]


class Said(enum.StrEnum):
    """What a worker tells its parent."""

    READY = "ready"
    #: it can never run a job: type name and text of what went wrong
    UNUSABLE = "unusable"
    #: it has read a job whole; a job without this was never touched
    BEGUN = "begun"
    #: with the outcome
    DONE = "done"
    #: running the job raised: type name and text
    RAISED = "raised"


class JobCancelled(KeyboardInterrupt):
    """The parent ends the job in flight; database drivers cancel their statement on a KeyboardInterrupt."""


class _Phase(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    TALKING = enum.auto()


def serve(pipe: Connection) -> None:
    """Run jobs from the pipe until it ends: the whole life of a worker process.

    A worker whose parent was killed leaves at once when it is idle, and after the job in flight otherwise: that job
    holds its target's lock on its own connection, so whoever comes next waits for it, and finishing is sooner and
    safer than cutting a statement off. Nobody hears its outcome; the version table has it.
    """
    _leave_terminal()
    server = _Server(pipe)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, server.on_terminate)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        server.serve()
    except JobCancelled:
        logger.warning("the job was ended by the parent")


def _leave_terminal() -> None:
    """Get out of reach of Ctrl-C, of the parent's standard input and of its standard output."""
    try:
        os.setsid()
    except OSError:  # a session leader already
        pass
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # the parent runs without standard error
        os.dup2(null, 1)
    os.close(null)


def resolve(name: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


class _Server:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._phase = _Phase.TALKING
        self._leaving = False

    def on_terminate(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the handler's signature
        """Leave after the job in flight; leave now when there is none, or when the parent asked for it or is gone."""
        self._leaving = True
        if self._phase is _Phase.WAITING:
            raise SystemExit(0)
        if self._phase is _Phase.RUNNING and self._pipe.poll():
            raise JobCancelled

    def serve(self) -> None:
        try:
            data = self._pipe.recv_bytes()
        except (EOFError, OSError):  # the parent is gone already
            return
        try:
            order: Order = pickle.loads(data)  # noqa: S301 - from the parent, over its own pipe
            os.environ.clear()
            os.environ.update(order.environ)
            resolve(order.entry.prepare)(order.settings)
            run = resolve(order.entry.run)
        except (Exception, SystemExit) as error:
            logger.exception("the worker process cannot start")
            self._say(Said.UNUSABLE, _named(error))
            return
        self._say(Said.READY)
        while (job := self._next(order.entry.rest)) is not None:
            self._say(Said.BEGUN)
            self._say(*self._run(run, order.settings, job))
        if order.entry.finish:
            resolve(order.entry.finish)()

    def _next(self, rest: str | None) -> bytes | None:
        self._phase = _Phase.WAITING
        try:
            if rest and not self._leaving and not self._pipe.poll(IDLE):
                _rest(rest)
            data = None if self._leaving else self._pipe.recv_bytes()
        except (EOFError, OSError):
            return None
        finally:
            self._phase = _Phase.TALKING
        return None if data == CANCEL else data

    def _run(self, run: Callable[..., Any], settings: object, data: bytes) -> tuple[Said, Any]:
        try:
            job, target = pickle.loads(data)  # noqa: S301 - from the parent, over its own pipe
            self._phase = _Phase.RUNNING
            try:
                outcome = run(job, target, settings)
            finally:
                self._phase = _Phase.TALKING
            if not isinstance(outcome, Outcome):
                raise TypeError(f"the job returned {type(outcome).__name__}, not an Outcome")
            pickle.dumps(outcome)
        except (Exception, SystemExit) as error:
            logger.exception("running the job raised")
            return Said.RAISED, _named(error)
        return Said.DONE, outcome

    def _say(self, said: Said, about: Any = None) -> None:
        try:
            self._pipe.send((said, about))
        except OSError:
            # The parent is gone; what this worker did stands in the target's own version table.
            self._leaving = True


def _rest(name: str) -> None:
    try:
        resolve(name)()
    except Exception:
        logger.exception("letting go of what is kept for the next job failed")


def _named(error: BaseException) -> tuple[str, str]:
    # Messages of ours span lines on purpose (a list of problems); those of drivers may carry customer data there.
    text = str(error) if isinstance(error, OrchestratorError) else first_line(said(error))
    return type(error).__name__, scrub(text)

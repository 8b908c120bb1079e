"""The parent's side of a lane: one worker process, the pipe to it, and the job that it holds."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from orchestrator.executors import endings
from orchestrator.executors.serving import CANCEL, Said, serve
from orchestrator.outcomes import DONE, Outcome
from orchestrator.plans import Job

Context: TypeAlias = ForkServerContext | SpawnContext

#: seconds that a worker has to cancel its statement before it is killed
GRACE = 5.0

#: exit code that multiprocessing makes up for every worker when the server that they were forked from was killed
ORPHANED = 255

#: seconds that a worker may take to get ready
START_LIMIT = 300.0

_main_module = threading.Lock()
#: tells a new interpreter not to look for modules in the current folder
_SAFE_PATH = "PYTHONSAFEPATH"


@dataclasses.dataclass(slots=True, kw_only=True)
class Errand:
    """A job on its way through a lane."""

    job: Job
    #: job and target, pickled
    data: bytes
    future: Future[Outcome]
    #: database that it works on: the lane that has been there has a warm connection
    place: str
    #: seconds that it may run
    limit: float
    #: workers that died before they read it
    misfires: int = 0
    started_at: datetime.datetime | None = None
    #: monotonic clock, None until a worker said that it has begun
    begun: float | None = None

    def begin(self) -> None:
        """Start the clock."""
        self.started_at = datetime.datetime.now(datetime.UTC)
        self.begun = time.monotonic()

    def times(self) -> dict[str, Any]:
        """When it started and how long it took, for an outcome that is written here."""
        took = None if self.begun is None else (time.monotonic() - self.begun) * 1000
        return {"started_at": self.started_at, "duration_ms": took}


class State(enum.Enum):
    """What a lane is good for."""

    STARTING = enum.auto()
    IDLE = enum.auto()
    BUSY = enum.auto()
    #: no more jobs: its worker cannot work, or has ended
    CLOSED = enum.auto()


class Ending(enum.Enum):
    """Why the job in a lane is being ended."""

    TIMEOUT = enum.auto()
    CANCEL = enum.auto()


class Lane:
    """One worker process. Used by one thread only."""

    def __init__(self, context: Context, order: bytes) -> None:
        self.state = State.STARTING
        self.errand: Errand | None = None
        #: database of its latest job
        self.place: str | None = None
        self._ending: Ending | None = None
        #: when the worker is killed, on the monotonic clock
        self._kill_at: float | None = time.monotonic() + START_LIMIT
        self.pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=serve, args=(theirs,), daemon=True, name="orchestrate-lane")
        try:
            with theirs, _without_main_module(), _without_current_folder():
                self._process.start()
        except BaseException:
            self.pipe.close()
            raise
        assert self._process.pid is not None
        self._pid = self._process.pid
        # A worker that is gone already shows as the end of its pipe.
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(order)

    @property
    def deadline(self) -> float | None:
        """When `enforce` wants to be called, on the monotonic clock."""
        if self._kill_at is not None:
            return self._kill_at
        errand = self.errand
        return None if errand is None or errand.begun is None else errand.begun + errand.limit

    def give(self, errand: Errand) -> None:
        """Take the errand, and send it as soon as the worker is ready."""
        self.errand, self.place = errand, errand.place
        if self.state is State.IDLE:
            self._send(errand)

    def hear(self) -> tuple[Said, Any]:
        """What the worker says; EOFError when it is gone."""
        try:
            said, about = self.pipe.recv()
        except OSError as error:
            raise EOFError from error
        if said is Said.READY:
            self.state = State.IDLE
            self._kill_at = None
            if self.errand:
                self._send(self.errand)
        elif said is Said.BEGUN and self.errand:
            self.errand.begin()
        elif said is Said.UNUSABLE:
            self.state = State.CLOSED
            self._kill_at = time.monotonic() + GRACE
        return said, about

    def outcome(self, said: Said, about: Any) -> Outcome:
        """The outcome of the errand, after DONE or RAISED."""
        errand = self._take()
        if said is Said.DONE and about.failure and about.failure.crowded:
            self.place = None  # it got no connection there, and one that has one goes first
        if self._ending and not (said is Said.DONE and about.status in DONE):
            return self._ended(errand)
        return about if said is Said.DONE else endings.raised(errand.job, *about, **errand.times())

    def bury(self) -> tuple[Errand | None, Outcome | None, int | None]:
        """After the worker's end: its errand, its outcome if the worker had begun it, and the exit code."""
        exit_code = self.close(patience=GRACE)
        if self.errand is None:
            return None, None, exit_code
        errand = self._take()
        if self._ending:
            return errand, self._ended(errand), exit_code
        if errand.begun is None:
            return errand, None, exit_code
        return errand, endings.worker_lost(errand.job, exit_code, **errand.times()), exit_code

    def end(self, why: Ending) -> None:
        """Ask the worker to cancel its job and leave; `enforce` kills it when it does not."""
        if self._ending:
            return
        self._ending, self._kill_at = why, time.monotonic() + GRACE
        if self.state is State.STARTING:
            self.kill()
            return
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(CANCEL)
        self._signal(signal.SIGTERM)

    def enforce(self) -> None:
        """End a job past its limit, kill a worker past its grace."""
        deadline = self.deadline
        if deadline is None or time.monotonic() < deadline:
            return
        if self._kill_at is None:
            self.end(Ending.TIMEOUT)
            return
        self._kill_at = time.monotonic() + GRACE
        self.kill()

    def kill(self) -> None:
        """End the worker now; the end of its pipe tells."""
        self._signal(signal.SIGKILL)

    def release(self) -> None:
        """Tell an idle worker to leave."""
        self.state = State.CLOSED
        self.pipe.close()

    def close(self, *, patience: float) -> int | None:
        """Reap the worker, by force after so many seconds; returns its exit code."""
        self.release()
        self._process.join(patience)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        exit_code = self._process.exitcode
        self._process.close()
        return exit_code

    def _signal(self, number: signal.Signals) -> None:
        # Not through multiprocessing, which signals no process that it takes for ended: with the server of the
        # workers gone that would be all of them, though they live and hold locks.
        if self._process.exitcode in {None, ORPHANED}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _send(self, errand: Errand) -> None:
        self.state = State.BUSY
        # A worker that is gone shows as the end of its pipe; it has begun nothing then.
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(errand.data)

    def _take(self) -> Errand:
        errand, self.errand = self.errand, None
        assert errand is not None
        if self.state is State.BUSY:
            # A worker that was told to end leaves after this: it gets no more jobs.
            self.state = State.CLOSED if self._ending else State.IDLE
        return errand

    def _ended(self, errand: Errand) -> Outcome:
        if errand.begun is None:
            return endings.never_begun(errand.job)
        if self._ending is Ending.TIMEOUT:
            return endings.timed_out(errand.job, errand.limit, **errand.times())
        return endings.cancelled(errand.job, **errand.times())


def context() -> Context:
    """How worker processes are started; never by forking this process, which may have threads and open connections."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the user's script in the child: without a main guard it would run again."""
    with _main_module:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextlib.contextmanager
def _without_current_folder() -> Iterator[None]:
    """Keep the server that workers are forked from from importing a folder `alembic` of the user's for the library."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before

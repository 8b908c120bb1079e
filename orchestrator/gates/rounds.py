"""One query on many databases: several at once, few on one server, and ended on the server when the time is over."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection

from orchestrator import databases
from orchestrator.databases import Connections, LockHolder
from orchestrator.gates.questions import Finding, Patience
from orchestrator.outcomes import Verdict
from orchestrator.strategy import AUTO_SERVER_CAP
from orchestrator.tenants import Target

logger = logging.getLogger(__name__)

#: queries at once
MOST_AT_ONCE = 8
#: seconds that queries get to end after they were told to
_GRACE = 2.0

#: asks on a connection that is the target's own
Ask: TypeAlias = Callable[[Connection], Finding]


class Round:
    """Asks each target once; what has no answer in time is told from what has one."""

    def __init__(
        self, targets: Sequence[Target], ask: Ask, *, patience: Patience, caps: Mapping[str, int], run: str
    ) -> None:
        self._ask = ask
        self._patience = patience
        self._caps = caps
        self._run = run
        self._changed = threading.Condition()
        self._waiting: dict[str, collections.deque[Target]] = {}
        once = {target.name: target for target in targets}
        for target in once.values():
            self._waiting.setdefault(target.server, collections.deque()).append(target)
        self._running: dict[str, _Session] = {}
        self._names = list(once)
        self._found: dict[str, Finding] = {}

    def findings(self) -> dict[str, Finding | None]:
        """What each target came to, in their order; None for those that did not answer in time."""
        for number in range(min(MOST_AT_ONCE, len(self._names))):
            # Not a pool of threads: Python waits for those when it ends, and a server may never answer.
            threading.Thread(target=self._work, daemon=True, name=f"gate-{number}").start()
        with self._changed:
            while len(self._found) < len(self._names) and not self._patience.is_over:
                self._changed.wait(self._patience.tick())
            self._waiting.clear()
            left = [session for session in self._running.values() if session.is_open]
        self._end(left)
        with self._changed:
            return {name: self._found.get(name) for name in self._names}

    def _end(self, sessions: Sequence[_Session]) -> None:
        """End what is still going on, all at once, and wait a moment for it; nothing depends on whether it works."""
        for session in sessions:
            threading.Thread(target=session.end, daemon=True, name="gate-end").start()
        with self._changed:
            self._changed.wait_for(lambda: not any(session.is_open for session in sessions), _GRACE if sessions else 0)

    def _work(self) -> None:
        connections = Connections()
        try:
            while (target := self._next()) is not None:
                finding = self._asked(connections, target)
                with self._changed:
                    del self._running[target.name]
                    if not self._patience.is_over:
                        self._found[target.name] = finding
                    self._changed.notify_all()
        finally:
            connections.close()

    def _next(self) -> Target | None:
        """The next target whose server has room, None when none is left."""
        with self._changed:
            while self._waiting and not self._patience.is_over:
                for server, targets in self._waiting.items():
                    if self._has_room(server):
                        target = targets.popleft()
                        if not targets:
                            del self._waiting[server]
                        self._running[target.name] = _Session(target, self._application(target))
                        return target
                self._changed.wait(self._patience.tick())
        return None

    def _has_room(self, server: str) -> bool:
        cap = self._caps.get(server, self._caps.get("*", AUTO_SERVER_CAP))
        return sum(session.target.server == server for session in self._running.values()) < cap

    def _application(self, target: Target) -> str:
        return f"orchestrate/{self._run}/{target.name}"

    def _asked(self, connections: Connections, target: Target) -> Finding:
        session = self._running[target.name]
        try:
            with session.open(connections) as connection:
                return self._ask(connection)
        except Exception as error:
            logger.info("gate on %s", target.name, exc_info=True)
            failure = databases.classify(error, target)
            code = f" ({failure.code})" if failure.code else ""
            return Finding(Verdict.INCONCLUSIVE, f"{failure.message}{code}")


class _Session:
    """The session of one query, which another thread can end."""

    def __init__(self, target: Target, application: str) -> None:
        self.target = target
        self._application = application
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._number: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is anything to end; a server that has not let us in has nothing of ours."""
        return self._connection is not None

    @contextlib.contextmanager
    def open(self, connections: Connections) -> Iterator[Connection]:
        """A connection that is the target's own and cannot write."""
        with connections.open(self.target, application_name=self._application, read_only=True) as connection:
            with self._lock:
                self._connection = connection
                self._number = databases.backend_of(self.target).session(connection)
            try:
                yield connection
            finally:
                with self._lock:
                    self._connection = None

    def end(self) -> None:
        """End what it is doing: its session on a server, its statement on a file."""
        with self._lock:
            if self._connection is None:
                return
            if self._number is None:
                driver: Any = self._connection.connection.driver_connection
                driver.interrupt()
                return
            holder = LockHolder(pid=self._number, application=self._application)
        connections = Connections()
        try:
            with connections.open(self.target, application_name=self._application, read_only=True) as other:
                databases.backend_of(self.target).end_holder(other, holder)
        except Exception:
            logger.warning("a query of a gate could not be ended: %s", holder, exc_info=True)
        finally:
            connections.close()


def hurried(target: Target, seconds: float) -> Target:
    """The target with timeouts that end soon after these seconds: whoever waits for it says what the time was."""
    timeouts = dataclasses.replace(
        target.timeouts, connect=min(target.timeouts.connect, seconds), statement=seconds + _GRACE
    )
    return dataclasses.replace(target, timeouts=timeouts)

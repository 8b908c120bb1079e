"""The tenant lock: whoever migrates a place holds it, on the very connection that migrates."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import random
import time
from collections.abc import Iterator

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from orchestrator.databases.backend import Backend, LockHolder
from orchestrator.databases.errors import LockLost, SecondConnection, TenantLocked
from orchestrator.tenants import Target

_log = logging.getLogger(__name__)

#: seconds between two tries: from the first, doubled up to the second
_SHORTEST, _LONGEST = 0.025, 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """Runs whose processes are dead, while the server may still be working on their last statements."""

    runs: frozenset[str] = frozenset()
    #: end their sessions instead of waiting for them
    end: bool = False


#: for a lock that may not be held by anybody we know to be dead
NOBODY = Orphans()


def lock_digest(database: str, schema: str, *, size: int) -> bytes:
    """The same for every project and every hand that touches that place."""
    return hashlib.blake2b(f"orchestrate\0{database}\0{schema}".encode(), digest_size=size).digest()


@contextlib.contextmanager
def hold_lock(
    backend: Backend, connection: Connection, target: Target, wait: float, *, orphans: Orphans = NOBODY
) -> Iterator[None]:
    """Hold the tenant lock, for which we try for `wait` seconds; the connection is in no transaction before and after.

    Waiting is done by trying again: a session that blocks in a lock function holds a snapshot, and a concurrent index
    build of the one who has the lock would wait for it in turn.
    """
    take_lock(backend, connection, target, wait, orphans=orphans)
    pin(connection, target)
    try:
        with _alone(connection, target):
            yield
    except BaseException:
        _release_after_failure(backend, connection, target)
        raise
    if not connection.invalidated and not connection.closed and not _release(backend, connection, target):
        raise _lost(target)


def take_lock(
    backend: Backend, connection: Connection, target: Target, wait: float, *, orphans: Orphans = NOBODY
) -> None:
    """Take the tenant lock and keep it until the session ends."""
    deadline = time.monotonic() + wait
    pause = _SHORTEST
    watch = _Watch(backend, connection, target, orphans)
    while not backend.try_lock(connection, target):
        watch.look()
        left = deadline - time.monotonic()
        if left <= 0:
            raise TenantLocked(_locked_message(backend, connection, target, wait))
        time.sleep(min(left, random.uniform(pause / 2, pause)))  # noqa: S311 - jitter, not a secret
        pause = min(_LONGEST, pause * 2)


class _Watch:
    """Tells, once for each session, that the lock is held for a client that is dead; ends it where that is wanted."""

    def __init__(self, backend: Backend, connection: Connection, target: Target, orphans: Orphans) -> None:
        self._backend = backend
        self._connection = connection
        self._target = target
        self._orphans = orphans
        self._seen: set[int] = set()

    def look(self) -> None:
        if not self._orphans.runs:
            return
        holder = self._backend.lock_holder(self._connection, self._target, runs=self._orphans.runs)
        if holder is None or holder.pid in self._seen or holder.run not in self._orphans.runs:
            return
        self._seen.add(holder.pid)
        self._tell(holder)

    def _tell(self, holder: LockHolder) -> None:
        name = self._target.name
        if not self._orphans.end:
            _log.warning("%s: an orphan of a run that died holds the tenant lock, waiting: %s", name, holder)
        elif self._backend.end_holder(self._connection, holder):
            _log.warning("%s: ended the orphan of a run that died, which held the tenant lock: %s", name, holder)
        else:
            _log.warning("%s: the orphan that holds the tenant lock cannot be ended, waiting: %s", name, holder)


def pin(connection: Connection, target: Target) -> None:
    """Let no other server session take the place of the one that holds the lock.

    A session loses its lock silently in three ways. It ends, and SQLAlchemy connects anew for a revision that swallowed
    the error: that is refused here, at no cost, since the new session has neither lock nor search path. A revision
    releases all locks: that is found at the release, in time to be no success. A pooler swaps the session: that is
    refused when connecting. So nobody has to ask the server before each revision.
    """
    session = connection.connection.dbapi_connection

    def refuse_another(connection: Connection, *_statement: object) -> None:
        if connection.connection.dbapi_connection is not session:
            raise _lost(target)

    event.listen(connection, "before_cursor_execute", refuse_another)


@contextlib.contextmanager
def _alone(connection: Connection, target: Target) -> Iterator[None]:
    """Let nobody open another connection of this engine: what it wrote could land elsewhere, and would stay."""

    def refuse(second: Connection) -> None:
        if second is not connection:
            second.close()
            raise SecondConnection(
                f"{target.name}: the revision opens a second connection (op.get_bind().engine), outside of the tenant "
                "lock, the transaction and the search path; nothing was sent on it; use op.get_bind() itself"
            )

    event.listen(connection.engine, "engine_connect", refuse)
    try:
        yield
    finally:
        event.remove(connection.engine, "engine_connect", refuse)


def _lost(target: Target) -> LockLost:
    return LockLost(f"{target.name}: the tenant lock was gone before it was released; {target.location}")


def _locked_message(backend: Backend, connection: Connection, target: Target, wait: float) -> str:
    holder = backend.lock_holder(connection, target)
    who = f"held by {holder}" if holder else "held by another session"
    return f"{target.name}: the tenant lock is {who}; waited {wait:g} s; {target.location}"


def _release(backend: Backend, connection: Connection, target: Target) -> bool:
    connection.rollback()
    return backend.unlock(connection, target)


def _release_after_failure(backend: Backend, connection: Connection, target: Target) -> None:
    """Let go without hiding the error that is on its way; a lock that cannot be released ends with its session."""
    if connection.invalidated or connection.closed:
        return
    try:
        released = _release(backend, connection, target)
    except DBAPIError:
        released = False
        _log.warning("%s: releasing the tenant lock failed", target.name, exc_info=True)
    if not released:
        connection.invalidate()

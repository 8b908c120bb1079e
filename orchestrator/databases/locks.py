"""The tenant lock: whoever migrates a place holds it, on the very connection that migrates."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Iterator

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from orchestrator.databases.backend import Backend
from orchestrator.databases.errors import LockLost, TenantLocked
from orchestrator.tenants import Target

_log = logging.getLogger(__name__)

#: seconds between two tries: from the first, doubled up to the second
_SHORTEST, _LONGEST = 0.025, 2.0


def lock_digest(database: str, schema: str, *, size: int) -> bytes:
    """The same for every project and every hand that touches that place."""
    return hashlib.blake2b(f"orchestrate\0{database}\0{schema}".encode(), digest_size=size).digest()


@contextlib.contextmanager
def hold_lock(backend: Backend, connection: Connection, target: Target, wait: float) -> Iterator[None]:
    """Hold the tenant lock, for which we try for `wait` seconds; the connection is in no transaction before and after.

    Waiting is done by trying again: a session that blocks in a lock function holds a snapshot, and a concurrent index
    build of the one who has the lock would wait for it in turn.
    """
    take_lock(backend, connection, target, wait)
    try:
        yield
    except BaseException:
        _release_after_failure(backend, connection, target)
        raise
    if not connection.invalidated and not connection.closed and not _release(backend, connection, target):
        raise LockLost(f"{target.name}: the tenant lock was gone before it was released; {target.location}")


def take_lock(backend: Backend, connection: Connection, target: Target, wait: float) -> None:
    """Take the tenant lock and keep it until the session ends."""
    deadline = time.monotonic() + wait
    pause = _SHORTEST
    while not backend.try_lock(connection, target):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TenantLocked(_locked_message(backend, connection, target, wait))
        time.sleep(min(left, random.uniform(pause / 2, pause)))  # noqa: S311 - jitter, not a secret
        pause = min(_LONGEST, pause * 2)


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

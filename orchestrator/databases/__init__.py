"""Connecting, locking, looking and classifying: everything that differs by kind of database."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from sqlalchemy import URL, Connection

from orchestrator.databases import faults
from orchestrator.databases.backend import Backend, Journal, LockHolder
from orchestrator.databases.classification import is_race
from orchestrator.databases.connections import Connections, connection_key
from orchestrator.databases.drivers import synchronous
from orchestrator.databases.errors import (
    BrokenReferences,
    DriverMissing,
    JournalMismatch,
    LockLost,
    PasswordUnavailable,
    PoolerInTheWay,
    SchemaMismatch,
    TargetAbsent,
    TenantLocked,
)
from orchestrator.databases.faults import MOVED_CODES
from orchestrator.databases.fingerprints import fingerprint
from orchestrator.databases.journal_tables import JOURNAL
from orchestrator.databases.ladders import Ladder
from orchestrator.databases.locks import NOBODY, Orphans, hold_lock, pin, take_lock
from orchestrator.databases.passwords import current_password
from orchestrator.databases.registered import backend_for, backend_of
from orchestrator.outcomes import Failure
from orchestrator.tenants import Target

__all__ = [
    "JOURNAL",
    "MOVED_CODES",
    "Backend",
    "BrokenReferences",
    "Connections",
    "DriverMissing",
    "Journal",
    "JournalMismatch",
    "Ladder",
    "LockHolder",
    "LockLost",
    "Orphans",
    "PasswordUnavailable",
    "PoolerInTheWay",
    "SchemaMismatch",
    "TargetAbsent",
    "TenantLocked",
    "backend_for",
    "backend_of",
    "classify",
    "connection_key",
    "fingerprint",
    "pin",
    "synchronous",
    "tenant_lock",
    "wait_for_lock",
    "with_password",
]


@contextlib.contextmanager
def tenant_lock(connection: Connection, target: Target, wait: float, *, orphans: Orphans = NOBODY) -> Iterator[None]:
    """Hold the target's lock on the connection that migrates it; raises `TenantLocked` after `wait` seconds."""
    with hold_lock(backend_of(target), connection, target, wait, orphans=orphans):
        yield


def wait_for_lock(connection: Connection, target: Target, wait: float, *, orphans: Orphans = NOBODY) -> None:
    """Take the target's lock on a connection whose end will release it; raises `TenantLocked` after `wait` seconds."""
    take_lock(backend_of(target), connection, target, wait, orphans=orphans)


def with_password(target: Target) -> URL:
    """The target's URL with its password in it, also where a command has to be asked for that."""
    return target.url if target.password is None else target.url.set(password=current_password(target.password))


def classify(error: BaseException, target: Target, *, revision: str | None = None) -> Failure:
    """The failure that an exception stands for, fingerprint included; any exception will do."""
    failure = dataclasses.replace(backend_of(target).classify(error), revision=revision)
    if is_race(failure, target.version_table):
        failure = dataclasses.replace(failure, kind=faults.RACE.kind, advice=faults.RACE.advice)
    return dataclasses.replace(failure, fingerprint=fingerprint(failure, target))

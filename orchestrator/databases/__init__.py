"""Connecting, locking, looking and classifying: everything that differs by kind of database."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from sqlalchemy import Connection

from orchestrator.databases.backend import Backend
from orchestrator.databases.connections import Connections, connection_key
from orchestrator.databases.drivers import synchronous
from orchestrator.databases.errors import DriverMissing, LockLost, SchemaMismatch, TargetAbsent, TenantLocked
from orchestrator.databases.fingerprints import fingerprint
from orchestrator.databases.locks import hold_lock
from orchestrator.databases.registered import backend_for, backend_of
from orchestrator.outcomes import Failure
from orchestrator.tenants import Target

__all__ = [
    "Backend",
    "Connections",
    "DriverMissing",
    "LockLost",
    "SchemaMismatch",
    "TargetAbsent",
    "TenantLocked",
    "backend_for",
    "backend_of",
    "classify",
    "connection_key",
    "fingerprint",
    "synchronous",
    "tenant_lock",
]


@contextlib.contextmanager
def tenant_lock(connection: Connection, target: Target, wait: float) -> Iterator[None]:
    """Hold the target's lock on the connection that migrates it; raises `TenantLocked` after `wait` seconds."""
    with hold_lock(backend_of(target), connection, target, wait):
        yield


def classify(error: BaseException, target: Target, *, revision: str | None = None) -> Failure:
    """The failure that an exception stands for, fingerprint included; any exception will do."""
    failure = dataclasses.replace(backend_of(target).classify(error), revision=revision)
    return dataclasses.replace(failure, fingerprint=fingerprint(failure, target))

"""The warm connections of one process."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Hashable, Iterator

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from orchestrator.databases.backend import Backend
from orchestrator.databases.registered import backend_of
from orchestrator.tenants import Target

#: engines kept open, each with one connection: enough for a tenant of several databases, little for the servers
_KEPT = 4


class Connections:
    """Opens targets; where one connection can serve many targets it stays open for the next one."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[Hashable, Engine] = collections.OrderedDict()

    @contextlib.contextmanager
    def open(self, target: Target, *, application_name: str, read_only: bool = False) -> Iterator[Connection]:
        """A connection that is the target's own and in no transaction; reset when the block is left.

        Raises `TargetAbsent`, `SchemaMismatch`, or SQLAlchemy's own errors.
        """
        backend = backend_of(target)
        with self._engine(backend, target, application_name, read_only=read_only) as engine:
            connection = _connect(backend, engine, target, application_name)
            try:
                yield connection
            finally:
                _leave(backend, connection, target)

    def close(self) -> None:
        """Close every connection that is kept."""
        while self._kept:
            self._kept.popitem()[1].dispose()

    @contextlib.contextmanager
    def _engine(self, backend: Backend, target: Target, application_name: str, *, read_only: bool) -> Iterator[Engine]:
        if backend.keeps_connection(target):
            yield self._keep(backend, target, read_only=read_only)
            return
        engine = backend.create_engine(target, read_only=read_only, application_name=application_name)
        try:
            yield engine
        finally:
            engine.dispose()

    def _keep(self, backend: Backend, target: Target, *, read_only: bool) -> Engine:
        key = (connection_key(target), read_only)
        engine = self._kept.get(key)
        if engine is None:
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)[1].dispose()
            engine = self._kept[key] = backend.create_engine(target, read_only=read_only)
        self._kept.move_to_end(key)
        return engine


def connection_key(target: Target) -> Hashable:
    """Equal for targets that one connection can serve; holds secrets, so it is never shown."""
    arguments = tuple(sorted((name, repr(value)) for name, value in target.connect_args.items()))
    return (target.url, target.password, arguments, target.role, target.timeouts.connect)


def _connect(backend: Backend, engine: Engine, target: Target, application_name: str) -> Connection:
    """A connection that sat idle may have died meanwhile; nothing was in flight, so a new one is as good."""
    connection = engine.connect()
    try:
        backend.prepare(connection, target, application_name)
    except DBAPIError as error:
        connection.close()
        if not error.connection_invalidated:
            raise
        connection = engine.connect()
        _prepare(backend, connection, target, application_name)
    except BaseException:
        _leave(backend, connection, target)
        raise
    return connection


def _prepare(backend: Backend, connection: Connection, target: Target, application_name: str) -> None:
    try:
        backend.prepare(connection, target, application_name)
    except BaseException:
        _leave(backend, connection, target)
        raise


def _leave(backend: Backend, connection: Connection, target: Target) -> None:
    """Reset and give back; a connection that cannot be reset is closed, since the next tenant would inherit from it."""
    try:
        if not connection.closed and not connection.invalidated:
            backend.reset(connection, target)
    except DBAPIError:
        connection.invalidate()
    finally:
        connection.close()

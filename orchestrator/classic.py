"""An env.py that knows nothing of fleets: it reads `sqlalchemy.url` and makes its own engine."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator import databases
from orchestrator.environment import version_options
from orchestrator.errors import EnvironmentError  # noqa: A004 - Alembic's word
from orchestrator.tenants import Target


def options(target: Target, connection: Connection | None = None) -> dict[str, Any]:
    """Keywords for `EnvironmentContext` that survive a `configure()` which does not name them.

    `connection` is one of the target's own, prepared; without one the version table's schema stays open.
    """
    return {**databases.backend_of(target).configure_options(target), **version_options(target, connection)}


@contextmanager
def prepared(
    config: Config,
    target: Target,
    application_name: str,
    *,
    writing: bool = True,
    orphans: databases.Orphans | None = None,
) -> Iterator[OwnConnections]:
    """While the body runs, `sqlalchemy.url` is the target's, and connections to it are made the target's own.

    Raises `EnvironmentError` for a schema of a shared database: such an env.py cannot be held to one schema.
    """
    if target.schema is not None:
        raise EnvironmentError(
            f"{target.name}: this env.py makes its own connections and works for one database per tenant only; "
            "run `orchestrate init` to adopt it for schemas"
        )
    own = OwnConnections(target, application_name, writing=writing, orphans=orphans)
    event.listen(Engine, "do_connect", own.add_arguments)
    event.listen(Engine, "engine_connect", own.take)
    try:
        with pointed_at(config, own.url):
            yield own
    finally:
        event.remove(Engine, "engine_connect", own.take)
        event.remove(Engine, "do_connect", own.add_arguments)
        own.release()


@contextmanager
def pointed_at(config: Config, url: URL) -> Iterator[None]:
    """While the body runs, `sqlalchemy.url` is that one."""
    section = config.config_ini_section
    before = config.file_config.get(section, "sqlalchemy.url", raw=True, fallback=None)
    config.file_config.set(section, "sqlalchemy.url", _escaped(url))
    try:
        yield
    finally:
        _restore(config, section, before)


class OwnConnections:
    """Puts the session settings and the tenant lock on the connections that a classic env.py makes."""

    def __init__(
        self, target: Target, application_name: str, *, writing: bool, orphans: databases.Orphans | None
    ) -> None:
        self.target = target
        self.url = databases.with_password(target)
        self.application_name = application_name
        #: those whose transactions begin as ours do
        self.engines: list[Engine] = []
        self.writing = writing
        self.orphans = orphans or databases.Orphans()
        #: the connection that holds the lock; what env.py dropped must end with it
        self._holder: weakref.ref[Connection] | None = None
        self._session: DBAPIConnection | None = None
        self._is_migrating = False

    def add_arguments(
        self, dialect: Dialect, _entry: ConnectionPoolEntry, _arguments: list[Any], keywords: dict[str, Any]
    ) -> None:
        """A URL cannot carry `connect_args`, and without them a connection may go unencrypted."""
        if dialect.name != self.url.get_backend_name():
            return
        _, expected = dialect.create_connect_args(self.url)
        if expected.items() <= keywords.items():
            for name, value in self.target.connect_args.items():
                keywords.setdefault(name, value)

    def take(self, connection: Connection) -> None:
        """Called for every connection of every engine in this process; only those to the target are meant.

        The lock stays where it is while that connection is open, and otherwise goes to the next one: many an env.py
        asks something first, or waits for the server, on a connection that is closed before it migrates.
        """
        if not _is_same_place(connection.engine.url, self.target.url):
            return
        backend = databases.backend_of(self.target)
        is_held = self._is_held()
        if not is_held and connection.engine not in self.engines:
            self.engines.append(connection.engine)
            backend.take_over(connection)
        backend.prepare(connection, self.target, self.application_name)
        if not is_held:
            self._hold(connection)

    def refuse_others(self, connection: Connection | None) -> None:
        """Raise `EnvironmentError` when env.py migrates on a connection that is not the target's, or has no lock."""
        _refuse_elsewhere(self.target, connection)
        assert connection is not None
        if connection.connection.dbapi_connection is not self._session:
            raise EnvironmentError(
                f"{self.target.name}: env.py migrates on another connection than the one that holds the tenant lock; "
                "let it open the one that it migrates on itself, and close any other before that, or run "
                "`orchestrate init` to adopt it"
            )
        databases.pin(connection, self.target)
        self._is_migrating = True

    def release(self) -> None:
        """End the session: that lets go of the lock, whether or not env.py closed its connection."""
        holder = self._open_holder()
        if holder is not None:
            with contextlib.suppress(Exception):
                holder.invalidate()
        for engine in self.engines:
            engine.dispose()

    def _open_holder(self) -> Connection | None:
        holder = self._holder() if self._holder is not None else None
        return None if holder is None or holder.closed or holder.invalidated else holder

    def _is_held(self) -> bool:
        """Whether the lock has to stay where it is."""
        if not self._is_migrating and self._open_holder() is not None:
            gc.collect()  # a connection that was dropped in a transaction is not closed before that
        return self._is_migrating or self._open_holder() is not None

    def _hold(self, connection: Connection) -> None:
        """Take the lock; a session that still has it, put aside by a pool, is ended first."""
        session = connection.connection.dbapi_connection
        if session is not self._session:
            for engine in self.engines:
                engine.pool.dispose()
            if self.writing:
                wait = self.target.timeouts.tenant_lock
                databases.wait_for_lock(connection, self.target, wait, orphans=self.orphans)
        self._holder, self._session = weakref.ref(connection), session


def _refuse_elsewhere(target: Target, connection: Connection | None) -> None:
    """Raise `EnvironmentError` when env.py migrates another database than the target's: it made a URL of its own."""
    url = connection.engine.url if connection is not None else URL.create("no-database")
    if not _is_same_place(url, target.url):
        server = ":".join(str(part) for part in (url.host, url.port) if part)
        place = f"{server}/{url.database or ''}".removeprefix("/")
        raise EnvironmentError(
            f"{target.name}: env.py connects to {place or 'no database'}, "
            f"not to the target's {target.location}; let it take its URL from `sqlalchemy.url` of its configuration, "
            "or run `orchestrate init` to adopt it"
        )


def _is_same_place(url: URL, other: URL) -> bool:
    return (url.host, url.port, url.database) == (other.host, other.port, other.database)


def _escaped(url: URL) -> str:
    """The whole URL for alembic.ini's interpolation; it is set past `set_main_option`, whose error would echo it."""
    return url.render_as_string(hide_password=False).replace("%", "%%")


def _restore(config: Config, section: str, before: str | None) -> None:
    if before is None:
        config.file_config.remove_option(section, "sqlalchemy.url")
    else:
        config.file_config.set(section, "sqlalchemy.url", before)

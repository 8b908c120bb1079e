"""An env.py that knows nothing of fleets: it reads `sqlalchemy.url` and makes its own engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine.interfaces import Dialect
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
) -> Iterator[None]:
    """While the body runs, `sqlalchemy.url` is the target's, and the first connection to it is made the target's own.

    Raises `EnvironmentError` for a schema of a shared database: such an env.py cannot be held to one schema.
    """
    if target.schema is not None:
        raise EnvironmentError(
            f"{target.name}: this env.py makes its own connections and works for one database per tenant only; "
            "run `orchestrate init` to adopt it for schemas"
        )
    own = _OwnConnection(target, application_name, writing=writing, orphans=orphans)
    event.listen(Engine, "do_connect", own.add_arguments)
    event.listen(Engine, "engine_connect", own.take)
    try:
        with pointed_at(config, own.url):
            yield
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


def refuse_elsewhere(target: Target, connection: Connection | None) -> None:
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


class _OwnConnection:
    """Puts the session settings and the tenant lock on the connection that a classic env.py makes."""

    def __init__(
        self, target: Target, application_name: str, *, writing: bool, orphans: databases.Orphans | None
    ) -> None:
        self.target = target
        self.url = databases.with_password(target)
        self.application_name = application_name
        self.engines: list[Engine] = []
        self.writing = writing
        self.orphans = orphans or databases.Orphans()

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
        """Called for every connection of every engine in this process; only the target's first one is meant."""
        if self.engines or not _is_same_place(connection.engine.url, self.target.url):
            return
        self.engines.append(connection.engine)
        backend = databases.backend_of(self.target)
        backend.take_over(connection)
        backend.prepare(connection, self.target, self.application_name)
        if self.writing:
            wait = self.target.timeouts.tenant_lock
            databases.wait_for_lock(connection, self.target, wait, orphans=self.orphans)

    def release(self) -> None:
        """End the session: that lets go of the lock, whether or not env.py closed its connection."""
        for engine in self.engines:
            engine.dispose()


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

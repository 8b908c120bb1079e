"""Where a ledger lives: its URL checked, its file made private, an engine for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from orchestrator import round_trips
from orchestrator.errors import LedgerError, SettingsError
from orchestrator.tenants import is_cut_short, keep_secret, keep_secret_as_written, server_of

#: seconds to wait for another writer of a SQLite ledger, or for a server to answer
_BUSY_WAIT_S = 30
_CONNECT_WAIT_S = 10
#: a server that vanished without a word is noticed within a minute: by default it would hold up a run for two hours
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}

_REMEDY = (
    "set `ledger:` in tenants.yaml, or ORCHESTRATE_LEDGER, to something like "
    "sqlite:///.orchestrate/ledger.db or postgresql+psycopg://user@host/database"
)


def parse(url: str | URL) -> URL:
    """The URL, with a synchronous driver; `SettingsError` unless a ledger can live there."""
    try:
        parsed = make_url(url)
        asynchronous = parsed.get_dialect().is_async
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The cause is left out: it may quote the URL.
        raise SettingsError(f"the ledger's URL cannot be used; {_REMEDY}") from None
    keep_secret(parsed)
    if isinstance(url, str):
        keep_secret_as_written(url)
    if isinstance(url, str) and is_cut_short(url):
        raise SettingsError("an @ stands in the host of the ledger's URL; write an @ of its password as %40")
    backend = parsed.get_backend_name()
    if backend not in {"sqlite", "postgresql"}:
        raise SettingsError(f"a ledger lives in SQLite or PostgreSQL, not in {backend}; {_REMEDY}")
    if backend == "sqlite" and ((parsed.database or ":memory:") == ":memory:" or str(parsed.database)[:5] == "file:"):
        raise SettingsError(f"a SQLite ledger needs a plain file, so that it outlives the command; {_REMEDY}")
    return _synchronous(parsed) if asynchronous else parsed


def place(url: str) -> str:
    """Where a ledger's URL points, fit to be shown."""
    return place_of(parse(url))


def place_of(url: URL) -> str:
    """Where the ledger is, fit to be shown."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host, port = server_of(url)
    return f"{host}:{port}/{url.database or ''}"


def exists(url: URL) -> bool:
    """Whether there may be a ledger: a server has to be asked, a file is there or not."""
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).is_file()


def create_file(url: URL) -> None:
    """Make the file of a SQLite ledger, and its folder, readable by its owner only."""
    if url.get_backend_name() != "sqlite":
        return
    path = Path(str(url.database))
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            # One that was there before may have been made by another program, with the usual mode.
            if os.fstat(file).st_uid == os.geteuid():
                os.fchmod(file, 0o600)
        finally:
            os.close(file)
    except OSError as error:
        raise LedgerError(f"the ledger at {path} cannot be created: {error.strerror}; {_REMEDY}") from error


def engine_for(url: URL) -> Engine:
    """An engine whose transactions on SQLite take the write lock when they begin."""
    round_trips.pass_failpoints()
    try:
        engine = create_engine(url, connect_args=_connect_args(url), hide_parameters=True)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the ledger needs the Python package {error.name}; "
            "install it with `pip install 'alembic-orchestrator[postgres]'`"
        ) from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    return engine


def _synchronous(url: URL) -> URL:
    from orchestrator.databases import synchronous  # noqa: PLC0415 - hardly ever needed

    return synchronous(url)[0]


def _connect_args(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": _BUSY_WAIT_S}
    if url.get_driver_name() not in {"psycopg", "psycopg2"}:
        return {}
    wanted = {"connect_timeout": _CONNECT_WAIT_S, "application_name": "orchestrate/ledger", **_ALIVE}
    return {name: value for name, value in wanted.items() if name not in url.query}


def _prepare_sqlite(connection: Any, record: object) -> None:
    """Every commit reaches the disk before it returns: an intent must outlive the power cut that follows it."""
    del record
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_immediate(connection: Connection) -> None:
    """Waits for another writer now; a deferred transaction that turns to writing fails at once instead."""
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")

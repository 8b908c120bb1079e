"""Which version the ledger's tables have, and how they are brought to the one that this code knows."""

from __future__ import annotations

import hashlib
import time

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, inspect, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from orchestrator.errors import Refused

VERSION_TABLE = "orchestrate_ledger_version"

#: revisions of `migrations/versions/`, oldest first; named here so that opening a ledger need not import Alembic
VERSIONS = ("0001", "0002", "0003")

_SCRIPTS = "orchestrator.ledger:migrations"
_LOCK_KEY = int.from_bytes(hashlib.sha256(b"orchestrate ledger").digest()[:8], "big") >> 1
_LOCK_WAIT_S = 60
_versions = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), nullable=False))


def read_version(connection: Connection) -> str | None:
    """The version of the ledger's tables, None where there are none. One query when there are."""
    statement = select(_versions.c.version_num)
    try:
        return connection.execute(statement).scalar_one_or_none()
    except (ProgrammingError, OperationalError):
        # Each driver has its own error for a missing table.
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
    # Another process has just made it; any other cause fails here again.
    return connection.execute(statement).scalar_one_or_none()


def is_current(version: str | None, place: str) -> bool:
    """Whether the tables are those that this code knows; `Refused` when they are newer than it."""
    if version is None or version in VERSIONS[:-1]:
        return False
    if version == VERSIONS[-1]:
        return True
    raise Refused(
        f"the ledger at {place} has version {version}, and this orchestrate knows version {VERSIONS[-1]} at most; "
        "upgrade alembic-orchestrator here, or name another ledger with ORCHESTRATE_LEDGER"
    )


def upgrade(engine: Engine, place: str) -> None:
    """Create the tables or bring them up to date; of several processes that try, one does it and the others wait."""
    if engine.dialect.name == "sqlite":
        _write_ahead(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        present = inspect(connection).has_table(VERSION_TABLE)
        version = read_version(connection) if present else None
        if not is_current(version, place):
            _run_alembic(connection)


def _run_alembic(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - takes longer to import than a run without work takes
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", _SCRIPTS)
    command.upgrade(config, "head")


def _write_ahead(engine: Engine) -> None:
    """Make readers and the writer independent of each other; the file remembers it.

    With a rollback journal a dashboard that polls would make the runner wait at every commit. SQLite may answer
    "locked" here without waiting when two processes create the ledger, hence the loop.
    """
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)

"""What the table of faults is made of: situations, rows that provoke them, and the ground on which a row stands."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from orchestrator.databases import Connections
from orchestrator.outcomes import Failure, FailureKind
from orchestrator.tenants import Target

TRANSIENT, PERMANENT, SERVER = FailureKind.TRANSIENT, FailureKind.PERMANENT, FailureKind.SERVER
AMBIGUOUS, RUN = FailureKind.AMBIGUOUS, FailureKind.RUN
#: customer data that no failure may show
SECRET = "bob@mail.example"


class Situation(enum.StrEnum):
    """What a fleet migration meets."""

    WRONG_PASSWORD = "wrong password"
    UNKNOWN_USER = "unknown user"
    UNKNOWN_HOST = "unknown host"
    REFUSED = "connection refused"
    CONNECT_TIMEOUT = "connecting takes too long"
    UNKNOWN_DATABASE = "unknown database"
    TOO_MANY_CONNECTIONS = "too many connections"
    NOT_ACCEPTING = "the server starts, recovers or shuts down"
    TERMINATED = "the session is ended by an administrator"
    SERVER_CRASH = "another server process crashes"
    KILLED_WHILE_IDLE = "a warm connection died while it was idle"
    IDLE_IN_TRANSACTION = "the session slept in a transaction"
    LOCK_TIMEOUT = "a lock is not given in time"
    STATEMENT_TIMEOUT = "a statement takes too long"
    CANCELLED = "a person cancels a statement"
    DEADLOCK = "deadlock"
    NAMED_LOCK_DEADLOCK = "deadlock of named locks"
    CONFLICT = "another transaction changed the rows first"
    READ_ONLY = "read-only server, transaction or file"
    NOT_PERMITTED = "not permitted"
    DISK_FULL = "disk or table full"
    TEMPORARY_SPACE = "temporary files too large"
    TABLE_EXISTS = "table exists already"
    COLUMN_EXISTS = "column exists already"
    INDEX_EXISTS = "index exists already"
    MISSING = "object missing"
    SYNTAX = "syntax error"
    DUPLICATES = "duplicate rows"
    ORPHANS = "rows that refer to nothing"
    NULLS = "empty values"
    CHECK = "rows break a check"
    UNFIT = "values do not fit"
    DEPENDED = "something depends on it"
    SCHEMA_MISSING = "schema missing"
    IN_TRANSACTION = "statement does not run in a transaction"
    HALF_BUILT_INDEX = "concurrent index build failed"
    ABORTED = "the transaction had failed before"
    IN_USE = "database in use"
    NAME_TOO_LONG = "name too long"
    DEFINITION = "row too big, key ill-defined"
    VERSION_MOVED = "somebody else moved the version"
    VERSION_TABLE_RACE = "somebody else made the version table"
    UNKNOWN_REVISION = "database at an unknown revision"
    SEVERAL_HEADS = "several heads in the scripts"
    SEVERAL_ROWS = "several rows in the version table"
    FILE_MISSING = "revision file missing"
    FILE_BROKEN = "revision file does not parse"
    DUPLICATE_ID = "two files with one id"
    CYCLE = "revisions in a circle"
    ID_TOO_LONG = "revision id longer than the version column"
    VERSION_ROW_GONE = "version row gone, tables there"
    DAMAGED = "file damaged, no database, or not to be opened"
    NO_MESSAGE = "exception without a message"
    TOO_LARGE = "packet too large"
    TLS = "TLS refused"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ground:
    """Where a row is provoked."""

    #: with the driver that is asked
    target: Target
    connections: Connections
    folder: Path

    @property
    def driver(self) -> str:
        """`psycopg`, `psycopg2`, `pymysql` or `pysqlite`."""
        return self.target.url.get_driver_name()

    @contextlib.contextmanager
    def connect(self, **changes: Any) -> Iterator[Connection]:
        """A connection as a worker has it, to the target or to one that differs from it."""
        given = dataclasses.replace(self.target, **changes)
        with self.connections.open(given, application_name="orchestrate/r-faults/acme") as connection:
            yield connection


#: makes the fault happen: the exception leaves it, or the failure that a look afterwards found is returned
Provoke = Callable[[Ground], Failure | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One fault, and what it is to be called."""

    situation: Situation
    kind: FailureKind
    #: any of these
    codes: tuple[str | None, ...]
    #: what the advice has to speak of, as a regular expression
    advice: str
    provoke: Provoke
    crowded: bool = False
    #: another kind where the machine has no name service
    without_names: FailureKind | None = None

    @property
    def name(self) -> str:
        """For the list of tests."""
        return f"{self.situation.name.lower()}-{self.codes[0]}"


def statements(*texts: str) -> Provoke:
    """Run statements as a revision would, in one transaction."""

    def provoke(ground: Ground) -> None:
        with ground.connect() as connection:
            for text in texts:
                connection.exec_driver_sql(text)
            connection.commit()

    return provoke


def connecting(**url: Any) -> Provoke:
    """Connect to an address that differs from the ground's."""

    def provoke(ground: Ground) -> None:
        with ground.connect(url=ground.target.url.set(**url)):
            pass

    return provoke


def wait_until(seen: Callable[[], Any]) -> None:
    """Look again and again."""
    deadline = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[None]:
    """Do something in another thread, and wait for its end."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()

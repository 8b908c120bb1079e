"""SQLite: a file per tenant, never created by a look or a migration, migrated in one write transaction."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
import urllib.parse
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator import failpoints
from orchestrator.databases import faults, journal_policies
from orchestrator.databases.backend import Journal, LockHolder
from orchestrator.databases.classification import Diagnosis, failure_of, search
from orchestrator.databases.engines import Access, Answers, open_engine
from orchestrator.databases.errors import BrokenReferences, TargetAbsent
from orchestrator.databases.journal_tables import JOURNAL
from orchestrator.databases.journals import StatementJournal
from orchestrator.databases.masks import mask_message
from orchestrator.outcomes import Failure
from orchestrator.plans import Condition, Found
from orchestrator.redaction import first_line
from orchestrator.tenants import PasswordCommand, Target
from orchestrator.tracebacks import is_from

#: keys of `Connection.info`
_ENFORCED, _BROKEN = "orchestrate.foreign_keys", "orchestrate.broken_references"
_BUSY = frozenset({"5", "6", "517"})
_MEMORY = ":memory:"
#: of SQLite's machine between two looks at the clock: about a millisecond
_STEPS = 100_000


#: messages whose double quotes hold names of tables; in all others there may be values
_QUOTES_NAMES = re.compile(r"^(?:foreign key mismatch|(?:table|index|view|trigger) .* already exists)|^error in ")
#: a value in brackets
_BARE_VALUE = re.compile(r"(?<=MATCH expression: ).*", re.DOTALL)


class SQLite:
    """`Backend` of SQLite."""

    def create_engine(self, target: Target, *, read_only: bool = False, application_name: str = "") -> Engine:
        """Writing connections begin with the write lock, so that DDL is transactional and nobody gets in between."""
        path = file_of(target.url)

        def open_existing(arguments: list[Any], keywords: dict[str, Any]) -> None:
            if path is not None:
                arguments[0] = _uri(path, read_only=read_only)
                keywords["uri"] = True

        engine = open_engine(Access.of(target, timeout=target.timeouts.lock), _ANSWERS, adjust=open_existing)
        event.listen(engine, "connect", _leave_transactions_to_us)
        if read_only:
            event.listen(engine, "connect", _forbid_writing)
        event.listen(engine, "begin", _begin_reading if read_only else _begin_writing)
        event.listen(engine, "commit", _check_references)
        return engine

    def take_over(self, connection: Connection) -> None:
        """Let the engine of somebody else's connection begin with the write lock as well."""
        _driver_connection(connection).isolation_level = None
        event.listen(connection.engine, "connect", _leave_transactions_to_us)
        event.listen(connection.engine, "begin", _begin_writing)
        event.listen(connection.engine, "commit", _check_references)

    def keeps_connection(self, target: Target) -> bool:
        """Opening a file costs nothing."""
        return False

    def prepare(self, connection: Connection, target: Target, application_name: str) -> None:
        """The statement's limit; there is no role, no search path and no name to set."""
        if file_of(target.url) is None and not _is_memory(target.url):
            raise TargetAbsent(f"{target.location}: the URL names no file")
        connection.rollback()
        _limit_statements(connection, target.timeouts.statement)

    def reset(self, connection: Connection, target: Target) -> None:
        """Give foreign keys back as they were."""
        connection.rollback()
        _restore_foreign_keys(connection)

    def try_lock(self, connection: Connection, target: Target) -> bool:
        """The write transaction is the lock: see whether it can be had, and leave it again."""
        try:
            with connection.begin():
                return True
        except Exception as error:
            if self.classify(error).code in _BUSY:
                return False
            raise

    def unlock(self, connection: Connection, target: Target) -> bool:
        """The lock ended with the transaction."""
        return True

    def lock_holder(self, connection: Connection, target: Target, *, runs: Collection[str] = ()) -> LockHolder | None:
        """SQLite does not know."""
        return None

    def session(self, connection: Connection) -> int | None:
        """A file has no server sessions."""
        return None

    def end_holder(self, connection: Connection, holder: LockHolder) -> bool:
        """A file has no server sessions."""
        return False

    def journal(self, connection: Connection, target: Target, *, found: tuple[str, ...]) -> Journal:
        """What makes a revision that dies half-way continue where it stopped."""
        return StatementJournal(connection, target, journal_policies.SQLITE, schema=None, found=found)

    def configure_options(self, target: Target) -> dict[str, Any]:
        """DDL is transactional here; Alembic thinks that it is not, since the driver used to commit before it."""
        return {"transactional_ddl": True}

    def look(self, targets: Sequence[Target]) -> Iterator[Found]:
        """By the bare driver, read-only: opening an engine takes longer than reading the file."""
        for target in targets:
            try:
                yield _look(target)
            except TargetAbsent:
                yield Found(target=target, condition=Condition.ABSENT)
            except sqlite3.Error as error:
                yield Found(target=target, condition=Condition.UNREACHABLE, failure=self.classify(error))

    def verify(self, connection: Connection, target: Target) -> Failure | None:
        """Every transaction was checked before it was committed."""
        return None

    def classify(self, error: BaseException) -> Failure:
        """By SQLite's extended result code, and by text where that is 1."""
        return failure_of(error, _diagnose)

    def provision(self, target: Target) -> None:
        """An empty file is an empty database."""
        path = file_of(target.url)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def places(
        self,
        url: URL,
        connect_args: dict[str, Any],
        *,
        schemas: bool,
        password: PasswordCommand | None = None,
    ) -> list[str]:
        """Database files beside the URL's own, written as the URL writes it; there are no schemas."""
        path = file_of(url)
        if schemas or path is None or url.database is None:
            return []
        folder = url.database[: len(url.database) - len(Path(url.database).name)]
        siblings = sorted(path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        return [folder + sibling.name for sibling in siblings if _is_database(sibling)]

    def offline_heading(self, target: Target) -> str:
        """A script for SQLite is run on a file; say on which."""
        name = (target.url.database or _MEMORY).replace("\n", " ").replace("\r", " ")
        return f"-- file {name}"


BACKEND = SQLite()


def file_of(url: URL) -> Path | None:
    """The file that a URL names, None for a database in memory."""
    database = url.database
    if not database or database == _MEMORY:
        return None
    if not database.startswith("file:"):
        return Path(database).absolute()
    parts = urllib.parse.urlsplit(database)
    path = urllib.parse.unquote(parts.path)
    in_memory = path == _MEMORY or "memory" in (
        url.query.get("mode"),
        *urllib.parse.parse_qs(parts.query).get("mode", []),
    )
    return None if in_memory or not path else Path(path).absolute()


def _is_memory(url: URL) -> bool:
    return not url.database or url.database == _MEMORY or url.database.startswith("file:")


def _uri(path: Path, *, read_only: bool) -> str:
    """A URI that opens the file and never creates it."""
    if not path.exists():
        raise TargetAbsent(f"{path}: no such file")
    if not read_only or path.with_name(f"{path.name}-journal").exists():
        # A killed writer may have left its journal: SQLite rolls it back before anybody, a reader too, can go on.
        return f"{path.as_uri()}?mode=rw"
    return f"{path.as_uri()}?mode=ro{'&immutable=1' if _is_settled_wal(path) else ''}"


def _is_settled_wal(path: Path) -> bool:
    """A file in WAL mode that nobody has open: reading it the usual way would leave two more files beside it."""
    with path.open("rb") as file:
        header = file.read(20)
    return header[18:20] == b"\x02\x02" and not path.with_name(f"{path.name}-wal").exists()


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(16)
    return not start or start == b"SQLite format 3\0"


def _leave_transactions_to_us(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None


def _forbid_writing(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()


def _begin_reading(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        _driver_connection(connection).execute("BEGIN")


def _begin_writing(connection: Connection) -> None:
    """Foreign keys are off while tables are rebuilt: dropping the old copy of a parent would delete its children.

    The switch does nothing inside a transaction, so it comes first; what it lets through is found before COMMIT.
    """
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        _restore_foreign_keys(connection)
        return
    driver = _driver_connection(connection)
    driver.isolation_level = None  # SQLAlchemy sets the driver's own mode again after an AUTOCOMMIT block
    if driver.execute("PRAGMA foreign_keys").fetchone()[0]:
        connection.info[_ENFORCED] = True
        driver.execute("PRAGMA foreign_keys = OFF")
    try:
        failpoints.hit("begin.before")
        driver.execute("BEGIN IMMEDIATE")
        failpoints.hit("begin.after")
        connection.info[_BROKEN] = _broken_references(driver)
    except sqlite3.Error:
        _restore_foreign_keys(connection)
        raise


def _restore_foreign_keys(connection: Connection) -> None:
    driver = _driver_connection(connection)
    if not driver.in_transaction and connection.info.pop(_ENFORCED, False):
        driver.execute("PRAGMA foreign_keys = ON")


def _check_references(connection: Connection) -> None:
    """Raise when the transaction leaves a reference broken that was whole before."""
    driver = _driver_connection(connection)
    before: Counter[tuple[str, str]] | None = connection.info.pop(_BROKEN, None)
    if before is None or not driver.in_transaction:
        return
    added = _broken_references(driver) - before
    if not added:
        return
    driver.rollback()
    listed = ", ".join(
        f"{count} row{'s' * (count > 1)} of {table} without a {parent}" for (table, parent), count in added.items()
    )
    raise BrokenReferences(f"foreign keys would point at nothing: {listed}; the transaction was rolled back")


def _broken_references(driver: sqlite3.Connection) -> Counter[tuple[str, str]]:
    """Number of rows whose foreign key points at nothing, by table and parent."""
    try:
        return _check(driver, "PRAGMA foreign_key_check")
    except sqlite3.OperationalError:
        # A key that names columns without an index of their own stops the check; the other tables are still checked.
        tables = [name for (name,) in driver.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    broken: Counter[tuple[str, str]] = Counter()
    for table in tables:
        with contextlib.suppress(sqlite3.OperationalError):
            broken += _check(driver, f"PRAGMA foreign_key_check({_quote(table)})")
    return broken


def _check(driver: sqlite3.Connection, pragma: str) -> Counter[tuple[str, str]]:
    with contextlib.closing(driver.execute(pragma)) as cursor:
        return Counter((row[0], row[2]) for row in cursor)


def _limit_statements(connection: Connection, seconds: float) -> None:
    """SQLite has no clock of its own: every so many steps of a statement it asks whether to go on."""

    def start(connection: Connection, *_details: object) -> None:
        deadline = time.monotonic() + seconds
        _driver_connection(connection).set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)

    def end(connection: Connection, *_details: object) -> None:
        _driver_connection(connection).set_progress_handler(None, _STEPS)

    if seconds:
        event.listen(connection, "before_cursor_execute", start)
        event.listen(connection, "after_cursor_execute", end)


def _driver_connection(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _look(target: Target) -> Found:
    path = file_of(target.url)
    if path is None:
        return Found(target=target, condition=Condition.EMPTY if _is_memory(target.url) else Condition.ABSENT)
    uri = _uri(path, read_only=True)
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=target.timeouts.lock)) as connection:
        connection.execute("BEGIN")
        return _read(connection, target)


def _read(connection: sqlite3.Connection, target: Target) -> Found:
    schema = _quote(target.version_table_schema or "main")
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        )
    }
    heads: tuple[str, ...] = ()
    if target.version_table in tables:
        rows = connection.execute(f"SELECT version_num FROM {schema}.{_quote(target.version_table)}")  # noqa: S608 - quoted
        heads = tuple(sorted(str(version) for (version,) in rows))
    if heads:
        return Found(target=target, condition=Condition.VERSIONED, heads=heads)
    return Found(target=target, condition=_condition(connection, tables, target.version_table))


def _condition(connection: sqlite3.Connection, tables: set[str], own: str) -> Condition:
    """Tables that no version row speaks for, unless another chain's version table stands beside them."""
    if JOURNAL in tables:
        return Condition.EMPTY  # what else there is, the first revision has made so far
    version_tables = {table for table in tables if _columns(connection, table) == ["version_num"]}
    filled = tables - version_tables - {own}
    return Condition.UNVERSIONED if filled and not version_tables - {own} else Condition.EMPTY


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({_quote(table)})")]


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _diagnose(error: BaseException) -> Diagnosis | None:
    if not is_from(error, "sqlite3"):
        return None
    whole = str(error)
    number = getattr(error, "sqlite_errorcode", None)
    if number is None:
        # What the driver itself says of a value, such as one that is not UTF-8.
        return Diagnosis(fault=faults.UNKNOWN, message=first_line(mask_message(whole)))
    code = str(number)
    message = first_line(whole if _QUOTES_NAMES.search(whole) else mask_message(_BARE_VALUE.sub("'…'", whole)))
    found = search(message, faults.SQLITE_PHRASES) if code == "1" else None
    fault = (
        (found and found[0].fault) or faults.SQLITE.get(code) or faults.SQLITE.get(str(number & 0xFF), faults.UNKNOWN)
    )
    return Diagnosis(fault=fault, code=code, message=message)


def _never(_error: BaseException) -> bool:
    return False


#: an absent file is noticed before the driver is asked, and there is no password
_ANSWERS = Answers(is_absent=_never, is_refused=_never)

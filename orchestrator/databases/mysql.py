"""MySQL and MariaDB: a database per tenant, with PyMySQL or mysqlclient."""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.databases import faults, journal_policies, names
from orchestrator.databases.backend import Journal, LockHolder
from orchestrator.databases.classification import Diagnosis, failure_of, search
from orchestrator.databases.engines import Access, Answers, open_engine
from orchestrator.databases.errors import SchemaMismatch, TargetAbsent
from orchestrator.databases.journal_tables import JOURNAL
from orchestrator.databases.journals import StatementJournal
from orchestrator.databases.locks import lock_digest
from orchestrator.databases.masks import mask_message
from orchestrator.outcomes import Failure
from orchestrator.plans import Condition, Found
from orchestrator.redaction import first_line
from orchestrator.tenants import PasswordCommand, Target
from orchestrator.tracebacks import is_from

logger = logging.getLogger(__name__)

_SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")
#: connection attributes may be longer, but who reads them is a person
_PROGRAM_CHARACTERS = 63
#: key of `Connection.info`
_APPLICATION = "orchestrate.application"
_QUOTE = names.quoting(MySQLDialect)

#: the second lock is no lock: it tells others whose session the first one belongs to
_LOCK = text("SELECT CASE GET_LOCK(:name, 0) WHEN 1 THEN 1 + 0 * COALESCE(GET_LOCK(:marker, 0), 0) ELSE 0 END")
_UNLOCK = text("SELECT RELEASE_LOCK(:name) + 0 * COALESCE(RELEASE_LOCK(:marker), 0)")
_HOLDER = text("SELECT IS_USED_LOCK(:name)")
_PROCESS = text("SELECT user, host FROM information_schema.processlist WHERE id = :id")
_NAMED = text(
    "SELECT attr_value FROM performance_schema.session_connect_attrs "
    "WHERE processlist_id = :id AND attr_name = 'program_name'"
)
_TABLES = text("""
SELECT t.table_name AS name,
       (SELECT COUNT(*) FROM information_schema.columns AS c
        WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name) AS columns,
       (SELECT COUNT(*) FROM information_schema.columns AS c
        WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name
          AND c.column_name = 'version_num') AS versions
FROM information_schema.tables AS t
WHERE t.table_schema = DATABASE() AND t.table_type = 'BASE TABLE'
""")
_PRESENT = text("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = :schema AND table_name = :name")

#: "the server has gone away"
_GONE = "2006"
#: messages that quote a value first and a name after it: the name is worth showing
_QUOTES_A_VALUE = frozenset(
    {
        *("1062", "1064", "1292", "1298", "1366", "1367", "1411", "1525", "1526", "1644", "1690"),
        *("1918", "3140", "4078"),
    }
)
_NAME_AFTER_VALUE = re.compile(r" for (?:key|column|function) [^']*'?[^']*'?[^']*$| at (?:row|line) \d+$")
#: a value that stands there without quotes
_BARE_VALUE = re.compile(r"(?<= for value )[^'].*", re.DOTALL)


class MySQL:
    """`Backend` of MySQL and MariaDB."""

    def create_engine(self, target: Target, *, read_only: bool = False, application_name: str = "") -> Engine:
        """No connection is kept; its name is told to the server while connecting."""
        defaults = _connect_defaults(target.url, target.timeouts.connect)
        if application_name and target.url.get_driver_name() == "pymysql":
            defaults["program_name"] = application_name[:_PROGRAM_CHARACTERS]
        engine = open_engine(Access.of(target, **defaults), _ANSWERS)
        if read_only:
            event.listen(engine, "connect", _forbid_writing)
        return engine

    def take_over(self, connection: Connection) -> None:
        """Nothing: its transactions are as ours."""

    def keeps_connection(self, target: Target) -> bool:
        """Every tenant has a database of its own."""
        return False

    def prepare(self, connection: Connection, target: Target, application_name: str) -> None:
        """Timeouts, role, and a look at the database that we are in."""
        lock = max(1, math.ceil(target.timeouts.lock))
        settings = [
            f"lock_wait_timeout = {lock}",
            f"innodb_lock_wait_timeout = {lock}",
            _statement_limit(connection, target),
        ]
        connection.exec_driver_sql("SET SESSION " + ", ".join(settings))
        if target.role:
            connection.exec_driver_sql(f"SET ROLE {_escaped(target.role)}")
        database = connection.execute(text("SELECT DATABASE()")).scalar()
        connection.rollback()
        if not database:
            raise TargetAbsent(f"{target.location}: the URL names no database")
        if database.lower() != (target.url.database or "").lower():
            raise SchemaMismatch(f"{target.location}: the server answers from database {database!r}")
        connection.dialect.default_schema_name = database
        connection.info[_APPLICATION] = application_name

    def reset(self, connection: Connection, target: Target) -> None:
        """The connection is closed afterwards; nothing but its transaction needs an end."""
        connection.rollback()

    def try_lock(self, connection: Connection, target: Target) -> bool:
        """`GET_LOCK`: 1 is ours, 0 somebody else's, NULL an error such as a killed wait."""
        return bool(_ask(connection, _LOCK, name=_lock_name(target), marker=_own_marker(connection, target)) == 1)

    def unlock(self, connection: Connection, target: Target) -> bool:
        """`RELEASE_LOCK`: 0 is somebody else's, NULL nobody's."""
        return bool(_ask(connection, _UNLOCK, name=_lock_name(target), marker=_own_marker(connection, target)) == 1)

    def lock_holder(self, connection: Connection, target: Target, *, runs: Collection[str] = ()) -> LockHolder | None:
        """Connection id, user, and what it calls itself, as far as we may see them."""
        holder = _ask(connection, _HOLDER, name=_lock_name(target))
        if holder is None:
            return None
        row = connection.execute(_PROCESS, {"id": holder}).first()
        connection.rollback()
        application = _name_of(connection, holder) or _name_by_marker(connection, target, holder, runs)
        return LockHolder(pid=holder, application=application, user=f"{row[0]} from {row[1]}" if row else "")

    def session(self, connection: Connection) -> int | None:
        """Connection id."""
        driver: Any = connection.connection.driver_connection
        number: int = driver.thread_id()
        return number

    def end_holder(self, connection: Connection, holder: LockHolder) -> bool:
        """`KILL`: ends the statement and the session."""
        try:
            connection.exec_driver_sql(f"KILL {int(holder.pid)}")
        except DBAPIError:
            return False
        finally:
            connection.rollback()
        return True

    def journal(self, connection: Connection, target: Target, *, found: tuple[str, ...]) -> Journal:
        """What makes a revision that dies half-way continue where it stopped."""
        _warn_of_old_servers(target.server, connection.dialect.server_version_info, _is_mariadb(connection))
        schema = connection.dialect.default_schema_name
        return StatementJournal(connection, target, journal_policies.MYSQL, schema=schema, found=found)

    def configure_options(self, target: Target) -> dict[str, Any]:
        """Alembic knows that DDL is not transactional here."""
        return {}

    def look(self, targets: Sequence[Target]) -> Iterator[Found]:
        """One connection per group of targets in one database, one statement each where all is well."""
        engine = self.create_engine(targets[0], read_only=True, application_name="orchestrate/look")
        try:
            with engine.connect() as connection:
                for target in targets:
                    yield self._look(connection, target)
        except TargetAbsent:
            yield from (Found(target=target, condition=Condition.ABSENT) for target in targets)
        finally:
            engine.dispose()

    def _look(self, connection: Connection, target: Target) -> Found:
        try:
            self.prepare(connection, target, "")
            heads = _heads(connection, target)
            condition = Condition.VERSIONED if heads else _condition(connection, target)
            return Found(target=target, condition=condition, heads=heads)
        except DBAPIError as error:
            return Found(target=target, condition=Condition.UNREACHABLE, failure=self.classify(error))
        finally:
            if not connection.invalidated:
                connection.rollback()

    def verify(self, connection: Connection, target: Target) -> Failure | None:
        """Index builds leave nothing behind here."""
        return None

    def classify(self, error: BaseException) -> Failure:
        """By the server's error number."""
        return failure_of(error, _diagnose, double_quotes_hold_text=True)

    def provision(self, target: Target) -> None:
        """The database; character set and collation are the server's defaults."""
        defaults = _connect_defaults(target.url, target.timeouts.connect)
        access = Access.of(target, **defaults)
        if not target.url.database:
            return
        engine = open_engine(_without_database(access), _ANSWERS)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE IF NOT EXISTS {_escaped(target.url.database)}")
        finally:
            engine.dispose()

    def places(
        self,
        url: URL,
        connect_args: dict[str, Any],
        *,
        schemas: bool,
        password: PasswordCommand | None = None,
    ) -> list[str]:
        """Databases; a schema is the same thing here."""
        arguments = {**_connect_defaults(url, 10.0), **connect_args}
        engine = open_engine(_without_database(Access(url=url, password=password, connect_args=arguments)), _ANSWERS)
        try:
            with engine.connect() as connection:
                found = connection.execute(
                    text("SELECT schema_name FROM information_schema.schemata ORDER BY 1")
                ).scalars()
                return [name for name in found if name.lower() not in _SYSTEM]
        finally:
            engine.dispose()

    def offline_heading(self, target: Target) -> str:
        """`USE`."""
        return f"USE {_QUOTE(target.url.database or '')};"


BACKEND = MySQL()


def _connect_defaults(url: URL, timeout: float) -> dict[str, Any]:
    defaults: dict[str, Any] = {"connect_timeout": max(1, math.ceil(timeout))}
    if url.get_driver_name() == "pymysql":
        # Otherwise PyMySQL reads the client's configuration files for nothing.
        defaults["charset"] = "utf8mb4"
    return {key: value for key, value in defaults.items() if key not in url.query}


def _without_database(access: Access) -> Access:
    url = access.url
    bare = URL.create(
        url.drivername, username=url.username, password=url.password, host=url.host, port=url.port, query=url.query
    )
    return Access(url=bare, password=access.password, connect_args=access.connect_args)


def _forbid_writing(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("SET SESSION TRANSACTION READ ONLY")
    cursor.close()


def _statement_limit(connection: Connection, target: Target) -> str:
    """MariaDB's limit holds for every statement, in seconds; MySQL's for reads only, in milliseconds."""
    if _is_mariadb(connection):
        return f"max_statement_time = {target.timeouts.statement:g}"
    return f"max_execution_time = {math.ceil(target.timeouts.statement * 1000)}"


def _heads(connection: Connection, target: Target) -> tuple[str, ...]:
    schema = target.version_table_schema or connection.dialect.default_schema_name
    if not connection.execute(_PRESENT, {"schema": schema, "name": target.version_table}).scalar():
        return ()
    table = f"{_escaped(schema or '')}.{_escaped(target.version_table)}"
    versions = connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalars()  # noqa: S608 - quoted
    return tuple(sorted(str(version) for version in versions))


def _condition(connection: Connection, target: Target) -> Condition:
    """Tables that no version row speaks for, unless another chain's version table stands beside them."""
    tables = [row for row in connection.execute(_TABLES) if row.name != JOURNAL or _is_in_flight(connection)]
    if any(row.name == JOURNAL for row in tables):
        return Condition.EMPTY
    version_tables = {row.name for row in tables if row.columns == 1 and row.versions == 1}
    others = version_tables - ({target.version_table} if target.version_table_schema is None else set())
    filled = any(row.name not in version_tables for row in tables)
    return Condition.UNVERSIONED if filled and not others else Condition.EMPTY


def _is_mariadb(connection: Connection) -> bool:
    return bool(getattr(connection.dialect, "is_mariadb", False))


@functools.cache
def _warn_of_old_servers(server: str, version: tuple[Any, ...] | None, is_mariadb: bool) -> None:  # noqa: FBT001
    """Once per server and process; a crash of the server itself may part one statement in two there."""
    if version is not None and version < ((10, 6, 1) if is_mariadb else (8, 0)):
        number = ".".join(str(part) for part in version)
        logger.warning("%s: version %s does not make definitions atomic; update it", server, number)


def _is_in_flight(connection: Connection) -> bool:
    """Whether the tables are what the first revision has made so far."""
    return bool(connection.exec_driver_sql(f"SELECT 1 FROM {JOURNAL} LIMIT 1").scalar())  # noqa: S608 - a constant


def _lock_name(target: Target) -> str:
    """The database is hashed: names of locks are short and server-wide; servers may be blind to a database's case."""
    return f"orchestrate:{lock_digest((target.url.database or '').lower(), '', size=16).hex()}"


def _marker(application: str, target: Target) -> str:
    """Taken with the tenant lock, for whoever waits for that: MariaDB usually keeps no names of sessions."""
    run = LockHolder(pid=0, application=application).run or ""
    return f"orchestrate:run:{lock_digest(target.url.database or '', run, size=16).hex()}"


def _own_marker(connection: Connection, target: Target) -> str:
    return _marker(connection.info.get(_APPLICATION, ""), target)


def _name_of(connection: Connection, number: int) -> str:
    """What a session called itself when it connected; empty where the server does not keep that, or not for us."""
    try:
        name: str | None = connection.execute(_NAMED, {"id": number}).scalar()
    except DBAPIError:
        name = None
    connection.rollback()
    return name if name and name.startswith("orchestrate/") else ""


def _name_by_marker(connection: Connection, target: Target, number: int, runs: Collection[str]) -> str:
    for run in runs:
        application = f"orchestrate/{run}/{target.name}"
        if _ask(connection, _HOLDER, name=_marker(application, target)) == number:
            return application
    return ""


def _ask(connection: Connection, statement: Any, **parameters: object) -> Any:
    answer = connection.execute(statement, parameters).scalar()
    connection.rollback()
    return answer


def _escaped(name: str) -> str:
    """Quoted for a driver that reads percent signs as placeholders."""
    return _QUOTE(name).replace("%", "%%")


def _diagnose(error: BaseException) -> Diagnosis | None:
    if not is_from(error, "pymysql", "MySQLdb", "mysql"):
        return None
    number = _number(error)
    # Its first line only when the values are out: the quote that ends one may stand in a later line.
    message = str(error.args[1] if len(error.args) > 1 else error)
    if number is None:
        closed = _is_closed(error)
        return Diagnosis(
            fault=faults.LOST if closed else faults.UNKNOWN,
            code=_GONE if closed else None,
            message=first_line(mask_message(message)),
        )
    code = str(number)
    if code in _QUOTES_A_VALUE:
        message = mask_message(_BARE_VALUE.sub("'…'", message), keep=_NAME_AFTER_VALUE)
    message = first_line(message)
    found = search(message, faults.MYSQL_PHRASES) if code in {"2002", "2003", "2005"} else None
    fault = (found and found[0].fault) or faults.MYSQL.get(code, faults.UNKNOWN)
    return Diagnosis(fault=fault, code=code, message=message, connecting=code in {"2002", "2003", "2005"})


def _number(error: BaseException) -> int | None:
    first = error.args[0] if error.args else None
    number = getattr(error, "errno", first)
    return number if isinstance(number, int) and number else None


def _is_closed(error: BaseException) -> bool:
    """PyMySQL says `(0, '')` on a connection that it has closed."""
    return type(error).__name__ == "InterfaceError"


def _is_absent(error: BaseException) -> bool:
    return _number(error) == 1049


def _is_refused(error: BaseException) -> bool:
    return _number(error) == 1045


_ANSWERS = Answers(is_absent=_is_absent, is_refused=_is_refused)

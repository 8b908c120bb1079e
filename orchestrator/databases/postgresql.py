"""PostgreSQL: a schema or a database per tenant, with psycopg 3 or psycopg2."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.engine import ExceptionContext, Row
from sqlalchemy.exc import DBAPIError

from orchestrator.databases import faults, journal_policies, names, poolers, postgresql_heads, postgresql_indexes
from orchestrator.databases.backend import Journal, LockHolder
from orchestrator.databases.classification import Diagnosis, failure_of, search
from orchestrator.databases.engines import Access, Answers, open_engine
from orchestrator.databases.errors import PoolerInTheWay, SchemaMismatch, TargetAbsent
from orchestrator.databases.faults import Fault
from orchestrator.databases.journals import StatementJournal
from orchestrator.databases.locks import lock_digest
from orchestrator.databases.masks import mask_message
from orchestrator.outcomes import Failure, FailureKind
from orchestrator.plans import Found
from orchestrator.redaction import first_line
from orchestrator.tenants import PasswordCommand, Target
from orchestrator.tracebacks import is_from

#: keys of `Connection.info`, which lives as long as the server session
_DIRECT, _SCHEMA = "orchestrate.direct", "orchestrate.default_schema"
_CHANGED, _LOCK_TIMEOUT = "orchestrate.session_changed", "orchestrate.lock_timeout"
_FIRST_ERROR = "orchestrate.first_error"
#: how long a session may sit in a transaction without a statement, in seconds
_IDLE_IN_TRANSACTION = 60.0
#: how often a working server session looks whether its client is still there, in seconds
_CHECK_INTERVAL = 1.0
#: a server that vanished without a word is noticed in three minutes, and a shorter break does not cut a long statement
_ALIVE = {"keepalives_idle": 60, "keepalives_interval": 30, "keepalives_count": 4}
_NAME_BYTES = 63
#: libpq takes shorter times for this one
_SHORTEST_CONNECT_TIMEOUT = 2

_QUOTE = names.quoting(PGDialect)
#: texts in which PostgreSQL quotes a value; elsewhere double quotes hold names
_QUOTES_A_VALUE = re.compile(r"22...|P0...|XX...|38...|42601")
#: a cast of a value to the name of something
_QUOTES_A_NAME = re.compile(r"42...|3F...")
_ROLE = re.compile("role ")
#: what a program on the server raises has any code, and quotes anything
_RAISED_WITHIN = re.compile(r"\bPL/|\binline_code_block\b")
#: the server's excerpt of a statement, and the mark below the word that it stumbled over
_EXCERPT = re.compile(r"^(?P<text>\w+ \d+: .*)\n(?P<mark> *)\^", re.MULTILINE)

#: what may stand before a statement, or before one in the body of a DO block
_BEFORE = r"(?:^|;|\bBEGIN\b)(?:\s|--[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)*+"
#: statements of a revision that outlive their transaction and that we cannot undo by name; our own lock is qualified
_CHANGES_SESSION = re.compile(
    _BEFORE + r"(?:SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)|LISTEN\b|PREPARE\b)"
    r"|set_config\s*\(|(?<!pg_catalog\.)\bpg_(?:try_)?advisory_lock",
    re.IGNORECASE,
)

_SESSION = """
SELECT current_schema() AS schema,
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = :expected) AS present
FROM (SELECT {calls} OFFSET 0) AS settings
"""
_LOCK = text("SELECT pg_catalog.pg_try_advisory_lock(CAST(:key AS bigint))")
_UNLOCK = text("SELECT pg_catalog.pg_advisory_unlock(CAST(:key AS bigint))")
_HOLDER = text("""
SELECT a.pid, a.application_name, a.usename
FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.classid::bigint = :high AND l.objid::bigint = :low
""")
# A concurrent build that is still going on is no leftover, and a partitioned index may wait for its partitions.
_INVALID = text("""
SELECT c.relname AS index_name, t.relname AS table_name
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND NOT i.indisvalid AND c.relkind = 'i'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid)
ORDER BY c.relname LIMIT 1
""")
_END = text("""
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE pid = :pid AND coalesce(application_name, '') = :application
""")
_SCHEMAS = (
    "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"
)
_DATABASES = "SELECT datname FROM pg_catalog.pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1"


class PostgreSQL:
    """`Backend` of PostgreSQL."""

    def create_engine(self, target: Target, *, read_only: bool = False, application_name: str = "") -> Engine:
        """One connection is kept; its application name is set by `prepare`."""
        options: dict[str, Any] = {"execution_options": {"postgresql_readonly": True}} if read_only else {}
        access = Access.of(target, **_connect_defaults(target.url, target.timeouts.connect))
        engine = _open(access, keep=self.keeps_connection(target), **options)
        event.listen(engine, "before_cursor_execute", _notice_session_change)
        event.listen(engine, "handle_error", _remember_first_error)
        _wait_in_autocommit_blocks(engine)
        postgresql_indexes.clear_the_way(engine)
        return engine

    def take_over(self, connection: Connection) -> None:
        """Let its autocommit blocks wait for locks as ours do."""
        _wait_in_autocommit_blocks(connection.engine)
        postgresql_indexes.clear_the_way(connection.engine)

    def keeps_connection(self, target: Target) -> bool:
        """One database holds many tenants' schemas; a database of a tenant's own is left when the job is done."""
        return target.schema is not None

    def prepare(self, connection: Connection, target: Target, application_name: str) -> None:
        """One statement sets everything and looks where it leads.

        Not before the session is known to be ours alone: what we set would stay on a pooler's for other clients.
        """
        _refuse_pooler(connection, target)
        settings = _settings(connection, target, application_name)
        connection.info[_LOCK_TIMEOUT] = settings["lock_timeout"]
        row = _apply(connection, settings, target.schema)
        connection.commit()
        connection.info.pop(_CHANGED, None)
        if target.schema is not None and row.schema != target.schema:
            raise _wrong_schema(target, row)
        connection.info.setdefault(_SCHEMA, connection.dialect.default_schema_name)
        connection.dialect.default_schema_name = row.schema

    def reset(self, connection: Connection, target: Target) -> None:
        """Settings, role and temporary tables: whoever set them, they must not meet the next tenant.

        `DISCARD ALL` would drop locks and break the driver's prepared statements. A session that a revision changed in
        other ways, as far as its statements show, is closed.
        """
        connection.rollback()
        changed = connection.info.pop(_CHANGED, False)
        # psycopg2 sets this one itself after connecting, and reads dates in no other form.
        date_style = "; SET datestyle TO ISO" if connection.dialect.driver == "psycopg2" else ""
        connection.exec_driver_sql(f"RESET ROLE; RESET ALL; DISCARD TEMP{date_style}")
        connection.commit()
        connection.info.pop(_CHANGED, None)
        if _SCHEMA in connection.info:
            connection.dialect.default_schema_name = connection.info.pop(_SCHEMA)
        if changed:
            connection.invalidate()

    def try_lock(self, connection: Connection, target: Target) -> bool:
        """`pg_try_advisory_lock`."""
        return _ask(connection, _LOCK, key=_lock_key(target)) is True

    def unlock(self, connection: Connection, target: Target) -> bool:
        """`pg_advisory_unlock`."""
        return _ask(connection, _UNLOCK, key=_lock_key(target)) is True

    def lock_holder(
        self,
        connection: Connection,
        target: Target,
        *,
        runs: Collection[str] = (),
    ) -> LockHolder | None:
        """Process id, application name and role, as far as we may see them."""
        key = _lock_key(target)
        row = connection.execute(_HOLDER, {"high": key >> 32, "low": key & 0xFFFFFFFF}).first()
        connection.rollback()
        if row is None:
            return None
        return LockHolder(pid=row.pid, application=row.application_name or "", user=row.usename or "")

    def session(self, connection: Connection) -> int | None:
        """Process id of the server's end."""
        driver: Any = connection.connection.driver_connection
        pid: int = driver.info.backend_pid
        return pid

    def end_holder(self, connection: Connection, holder: LockHolder) -> bool:
        """`pg_terminate_backend`, unless the process id is another session's by now."""
        try:
            ended = connection.execute(_END, {"pid": holder.pid, "application": holder.application}).scalar()
            connection.commit()
        except DBAPIError:
            connection.rollback()
            return False
        return ended is True

    def journal(self, connection: Connection, target: Target, *, found: tuple[str, ...]) -> Journal:
        """What makes a revision that dies half-way continue where it stopped."""
        schema = target.schema or connection.dialect.default_schema_name
        return StatementJournal(connection, target, journal_policies.POSTGRESQL, schema=schema, found=found)

    def configure_options(self, target: Target) -> dict[str, Any]:
        """Alembic knows that DDL is transactional here."""
        return {}

    def look(self, targets: Sequence[Target]) -> Iterator[Found]:
        """In a read-only transaction, with the group's first target's role and timeouts."""
        engine = self.create_engine(targets[0], read_only=True)
        try:
            yield from postgresql_heads.look(engine, targets, self.classify)
        finally:
            engine.dispose()

    def verify(self, connection: Connection, target: Target) -> Failure | None:
        """A concurrent index build that failed leaves an index behind that looks finished to the next attempt."""
        schema = connection.execute(text("SELECT current_schema()")).scalar()
        row = connection.execute(_INVALID, {"schema": target.schema or schema}).first()
        connection.rollback()
        if target.schema is not None and schema != target.schema:
            message = f"the migration left the session in schema {schema!r} instead of {target.schema!r}"
            return _broken("schema_mismatch", message, "Take `SET search_path` out of the revision.")
        if row is not None:
            # Not DROP INDEX: the version stands behind its revision already, which would not make it again.
            advice = (
                f"Mend what stopped it, duplicate rows for a unique one, and run REINDEX INDEX CONCURRENTLY "
                f"{_QUOTE(row.index_name)} on this tenant."
            )
            return _broken("invalid_index", f'index "{row.index_name}" on table "{row.table_name}" is invalid', advice)
        return None

    def classify(self, error: BaseException) -> Failure:
        """By SQLSTATE, else by text."""
        return failure_of(error, _diagnose)

    def provision(self, target: Target) -> None:
        """The database through the maintenance database, then the schema, owned by the role where there is one."""
        access = Access.of(target, **_connect_defaults(target.url, target.timeouts.connect))
        _create_database(access, target)
        if target.schema is None:
            return
        engine = _open(access)
        owner = f" AUTHORIZATION {_escaped(target.role)}" if target.role else ""
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_escaped(target.schema)}{owner}")
        finally:
            engine.dispose()

    def places(
        self, url: URL, connect_args: dict[str, Any], *, schemas: bool, password: PasswordCommand | None = None
    ) -> list[str]:
        """Schemas of one database, or databases of one server."""
        defaults = _connect_defaults(url, 10.0)
        engine = _open(Access(url=url, password=password, connect_args={**defaults, **connect_args}))
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(_SCHEMAS if schemas else _DATABASES)).scalars())
        finally:
            engine.dispose()

    def offline_heading(self, target: Target) -> str:
        r"""`\connect` for a database per tenant, `SET search_path` for a schema per tenant; for psql."""
        lines = [] if target.schema or not target.url.database else [f"\\connect {_QUOTE(target.url.database)}"]
        path = _search_path(target)
        if path and target.schema:
            lines.append(f"SET search_path TO {path};")
        elif path:
            more = path.replace("'", "''")
            lines.append(
                f"SELECT pg_catalog.set_config('search_path', current_setting('search_path') || ', {more}', false);"
            )
        if target.role:
            lines.append(f"SET ROLE {_QUOTE(target.role)};")
        return "\n".join(lines)


BACKEND = PostgreSQL()


def _connect_defaults(url: URL, timeout: float) -> dict[str, Any]:
    defaults: dict[str, Any] = {"connect_timeout": max(_SHORTEST_CONNECT_TIMEOUT, math.ceil(timeout)), **_ALIVE}
    if url.get_driver_name() == "psycopg":
        # A statement prepared in one schema fails in the next when the tables' columns differ.
        defaults["prepare_threshold"] = None
    return {name: value for name, value in defaults.items() if name not in url.query}


def _open(access: Access, *, keep: bool = False, **options: Any) -> Engine:
    return open_engine(access, _ANSWERS, keep=keep, **options)


def _notice_session_change(connection: Connection, _cursor: object, statement: str, *_details: object) -> None:
    """Remember that the session is not what the next tenant may inherit."""
    if _CHANGES_SESSION.search(statement):
        connection.info[_CHANGED] = True


def _remember_first_error(context: ExceptionContext) -> None:
    """What follows an error in a transaction only says that there was one: tie the one that there was to it."""
    if context.connection is None:
        return
    error: Any = context.original_exception
    if _sqlstate(error) != "25P02":
        context.connection.info[_FIRST_ERROR] = error
    elif _FIRST_ERROR in context.connection.info:
        error.aborted_by = context.connection.info[_FIRST_ERROR]


def _wait_in_autocommit_blocks(engine: Engine) -> None:
    """No lock timeout there: a concurrent index build that gives up waiting leaves an invalid index behind.

    While it waits it stands in nobody's way.
    """
    event.listen(engine, "begin", lambda connection: _set_lock_timeout(connection, "0"))
    event.listen(engine, "commit", lambda connection: _set_lock_timeout(connection, connection.info.get(_LOCK_TIMEOUT)))


def _set_lock_timeout(connection: Connection, value: str | None) -> None:
    """At the two ends of an autocommit block; nothing elsewhere, and on connections that were not prepared."""
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT" and _LOCK_TIMEOUT in connection.info:
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"SET lock_timeout = '{value}'")


def _settings(connection: Connection, target: Target, application_name: str) -> dict[str, str]:
    """Names and values for `set_config`; the role first, since the search path is resolved for it."""
    settings = {"role": target.role} if target.role else {}
    path = _search_path(target)
    if path:
        settings["search_path"] = path
    settings["lock_timeout"] = _milliseconds(target.timeouts.lock)
    settings["statement_timeout"] = _milliseconds(target.timeouts.statement)
    settings["idle_in_transaction_session_timeout"] = _milliseconds(_IDLE_IN_TRANSACTION)
    settings["application_name"] = application_name.encode()[:_NAME_BYTES].decode(errors="ignore")
    if (connection.dialect.server_version_info or (0,)) >= (14,):
        settings["client_connection_check_interval"] = _milliseconds(_CHECK_INTERVAL)
    return settings


def _apply(connection: Connection, settings: Mapping[str, str], schema: str | None) -> Row[Any]:
    calls = ", ".join(_call(name, own=schema is not None) for name in settings)
    return connection.execute(text(_SESSION.format(calls=calls)), {**settings, "expected": schema or ""}).one()


def _call(name: str, *, own: bool) -> str:
    """`own`: the search path begins with the tenant's schema; else with what the role or the database says."""
    value = f":{name}"
    if name == "search_path" and not own:
        value = "ltrim(current_setting('search_path') || ', ' || :search_path, ', ')"
    call = f"pg_catalog.set_config('{name}', {value}, false)"
    # Only Linux servers can tell that a client has gone; elsewhere setting it is an error.
    return f"CASE WHEN version() ~* 'linux' THEN {call} END" if name == "client_connection_check_interval" else call


def _search_path(target: Target) -> str:
    """The tenant's schema first; where it has none, only what comes after the role's or the database's own path."""
    own = () if target.schema is None else (target.schema,)
    return ", ".join(_QUOTE(schema) for schema in (*own, *target.search_path))


def _milliseconds(seconds: float) -> str:
    return f"{max(0, math.ceil(seconds * 1000))}ms"


def _wrong_schema(target: Target, row: Row[Any]) -> Exception:
    if not row.present:
        return TargetAbsent(f"{target.location}: no such schema")
    where = f"schema {row.schema!r}" if row.schema else "no schema at all"
    who = f"role {target.role}" if target.role else f"user {target.url.username}"
    return SchemaMismatch(f"{target.location}: the server resolves names in {where}; has {who} USAGE on the schema?")


def _refuse_pooler(connection: Connection, target: Target) -> None:
    """Once per session: locks and search paths would leak between clients."""
    if connection.info.get(_DIRECT):
        return
    if poolers.changes_sessions(connection):
        raise PoolerInTheWay(
            f"{target.server}: a transaction pooler stands before the server: connections share server sessions,"
            " so that locks and search paths leak between tenants; give the server's own address"
        )
    connection.info[_DIRECT] = True


def _lock_key(target: Target) -> int:
    database = target.url.database or target.url.username or ""
    return int.from_bytes(lock_digest(database, target.schema or "public", size=8), "big") >> 1


def _ask(connection: Connection, statement: Any, **parameters: object) -> object:
    answer = connection.execute(statement, parameters).scalar()
    connection.commit()
    return answer


def _broken(code: str, message: str, advice: str) -> Failure:
    return Failure(kind=FailureKind.PERMANENT, code=code, type="VerificationFailed", message=message, advice=advice)


def _create_database(access: Access, target: Target) -> None:
    name = target.url.database
    if not name or _exists(access):
        return
    engine = _open(
        Access(url=access.url.set(database="postgres"), password=access.password, connect_args=access.connect_args)
    )
    owner = f" OWNER {_escaped(target.role)}" if target.role else ""
    try:
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(f"CREATE DATABASE {_escaped(name)}{owner}")
    except DBAPIError as error:
        if error.orig is None or _sqlstate(error.orig) != "42P04":
            raise  # 42P04: another job of the same tenant was faster
    finally:
        engine.dispose()


def _exists(access: Access) -> bool:
    engine = _open(access)
    try:
        with engine.connect():
            return True
    except TargetAbsent:
        return False
    finally:
        engine.dispose()


def _escaped(name: str) -> str:
    """Quoted for a driver that reads percent signs as placeholders."""
    return _QUOTE(name).replace("%", "%%")


def _diagnose(error: BaseException) -> Diagnosis | None:
    if not is_from(error, "psycopg", "psycopg2"):
        return None
    first: BaseException | None = getattr(error, "aborted_by", None)
    diagnosis = _diagnose(first) if first is not None else None
    if diagnosis is not None:
        return dataclasses.replace(diagnosis, fault=faults.ABORTED)
    whole = str(error)
    code = _sqlstate(error)
    message = getattr(getattr(error, "diag", None), "message_primary", None) or first_line(whole)
    if code is None:
        return _diagnose_text(whole, message)
    within = getattr(getattr(error, "diag", None), "context", None) or ""
    if _QUOTES_A_VALUE.match(code) or _RAISED_WITHIN.search(within) or (code == "42704" and _ROLE.match(message)):
        message = mask_message(message)
    if code == "57014" and faults.STATEMENT_TIMEOUT.pattern.search(message):
        return Diagnosis(fault=faults.TOO_SLOW, code=code, message=message)
    doubtful = _QUOTES_A_NAME.match(code) is not None and not _points_at_name(whole)
    return Diagnosis(fault=_fault(code), code=code, message=message, doubtful=doubtful)


def _points_at_name(whole: str) -> bool:
    """Whether the server shows where in the statement the name stands that it does not know."""
    pointed = _EXCERPT.search(whole)
    return pointed is not None and not pointed["text"][len(pointed["mark"]) :].startswith(("'", "$", "E'", "e'"))


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _diagnose_text(whole: str, message: str) -> Diagnosis:
    """Drivers give no code for what happens while connecting, nor (psycopg2) when the session is ended."""
    connecting = faults.POSTGRESQL_CONNECTING.search(whole) is not None
    found = search(whole, faults.POSTGRESQL_PHRASES, names=faults.POSTGRESQL_NAMES)
    if found is None:
        fault = Fault(FailureKind.TRANSIENT, faults.UNKNOWN.advice) if connecting else faults.UNKNOWN
        # What a driver itself says of a value carries no code.
        return Diagnosis(fault=fault, message=message if connecting else mask_message(message), connecting=connecting)
    known, line = found
    return Diagnosis(fault=known.fault or _fault(known.code), code=known.code, message=line, connecting=connecting)


def _fault(code: str) -> Fault:
    return faults.POSTGRESQL.get(code) or faults.POSTGRESQL.get(code[:2]) or faults.UNKNOWN


def _is_absent(error: BaseException) -> bool:
    return _code(error) == "3D000"


def _is_refused(error: BaseException) -> bool:
    return _code(error) == "28P01"


def _code(error: BaseException) -> str | None:
    diagnosis = _diagnose(error)
    return diagnosis.code if diagnosis else None


_ANSWERS = Answers(is_absent=_is_absent, is_refused=_is_refused)

"""Rows of the table of faults for PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
from sqlalchemy import URL

from orchestrator.databases import backend_of
from orchestrator.outcomes import Failure
from orchestrator.tenants import Timeouts
from tests.integration.fault_grounds import (
    AMBIGUOUS,
    PERMANENT,
    RUN,
    SECRET,
    SERVER,
    TRANSIENT,
    Ground,
    Row,
    Situation,
    connecting,
    meanwhile,
    statements,
    wait_until,
)
from tests.services import servers
from tests.services.servers import PASSWORD, connect_postgres

#: what every ground of PostgreSQL starts with
TABLES = (
    "CREATE TABLE customers (id int PRIMARY KEY, mail text)",
    "CREATE TABLE orders (customer int REFERENCES customers)",
    "CREATE TABLE strict (a int NOT NULL, b int CHECK (b > 0))",
    "CREATE INDEX by_mail ON customers (mail)",
    "CREATE VIEW addresses AS SELECT mail FROM customers",
    "CREATE TABLE first (id int)",
    "CREATE TABLE second (id int)",
    f"INSERT INTO customers VALUES (1, '{SECRET}'), (2, '{SECRET}')",
)
WAITING = (
    "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE NOT l.granted AND a.datname = %s"
)


@contextlib.contextmanager
def another(ground: Ground) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else, in the tenant's schema."""
    with contextlib.closing(connect_postgres(ground.target.url)) as connection:
        connection.execute("SET search_path TO acme; SET deadlock_timeout = '1min'")
        yield connection


@contextlib.contextmanager
def stranger(ground: Ground, options: str = "") -> Iterator[URL]:
    """A role of its own, and the URL with which it connects."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    with contextlib.closing(connect_postgres(ground.target.url)) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {options}".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA acme TO {name}".encode())
        try:
            yield ground.target.url.set(username=name, password=PASSWORD)
        finally:
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


def is_waiting(other: psycopg.Connection[Any], ground: Ground) -> bool:
    row = other.execute(WAITING.encode(), (ground.target.url.database,)).fetchone()
    return bool(row and row[0])


def connect_to_a_silent_port(ground: Ground) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = ground.target.url.set(port=silent.getsockname()[1])
        with ground.connect(url=url, timeouts=Timeouts(connect=1)):
            pass


def connect_to_a_full_role(ground: Ground) -> None:
    with stranger(ground, "CONNECTION LIMIT 0") as url, ground.connect(url=url):
        pass


def connect_to_a_full_database(ground: Ground) -> None:
    name = ground.target.url.database
    with stranger(ground) as url, contextlib.closing(connect_postgres(ground.target.url)) as admin:
        admin.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0'.encode())
        try:
            with ground.connect(url=url):
                pass
        finally:
            admin.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1'.encode())


def ask_for_what_is_not_granted(ground: Ground) -> None:
    with stranger(ground) as url, ground.connect(url=url) as connection:
        connection.exec_driver_sql("SELECT * FROM customers")


def be_ended(ground: Ground) -> None:
    with ground.connect() as connection, another(ground) as other:
        connection.exec_driver_sql("INSERT INTO first VALUES (1)")
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (backend_of(ground.target).session(connection),))
        connection.exec_driver_sql("SELECT 1")


def be_cancelled(ground: Ground) -> None:
    with ground.connect() as connection, another(ground) as other:
        number = backend_of(ground.target).session(connection)

        def cancel() -> None:
            asleep = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            wait_until(lambda: other.execute(asleep, (number,)).fetchone()[0])  # type: ignore[index]
            other.execute("SELECT pg_cancel_backend(%s)", (number,))

        with meanwhile(cancel):
            connection.exec_driver_sql("SELECT pg_sleep(20)")


def sleep_in_a_transaction(ground: Ground) -> None:
    with ground.connect() as connection, another(ground) as other:
        number = backend_of(ground.target).session(connection)
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 20")
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: other.execute(gone, (number,)).fetchone()[0])  # type: ignore[index]
        connection.exec_driver_sql("SELECT 1")


def wait_for_a_table(ground: Ground) -> None:
    with another(ground) as other, ground.connect(timeouts=Timeouts(lock=0.05)) as connection, other.transaction():
        other.execute("SELECT * FROM customers")
        connection.exec_driver_sql("ALTER TABLE customers ADD phone text")


def lock_crosswise(ground: Ground) -> None:
    with another(ground) as other, ground.connect(timeouts=Timeouts(lock=20)) as connection:
        connection.exec_driver_sql("SET LOCAL deadlock_timeout = '5ms'")
        connection.exec_driver_sql("LOCK TABLE first")

        def lock() -> None:
            with contextlib.suppress(psycopg.Error), other.transaction():
                other.execute("LOCK TABLE second")
                other.execute("LOCK TABLE first")

        with another(ground) as watcher, meanwhile(lock):
            wait_until(lambda: is_waiting(watcher, ground))
            try:
                connection.exec_driver_sql("LOCK TABLE second")
            finally:
                connection.rollback()


def change_the_same_row(ground: Ground) -> None:
    with another(ground) as other, ground.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("SELECT * FROM customers")
        other.execute("UPDATE customers SET mail = mail")
        connection.exec_driver_sql("UPDATE customers SET mail = mail")


def build_a_broken_index(ground: Ground) -> Failure | None:
    with ground.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        with contextlib.suppress(Exception):
            alone.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY half_built ON customers (mail)")
        connection.rollback()
        failure = backend_of(ground.target).verify(connection, ground.target)
        alone.exec_driver_sql("DROP INDEX half_built")
        connection.rollback()
        return failure


def go_on_after_an_error(ground: Ground) -> None:
    with ground.connect() as connection:
        with contextlib.suppress(Exception):
            connection.exec_driver_sql("SELECT * FROM nowhere")
        connection.exec_driver_sql("SELECT 1")


def drop_a_used_database(ground: Ground) -> None:
    """The one that we are in: for another one the server would wait a few seconds first."""
    with ground.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        alone.exec_driver_sql(f"DROP DATABASE {ground.target.url.database}")


def race_for_the_version_table(ground: Ground) -> None:
    make = "CREATE TABLE alembic_version (version_num varchar(32))"
    with another(ground) as other, another(ground) as watcher, ground.connect(timeouts=Timeouts(lock=20)) as connection:
        other.execute("BEGIN")
        other.execute(make.encode())

        def commit() -> None:
            wait_until(lambda: is_waiting(watcher, ground))
            other.execute("COMMIT")

        try:
            with meanwhile(commit):
                connection.exec_driver_sql(make)
        finally:
            connection.rollback()
            other.execute("DROP TABLE alembic_version")


def connect_to_a_missing_schema(ground: Ground) -> None:
    with ground.connect() as connection:
        connection.exec_driver_sql("SET LOCAL search_path TO nowhere")
        connection.exec_driver_sql("CREATE TABLE t (id int)")


def ask_for_encryption(ground: Ground) -> None:
    with ground.connect(connect_args={"sslmode": "require"}):
        pass


def crash(ground: Ground) -> None:
    """The server ends every session when one of its processes dies."""
    with ground.connect() as connection, contextlib.closing(connect_postgres(ground.target.url)) as other:
        connection.exec_driver_sql("CREATE TABLE t (id int)")
        number = other.info.backend_pid
        os.kill(number, signal.SIGKILL)
        wait_until(lambda: not servers.alive(number))
        for _ in range(1000):
            connection.exec_driver_sql("SELECT pg_sleep(0.01)")


def shut_down(ground: Ground) -> None:
    """It waits for the sessions that there are, and lets nobody else in."""
    wait_until(lambda: is_up(ground))
    with contextlib.closing(connect_postgres(ground.target.url)) as last:
        row = last.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        os.kill(int(str(row and row[0]).splitlines()[0]), signal.SIGTERM)
        for _ in range(1000):
            with ground.connect(schema=None):
                time.sleep(0.01)


def is_up(ground: Ground) -> bool:
    try:
        connect_postgres(ground.target.url).close()
    except psycopg.OperationalError:
        return False
    return True


def use_a_warm_connection_that_died(ground: Ground) -> Failure | None:
    """Nothing was in flight, so it must not even be noticed."""
    warm = dataclasses.replace(ground.target, schema="acme")
    with ground.connections.open(warm, application_name="first") as connection:
        number = backend_of(warm).session(connection)
    with another(ground) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (number,))
    with ground.connections.open(warm, application_name="second") as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    return None


def _row(situation: Situation, kind: Any, codes: Any, advice: str, provoke: Any, **more: Any) -> Row:
    listed = codes if isinstance(codes, tuple) else (codes,)
    return Row(situation=situation, kind=kind, codes=listed, advice=advice, provoke=provoke, **more)


def _data(situation: Situation, code: str, advice: str, *texts: str) -> Row:
    return _row(situation, PERMANENT, code, advice, statements(*texts))


S = Situation
CONNECTING = (
    _row(S.WRONG_PASSWORD, PERMANENT, "28P01", "password.*lock nobody out", connecting(password="s3cr3t")),
    _row(S.UNKNOWN_USER, PERMANENT, "28P01", "user or the password", connecting(username="nobody_here")),
    _row(
        S.UNKNOWN_HOST,
        PERMANENT,
        "08001",
        "host name|name service",
        connecting(host="no.such.host.invalid"),
        without_names=TRANSIENT,
    ),
    _row(S.REFUSED, SERVER, "08001", "the server runs", connecting(port=1)),
    _row(S.CONNECT_TIMEOUT, SERVER, "08001", "timeouts.connect", connect_to_a_silent_port),
    _row(S.UNKNOWN_DATABASE, PERMANENT, "absent", "--provision", connecting(database="nowhere")),
    _row(S.TOO_MANY_CONNECTIONS, TRANSIENT, "53300", "concurrency", connect_to_a_full_role, crowded=True),
    _row(S.TOO_MANY_CONNECTIONS, TRANSIENT, "53300", "concurrency", connect_to_a_full_database, crowded=True),
    _row(S.TLS, PERMANENT, "08P01", "certificates", ask_for_encryption),
)
SESSIONS = (
    _row(S.TERMINATED, AMBIGUOUS, ("57P01", "08006"), "reads the version", be_ended),
    _row(S.IDLE_IN_TRANSACTION, AMBIGUOUS, ("25P03", "08006"), "paused|reads the version", sleep_in_a_transaction),
    _row(S.LOCK_TIMEOUT, TRANSIENT, "55P03", "timeouts.lock", wait_for_a_table),
    _row(S.CANCELLED, PERMANENT, "57014", "ask them", be_cancelled),
    _row(S.DEADLOCK, TRANSIENT, "40P01", "waited for each other", lock_crosswise),
    _row(S.CONFLICT, TRANSIENT, "40001", "changed the same rows", change_the_same_row),
    _row(S.NOT_PERMITTED, PERMANENT, "42501", "role", ask_for_what_is_not_granted),
    _row(S.HALF_BUILT_INDEX, PERMANENT, "invalid_index", "REINDEX", build_a_broken_index),
    _row(S.ABORTED, PERMANENT, "42P01", "swallowed", go_on_after_an_error),
    _row(S.IN_USE, TRANSIENT, "55006", "close its connections", drop_a_used_database),
    _row(S.VERSION_TABLE_RACE, TRANSIENT, "23505", "tenant lock", race_for_the_version_table),
    _row(S.SCHEMA_MISSING, PERMANENT, "3F000", "--provision", connect_to_a_missing_schema),
)
STATEMENTS = (
    _data(S.STATEMENT_TIMEOUT, "57014", "timeouts.statement", "SET LOCAL statement_timeout = 20", "SELECT pg_sleep(5)"),
    _data(S.READ_ONLY, "25006", "primary", "SET TRANSACTION READ ONLY", "DELETE FROM orders"),
    _data(
        S.TEMPORARY_SPACE,
        "53400",
        "temporary files",
        "SET LOCAL temp_file_limit = 64; SET LOCAL work_mem = 64",
        "SELECT count(*) FROM (SELECT repeat(n::text, 50) AS t FROM generate_series(1, 20000) AS n ORDER BY t) AS s",
    ),
    _data(S.TABLE_EXISTS, "42P07", "stamp", "CREATE TABLE customers (id int)"),
    _data(S.COLUMN_EXISTS, "42701", "stamp", "ALTER TABLE customers ADD mail text"),
    _data(S.INDEX_EXISTS, "42P07", "stamp", "CREATE INDEX by_mail ON customers (mail)"),
    _data(S.MISSING, "42P01", "healthy tenant", "SELECT * FROM nowhere"),
    _data(S.MISSING, "42703", "healthy tenant", "SELECT nothing FROM customers"),
    _row(S.SYNTAX, RUN, "42601", "every tenant", statements("SELEC 1")),
    _data(S.DUPLICATES, "23505", "duplicate rows", "CREATE UNIQUE INDEX u ON customers (mail)"),
    _data(S.ORPHANS, "23503", "refer to nothing", "INSERT INTO orders VALUES (99)"),
    _data(S.NULLS, "23502", "empty values", "INSERT INTO strict VALUES (NULL, 1)"),
    _data(S.CHECK, "23514", "check", "INSERT INTO strict VALUES (1, -1)"),
    _data(S.UNFIT, "22P02", "do not fit", "ALTER TABLE orders ADD n text", f"SELECT '{SECRET}'::int"),
    _data(S.UNFIT, "42804", "do not fit", "ALTER TABLE strict ALTER a TYPE date"),
    _data(S.DEPENDED, "2BP01", "view", "ALTER TABLE customers DROP mail"),
    _row(S.IN_TRANSACTION, RUN, "25001", "autocommit_block", statements("CREATE INDEX CONCURRENTLY i ON first (id)")),
    _data(
        S.ID_TOO_LONG,
        "22001",
        "do not fit",
        "CREATE TEMPORARY TABLE versions (version_num varchar(32))",
        f"INSERT INTO versions VALUES ('{'x' * 33}')",
    ),
)
#: on a server of their own
CRASH = _row(S.SERVER_CRASH, AMBIGUOUS, ("57P02", "08006"), "reads the version", crash)
SHUTDOWN = _row(S.NOT_ACCEPTING, SERVER, "57P03", "Wait until the server has started", shut_down)
ROWS = (*CONNECTING, *SESSIONS, *STATEMENTS)

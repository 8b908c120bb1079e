"""Rows of the table of faults for MariaDB."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pymysql
from sqlalchemy import URL

from orchestrator.databases import backend_of
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
from tests.services.servers import PASSWORD, connect_mariadb

#: what every ground of MariaDB starts with
TABLES = (
    "CREATE TABLE customers (id int PRIMARY KEY, mail varchar(50), KEY by_mail (mail))",
    "CREATE TABLE orders (customer int, CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customers (id))",
    "CREATE TABLE strict (a int NOT NULL, b int CHECK (b > 0), c int)",
    "CREATE TABLE first (id int PRIMARY KEY)",
    "CREATE TABLE second (id int PRIMARY KEY)",
    f"INSERT INTO customers VALUES (1, '{SECRET}'), (2, '{SECRET}')",
    "INSERT INTO orders VALUES (1)",
    "INSERT INTO strict VALUES (1, 1, NULL)",
    "INSERT INTO first VALUES (1)",
    "INSERT INTO second VALUES (1)",
)
WAITING = "SELECT COUNT(*) FROM information_schema.processlist WHERE id = %s AND info LIKE %s"


class Somebody:
    """Somebody else in the tenant's database."""

    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        self.connection = connection
        self.cursor = connection.cursor()

    def run(self, statement: str, *values: object) -> Any:
        """The first value of the first row."""
        self.cursor.execute(statement, values or None)
        row = self.cursor.fetchone()
        return row[0] if row else None


@contextlib.contextmanager
def another(ground: Ground) -> Iterator[Somebody]:
    with contextlib.closing(connect_mariadb(ground.target.url)) as connection:
        yield Somebody(connection)


@contextlib.contextmanager
def stranger(ground: Ground, options: str = "", grants: str = "SELECT") -> Iterator[URL]:
    """A user of its own, and the URL with which it connects."""
    name = f"user_{uuid.uuid4().hex[:12]}"
    with another(ground) as admin:
        admin.run(f"CREATE USER {name} IDENTIFIED BY '{PASSWORD.replace('%', '%')}' {options}")
        if grants:
            admin.run(f"GRANT {grants} ON `{ground.target.url.database}`.* TO {name}")
        try:
            yield ground.target.url.set(username=name, password=PASSWORD)
        finally:
            admin.run(f"DROP USER {name}")


def connect_too_often(ground: Ground) -> None:
    with (
        stranger(ground, "WITH MAX_USER_CONNECTIONS 1") as url,
        contextlib.closing(connect_mariadb(url)),
        ground.connect(url=url),
    ):
        pass


def connect_where_nothing_is_granted(ground: Ground) -> None:
    with stranger(ground, grants="") as url, ground.connect(url=url):
        pass


def write_where_only_reading_is_granted(ground: Ground) -> None:
    with stranger(ground) as url, ground.connect(url=url) as connection:
        connection.exec_driver_sql("DELETE FROM orders")


def be_ended(ground: Ground) -> None:
    with ground.connect() as connection, another(ground) as other:
        connection.exec_driver_sql("INSERT INTO strict VALUES (1, 1, 1)")
        other.run(f"KILL {backend_of(ground.target).session(connection)}")
        connection.exec_driver_sql("SELECT SLEEP(1)")


def be_cancelled(ground: Ground) -> None:
    with ground.connect() as connection, another(ground) as other:
        number = backend_of(ground.target).session(connection)

        def cancel() -> None:
            wait_until(lambda: other.run(WAITING, number, "%SLEEP(20)%"))
            other.run(f"KILL QUERY {number}")

        with meanwhile(cancel):
            # Asleep alone it would only answer 1; it has to be at a row of a table.
            connection.exec_driver_sql("SELECT SLEEP(20) FROM customers")


def wait_for_a_table(ground: Ground) -> None:
    """Locks of definitions, which an ALTER waits for."""
    with another(ground) as other, ground.connect(timeouts=Timeouts(lock=1)) as connection:
        other.run("BEGIN")
        other.run("SELECT * FROM customers")
        connection.exec_driver_sql("ALTER TABLE customers ADD phone text")


def wait_for_a_row(ground: Ground) -> None:
    with another(ground) as other, ground.connect(timeouts=Timeouts(lock=1)) as connection:
        other.run("BEGIN")
        other.run("SELECT * FROM customers FOR UPDATE")
        connection.exec_driver_sql("UPDATE customers SET mail = 'x'")


def lock_crosswise(ground: Ground) -> None:
    """The one that wrote less is given up."""
    with another(ground) as other, another(ground) as watcher, ground.connect(timeouts=Timeouts(lock=20)) as connection:
        other.run("BEGIN")
        for number in range(50):
            other.run(f"INSERT INTO second VALUES ({number + 10})")
        other.run("SELECT * FROM second WHERE id = 1 FOR UPDATE")
        connection.exec_driver_sql("SELECT * FROM first WHERE id = 1 FOR UPDATE")

        def lock() -> None:
            other.run("SELECT * FROM first WHERE id = 1 FOR UPDATE")
            other.run("ROLLBACK")

        with meanwhile(lock):
            wait_until(lambda: watcher.run(WAITING, other.connection.thread_id(), "%FROM first%"))
            try:
                connection.exec_driver_sql("SELECT * FROM second WHERE id = 1 FOR UPDATE")
            finally:
                connection.rollback()


def lock_names_crosswise(ground: Ground) -> None:
    with another(ground) as other, another(ground) as watcher, ground.connect() as connection:
        connection.exec_driver_sql("SELECT GET_LOCK('faults-1', 0)")
        other.run("SELECT GET_LOCK('faults-2', 0)")

        def lock() -> None:
            with contextlib.suppress(pymysql.err.MySQLError):
                other.run("SELECT GET_LOCK('faults-1', 20)")

        with meanwhile(lock):
            wait_until(lambda: watcher.run(WAITING, other.connection.thread_id(), "%faults-1%"))
            try:
                connection.exec_driver_sql("SELECT GET_LOCK('faults-2', 20)")
            finally:
                connection.exec_driver_sql("SELECT RELEASE_ALL_LOCKS()")


def change_the_same_row(ground: Ground) -> None:
    with another(ground) as other, ground.connect() as connection:
        connection.exec_driver_sql("SET SESSION innodb_snapshot_isolation = ON")
        connection.commit()
        connection.exec_driver_sql("SELECT * FROM customers")
        other.run("UPDATE customers SET mail = CONCAT(mail, '.')")
        connection.exec_driver_sql("UPDATE customers SET mail = 'x'")


def send_too_much(ground: Ground) -> None:
    with ground.connect() as connection:
        most = connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar()
        connection.exec_driver_sql(f"SELECT LENGTH('{'x' * most}')")


def ask_for_encryption(ground: Ground) -> None:
    with ground.connect(connect_args={"ssl": {"check_hostname": False}}):
        pass


def race_for_the_version_table(ground: Ground) -> None:
    with another(ground) as other, ground.connect() as connection:
        other.run("CREATE TABLE alembic_version (version_num varchar(32))")
        try:
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num varchar(32))")
        finally:
            connection.rollback()
            other.run("DROP TABLE alembic_version")


def _row(situation: Situation, kind: Any, code: str, advice: str, provoke: Any, **more: Any) -> Row:
    return Row(situation=situation, kind=kind, codes=(code,), advice=advice, provoke=provoke, **more)


def _data(situation: Situation, code: str, advice: str, *texts: str) -> Row:
    return _row(situation, PERMANENT, code, advice, statements(*texts))


S = Situation
CONNECTING = (
    _row(S.WRONG_PASSWORD, PERMANENT, "1045", "password.*lock nobody out", connecting(password="s3cr3t")),
    _row(S.UNKNOWN_USER, PERMANENT, "1045", "user or the password", connecting(username="nobody_here")),
    _row(
        S.UNKNOWN_HOST,
        PERMANENT,
        "2003",
        "host name|name service",
        connecting(host="no.such.host.invalid"),
        without_names=TRANSIENT,
    ),
    _row(S.REFUSED, SERVER, "2003", "the server runs", connecting(port=1)),
    _row(S.UNKNOWN_DATABASE, PERMANENT, "absent", "--provision", connecting(database="nowhere")),
    _row(S.TOO_MANY_CONNECTIONS, TRANSIENT, "1226", "concurrency", connect_too_often, crowded=True),
    _row(S.TLS, PERMANENT, "2026", "certificates", ask_for_encryption),
)
SESSIONS = (
    _row(S.TERMINATED, AMBIGUOUS, "2013", "reads the version", be_ended),
    _row(S.LOCK_TIMEOUT, TRANSIENT, "1205", "timeouts.lock", wait_for_a_table),
    _row(S.LOCK_TIMEOUT, TRANSIENT, "1205", "timeouts.lock", wait_for_a_row),
    _row(S.CANCELLED, PERMANENT, "1317", "ask them", be_cancelled),
    _row(S.DEADLOCK, TRANSIENT, "1213", "waited for each other", lock_crosswise),
    _row(S.NAMED_LOCK_DEADLOCK, TRANSIENT, "1213", "waited for each other", lock_names_crosswise),
    _row(S.CONFLICT, TRANSIENT, "1020", "changed the same rows", change_the_same_row),
    _row(S.NOT_PERMITTED, PERMANENT, "1044", "role", connect_where_nothing_is_granted),
    _row(S.NOT_PERMITTED, PERMANENT, "1142", "role", write_where_only_reading_is_granted),
    _row(S.VERSION_TABLE_RACE, TRANSIENT, "1050", "tenant lock", race_for_the_version_table),
    _row(S.TOO_LARGE, PERMANENT, "1153", "max_allowed_packet", send_too_much),
)
STATEMENTS = (
    _data(
        S.STATEMENT_TIMEOUT, "1969", "timeouts.statement", "SET STATEMENT max_statement_time = 0.05 FOR SELECT SLEEP(5)"
    ),
    _data(S.READ_ONLY, "1792", "read-only", "SET TRANSACTION READ ONLY", "DELETE FROM orders"),
    _row(
        S.DISK_FULL,
        SERVER,
        "1114",
        "disk space",
        statements(
            "SET SESSION max_heap_table_size = 16384",
            "CREATE TEMPORARY TABLE small (t char(255)) ENGINE = MEMORY",
            "INSERT INTO small SELECT 'x' FROM seq_1_to_1000",
        ),
    ),
    _data(S.TABLE_EXISTS, "1050", "stamp", "CREATE TABLE customers (id int)"),
    _data(S.COLUMN_EXISTS, "1060", "stamp", "ALTER TABLE customers ADD mail text"),
    _data(S.INDEX_EXISTS, "1061", "stamp", "CREATE INDEX by_mail ON customers (mail)"),
    _data(S.MISSING, "1146", "healthy tenant", "SELECT * FROM nowhere"),
    _data(S.MISSING, "1091", "healthy tenant", "ALTER TABLE customers DROP nothing"),
    _data(S.MISSING, "1072", "healthy tenant", "CREATE INDEX i ON customers (nothing)"),
    _row(S.SYNTAX, RUN, "1064", "every tenant", statements("SELEC 1")),
    _data(S.DUPLICATES, "1062", "duplicate rows", "ALTER TABLE customers ADD UNIQUE u (mail)"),
    _data(S.ORPHANS, "1452", "refer to nothing", "INSERT INTO orders VALUES (99)"),
    _data(S.NULLS, "1265", "empty", "ALTER TABLE strict MODIFY c int NOT NULL"),
    _data(S.NULLS, "1048", "empty values", "INSERT INTO strict VALUES (NULL, 1, 1)"),
    _data(S.CHECK, "4025", "check", "INSERT INTO strict VALUES (1, -1, 1)"),
    _data(S.UNFIT, "1366", "do not fit", f"INSERT INTO strict VALUES ('{SECRET}', 1, 1)"),
    _data(S.UNFIT, "1265", "do not fit", "ALTER TABLE customers MODIFY mail varchar(3)"),
    _data(S.DEPENDED, "1451", "refer", "DROP TABLE customers"),
    _data(S.DEPENDED, "1553", "depends on it", "ALTER TABLE orders DROP INDEX of_customer"),
    _row(S.NAME_TOO_LONG, RUN, "1059", "Shorten", statements(f"CREATE TABLE t (`{'x' * 65}` int)")),
    _data(S.DEFINITION, "1118", "definition", "CREATE TABLE t (a varchar(16000), b varchar(16000)) CHARSET utf8mb4"),
    _data(S.DEFINITION, "1005", "definition", "CREATE TABLE t (a date REFERENCES customers (id))"),
    _data(
        S.ID_TOO_LONG,
        "1406",
        "do not fit",
        "CREATE TEMPORARY TABLE versions (version_num varchar(32))",
        f"INSERT INTO versions VALUES ('{'x' * 33}')",
    ),
)
ROWS = (*CONNECTING, *SESSIONS, *STATEMENTS)

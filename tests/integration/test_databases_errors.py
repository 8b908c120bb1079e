"""Errors provoked on real servers: code, kind, and none of the customer's data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import URL, Connection, text

from orchestrator import databases
from orchestrator.databases import Connections, backend_of
from orchestrator.outcomes import Failure, FailureKind
from orchestrator.tenants import Target
from tests.integration.database_targets import run, scalar, sqlite_target, target

SECRET = "bob@mail.example"


@pytest.fixture
def connections() -> Iterator[Connections]:
    kept = Connections()
    yield kept
    kept.close()


def provoke(connection: Connection, place: Target, *statements: str) -> Failure:
    with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        run(connection, *statements)
    if not connection.invalidated:
        connection.rollback()
    failure = databases.classify(caught.value, place, revision="r7")
    assert SECRET not in repr(failure)
    assert "bob" not in repr(failure)
    assert failure.advice
    assert failure.fingerprint
    return failure


POSTGRES_FAULTS = [
    ("INSERT INTO customers VALUES (1, 'bob@mail.example')", "23505", "permanent"),
    ("INSERT INTO orders VALUES (99)", "23503", "permanent"),
    ("INSERT INTO customers VALUES (NULL, 'bob@mail.example')", "23502", "permanent"),
    ("ALTER TABLE customers ADD CONSTRAINT c CHECK (mail NOT LIKE 'b%%')", "23514", "permanent"),
    ("CREATE UNIQUE INDEX u ON customers (length(mail))", "23505", "permanent"),
    ("ALTER TABLE customers ALTER mail TYPE int USING mail::int", "22P02", "permanent"),
    ("ALTER TABLE customers ALTER mail TYPE varchar(3)", "22001", "permanent"),
    ("ALTER TABLE customers ALTER mail TYPE int", "42804", "permanent"),
    ("SELECT date 'bob@mail.example'", "22007", "permanent"),
    ("CREATE TABLE customers (id int)", "42P07", "permanent"),
    ("ALTER TABLE customers ADD mail text", "42701", "permanent"),
    ("SELECT * FROM nowhere", "42P01", "permanent"),
    ("SELECT nothing FROM customers", "42703", "permanent"),
    ("SELEC 1", "42601", "run"),
    ("DROP TABLE customers", "2BP01", "permanent"),
    ("CREATE INDEX CONCURRENTLY i ON customers (mail)", "25001", "run"),
    ("SET LOCAL statement_timeout = 50; SELECT pg_sleep(5)", "57014", "permanent"),
    ("DO $$ BEGIN RAISE EXCEPTION 'not for \"bob@mail.example\"'; END $$", "P0001", "permanent"),
]


@pytest.fixture(params=["psycopg", "psycopg2"])
def postgres(postgres_database: URL, request: pytest.FixtureRequest, connections: Connections) -> Iterator[Connection]:
    acme = target("acme", postgres_database.set(drivername=f"postgresql+{request.param}"), schema="acme")
    backend_of(acme).provision(acme)
    with connections.open(acme, application_name="a") as connection:
        run(
            connection,
            "CREATE TABLE customers (id int PRIMARY KEY, mail text)",
            "CREATE TABLE orders (customer int REFERENCES customers)",
            f"INSERT INTO customers VALUES (1, '{SECRET}'), (2, '{SECRET}')",
        )
        yield connection


def test_postgresql_faults(postgres: Connection, postgres_database: URL) -> None:
    acme = target("acme", postgres_database, schema="acme")
    failures = [provoke(postgres, acme, statement) for statement, _code, _kind in POSTGRES_FAULTS]
    assert [(each.code, each.kind.value) for each in failures] == [(code, kind) for _, code, kind in POSTGRES_FAULTS]
    assert "timeouts.statement" in failures[-2].advice
    assert failures[4].message == 'could not create unique index "u"'
    assert failures[4].statement == "CREATE UNIQUE INDEX u ON customers (length(mail))"
    assert failures[5].message == "invalid input syntax for type integer: '…'"


def test_postgresql_locks_deadlocks_and_sessions_that_are_ended(postgres: Connection, postgres_database: URL) -> None:
    acme = target("acme", postgres_database, schema="acme")
    engine = sqlalchemy.create_engine(postgres_database, poolclass=sqlalchemy.NullPool)
    with engine.connect() as other:
        other.exec_driver_sql("LOCK TABLE acme.customers")
        locked = provoke(postgres, acme, "ALTER TABLE customers ADD a int")
        assert (locked.code, locked.kind) == ("55P03", FailureKind.TRANSIENT)
        other.rollback()
        pid = scalar(postgres, "SELECT pg_backend_pid()")
        cancel = threading.Timer(0.3, lambda: scalar(other, "SELECT pg_cancel_backend(:pid)", pid=pid))
        cancel.start()
        cancelled = provoke(postgres, acme, "SELECT pg_sleep(4)")
        cancel.join()
        assert cancelled.code == "57014"
        assert "cancelled" in cancelled.advice
        postgres.exec_driver_sql("INSERT INTO customers VALUES (3, 'x')")
        scalar(other, "SELECT pg_terminate_backend(:pid)", pid=pid)
        lost = provoke(postgres, acme, "SELECT 1")
        assert lost.kind is FailureKind.AMBIGUOUS
        assert lost.code in {"57P01", "08006"}  # psycopg2 may only say that the server hung up
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_postgresql_does_not_let_us_in(postgres_database: URL, connections: Connections, driver: str) -> None:
    url = postgres_database.set(drivername=f"postgresql+{driver}")
    for place, code in (
        (target("acme", url.set(username="nobody_here", password="s3cr3t")), "28P01"),
        (target("acme", url.set(host="no.such.host.invalid")), "08001"),
        (target("acme", url.set(port=1)), "08001"),
    ):
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught, connections.open(place, application_name="a"):
            pass
        failure = databases.classify(caught.value, place)
        assert failure.code == code
        assert "s3cr3t" not in repr(failure)
        assert str(postgres_database.password) not in repr(failure)


#: a value that PostgreSQL quotes under a code that mostly quotes names
POSTGRES_QUOTES = [
    "SELECT to_tsquery(mail) FROM customers",
    "SELECT '''bob'::tsvector",
    "SELECT left(mail, 3)::regrole FROM customers",
    "SELECT left(mail, 3)::regclass FROM customers",
    "SELECT left(mail, 3)::regtype FROM customers",
    "SELECT 'bob'::regclass",
    "DO $$ BEGIN RAISE 'not for \"bob@mail.example\"' USING ERRCODE = 'check_violation'; END $$",
    "DO $$ BEGIN EXECUTE 'SELECT * FROM ' || quote_ident((SELECT min(mail) FROM customers)); END $$",
    "UPDATE customers SET mail = 'O'bob-Secret' WHERE id = 1",
    "UPDATE customers SET mail = 'O'bob-Secret WHERE id = 1",
]


def test_a_value_is_hidden_whatever_its_code_is(postgres: Connection, postgres_database: URL) -> None:
    acme = target("acme", postgres_database, schema="acme")
    run(postgres, "UPDATE customers SET mail = mail || ' (bob & x'")
    for statement in POSTGRES_QUOTES:
        assert "'…'" in provoke(postgres, acme, statement).message
    unreadable = provoke(postgres, acme, POSTGRES_QUOTES[-2])
    assert (unreadable.message, unreadable.statement) == ("syntax error at or near '…'", "UPDATE customers SET …")


def test_names_that_are_no_values_are_shown(postgres: Connection, postgres_database: URL) -> None:
    acme = target("acme", postgres_database, schema="acme")
    for statement, shown in {
        "SELECT * FROM nowhere": 'relation "nowhere" does not exist',
        "SELECT Elsewhere FROM customers": 'column "elsewhere" does not exist',
        "DROP TABLE nowhere": 'table "nowhere" does not exist',
        "ALTER TABLE customers ADD x citext": 'type "citext" does not exist',
        "INSERT INTO customers (nothing) VALUES (1)": 'column "nothing" of relation "customers" does not exist',
    }.items():
        assert provoke(postgres, acme, statement).message == shown


def test_a_date_that_psycopg_cannot_hold_is_not_shown(postgres_database: URL, connections: Connections) -> None:
    acme = target("acme", postgres_database.set(drivername="postgresql+psycopg"))
    opened = connections.open(acme, application_name="a")
    with opened as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        scalar(connection, "SELECT date '12345-01-01'")
    failure = databases.classify(caught.value, acme)
    assert failure.message == "date too large (after year 10K): '…'"


MARIADB_FAULTS = [
    ("INSERT INTO customers VALUES (1, 'bob@mail.example')", "1062", "permanent"),
    ("ALTER TABLE customers ADD UNIQUE u (mail)", "1062", "permanent"),
    ("INSERT INTO orders VALUES (99)", "1452", "permanent"),
    ("INSERT INTO customers VALUES (NULL, 'bob@mail.example')", "1048", "permanent"),
    ("INSERT INTO customers VALUES ('bob@mail.example', 'x')", "1366", "permanent"),
    ("ALTER TABLE customers MODIFY mail varchar(3)", "1265", "permanent"),
    ("ALTER TABLE customers ADD CONSTRAINT c CHECK (mail NOT LIKE 'b%%')", "4025", "permanent"),
    ("UPDATE customers SET id = id + 'bob@mail.example'", "1292", "permanent"),
    ("CREATE TABLE customers (id int)", "1050", "permanent"),
    ("ALTER TABLE customers ADD mail text", "1060", "permanent"),
    ("SELECT * FROM nowhere", "1146", "permanent"),
    ("SELECT nothing FROM customers", "1054", "permanent"),
    ("SELEC 1", "1064", "run"),
    ("SET STATEMENT max_statement_time = 0.1 FOR SELECT SLEEP(5) FROM customers", "1969", "permanent"),
]


@pytest.fixture
def mariadb(mariadb_database: URL, connections: Connections) -> Iterator[Connection]:
    with connections.open(target("acme", mariadb_database), application_name="a") as connection:
        run(
            connection,
            "CREATE TABLE customers (id int PRIMARY KEY, mail varchar(50))",
            "CREATE TABLE orders (customer int REFERENCES customers (id))",
            f"INSERT INTO customers VALUES (1, '{SECRET}'), (2, '{SECRET}')",
        )
        yield connection


def test_mariadb_faults(mariadb: Connection, mariadb_database: URL) -> None:
    acme = target("acme", mariadb_database)
    failures = [provoke(mariadb, acme, statement) for statement, _code, _kind in MARIADB_FAULTS]
    assert [(each.code, each.kind.value) for each in failures] == [(code, kind) for _, code, kind in MARIADB_FAULTS]
    assert failures[1].message == "Duplicate entry '…' for key 'u'"
    assert failures[0].statement == "INSERT INTO customers VALUES (?, ?)"


MARIADB_QUOTES = {
    "BEGIN NOT ATOMIC SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not for \"bob\"'; END": "not for '…'",
    "UPDATE customers SET mail = 'O'bob-Secret' WHERE id = 1": "the right syntax to use near '…' at line 1",
    "SELECT CONVERT_TZ(now(), 'UTC', '+00:00') + INTERVAL 'bob' DAY, 'bob' FROM customers WHERE": "near '…' at line 1",
    "INSERT INTO parts VALUES (4711)": "Table has no partition for value '…'",
    "SELECT ST_GeomFromText(mail) + POINT(1, 1) FROM customers": "'…'",
}


def test_values_that_mariadb_quotes_are_hidden(mariadb: Connection, mariadb_database: URL) -> None:
    acme = target("acme", mariadb_database)
    run(mariadb, "CREATE TABLE parts (id int) PARTITION BY LIST (id) (PARTITION p VALUES IN (1))")
    for statement, shown in MARIADB_QUOTES.items():
        failure = provoke(mariadb, acme, statement)
        assert shown in failure.message
        assert "4711" not in repr(failure)
    assert provoke(mariadb, acme, "UPDATE customers SET mail = 'O'bob' x").statement == "UPDATE customers SET …"
    long_key = provoke(mariadb, acme, "INSERT INTO customers VALUES (7, 'it''s\nbob'), (7, 'y')")
    assert long_key.message == "Duplicate entry '…' for key 'PRIMARY'"


def test_mariadb_locks_and_sessions_that_are_ended(mariadb: Connection, mariadb_database: URL) -> None:
    acme = target("acme", mariadb_database)
    engine = sqlalchemy.create_engine(mariadb_database, poolclass=sqlalchemy.NullPool)
    with engine.connect() as other:
        other.execute(text("SELECT * FROM customers FOR UPDATE"))
        locked = provoke(mariadb, acme, "ALTER TABLE customers ADD a int")
        assert (locked.code, locked.kind) == ("1205", FailureKind.TRANSIENT)
        other.rollback()
        own = scalar(mariadb, "SELECT CONNECTION_ID()")
        other.exec_driver_sql(f"KILL {own}")
        lost = provoke(mariadb, acme, "SELECT 1")
        assert lost.kind is FailureKind.AMBIGUOUS
        assert lost.code in {"2013", "2006"}
    engine.dispose()


SQLITE_FAULTS = [
    ("INSERT INTO customers VALUES (1, 'bob@mail.example')", "1555", "permanent"),
    ("CREATE UNIQUE INDEX u ON customers (mail)", "2067", "permanent"),
    ("INSERT INTO strict VALUES (NULL, 1)", "1299", "permanent"),
    ("INSERT INTO strict VALUES (1, -1)", "275", "permanent"),
    ("CREATE TABLE customers (id int)", "1", "permanent"),
    ("ALTER TABLE customers ADD mail text", "1", "permanent"),
    ("SELECT * FROM nowhere", "1", "permanent"),
    ("SELEC 1", "1", "run"),
    ("ALTER TABLE customers ADD x int NOT NULL", "1", "permanent"),
    ("VACUUM", "1", "run"),
]


def test_sqlite_faults(tmp_path: Path, connections: Connections) -> None:
    acme = sqlite_target(tmp_path / "acme.db")
    backend_of(acme).provision(acme)
    with connections.open(acme, application_name="a") as connection:
        run(
            connection,
            "CREATE TABLE customers (id integer PRIMARY KEY, mail text)",
            "CREATE TABLE strict (a int NOT NULL, b int CHECK (b > 0))",
            f"INSERT INTO customers VALUES (1, '{SECRET}'), (2, '{SECRET}')",
        )
        failures = [provoke(connection, acme, statement) for statement, _code, _kind in SQLITE_FAULTS]
    assert [(each.code, each.kind.value) for each in failures] == [(code, kind) for _, code, kind in SQLITE_FAULTS]
    assert len({each.advice for each in failures[4:9]}) == 4  # code 1 is told apart by its text
    assert failures[1].message == "UNIQUE constraint failed: customers.mail"


SQLITE_QUOTES = {
    "SELECT json_extract('{}', 'bob')": "'…'",
    "SELECT mail -> '$.[bob' FROM customers": "'…'",
    "UPDATE customers SET mail = 'O'bob' WHERE id = 1": "near '…': syntax error",
    "UPDATE customers SET mail = 'O'bob WHERE id = 1": "'…'",
    "SELECT * FROM found WHERE found MATCH 'bob\"'": "'…'",
    "CREATE TABLE customers (id int)": "table customers already exists",
}


def test_values_that_sqlite_quotes_are_hidden(tmp_path: Path, connections: Connections) -> None:
    acme = sqlite_target(tmp_path / "acme.db")
    backend_of(acme).provision(acme)
    with connections.open(acme, application_name="a") as connection:
        run(
            connection,
            "CREATE TABLE customers (id integer PRIMARY KEY, mail text)",
            "CREATE VIRTUAL TABLE found USING fts4(mail)",
            "INSERT INTO customers VALUES (1, '{}')",
        )
        for statement, shown in SQLITE_QUOTES.items():
            assert shown in provoke(connection, acme, statement).message
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            scalar(connection, "SELECT CAST(x'626f62ff' AS text) AS n")
        failure = databases.classify(caught.value, acme)
        assert failure.message == "Could not decode to UTF-8 column '…'"
        kinds = (sqlalchemy.Numeric(), sqlalchemy.Float(), sqlalchemy.Enum("a", validate_strings=True))
        for kind in (*kinds, sqlalchemy.Boolean()):
            with pytest.raises(sqlalchemy.exc.StatementError) as wrapped:
                connection.execute(sqlalchemy.select(sqlalchemy.bindparam("x", SECRET, kind)))
            shown = databases.classify(wrapped.value, acme)
            assert "'…'" in shown.message
            assert "bob" not in repr(shown)


def test_failures_of_two_tenants_with_one_cause_have_one_fingerprint(tmp_path: Path, connections: Connections) -> None:
    prints = set()
    for name in ("acme", "globex"):
        place = sqlite_target(tmp_path / f"{name}.db")
        backend_of(place).provision(place)
        with connections.open(place, application_name="a") as connection:
            prints.add(provoke(connection, place, f"SELECT * FROM {name}_orders").fingerprint)
    assert len(prints) == 1

"""SQLite for real: files that a look never makes, and tables rebuilt without losing their children."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from orchestrator import databases
from orchestrator.databases import Connections, TargetAbsent, TenantLocked, backend_of
from orchestrator.databases.errors import BrokenReferences
from orchestrator.plans import Condition
from orchestrator.tenants import Target, Timeouts, Transaction
from tests.integration.database_targets import run, scalar, sqlite_target


@pytest.fixture
def connections() -> Iterator[Connections]:
    kept = Connections()
    yield kept
    kept.close()


def script(path: Path, statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def look(target: Target) -> tuple[Condition, tuple[str, ...]]:
    (found,) = backend_of(target).look([target])
    return found.condition, found.heads


def test_neither_a_look_nor_a_connection_makes_a_file(tmp_path: Path, connections: Connections) -> None:
    absent = sqlite_target(tmp_path / "absent.db")
    assert look(absent) == (Condition.ABSENT, ())
    for read_only in (True, False):
        with pytest.raises(TargetAbsent), connections.open(absent, application_name="a", read_only=read_only):
            pass
    assert list(tmp_path.iterdir()) == []


def test_provisioning_makes_the_file_and_its_folder(tmp_path: Path, connections: Connections) -> None:
    acme = sqlite_target(tmp_path / "deep" / "er" / "odd ?#% name.db")
    backend_of(acme).provision(acme)
    assert look(acme) == (Condition.EMPTY, ())
    with connections.open(acme, application_name="a") as connection:
        run(connection, "CREATE TABLE t (a)")
    backend_of(acme).provision(acme)
    assert look(acme) == (Condition.UNVERSIONED, ())
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["odd ?#% name.db"]


def test_a_look_tells_every_condition_apart(tmp_path: Path) -> None:
    path = tmp_path / "acme.db"
    acme = sqlite_target(path)
    path.touch()
    assert look(acme) == (Condition.EMPTY, ())
    script(path, "CREATE TABLE alembic_version (version_num varchar(32))")
    assert look(acme) == (Condition.EMPTY, ())
    script(path, "CREATE TABLE customers (id integer primary key autoincrement)")
    assert look(acme) == (Condition.UNVERSIONED, ())
    script(path, "INSERT INTO alembic_version VALUES ('b'), ('a')")
    assert look(acme) == (Condition.VERSIONED, ("a", "b"))
    assert look(sqlite_target(path, version_table="analytics_version")) == (Condition.EMPTY, ())
    script(path, 'CREATE TABLE "o""dd" (version_num); INSERT INTO "o""dd" VALUES (\'m\')')
    assert look(sqlite_target(path, version_table='o"dd', version_table_schema="main")) == (Condition.VERSIONED, ("m",))


def test_a_file_that_is_no_database_is_unreachable(tmp_path: Path) -> None:
    path = tmp_path / "acme.db"
    path.write_text("this is a letter to the customer, and no database at all" * 10)
    (found,) = backend_of(sqlite_target(path)).look([sqlite_target(path)])
    assert found.condition is Condition.UNREACHABLE
    assert found.failure is not None
    assert found.failure.code == "26"


def test_a_look_at_a_file_in_wal_mode_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "acme.db"
    script(
        path,
        "PRAGMA journal_mode = wal; CREATE TABLE alembic_version (version_num);"
        "INSERT INTO alembic_version VALUES ('r1')",
    )
    assert look(sqlite_target(path)) == (Condition.VERSIONED, ("r1",))
    assert list(tmp_path.iterdir()) == [path]
    with contextlib.closing(sqlite3.connect(path)) as writer:  # rows that are in the log only are seen as well
        writer.execute("INSERT INTO alembic_version VALUES ('r2')")
        writer.commit()
        assert look(sqlite_target(path)) == (Condition.VERSIONED, ("r1", "r2"))


@pytest.mark.parametrize("by_engine", [True, False])
def test_a_look_after_a_killed_writer_sees_what_was_committed(
    tmp_path: Path, connections: Connections, *, by_engine: bool
) -> None:
    path = tmp_path / "acme.db"
    script(
        path,
        "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('r1');CREATE TABLE big (a)",
    )
    writer = f"""if True:
        import os, sqlite3
        connection = sqlite3.connect({str(path)!r}, isolation_level=None)
        connection.executemany("INSERT INTO big VALUES (?)", [("x" * 1000,)] * 500)
        connection.execute("PRAGMA cache_size = 5")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE alembic_version SET version_num = 'r2'")
        connection.execute("UPDATE big SET a = 'y' || a")
        os.kill(os.getpid(), {int(signal.SIGKILL)})"""
    assert subprocess.run([sys.executable, "-c", writer], check=False).returncode == -signal.SIGKILL
    assert path.with_name("acme.db-journal").stat().st_size > 0
    if by_engine:
        with connections.open(sqlite_target(path), application_name="a", read_only=True) as connection:
            assert scalar(connection, "SELECT version_num FROM alembic_version") == "r1"
    assert look(sqlite_target(path)) == (Condition.VERSIONED, ("r1",))


FAMILY = """
CREATE TABLE parent (id integer PRIMARY KEY, name varchar(5));
CREATE TABLE child (id integer PRIMARY KEY, parent_id integer REFERENCES parent (id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1, 'a'), (2, 'b');
INSERT INTO child VALUES (1, 1), (2, 2), (3, 99);
"""


def enforce_foreign_keys(connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("PRAGMA foreign_keys = ON")


def operations(connection: Connection, target: Target) -> tuple[MigrationContext, Operations]:
    options = backend_of(target).configure_options(target)
    context = MigrationContext.configure(connection, opts=options)
    return context, Operations(context)


@pytest.mark.parametrize("enforced", [True, False])
@pytest.mark.parametrize("transaction", list(Transaction))
@pytest.mark.parametrize("autocommit_block", [True, False])
def test_rebuilding_a_parent_keeps_its_cascading_children(
    tmp_path: Path, connections: Connections, *, enforced: bool, transaction: Transaction, autocommit_block: bool
) -> None:
    path = tmp_path / "acme.db"
    script(path, FAMILY)
    acme = sqlite_target(path, transaction=transaction)
    with connections.open(acme, application_name="a") as connection:
        if enforced:
            enforce_foreign_keys(connection)
        with databases.tenant_lock(connection, acme, 1):
            context, operate = operations(connection, acme)
            with context.begin_transaction():
                if autocommit_block:
                    with context.autocommit_block():
                        operate.execute("CREATE TABLE before (a)")
                        pragma = connection.execute(text("PRAGMA foreign_keys")).scalar()
                        assert pragma == int(enforced)
                with operate.batch_alter_table("parent") as batch:
                    batch.alter_column("name", type_=sqlalchemy.String(50))
                assert connection.connection.driver_connection.in_transaction
        backend_of(acme).reset(connection, acme)
        assert connection.connection.driver_connection.execute("PRAGMA foreign_keys").fetchone() == (int(enforced),)
    assert rows(path, "SELECT count(*) FROM child") == [(3,)]
    assert "VARCHAR(50)" in rows(path, "SELECT sql FROM sqlite_master WHERE name = 'parent'")[0][0]


def test_a_reference_that_breaks_stops_the_commit_and_one_that_was_broken_before_does_not(
    tmp_path: Path, connections: Connections
) -> None:
    path = tmp_path / "acme.db"
    script(path, FAMILY)
    acme = sqlite_target(path)
    with connections.open(acme, application_name="a") as connection:
        run(connection, "UPDATE parent SET name = 'c'")
        with pytest.raises(BrokenReferences, match="1 row of child without a parent") as caught:
            run(connection, "DELETE FROM parent WHERE id = 1")
        assert databases.classify(caught.value, acme).code == "foreign_key_check"
        connection.rollback()
        assert scalar(connection, "SELECT count(*) FROM parent") == 2
    assert rows(path, "SELECT id, name FROM parent") == [(1, "c"), (2, "c")]


def test_a_key_without_an_index_does_not_stop_migrations(tmp_path: Path, connections: Connections) -> None:
    path = tmp_path / "acme.db"
    script(path, FAMILY + "CREATE TABLE odd (a REFERENCES parent (name)); INSERT INTO odd VALUES ('a');")
    with connections.open(sqlite_target(path), application_name="a") as connection:
        run(connection, "CREATE TABLE more (a)")
        with pytest.raises(BrokenReferences):
            run(connection, "DELETE FROM parent WHERE id = 1")
    assert rows(path, "SELECT count(*) FROM parent") == [(2,)]


def test_a_failing_migration_leaves_nothing_behind(tmp_path: Path, connections: Connections) -> None:
    path = tmp_path / "acme.db"
    script(path, FAMILY)
    acme = sqlite_target(path)
    with connections.open(acme, application_name="a") as connection:
        context, operate = operations(connection, acme)

        def upgrade(operate: Operations) -> None:
            operate.execute("CREATE TABLE first (a)")
            operate.execute("INSERT INTO first VALUES (1)")
            operate.execute("CREATE TABLE parent (a)")

        with pytest.raises(sqlalchemy.exc.OperationalError), context.begin_transaction():
            upgrade(operate)
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'first'") == []


def test_a_writer_keeps_other_migrations_out_but_not_looks(tmp_path: Path, connections: Connections) -> None:
    path = tmp_path / "acme.db"
    script(path, FAMILY)
    acme = sqlite_target(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with connections.open(acme, application_name="a") as connection:
            with pytest.raises(TenantLocked), databases.tenant_lock(connection, acme, 0.1):
                pass
            with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
                run(connection, "CREATE TABLE t (a)")
            assert databases.classify(caught.value, acme).code == "5"
        assert look(acme) == (Condition.UNVERSIONED, ())
        with connections.open(acme, application_name="a", read_only=True) as connection:
            assert scalar(connection, "SELECT count(*) FROM child") == 3
            with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
                run(connection, "CREATE TABLE t (a)")
            assert databases.classify(caught.value, acme).code == "8"


def test_a_statement_that_takes_too_long_is_ended_and_what_follows_is_not(
    tmp_path: Path, connections: Connections
) -> None:
    acme = sqlite_target(tmp_path / "acme.db", timeouts=Timeouts(statement=0.05))
    backend_of(acme).provision(acme)
    count = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n LIMIT :size) SELECT count(*) FROM n"
    with connections.open(acme, application_name="a") as connection:
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            connection.execute(text(count), {"size": 20_000_000})
        connection.rollback()
        assert scalar(connection, count, size=9) == 9
    failure = databases.classify(caught.value, acme)
    assert (failure.code, "timeouts.statement" in failure.advice) == ("9", True)


def test_places_and_headings(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        script(tmp_path / name, FAMILY)
    (tmp_path / "c.db").write_text("no database, but a text that is long enough")
    acme = sqlite_target(tmp_path / "a.db")
    backend = backend_of(acme)
    assert backend.places(acme.url, {}, schemas=False) == [str(tmp_path / "a.db"), str(tmp_path / "b.db")]
    assert backend.places(acme.url, {}, schemas=True) == []
    assert backend.offline_heading(acme) == f"-- file {tmp_path / 'a.db'}"

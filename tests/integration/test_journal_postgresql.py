"""Revisions that leave their transaction, on PostgreSQL and SQLite: what was committed on the way is not done again."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from orchestrator import databases, worker
from orchestrator.outcomes import Status
from orchestrator.plans import Command, Condition
from orchestrator.tenants import Target, Transaction
from tests import histories, snapshots
from tests.integration.journal_runs import FIRST, STOP, die, edit, fail, run, succeed, target_of, write
from tests.services.servers import connect_postgres

#: before, in and after the block
BLOCK = """
op.execute("INSERT INTO markers VALUES ('before')")
op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))
with op.get_context().autocommit_block():
    at(1)
    op.create_index("by_email", "accounts", ["email"], postgresql_concurrently=True)
    at(2)
    op.execute("INSERT INTO markers VALUES ('in, 10 % done')")
    at(3)
    op.add_column("accounts", sa.Column("key", sa.String(40)))
    at(4)
    op.drop_index("by_email", "accounts", postgresql_concurrently=True)
    at(5)
    op.create_index("by_key", "accounts", ["key"], postgresql_concurrently=True, if_not_exists=True)
    at(6)
op.execute("INSERT INTO markers VALUES ('after')")
op.add_column("accounts", sa.Column("last", sa.String(40)))
at(7)
"""


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    worker.finish()


@pytest.fixture(params=["postgresql", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "sqlite":
        path = tmp_path / "acme.db"
        sqlite3.connect(path).close()
        return target_of(f"sqlite:///{path}")
    return schema_of(request.getfixturevalue("postgres_database"))


@pytest.fixture
def schema(postgres_database: URL) -> Target:
    return schema_of(postgres_database)


def schema_of(url: URL) -> Target:
    with connect_postgres(url) as connection:
        connection.execute("CREATE SCHEMA tenant_acme")
    return target_of(url, schema="tenant_acme")


def ask(target: Target, query: str) -> list[Any]:
    if target.backend == "sqlite":
        with contextlib.closing(sqlite3.connect(target.url.database or "")) as connection, connection:
            return [row[0] for row in connection.execute(query)]
    with connect_postgres(target.url) as connection:
        connection.execute("SET search_path TO tenant_acme")
        cursor = connection.execute(query.encode())
        return [row[0] for row in cursor] if cursor.description else []


def markers(target: Target) -> list[str]:
    return sorted(ask(target, "SELECT revision FROM markers"))


@pytest.mark.parametrize("number", range(1, 8))
def test_a_revision_that_dies_in_a_block_is_continued(tmp_path: Path, target: Target, number: int) -> None:
    write(tmp_path, FIRST, BLOCK)
    die(tmp_path, target, 2, f"{number}:kill", start=0)
    succeed(tmp_path, target, 2)
    assert markers(target) == ["after", "before", "in, 10 % done"]
    taken = snapshots.take(target.url, target.schema)
    assert "orchestrate_journal" not in repr(taken)
    assert "by_key" in repr(taken)


@pytest.mark.parametrize("number", [2, 6])
def test_a_revision_that_fails_in_a_block_is_continued(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(tmp_path, FIRST, BLOCK)
    with monkeypatch.context() as stopped:
        stopped.setenv(STOP, f"{number}:raise")
        fail(tmp_path, target, 2, start=0)
    succeed(tmp_path, target, 2)
    assert markers(target) == ["after", "before", "in, 10 % done"]


def test_a_changed_file_is_refused(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, BLOCK)
    die(tmp_path, target, 2, "3:kill", start=0)
    edit(tmp_path, 2, f"pass\n{BLOCK}")
    assert "was begun by another form of its file" in fail(tmp_path, target, 2)
    assert markers(target) == ["before", "in, 10 % done"]


def test_a_downgrade_waits_for_the_revision_in_flight(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, BLOCK)
    die(tmp_path, target, 2, "3:kill", start=0)
    assert "is half done" in fail(tmp_path, target, 0, start=1, command=Command.DOWNGRADE)


def test_a_stamp_clears_the_journal(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, BLOCK)
    die(tmp_path, target, 2, "3:kill", start=0)
    succeed(tmp_path, target, 2, start=1, command=Command.STAMP)
    assert "orchestrate_journal" not in repr(snapshots.take(target.url, target.schema))


def test_a_first_revision_in_flight_is_no_database_filled_without_alembic(tmp_path: Path, target: Target) -> None:
    write(tmp_path, f"{FIRST}\nwith op.get_context().autocommit_block():\n    at(1)")
    die(tmp_path, target, 1, "1:kill")
    (found,) = databases.backend_of(target).look([target])
    assert found.condition is Condition.EMPTY
    succeed(tmp_path, target, 1)


def test_a_block_keeps_the_keys_of_its_rows(tmp_path: Path, target: Target) -> None:
    body = """
    plans = sa.Table("plans", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
    made = op.get_bind().execute(plans.insert().values(name="basic")).inserted_primary_key[0]
    with op.get_context().autocommit_block():
        at(1)
        op.execute(f"INSERT INTO markers VALUES ('plan {made}')")
    """
    write(tmp_path, FIRST, body)
    die(tmp_path, target, 2, "1:kill", start=0)
    succeed(tmp_path, target, 2)
    assert markers(target) == ["plan 1"]


UNIQUE = """
with op.get_context().autocommit_block():
    op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS by_plan ON accounts (plan_id)")
"""


def test_an_index_that_duplicates_left_invalid_is_built_again(tmp_path: Path, schema: Target) -> None:
    write(tmp_path, FIRST, UNIQUE)
    succeed(tmp_path, schema, 1, start=0)
    ask(schema, "UPDATE accounts SET plan_id = 1")
    fail(tmp_path, schema, 2)
    assert ask(schema, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [1]
    ask(schema, "UPDATE accounts SET plan_id = id")
    succeed(tmp_path, schema, 2)
    assert ask(schema, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [0]
    assert "by_plan" in repr(snapshots.take(schema.url, schema.schema)["indexes"])


def test_an_index_left_invalid_by_a_kill_is_built_again(tmp_path: Path, schema: Target) -> None:
    body = """
    import threading
    def end():
        at(1)
    threading.Timer(0.7, end).start()
    with op.get_context().autocommit_block():
        op.create_index("by_email", "accounts", ["email"], postgresql_concurrently=True)
    """
    write(tmp_path, FIRST, body)
    succeed(tmp_path, schema, 1, start=0)
    with connect_postgres(schema.url) as blocker:
        blocker.execute("SET search_path TO tenant_acme")
        blocker.execute("BEGIN; LOCK TABLE accounts IN ROW EXCLUSIVE MODE; SELECT txid_current()")
        die(tmp_path, schema, 2, "1:kill")
        blocker.execute("ROLLBACK")
    succeed(tmp_path, schema, 2)
    assert ask(schema, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [0]


#: another runner, with a ledger of its own, goes the whole way while we have only looked
OVERTAKEN = """            from alembic.runtime.migration import MigrationContext
            import sqlite3

            look = MigrationContext.get_current_heads

            def overtaken(self):
                found = look(self)
                self.connection.rollback()
                with sqlite3.connect({path!r}) as other:
                    if not other.execute("SELECT * FROM markers").fetchall():
                        other.execute("INSERT INTO markers VALUES ('branch')")
                        other.execute("INSERT INTO alembic_version VALUES ('b002')")
                return found

            MigrationContext.get_current_heads = overtaken
            try:
                context.run_migrations()
            finally:
                MigrationContext.get_current_heads = look
"""


def test_two_writers_of_one_file_do_not_run_a_revision_twice(tmp_path: Path) -> None:
    """Independent branches insert their versions, and nobody counts the rows of an INSERT."""
    path = tmp_path / "acme.db"
    sqlite3.connect(path).close()
    target = target_of(f"sqlite:///{path}", transaction=Transaction.REVISION)
    write(tmp_path, FIRST)
    versions = tmp_path / "alembic" / "versions"
    for revision, down in (("b001", None), ("b002", "b001")):
        histories.write_revision(versions, revision, down)
    succeed(tmp_path, target, 1)
    env = tmp_path / "alembic" / "env.py"
    text = env.read_text()
    assert "            context.run_migrations()\n" in text
    env.write_text(text.replace("            context.run_migrations()\n", OVERTAKEN.format(path=str(path)), 1))
    outcome = run(tmp_path, target, 1, start=0, found=("r001",), wanted=("b001",), path=("b001",))
    assert (outcome.status, outcome.at) == (Status.UNCHANGED, ("b002", "r001"))
    assert markers(target) == ["branch"]


def test_a_script_that_commits_behind_our_back_is_refused_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "acme.db"
    sqlite3.connect(path).close()
    target = target_of(f"sqlite:///{path}")
    script = "op.get_bind().connection.driver_connection.executescript(\"INSERT INTO markers VALUES ('y')\")"
    write(tmp_path, FIRST, f"op.execute(\"INSERT INTO markers VALUES ('x')\")\n{script}")
    succeed(tmp_path, target, 1, start=0)
    message = fail(tmp_path, target, 2)
    assert "executescript" in message
    assert "give the statements to op.execute" in message
    assert markers(target) == []


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("op.execute(\"INSERT INTO markers VALUES ('y'); COMMIT\")", "ends a transaction in the middle"),
        ("op.get_bind().connection.commit()", "commits past SQLAlchemy"),
    ],
)
def test_a_commit_that_nobody_would_hear_of_is_refused(
    tmp_path: Path, schema: Target, statement: str, told: str
) -> None:
    write(tmp_path, FIRST, f"op.execute(\"INSERT INTO markers VALUES ('x')\")\n{statement}")
    succeed(tmp_path, schema, 1, start=0)
    assert told in fail(tmp_path, schema, 2)
    assert markers(schema) == []


def test_rows_that_were_read_before_a_block_changed_them_are_read_once(tmp_path: Path, schema: Target) -> None:
    body = """
        bind = op.get_bind()
        found = bind.execute(sa.text("SELECT id, email, gen_random_uuid(), 1.5::numeric FROM accounts")).fetchall()
        with op.get_context().autocommit_block():
            op.drop_column("accounts", "email")
            op.add_column("accounts", sa.Column("email", sa.String(60)))
        at(1)
        for number, email, *_ in found:
            bind.execute(sa.text("UPDATE accounts SET email = :e WHERE id = :i"), {"e": email.upper(), "i": number})
    """
    write(tmp_path, FIRST, body)
    die(tmp_path, schema, 2, "1:kill", start=0)
    succeed(tmp_path, schema, 2)
    assert ask(schema, "SELECT email FROM accounts ORDER BY id") == ["ADA@EXAMPLE.COM", "BOB@EXAMPLE.COM"]


def test_rows_that_a_change_returned_come_again_whatever_their_types(tmp_path: Path, schema: Target) -> None:
    body = """
        made = "INSERT INTO markers VALUES ('two') RETURNING gen_random_uuid() AS id, now() AS at, 1.5::numeric AS n"
        with op.get_context().autocommit_block():
            row = op.get_bind().execute(sa.text(made)).mappings().one()
            at(1)
        op.execute("INSERT INTO markers VALUES ('%s')" % ", ".join(type(value).__name__ for value in row.values()))
    """
    write(tmp_path, FIRST, body)
    die(tmp_path, schema, 2, "1:kill", start=0)
    succeed(tmp_path, schema, 2)
    assert sorted(ask(schema, "SELECT revision FROM markers")) == ["UUID, datetime, Decimal", "two"]


def test_what_an_earlier_form_of_the_file_left_is_seen_by_one_that_needs_no_journal(
    tmp_path: Path, target: Target
) -> None:
    body = """
        with op.get_context().autocommit_block():
            op.execute("INSERT INTO markers VALUES ('two')")
            at(1)
    """
    write(tmp_path, FIRST, body)
    die(tmp_path, target, 2, "1:kill", start=0)
    edit(tmp_path, 2, "op.execute(\"INSERT INTO markers VALUES ('two')\")")
    assert "was begun by another form of its file" in fail(tmp_path, target, 2)
    assert ask(target, "SELECT revision FROM markers") == ["two"]


def test_an_upgrade_does_not_start_from_a_downgrade_that_is_half_done(tmp_path: Path, schema: Target) -> None:
    back = """
        with op.get_context().autocommit_block():
            op.drop_column("accounts", "note")
            at(1)
    """
    add = 'op.add_column("accounts", sa.Column("note", sa.String(40)))'
    write(tmp_path, FIRST, add, "op.execute(\"INSERT INTO markers VALUES ('three')\")", downgrades=("pass", back))
    succeed(tmp_path, schema, 2, start=0)
    die(tmp_path, schema, 1, "1:kill", start=2)
    assert "the downgrade of revision r002 is half done" in fail(tmp_path, schema, 3)
    assert ask(schema, "SELECT revision FROM markers") == []


@pytest.mark.parametrize(
    "use",
    [
        "with op.get_bind().engine.begin() as other:\n    other.execute(sa.text(\"UPDATE plans SET name = 'mine'\"))",
        'sa.inspect(op.get_bind().engine).has_table("plans")',
    ],
)
def test_no_second_connection_is_opened_where_other_tenants_live(tmp_path: Path, schema: Target, use: str) -> None:
    write(tmp_path, FIRST, use)
    succeed(tmp_path, schema, 1)
    with connect_postgres(schema.url) as connection:
        connection.execute("CREATE TABLE public.plans (id int, name text)")
        connection.execute("INSERT INTO public.plans VALUES (1, 'of all')")
        message = fail(tmp_path, schema, 2)
        assert "opens a second connection (op.get_bind().engine)" in message
        assert connection.execute("SELECT name FROM public.plans").fetchall() == [("of all",)]
    edit(tmp_path, 2, "assert sa.inspect(op.get_bind()).has_table('plans')")
    succeed(tmp_path, schema, 2)


def test_statements_that_a_file_brings_in_may_commit_as_well(tmp_path: Path, schema: Target) -> None:
    (tmp_path / "two.sql").write_text("BEGIN;\nINSERT INTO markers VALUES ('two');\nCOMMIT;\n")
    body = f"import pathlib\nop.execute(pathlib.Path({str(tmp_path / 'two.sql')!r}).read_text())\nat(1)"
    write(tmp_path, FIRST, body)
    succeed(tmp_path, schema, 1)
    assert "ends a transaction in the middle" in fail(tmp_path, schema, 2)
    assert ask(schema, "SELECT revision FROM markers") == []


def test_settings_that_a_block_of_code_made_do_not_reach_the_next_tenant(
    tmp_path: Path, postgres_database: URL
) -> None:
    hidden = "DO $$ BEGIN IF true THEN SET session_replication_role = replica; END IF; END $$"
    tell = "op.execute(\"INSERT INTO markers VALUES (current_setting('session_replication_role'))\")"
    write(tmp_path, FIRST, f'op.execute("{hidden}")', tell)
    first = schema_of(postgres_database)
    succeed(tmp_path, first, 2, start=0)
    with connect_postgres(postgres_database) as connection:
        connection.execute("CREATE SCHEMA tenant_b")
    second = target_of(postgres_database, schema="tenant_b")
    succeed(tmp_path, second, 3, start=0)
    succeed(tmp_path, first, 3)
    assert ask(first, "SELECT revision FROM markers") == ["origin"]


def test_a_table_is_not_rebuilt_outside_of_a_transaction(tmp_path: Path) -> None:
    path = tmp_path / "acme.db"
    sqlite3.connect(path).close()
    target = target_of(f"sqlite:///{path}")
    body = """
        with op.get_context().autocommit_block(), op.batch_alter_table("accounts", recreate="always") as accounts:
            accounts.add_column(sa.Column("key", sa.String(40)))
    """
    write(tmp_path, FIRST, body)
    succeed(tmp_path, target, 1)
    assert "rebuilds a table in pieces" in fail(tmp_path, target, 2)
    assert len(ask(target, "SELECT id FROM accounts")) == 2

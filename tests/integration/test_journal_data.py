"""Statements of a revision that depend on what they find, or on the moment: done once on MariaDB, whatever happens."""

from __future__ import annotations

import contextlib
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator import worker
from orchestrator.tenants import Target, Timeouts
from tests.integration.journal_runs import FIRST, STOP, die, edit, fail, left, rows, succeed, target_of, write
from tests.services.servers import connect_mariadb

REVISIONS = {
    "uuid": """
        import uuid
        op.execute(f"INSERT INTO markers VALUES ('{uuid.uuid4().hex}')")
        op.execute(f"INSERT INTO markers VALUES ('{uuid.uuid4().hex}')")
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        op.execute("INSERT INTO markers VALUES ('end')")
    """,
    "loop": """
        bind = op.get_bind()
        for (found,) in bind.execute(sa.text("SELECT id FROM accounts WHERE plan_id IS NULL")).all():
            bind.execute(sa.text("UPDATE accounts SET plan_id = 7 WHERE id = :id"), {"id": found})
            bind.execute(sa.text("INSERT INTO markers VALUES (:name)"), {"name": f"of {found}"})
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        op.execute("INSERT INTO markers VALUES ('end')")
    """,
    "rowcount": """
        bind = op.get_bind()
        while bind.execute(sa.text("UPDATE accounts SET plan_id = 7 WHERE plan_id IS NULL LIMIT 1")).rowcount:
            op.execute("INSERT INTO markers VALUES ('once per row')")
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        op.execute("INSERT INTO markers VALUES ('end')")
    """,
    "key": """
        columns = sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text)
        plans = sa.Table("plans", sa.MetaData(), *columns)
        made = op.get_bind().execute(plans.insert().values(name="basic")).inserted_primary_key[0]
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        op.execute(f"UPDATE accounts SET plan_id = {made}")
        op.execute("INSERT INTO markers SELECT CONCAT('plan ', plan_id) FROM accounts")
    """,
    "guard": """
        def has(column):
            return column in {each["name"] for each in sa.inspect(op.get_bind()).get_columns("accounts")}
        if not has("key"):
            op.add_column("accounts", sa.Column("key", sa.String(40)))
        op.execute("INSERT INTO markers VALUES ('between')")
        if not has("note"):
            op.add_column("accounts", sa.Column("note", sa.String(40)))
        at(1)
        if not has("last"):
            op.add_column("accounts", sa.Column("last", sa.String(40)))
    """,
    "rewritten": """
        bind = op.get_bind()
        found = bind.execute(sa.text("SELECT id, email FROM accounts")).fetchall()
        op.drop_column("accounts", "email")
        op.add_column("accounts", sa.Column("email", sa.String(60)))
        at(1)
        for number, email in found:
            bind.execute(sa.text("UPDATE accounts SET email = :e WHERE id = :i"), {"e": email.upper(), "i": number})
        op.execute("INSERT INTO markers SELECT email FROM accounts")
    """,
    "filled": """
        def has(column):
            return column in {each["name"] for each in sa.inspect(op.get_bind()).get_columns("accounts")}
        if not has("slug"):
            op.add_column("accounts", sa.Column("slug", sa.String(60)))
            at(1)
            op.execute("UPDATE accounts SET slug = email")
        op.execute("INSERT INTO markers SELECT slug FROM accounts")
    """,
    "types": """
        bind = op.get_bind()
        given = (
            "SELECT CAST(1.50 AS DECIMAL(9,2)) AS price, CAST('2024-02-29 12:30:00.25' AS DATETIME(2)) AS moment, "
            "CAST('2024-02-29' AS DATE) AS day, CAST('25:00:01' AS TIME) AS span, x'00ff' AS bytes, NULL AS none, "
            "'ü' AS text, 1e100 AS large, 7 AS count"
        )
        op.add_column("accounts", sa.Column("before_it", sa.String(40)))
        first = bind.execute(sa.text(given)).mappings().one()
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        again = bind.execute(sa.text(given)).mappings().one()
        op.execute("INSERT INTO markers VALUES ('%s')" % (dict(first) == dict(again)))
        op.execute("INSERT INTO markers VALUES ('%s')" % len({type(value) for value in first.values()}))
    """,
    "random": """
        import uuid
        found = op.get_bind().execute(sa.text("SELECT email, :salt FROM accounts"), {"salt": uuid.uuid4().hex}).all()
        op.drop_column("accounts", "email")
        at(1)
        for email, salt in found:
            op.execute(f"INSERT INTO markers VALUES ('{email}')")
    """,
    "batched": """
        bind = op.get_bind()
        op.add_column("accounts", sa.Column("slug", sa.String(60)))
        while found := bind.execute(sa.text("SELECT id, email FROM accounts WHERE slug IS NULL LIMIT 1")).all():
            for number, email in found:
                bind.execute(sa.text("UPDATE accounts SET slug = :e WHERE id = :i"), {"e": email, "i": number})
                bind.execute(sa.text("INSERT INTO markers VALUES (:e)"), {"e": email})
            op.execute("COMMIT")
            at(number)
    """,
    "temporary": """
        op.execute("CREATE TEMPORARY TABLE kept AS SELECT id FROM accounts")
        op.execute("INSERT INTO markers SELECT CONCAT('of ', id) FROM kept")
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        op.execute("INSERT INTO markers SELECT CONCAT('again ', id) FROM kept")
    """,
    "commit": """
        import uuid
        op.execute(f"INSERT INTO markers VALUES ('{uuid.uuid4().hex}')")
        op.execute("INSERT INTO markers VALUES ('100 % sure')")
        op.execute("COMMIT")
        at(1)
        op.execute("INSERT INTO markers VALUES ('end')")
    """,
    "batches": """
        bind = op.get_bind()
        for number in range(2):
            bind.execute(sa.text("UPDATE accounts SET plan_id = 7 WHERE plan_id IS NULL LIMIT 1"))
            bind.execute(sa.text("INSERT INTO markers VALUES ('batch')"))
            op.execute("COMMIT")
            at(number + 1)
    """,
    "autocommit": """
        with op.get_context().autocommit_block():
            op.execute("INSERT INTO markers VALUES ('alone')")
            op.execute("UPDATE accounts SET plan_id = COALESCE(plan_id, 0) + 1")
            op.add_column("accounts", sa.Column("key", sa.String(40)))
            at(1)
            op.execute("UPDATE accounts SET plan_id = plan_id + 1")
    """,
    "savepoint": """
        bind = op.get_bind()
        try:
            with bind.begin_nested():
                bind.execute(sa.text("INSERT INTO markers VALUES ('given up')"))
                raise ValueError
        except ValueError:
            bind.execute(sa.text("INSERT INTO markers VALUES ('instead')"))
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        op.execute("INSERT INTO markers VALUES ('end')")
    """,
    "procedure": """
        op.execute("CREATE PROCEDURE mark() BEGIN INSERT INTO markers VALUES ('called'); SELECT 1; END")
        op.execute("CALL mark()")
        at(1)
        op.execute("DROP PROCEDURE mark")
    """,
}
#: marker rows at the end; `*` stands for a random name
EXPECTED = {
    "uuid": ["*", "*", "end"],
    "loop": ["end", "of 1", "of 2"],
    "rowcount": ["end", "once per row", "once per row"],
    "key": ["plan 1", "plan 1"],
    "guard": ["between"],
    "rewritten": ["ADA@EXAMPLE.COM", "BOB@EXAMPLE.COM"],
    "filled": ["ada@example.com", "bob@example.com"],
    "types": ["9", "True"],
    "random": ["ada@example.com", "bob@example.com"],
    "batched": ["ada@example.com", "bob@example.com"],
    "temporary": ["again 1", "again 2", "of 1", "of 2"],
    "commit": ["*", "100 % sure", "end"],
    "batches": ["batch", "batch"],
    "autocommit": ["alone"],
    "savepoint": ["end", "instead"],
    "procedure": ["called"],
}
PLANS = {"loop": [7, 7], "rowcount": [7, 7], "batches": [7, 7], "key": [1, 1], "autocommit": [2, 2]}
RANDOM_LENGTH = 32
ALSO_STOPPED = ("uuid", "key", "commit", "rewritten", "filled")


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    worker.finish()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "kill") for name in REVISIONS),
        *((name, "raise") for name in ("uuid", "key", "commit", "rewritten", "filled")),
    ],
)
def test_data_is_changed_once_whatever_it_is_made_of(
    tmp_path: Path, mariadb_database: URL, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    target = target_of(mariadb_database)
    write(tmp_path, FIRST, REVISIONS[name])
    if how == "kill":
        die(tmp_path, target, 2, "1:kill", start=0)
    else:
        with monkeypatch.context() as stopped:
            stopped.setenv(STOP, "1:raise")
            assert fail(tmp_path, target, 2, start=0) == "stopped"
    succeed(tmp_path, target, 2)
    found = rows(target, "SELECT revision FROM markers")
    assert sorted("*" if len(each) == RANDOM_LENGTH else each for each in found) == EXPECTED[name]
    assert rows(target, "SELECT plan_id FROM accounts") == PLANS.get(name, [None, None])
    assert left(target) == []


@contextlib.contextmanager
def blocked(target: Target, *begin: str, seconds: float, end: str = "ROLLBACK") -> Iterator[None]:
    """Somebody else works on the database meanwhile, for a while."""
    with contextlib.closing(connect_mariadb(target.url)) as connection, connection.cursor() as cursor:
        for statement in begin:
            cursor.execute(statement)
        timer = threading.Timer(seconds, cursor.execute, [end])
        timer.start()
        try:
            yield
        finally:
            timer.join()


@pytest.fixture
def acme(mariadb_database: URL) -> Target:
    return target_of(mariadb_database, timeouts=Timeouts(connect=5, lock=1, statement=20, tenant_lock=10))


def test_rows_that_were_read_before_they_were_changed_are_read_once(tmp_path: Path, acme: Target) -> None:
    body = REVISIONS["rewritten"].replace("at(1)", "open('changed', 'w').close(); time.sleep(0.5)")
    write(
        tmp_path, FIRST, f"import time\n{textwrap.dedent(body)}".replace("'changed'", repr(str(tmp_path / "changed")))
    )
    succeed(tmp_path, acme, 1)

    def hold_rows() -> None:
        while not (tmp_path / "changed").exists():
            time.sleep(0.01)
        with blocked(acme, "START TRANSACTION", "SELECT * FROM accounts WHERE id = 2 FOR UPDATE", seconds=2.5):
            pass

    holder = threading.Thread(target=hold_rows)
    holder.start()
    outcome = succeed(tmp_path, acme, 2)
    holder.join()
    assert outcome.attempts > 1
    assert sorted(rows(acme, "SELECT revision FROM markers")) == EXPECTED["rewritten"]


def test_more_rows_than_can_be_kept_are_refused_once_they_read_differently(tmp_path: Path, acme: Target) -> None:
    body = REVISIONS["rewritten"].replace("SELECT id, email", "SELECT id, REPEAT(email, 100000)")
    write(tmp_path, FIRST, body)
    die(tmp_path, acme, 2, "1:kill", start=0)
    assert "reads other rows than the first time, which were too many to be kept" in fail(tmp_path, acme, 2)


@pytest.mark.parametrize(
    ("statement", "blocker", "end"),
    [
        (
            "ALTER TABLE accounts ADD COLUMN x INTEGER",
            ("BACKUP STAGE START", "BACKUP STAGE FLUSH", "BACKUP STAGE BLOCK_DDL"),
            "BACKUP STAGE END",
        ),
        (
            "CREATE TRIGGER up BEFORE INSERT ON plans FOR EACH ROW SET NEW.name = UPPER(NEW.name)",
            ("START TRANSACTION", "SELECT * FROM plans"),
            "ROLLBACK",
        ),
    ],
)
def test_a_definition_that_was_done_stays_done_though_a_lock_was_in_the_way(
    tmp_path: Path, acme: Target, statement: str, blocker: tuple[str, ...], end: str
) -> None:
    write(tmp_path, FIRST, f"op.execute(\"INSERT INTO markers VALUES ('zero')\")\nop.execute({statement!r})\nat(1)")
    die(tmp_path, acme, 2, "1:kill", start=0)
    with blocked(acme, *blocker, end=end, seconds=1.6):
        succeed(tmp_path, acme, 2)
    assert rows(acme, "SELECT revision FROM markers") == ["zero"]
    assert left(acme) == []


def test_a_text_that_the_server_did_not_begin_with_may_be_mended(tmp_path: Path, acme: Target) -> None:
    first, second = (f"INSERT INTO markers VALUES ('{name}')" for name in "ab")
    write(tmp_path, FIRST, f'op.execute("{first}; {second}")')
    assert "SQL syntax" in fail(tmp_path, acme, 2, start=0)
    edit(
        tmp_path,
        2,
        "op.execute(\"INSERT INTO markers VALUES ('a')\")\nop.execute(\"INSERT INTO markers VALUES ('b')\")",
    )
    succeed(tmp_path, acme, 2)
    assert sorted(rows(acme, "SELECT revision FROM markers")) == ["a", "b"]


def test_a_variable_may_be_called_cursor(tmp_path: Path, acme: Target) -> None:
    body = "cursor = op.get_bind().execute(sa.text('SELECT id FROM accounts'))\nids = [row[0] for row in cursor]\n"
    write(tmp_path, FIRST, f"{body}op.add_column('accounts', sa.Column('x', sa.Integer))\nat(1)")
    die(tmp_path, acme, 2, "1:kill", start=0)
    succeed(tmp_path, acme, 2)


def test_a_trigger_may_be_written_over_several_lines(tmp_path: Path, acme: Target) -> None:
    body = 'op.execute("""CREATE\n    TRIGGER up BEFORE INSERT ON plans FOR EACH ROW\nBEGIN SET NEW.id = 1; END""")'
    write(tmp_path, FIRST, body)
    succeed(tmp_path, acme, 2, start=0)


def test_rows_are_not_kept_where_a_crash_would_lose_them(tmp_path: Path, acme: Target) -> None:
    body = 'op.execute("CREATE TEMPORARY TABLE kept AS SELECT id, email FROM accounts")\n'
    write(tmp_path, FIRST, f"{body}op.drop_column('accounts', 'email')")
    assert "a crash in between would lose the rows" in fail(tmp_path, acme, 2, start=0)
    assert rows(acme, "SELECT email FROM accounts ORDER BY id") == ["ada@example.com", "bob@example.com"]


def test_what_was_too_long_to_be_kept_is_noted_once(tmp_path: Path, acme: Target) -> None:
    body = """
        op.get_bind().execute(sa.text("SELECT id, REPEAT(email, 100000) FROM accounts")).fetchall()
        op.add_column("accounts", sa.Column("key", sa.String(40)))
        at(1)
        op.add_column("accounts", sa.Column("note", sa.String(40)))
        at(2)
    """
    write(tmp_path, FIRST, body)
    die(tmp_path, acme, 2, "1:kill", start=0)
    die(tmp_path, acme, 2, "2:kill")
    assert [kind for _, kind, _ in left(acme)] == ["read", "definition", "definition"]
    succeed(tmp_path, acme, 2)
    assert left(acme) == []

"""Statements of a revision that depend on what they find, or on the moment: done once on MariaDB, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator import worker
from tests.integration.journal_runs import FIRST, STOP, die, fail, left, rows, succeed, target_of, write

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
    "temporary": ["again 1", "again 2", "of 1", "of 2"],
    "commit": ["*", "100 % sure", "end"],
    "batches": ["batch", "batch"],
    "autocommit": ["alone"],
    "savepoint": ["end", "instead"],
    "procedure": ["called"],
}
PLANS = {"loop": [7, 7], "rowcount": [7, 7], "batches": [7, 7], "key": [1, 1], "autocommit": [2, 2]}
RANDOM_LENGTH = 32


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    worker.finish()


@pytest.mark.parametrize(
    ("name", "how"), [*((name, "kill") for name in REVISIONS), *((name, "raise") for name in ("uuid", "key", "commit"))]
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

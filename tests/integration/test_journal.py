"""The statement journal on MariaDB: whatever a revision was doing when it died, the next try goes on from there."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator import databases, worker
from orchestrator.plans import Command, Condition
from orchestrator.tenants import Target
from tests import snapshots
from tests.integration.journal_runs import FIRST, STOP, TEN, die, edit, fail, left, rows, succeed, target_of, write
from tests.integration.test_worker import CLASSIC
from tests.services.fixtures import fresh_mariadb


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    worker.finish()


@pytest.fixture
def target(mariadb_database: URL) -> Target:
    return target_of(mariadb_database)


@pytest.fixture(scope="module")
def ten(mariadb_url: URL, tmp_path_factory: pytest.TempPathFactory) -> snapshots.Snapshot:
    """What the ten statements make of a fresh database when nothing stops them."""
    folder = tmp_path_factory.mktemp("ten")
    write(folder, FIRST, TEN)
    with fresh_mariadb(mariadb_url) as url:
        succeed(folder, target_of(url), 2, start=0)
        return snapshots.take(url)


@pytest.mark.parametrize("number", range(1, 11))
def test_a_revision_that_dies_between_two_statements_is_continued(
    tmp_path: Path, target: Target, ten: snapshots.Snapshot, number: int
) -> None:
    write(tmp_path, FIRST, TEN)
    die(tmp_path, target, 2, f"{number}:kill", start=0)
    succeed(tmp_path, target, 2)
    assert snapshots.take(target.url) == ten
    assert rows(target, "SELECT COUNT(*) FROM markers") == [1]
    assert left(target) == []


def test_a_revision_that_fails_at_each_of_its_statements_is_continued_each_time(
    tmp_path: Path, target: Target, ten: snapshots.Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, FIRST, TEN)
    succeed(tmp_path, target, 1, start=0)
    for number in range(1, 11):
        monkeypatch.setenv(STOP, f"{number}:raise")
        assert fail(tmp_path, target, 2) == "stopped"
    monkeypatch.delenv(STOP)
    succeed(tmp_path, target, 2)
    assert snapshots.take(target.url) == ten


KEY = """
op.add_column("accounts", sa.Column("key", sa.String(40)))
at(1)
op.execute("INSERT INTO markers VALUES ('end')")
"""


def test_a_changed_file_is_refused_before_anything_runs(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, KEY)
    die(tmp_path, target, 2, "1:kill", start=0)
    edit(tmp_path, 2, f"op.execute(\"INSERT INTO markers VALUES ('new')\")\n{KEY}")
    message = fail(tmp_path, target, 2)
    assert "acme: the upgrade of revision r002 was begun by another form of its file" in message
    assert "It stopped in statement 1, ALTER TABLE accounts ADD COLUMN `key` VARCHAR" in message
    assert "DELETE FROM" in message
    assert rows(target, "SELECT * FROM markers") == []
    edit(tmp_path, 2, KEY)
    succeed(tmp_path, target, 2)


def test_another_revision_waits_for_the_one_in_flight(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, KEY, downgrades=("op.drop_table('plans')",))
    die(tmp_path, target, 2, "1:kill", start=0)
    message = fail(tmp_path, target, 0, start=1, command=Command.DOWNGRADE)
    assert "the upgrade of revision r002 is half done, and the downgrade of revision r001 would start from" in message
    succeed(tmp_path, target, 2)


def test_a_stamp_says_that_somebody_has_mended_it(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, KEY)
    die(tmp_path, target, 2, "1:kill", start=0)
    succeed(tmp_path, target, 2, start=1, command=Command.STAMP)
    assert left(target) == []


def test_a_downgrade_is_continued_too(tmp_path: Path, target: Target) -> None:
    down = 'op.drop_column("accounts", "key")\nat(2)\nop.drop_table("plans")\nat(3)'
    write(tmp_path, FIRST, KEY, downgrades=("pass", down))
    succeed(tmp_path, target, 2, start=0)
    die(tmp_path, target, 1, "2:kill", start=2)
    succeed(tmp_path, target, 1, start=2, command=Command.DOWNGRADE)
    assert "plans" not in rows(target, "SHOW TABLES")


def test_a_refusal_by_the_data_is_tried_again_when_the_data_is_mended(tmp_path: Path, target: Target) -> None:
    body = """
        import uuid
        op.execute(f"INSERT INTO markers VALUES ('{uuid.uuid4().hex}')")
        op.create_unique_constraint("by_plan", "accounts", ["plan_id"])
        op.execute("INSERT INTO markers VALUES ('end')")
    """
    write(tmp_path, FIRST, body)
    succeed(tmp_path, target, 1, start=0)
    rows(target, "UPDATE accounts SET plan_id = 1")
    assert "Duplicate entry" in fail(tmp_path, target, 2)
    assert left(target) == [(1, "data", "done"), (2, "definition", "failed")]
    assert "Duplicate entry" in fail(tmp_path, target, 2)
    rows(target, "UPDATE accounts SET plan_id = id")
    succeed(tmp_path, target, 2)
    assert rows(target, "SELECT COUNT(*) FROM markers") == [2]


def test_a_table_that_was_there_before_is_not_taken_for_ours(tmp_path: Path, target: Target) -> None:
    body = (
        "op.execute(\"INSERT INTO markers VALUES ('x')\")\nop.create_table('notes', sa.Column('id', sa.Integer))\nat(1)"
    )
    write(tmp_path, FIRST, body)
    succeed(tmp_path, target, 1, start=0)
    rows(target, "CREATE TABLE notes (somebody INT)")
    assert "already exists" in fail(tmp_path, target, 2)
    rows(target, "UPDATE orchestrate_journal SET state = 'intended'")
    assert "already exists" in fail(tmp_path, target, 2)
    rows(target, "DROP TABLE notes")
    succeed(tmp_path, target, 2)


def test_a_first_statement_that_is_refused_leaves_nothing_behind(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, "op.drop_table('nothing')")
    assert "Unknown table" in fail(tmp_path, target, 2, start=0)
    edit(tmp_path, 2, "op.execute(\"INSERT INTO markers VALUES ('end')\")")
    succeed(tmp_path, target, 2)


def test_what_nobody_can_see_is_not_done_twice(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, 'op.get_bind().connection.cursor().execute("INSERT INTO markers VALUES (1)")\nat(1)')
    die(tmp_path, target, 2, "1:kill", start=0)
    assert '"line 23 of its file" may have been done in part, and nobody can tell' in fail(tmp_path, target, 2)
    rows(target, "DELETE FROM orchestrate_journal")
    succeed(tmp_path, target, 2)


def test_a_statement_announced_and_never_closed_is_not_done_twice(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, 'op.execute("CREATE PROCEDURE stop() SELECT SLEEP(30)")\nop.execute("CALL stop()")')
    succeed(tmp_path, target, 1, start=0)
    quick = dataclasses.replace(target, timeouts=dataclasses.replace(target.timeouts, statement=0.3))
    assert "max_statement_time exceeded" in fail(tmp_path, quick, 2)
    assert '"CALL stop" may have been done in part, and nobody can tell' in fail(tmp_path, quick, 2)


REFUSED = {
    "with op.batch_alter_table('accounts', recreate='always') as batch:\n    batch.drop_column('plan_id')": "recreate=",
    "op.execute('LOCK TABLES accounts WRITE')\nop.execute('UNLOCK TABLES')": "LOCK TABLES",
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_a_crash_could_part_is_refused_before_anything_runs(tmp_path: Path, target: Target, body: str) -> None:
    write(tmp_path, FIRST, f"op.execute(\"INSERT INTO markers VALUES ('x')\")\n{body}")
    message = fail(tmp_path, target, 2, start=0)
    assert REFUSED[body] in message
    assert "nothing was done" in message
    assert rows(target, "SELECT * FROM markers") == []


def test_a_first_revision_in_flight_is_no_database_filled_without_alembic(tmp_path: Path, target: Target) -> None:
    write(tmp_path, f"{FIRST}\nat(1)")
    die(tmp_path, target, 1, "1:kill")
    (found,) = databases.backend_of(target).look([target])
    assert found.condition is Condition.EMPTY
    succeed(tmp_path, target, 1)
    assert rows(target, "SELECT COUNT(*) FROM accounts") == [2]


def test_by_hand_it_is_continued_as_well(tmp_path: Path, target: Target) -> None:
    config = write(tmp_path, FIRST, KEY)
    place = target.url.render_as_string(hide_password=False)
    (tmp_path / "tenants.yaml").write_text(
        f'version: 1\nproject: test\nenvironment: test\ntenants:\n  acme: {{url: "{place}"}}\n'
    )
    environ = {**os.environ, STOP: "1:kill"}
    command = [sys.executable, "-m", "alembic", "-c", str(config), "upgrade", "head"]
    assert subprocess.run(command, env=environ, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert left(target) == [(1, "definition", "intended")]
    done = subprocess.run([*command[:-2], "check"], capture_output=True, text=True, check=False)
    assert "orchestrate_journal" not in done.stdout + done.stderr
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (left(target), rows(target, "SELECT * FROM markers")) == ([], ["end"])


def test_an_env_py_that_connects_by_itself_is_journalled_too(tmp_path: Path, target: Target) -> None:
    write(tmp_path, FIRST, KEY, env=CLASSIC)
    die(tmp_path, target, 2, "1:kill", start=0)
    succeed(tmp_path, target, 2)
    assert (left(target), rows(target, "SELECT * FROM markers")) == ([], ["end"])

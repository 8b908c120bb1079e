"""How the ledger's own tables come to be, and what may go wrong with the database that holds them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, event, inspect, select, text
from sqlalchemy.engine import Engine, ExceptionContext

import orchestrator.ledger
from orchestrator.errors import ExitCode, LedgerError, Refused, SettingsError
from orchestrator.ledger import addresses, open_ledger, tables, versions
from orchestrator.ledger.contract import failure, job, outcome, plan, settled, wave
from orchestrator.outcomes import RunStatus, Status
from tests.integration.ledgers import SCOPE, file, raw, url

__all__ = ["file", "raw", "url"]


def test_the_chain_creates_the_tables_that_the_code_uses(url: URL, raw: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    open_ledger(url, **SCOPE).close()
    with raw.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": versions.VERSION_TABLE})
        assert context.get_current_heads() == (versions.VERSIONS[-1],)
        assert compare_metadata(context, tables.metadata) == []
        assert all(name.startswith("orchestrate_") for name in inspect(connection).get_table_names())


def test_the_code_names_the_versions_of_the_chain() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "orchestrator.ledger:migrations")
    chain = ScriptDirectory.from_config(config).walk_revisions()
    assert [script.revision for script in chain] == list(reversed(versions.VERSIONS))


OPENER = """
import sys
from orchestrator.ledger import open_ledger
sys.stdin.readline()
ledger = open_ledger(sys.argv[1], project="billing", environment="test")
print(ledger.fleet())
ledger.close()
"""


def test_processes_that_open_a_fresh_ledger_at_once_all_succeed(url: URL, raw: Engine) -> None:
    arguments = [sys.executable, "-W", "error", "-c", OPENER, url.render_as_string(hide_password=False)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    openers = [subprocess.Popen(arguments, **pipes) for _ in range(4)]
    for opener in openers:
        opener.stdin.write("\n")
        opener.stdin.flush()
    assert [opener.communicate() for opener in openers] == [("None\n", "")] * 4
    with raw.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM orchestrate_ledger_version")).all() == [
            (versions.VERSIONS[-1],)
        ]


AT_HEAD = """
import sys
from sqlalchemy import Engine, event
statements = []
event.listen(Engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
from orchestrator.ledger import open_ledger
open_ledger(sys.argv[1], project="billing", environment="test").close()
assert "alembic" not in sys.modules
ours = [statement for statement in statements if "orchestrate" in statement]
assert len(ours) == 1 and ours[0].startswith("SELECT"), statements
"""


def test_opening_an_up_to_date_ledger_costs_one_read(url: URL) -> None:
    open_ledger(url, **SCOPE).close()
    arguments = [sys.executable, "-c", AT_HEAD, url.render_as_string(hide_password=False)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_an_older_ledger_is_upgraded_and_a_newer_one_refused(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = versions.VERSIONS[-1]
    ledger = open_ledger(url, **SCOPE)
    opened = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=3)
    run = ledger.close_run(opened.id, RunStatus.HALTED, ExitCode.FAILURES)
    ledger.close()

    later = tmp_path / "later"
    shutil.copytree(Path(orchestrator.ledger.__file__).parent / "migrations", later)
    (later / "versions" / "r9999_more.py").write_text(
        f"from alembic import op\nrevision = '9999'\ndown_revision = '{known}'\n"
        "def upgrade():\n    op.execute('CREATE TABLE orchestrate_more (id INTEGER)')\n"
    )
    with monkeypatch.context() as newer:
        newer.setattr(versions, "VERSIONS", (*versions.VERSIONS, "9999"))
        newer.setattr(versions, "_SCRIPTS", str(later))
        ledger = open_ledger(url, **SCOPE)
        assert ledger.run() == run
        ledger.close()

    for create in (True, False):
        with pytest.raises(Refused, match=rf"version 9999.*version {known}.*upgrade alembic-orchestrator") as refused:
            open_ledger(url, **SCOPE, create=create)
        assert refused.value.exit_code is ExitCode.REFUSED


def test_nothing_of_alembic_is_left_behind(url: URL) -> None:
    from alembic import context, op

    open_ledger(url, **SCOPE).close()
    assert (context._proxy, op._proxy) == (None, None)


def test_reading_creates_nothing(url: URL, raw: Engine, file: Path) -> None:
    assert open_ledger(url, **SCOPE, create=False) is None
    assert not file.parent.parent.exists()
    open_ledger(url, **SCOPE).close()
    ledger = open_ledger(url, **SCOPE, create=False)
    assert ledger is not None
    assert list(ledger.runs()) == []
    ledger.close()


def test_reading_an_empty_database_leaves_it_empty(url: URL, raw: Engine, file: Path) -> None:
    if url.get_backend_name() == "sqlite":
        file.parent.mkdir(parents=True)
        file.touch()
    assert open_ledger(url, **SCOPE, create=False) is None
    with raw.connect() as connection:
        assert inspect(connection).get_table_names() == []


def test_failures_can_be_grouped_by_their_cause(url: URL, raw: Engine) -> None:
    bad = [outcome(f"t{number}", Status.FAILED, failure=failure(f"f{number % 2}")) for number in range(5)]
    ledger = open_ledger(url, **SCOPE)
    run = ledger.open_run(plan([wave("acme", *(each.target for each in bad[1:]))], bad[0]), operator="ops", fleet=6).id
    for each in (outcome("acme"), *bad[1:3]):
        ledger.start(run, job(each.target))
        ledger.record(run, each)
    ledger.close_run(run, RunStatus.HALTED, ExitCode.FAILURES, bad[3:])
    ledger.close()
    with raw.connect() as connection:
        grouped = connection.execute(
            text(
                "SELECT fingerprint, kind, code, type, revision, count(*) FROM orchestrate_failures "
                "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1"
            )
        ).all()
    cause = ("permanent", "23505", "UniqueViolation", "r003")
    assert [tuple(row) for row in grouped] == [("f0", *cause, 3), ("f1", *cause, 2)]


def test_the_plan_itself_is_kept(url: URL, raw: Engine) -> None:
    decided = plan([wave("acme")], settled("globex"))
    ledger = open_ledger(url, **SCOPE)
    ledger.open_run(decided, operator="ops", fleet=2)
    ledger.close()
    with raw.connect() as connection:
        (kept,) = connection.execute(select(tables.runs.c.plan)).scalars()
    assert json.loads(zlib.decompress(kept)) == json.loads(json.dumps(decided.to_json()))


def test_a_dead_connection_is_replaced(postgres_database: URL) -> None:
    ledger = open_ledger(postgres_database, **SCOPE)
    run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
    killer = create_engine(postgres_database)
    ours = "application_name = 'orchestrate/ledger'"

    def kill() -> None:
        with killer.connect() as connection:
            connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"))

    kill()
    assert ledger.start(run, job("acme")) == 1
    kill()
    ledger.record(run, outcome("acme", Status.FAILED, failure=failure()))
    kill()
    assert ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES).counts["failed"] == 1
    ledger.close()
    killer.dispose()


def test_a_sqlite_ledger_is_private_and_durable(file: Path) -> None:
    ledger = open_ledger(f"sqlite:///{file}", **SCOPE)
    run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
    beside = [found.name for found in file.parent.iterdir()]
    assert {stat.S_IMODE((file.parent / name).stat().st_mode) for name in beside} == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    open_ledger(f"sqlite:///{file}", **SCOPE).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    synchronous: list[int] = []
    event.listen(
        Engine,
        "before_cursor_execute",
        watch := lambda connection, cursor, *_: synchronous.append(
            cursor.connection.execute("PRAGMA synchronous").fetchone()[0]
        ),
    )
    try:
        ledger.start(run, job("acme"))
    finally:
        event.remove(Engine, "before_cursor_execute", watch)
    assert synchronous == [2]
    ledger.close()


def test_a_reader_never_blocks_the_runner(file: Path) -> None:
    ledger = open_ledger(f"sqlite:///{file}", **SCOPE)
    run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops", fleet=2).id
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT count(*) FROM orchestrate_attempts").fetchone()
    written = threading.Event()

    def write() -> None:
        ledger.start(run, job("acme"))
        ledger.record(run, outcome("acme", Status.FAILED, failure=failure()))
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert written.wait(timeout=20)
    assert reader.execute("SELECT count(*) FROM orchestrate_attempts").fetchone() == before == (0,)
    writer.join()
    reader.close()
    ledger.close()


def test_a_second_writer_waits_for_the_first(file: Path) -> None:
    ledger = open_ledger(f"sqlite:///{file}", **SCOPE)
    run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, other.execute, ["COMMIT"]).start()
    assert ledger.start(run, job("acme")) == 1
    other.close()
    ledger.close()


def test_a_file_that_is_no_database_is_an_error_with_its_name(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("this is not a database, but it is long enough to look at" * 20)
    for create in (True, False):
        with pytest.raises(LedgerError, match=r"ledger\.db cannot be used: file is not a database"):
            open_ledger(f"sqlite:///{file}", **SCOPE, create=create)


def test_a_folder_in_the_way_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"file/ledger/ledger\.db cannot be created"):
        open_ledger(f"sqlite:///{tmp_path}/file/ledger/ledger.db", **SCOPE)


def test_a_write_that_fails_is_an_error_and_leaves_nothing(file: Path) -> None:
    ledger = open_ledger(f"sqlite:///{file}", **SCOPE)
    run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE orchestrate_failures")
    connection.close()
    with pytest.raises(LedgerError, match="no such table: orchestrate_failures"):
        ledger.record(run, outcome("acme", Status.FAILED, failure=failure()))
    assert list(ledger.outcomes(run)) == []
    ledger.close()


def test_an_unreachable_server_is_an_error_without_the_password() -> None:
    with pytest.raises(LedgerError, match=r"127\.0\.0\.1:1/ledger") as raised:
        open_ledger("postgresql+psycopg://app:S3cr3t@127.0.0.1:1/ledger?connect_timeout=2", **SCOPE)
    assert "S3cr3t" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_server_that_vanishes_is_noticed_unless_the_url_says_how(postgres_database: URL) -> None:
    given = postgres_database.update_query_dict({"keepalives_idle": "7"})
    engine = addresses.engine_for(given)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        used = driver.info.get_parameters()
    engine.dispose()
    assert (used["keepalives_idle"], used["keepalives_count"], used["tcp_user_timeout"]) == ("7", "3", "60000")


@pytest.mark.parametrize(
    ("wrong", "saying"),
    [
        ("mysql+pymysql://app:S3cr3t@db/ledger", "SQLite or PostgreSQL, not in mysql"),
        ("mariadb+pymysql://app:S3cr3t@db/ledger", "SQLite or PostgreSQL, not in mariadb"),
        ("sqlite://", "plain file"),
        ("sqlite:///:memory:", "plain file"),
        ("sqlite:///file:ledger.db?uri=true", "plain file"),
        ("S3cr3t", "cannot be used"),
        ("nosuch://app:S3cr3t@db/ledger", "cannot be used"),
        ("postgresql://app:S3cr3t@db:port/ledger", "cannot be used"),
    ],
)
def test_a_ledger_elsewhere_is_a_setting_to_mend(wrong: str, saying: str) -> None:
    with pytest.raises(SettingsError, match=saying) as raised:
        open_ledger(wrong, **SCOPE)
    assert "S3cr3t" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_an_asynchronous_driver_gives_way_to_its_sibling(file: Path) -> None:
    ledger = open_ledger(f"sqlite+aiosqlite:///{file}", **SCOPE)
    assert list(ledger.runs()) == []
    ledger.close()


def test_a_ledger_that_another_process_makes_between_two_looks(tmp_path: Path) -> None:
    """Its table was not there, and is when somebody asks why it could not be read."""
    url = URL.create("sqlite", database=str(tmp_path / "ledger.db"))
    engine = create_engine(url)

    @event.listens_for(engine, "handle_error")
    def _make(context: ExceptionContext) -> None:
        open_ledger(url, project="billing", environment="test").close()

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert versions.read_version(connection) == versions.VERSIONS[-1]
    engine.dispose()

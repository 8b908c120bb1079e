"""The facade over real SQLite files: what it decides, what it refuses, and that looking leaves no trace."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from orchestrator import Project
from orchestrator.errors import (
    ExitCode,
    LedgerError,
    Refused,
    RegistryError,
    ScriptsError,
    SettingsError,
    TargetsFailed,
    UsageError,
)
from orchestrator.events import Event, RunHalted
from orchestrator.outcomes import Report, RunStatus, Status
from orchestrator.plans import Command, Plan
from orchestrator.selectors import Selection
from orchestrator.standings import Standing
from tests import histories

ALL = Selection(everything=True)

CLASSIC_OFFLINE = """
from alembic import context

context.configure(url=context.config.get_main_option("sqlalchemy.url"), literal_binds=True)
with context.begin_transaction():
    context.run_migrations()
"""


def fleet(folder: Path, *names: str, more: str = "") -> Project:
    """A project of SQLite tenants whose files exist, empty."""
    tenants = "".join(f"  {name}: {{}}\n" for name in names)
    (folder / "tenants.yaml").write_text(
        f'version: 1\nproject: shop\ndefaults: {{url: "sqlite:///db/{{tenant}}.db"}}\ntenants:\n{tenants}{more}'
    )
    (folder / "db").mkdir(exist_ok=True)
    for name in names:
        sqlite3.connect(folder / "db" / f"{name}.db").close()
    return Project.load(folder / "alembic.ini")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=4)
    return tmp_path


def run(project: Project, plan: Plan, **options: object) -> Report:
    with project:
        return project.run(plan, executor="inline", **options)


def poison(folder: Path, name: str) -> None:
    with sqlite3.connect(folder / "db" / f"{name}.db") as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER)")
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('r000')")


def break_table(folder: Path, name: str) -> None:
    """Make r002 fail for one tenant."""
    with sqlite3.connect(folder / "db" / f"{name}.db") as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc"
    }


def test_a_run_brings_all_to_head_and_a_second_one_changes_nothing(folder: Path) -> None:
    project = fleet(folder, "a", "b", "c")
    report = run(project, project.plan())
    assert (report.status, report.exit_code, report.counts["upgraded"]) == (RunStatus.SUCCEEDED, ExitCode.OK, 3)
    report.raise_for_failures()
    again = run(project, project.plan())
    assert again.counts["unchanged"] == 3
    recorded, told = project.report(report.run).to_json(), report.to_json()
    assert {**recorded, "duration_s": 0} == {**told, "duration_s": 0}


def test_looking_leaves_no_trace(folder: Path) -> None:
    project = fleet(folder, "a", "b")
    (folder / "db" / "b.db").unlink()
    before = files(folder)
    with project:
        report = project.status()
        project.plan(selection=ALL)
        project.doctor()
        assert project.ledger_if_any() is None
    assert [row.standing for row in report.rows] == [Standing.EMPTY, Standing.ABSENT]
    assert files(folder) == before


def test_standings(folder: Path) -> None:
    project = fleet(folder, "head", "behind", "ahead", "unversioned")
    run(project, project.plan(tenants=["head"]))
    run(project, project.plan("r002", tenants=["behind"]))
    poison(folder, "ahead")
    break_table(folder, "unversioned")
    rows = {row.found.target.name: row for row in project.status().rows}
    assert {name: row.standing.value for name, row in rows.items()} == {
        "head": "at_head",
        "behind": "behind",
        "ahead": "ahead",
        "unversioned": "unversioned",
    }
    assert (rows["behind"].behind_by, rows["ahead"].behind_by) == (2, None)
    assert [row.found.target.name for row in project.status().due] == ["behind", "ahead", "unversioned"]


def test_a_tenant_ahead_of_the_code_is_skipped_and_the_others_go_on(folder: Path) -> None:
    project = fleet(folder, "a", "ahead")
    poison(folder, "ahead")
    report = run(project, project.plan())
    assert (report.counts["upgraded"], report.counts["skipped"], report.exit_code) == (1, 1, ExitCode.FAILURES)
    accepted = run(project, project.plan(allow_ahead=True))
    assert accepted.exit_code is ExitCode.OK


def test_failed_targets_are_tried_again_alone(folder: Path) -> None:
    project = fleet(folder, "a", "bad", "c")
    run(project, project.plan("r001"))
    break_table(folder, "bad")
    report = run(project, project.plan(keep_going=True))
    assert (report.counts["upgraded"], report.counts["failed"]) == (2, 1)
    with pytest.raises(TargetsFailed, match="bad"):
        report.raise_for_failures()
    with sqlite3.connect(folder / "db" / "bad.db") as connection:
        connection.execute("DROP TABLE invoices")
    assert project.failed_targets() == ("bad",)
    again = run(project, project.plan(selection=Selection(failed=project.failed_targets())))
    assert [(outcome.target, outcome.status) for outcome in again.outcomes] == [("bad", Status.UPGRADED)]


def test_a_failed_transaction_leaves_the_target_where_it_was(folder: Path) -> None:
    project = fleet(folder, "bad")
    run(project, project.plan("r001"))
    break_table(folder, "bad")
    (outcome,) = run(project, project.plan()).outcomes
    assert (outcome.found, outcome.at, outcome.applied, outcome.failure.revision) == (("r001",), ("r001",), (), "r002")


def test_before_the_first_run_nobody_has_failed(folder: Path) -> None:
    with pytest.raises(UsageError, match="no run has been recorded"):
        fleet(folder, "a").failed_targets()


def test_runs_can_be_looked_up_while_a_source_is_down(folder: Path) -> None:
    project = fleet(folder, "a", "b")
    report = run(project, project.plan())
    down = fleet(folder, "a", "b", more="sources: [{type: command, run: ['false']}]\n")
    with pytest.raises(RegistryError, match="source `command`"):
        down.status()
    assert down.report().run == report.run
    assert down.report().counts["upgraded"] == 2


def test_a_fleet_that_shrank_is_refused_until_accepted(folder: Path) -> None:
    names = [f"t{number}" for number in range(10)]
    project = fleet(folder, *names)
    run(project, project.plan())
    smaller = fleet(folder, *names[:8])
    with pytest.raises(Refused, match=r"8 targets, 2 fewer.*--accept-shrink"):
        smaller.plan()
    assert smaller.status().rows, "looking is always allowed"
    assert Project.load(folder / "alembic.ini", accept_shrink=True).plan().settled
    assert fleet(folder, *names[:9]).plan().settled, "ten percent fewer is within what is tolerated"


def test_a_later_database_is_not_taken_before_an_earlier_one(folder: Path) -> None:
    more = (
        '  duo:\n    databases:\n      core: {url: "sqlite:///db/core.db"}\n'
        '      analytics: {url: "sqlite:///db/analytics.db"}\n'
    )
    project = fleet(folder, more=more)
    for name in ("core", "analytics"):
        sqlite3.connect(folder / "db" / f"{name}.db").close()
    later = Selection(database="analytics")
    with pytest.raises(Refused, match="duo/core comes first and is behind"):
        project.plan(selection=later)
    run(project, project.plan(selection=Selection(database="core")))
    assert [job.target for job in project.plan(selection=later).jobs] == ["duo/analytics"]


def test_a_revision_of_one_chain_is_not_looked_for_in_another(folder: Path) -> None:
    histories.write(folder, size=3, scripts="analytics", prefix="a")
    ini = folder / "alembic.ini"
    ini.write_text(f"{ini.read_text()}\n[analytics]\nscript_location = %(here)s/analytics\n")
    more = (
        '  duo:\n    databases:\n      core: {url: "sqlite:///db/core.db"}\n'
        '      analytics: {url: "sqlite:///db/analytics.db", alembic: analytics}\n'
    )
    project = fleet(folder, more=more)
    for name in ("core", "analytics"):
        sqlite3.connect(folder / "db" / f"{name}.db").close()
    later = Selection(database="analytics")
    with pytest.raises(Refused, match="duo/core comes first"):
        project.plan("a002", selection=later)
    run(project, project.plan(selection=Selection(database="core")))
    assert [job.path for job in project.plan("a002", selection=later).jobs] == [("a001", "a002")]


def test_stamps_and_downgrades_take_the_same_road(folder: Path) -> None:
    project = fleet(folder, "a")
    run(project, project.plan())
    down = run(project, project.plan("-1", command=Command.DOWNGRADE))
    assert (down.counts["downgraded"], down.outcomes[0].at) == (1, ("r003",))
    stamp = run(project, project.plan("r001", command=Command.STAMP))
    assert (stamp.counts["stamped"], stamp.outcomes[0].at) == (1, ("r001",))
    with pytest.raises(UsageError, match="a stamp needs a revision"):
        project.plan("+1", command=Command.STAMP)


def test_what_cannot_be_is_refused_before_a_database_is_opened(folder: Path) -> None:
    project = fleet(folder, "a")
    (folder / "db" / "a.db").write_bytes(b"not a database at all, but nobody may notice")
    with pytest.raises(ScriptsError, match="nowhere"):
        project.plan("nowhere")
    with pytest.raises(UsageError, match="no strategy `careful`"):
        project.plan(strategy="careful")
    with pytest.raises(UsageError, match="neither a number"):
        project.plan(max_failures="some")


def test_sql_is_written_once_for_each_distinct_path(folder: Path) -> None:
    project = fleet(folder, "a", "b", "c")
    run(project, project.plan("r002", tenants=["c"]))
    texts = {tuple(job.target for job in jobs): sql for jobs, sql in project.sql(project.plan())}
    assert set(texts) == {("a", "b"), ("c",)}
    assert "CREATE TABLE accounts" in texts["a", "b"]
    assert "CREATE TABLE accounts" not in texts[("c",)]
    assert "version_num='r004'" in texts[("c",)]


def test_sql_is_written_through_an_env_py_that_reads_a_url(folder: Path) -> None:
    (folder / "alembic" / "env.py").write_text(CLASSIC_OFFLINE)
    project = fleet(folder, "a")
    ((_, sql),) = project.sql(project.plan())
    assert "CREATE TABLE invoices" in sql


def test_a_revision_that_needs_a_database_says_so_in_the_sql(folder: Path) -> None:
    path = histories.file_of(folder, "r003")
    path.write_text(
        path.read_text().replace(
            "def upgrade():\n", "def upgrade():\n    list(op.get_bind().execute(sa.text('SELECT 1')).mappings())\n", 1
        )
    )
    project = fleet(folder, "a")
    ((_, sql),) = project.sql(project.plan())
    assert "-- revision r003 cannot be written as SQL" in sql


def test_an_env_py_that_ends_the_program_is_no_success(folder: Path) -> None:
    env = folder / "alembic" / "env.py"
    env.write_text(f"import sys\nsys.exit(0)\n{env.read_text()}")
    with fleet(folder, "a") as project:
        with pytest.raises(ScriptsError, match=r"env\.py:2: `sys\.exit`"):
            project.revise("compared", autogenerate=True, selection=ALL)
        with pytest.raises(ScriptsError, match=r"env\.py:2: `sys\.exit`"):
            list(project.sql(project.plan()))


def test_a_protected_environment_is_written_to_only_by_its_name(folder: Path) -> None:
    project = fleet(folder, "a", more="environment: production\nprotected: true\n")
    plan = project.plan()
    for confirm in (None, "staging"):
        with pytest.raises(Refused, match="production"):
            run(project, plan, confirm=confirm)
    assert project.ledger_if_any() is None, "a refusal is no run"
    assert run(project, plan, confirm="production").counts["upgraded"] == 1


def test_a_ledger_that_fails_at_the_very_end_costs_no_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise LedgerError("the disk is full")

    project = fleet(folder, "a")
    monkeypatch.setattr(project.ledger, "close_run", fail)
    events: list[Event] = []
    report = run(project, project.plan(), listeners=[events.append])
    assert (report.counts["upgraded"], report.exit_code) == (1, ExitCode.FAILURES)
    assert any(isinstance(event, RunHalted) and "disk is full" in event.text for event in events)


def test_what_cannot_be_run_opens_no_run(folder: Path) -> None:
    with fleet(folder, "a") as project:
        with pytest.raises(SettingsError, match="no executor `threads`; there are processes, inline"):
            project.run(project.plan(), executor="threads")
        with pytest.raises(UsageError, match="concurrency 0"):
            project.plan(concurrency=0)
        assert project.ledger_if_any() is None


def test_what_scripts_print_stays_off_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = histories.file_of(folder, "r002")
    loud = path.read_text().replace(
        "def upgrade():", "print('loud file')\n\n\ndef upgrade():\n    print('loud step')", 1
    )
    path.write_text(loud)
    env = folder / "alembic" / "env.py"
    env.write_text(
        f"import sqlalchemy\n{env.read_text()}".replace("_metadata = None", "_metadata = sqlalchemy.MetaData()")
    )
    env.write_text(f"print('loud env')\n{env.read_text()}")
    with fleet(folder, "a") as project:
        list(project.sql(project.plan()))
        project.run(project.plan())
        project.revise("compared", autogenerate=True, selection=ALL)
        project.revise("empty")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(what in printed.err for what in ("loud file", "loud env", "loud step"))


def test_a_hand_is_told_when_every_target_is_left_out(folder: Path) -> None:
    fleet(folder, more="  gone: {state: suspended, reason: unpaid}\n")
    config = Config(folder / "alembic.ini")
    for run_by_hand in (command.check, command.current, lambda config: command.upgrade(config, "head")):
        with pytest.raises(CommandError, match="every selected target is left out"):
            run_by_hand(config)


def test_events_come_in_order(folder: Path) -> None:
    project = fleet(folder, "a")
    seen: list[Event] = []
    run(project, project.plan(), listeners=[seen.append])
    names = [type(event).__name__ for event in seen]
    assert names == ["RunStarted", "WaveStarted", "JobStarted", "JobFinished", "WaveFinished", "RunFinished"]


def test_worker_processes_do_the_same(folder: Path) -> None:
    project = fleet(folder, "a", "b")
    with project:
        report = project.upgrade(project.plan())
        downgrade = project.plan("-1", command=Command.DOWNGRADE)
        with pytest.raises(UsageError, match="plan of a downgrade"):
            project.upgrade(downgrade)
    assert report.counts["upgraded"] == 2


def test_a_new_revision_file_is_written(folder: Path) -> None:
    project = fleet(folder, "a")
    (path,) = project.revise("one more thing")
    assert "one more thing" in path.read_text()
    assert "r004" in path.read_text()


def test_an_empty_revision_is_written_while_the_fleet_cannot_be_read(folder: Path) -> None:
    (folder / "tenants.yaml").write_text("version: 1\nsources: [{type: command, run: [/no/such/program]}]\n")
    (path,) = Project.load(folder / "alembic.ini").revise("one more thing")
    assert path.is_file()


def test_autogenerate_needs_a_tenant_at_head(folder: Path) -> None:
    env = folder / "alembic" / "env.py"
    filtered = env.read_text().replace(
        "target_metadata=target_metadata))", "target_metadata=target_metadata, include_object=only_ours))"
    )
    env.write_text(filtered.replace("target_metadata = None", METADATA))
    project = fleet(folder, "a")
    with pytest.raises(ScriptsError, match="a is not at head"):
        project.revise("things", autogenerate=True)
    run(project, project.plan())
    (path,) = project.revise("things", autogenerate=True)
    assert "create_table('things'" in path.read_text()
    assert "markers" not in path.read_text(), "tables without models were left out by the user's own filter"
    run(project, project.plan())
    assert project.revise("nothing", autogenerate=True) == []


METADATA = """
from sqlalchemy import Column, Integer, MetaData, Table

target_metadata = MetaData()
Table("things", target_metadata, Column("id", Integer, primary_key=True))


def only_ours(thing, name, kind, reflected, compared):
    return kind != "table" or not reflected or name == "things"
"""

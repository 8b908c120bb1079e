"""A plan that was saved holds as long as everything that it rests on does, over real SQLite files."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import Project, plan_files
from orchestrator.errors import Refused, StalePlan, UsageError
from orchestrator.outcomes import Report, RunStatus
from orchestrator.plans import Command, Plan
from orchestrator.rollout import StopSignal
from orchestrator.selectors import Selection
from tests import histories

NAMES = ("a", "b", "c", "d")
STRATEGY = "{max_failures: 1, waves: [{name: canary, size: 1, pause: 1ms}, {name: rest}]}"


def registry(folder: Path, *names: str, url: str = "sqlite:///db/{tenant}.db", **keys: str) -> None:
    """Tenants of these names, each with what its keyword says."""
    strategy = keys.pop("strategy", STRATEGY)
    top = keys.pop("top", "")
    tenants = "".join(f"  {name}: {{{keys.get(name, '')}}}\n" for name in names)
    (folder / "tenants.yaml").write_text(
        f'version: 1\nproject: shop\n{top}defaults: {{url: "{url}"}}\n'
        f"strategies: {{careful: {strategy}}}\ntenants:\n{tenants}"
    )
    (folder / "db").mkdir(exist_ok=True)
    for name in names:
        sqlite3.connect(folder / "db" / f"{name}.db").close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=4)
    registry(tmp_path, *NAMES)
    return tmp_path


def load(folder: Path) -> Project:
    return Project.load(folder / "alembic.ini")


def saved(folder: Path, *, revision: str = "r003", **asked: object) -> Plan:
    """A plan that has been in a file."""
    with load(folder) as project:
        plan = project.plan(revision, **{"strategy": "careful", **asked})
        (folder / "plan.json").write_text(plan_files.text(project.document(plan)))
    return plan_files.read(folder / "plan.json")


def changes(folder: Path, plan: Plan) -> list[str]:
    with load(folder) as project, pytest.raises(StalePlan) as caught:
        project.verify(plan)
    return list(caught.value.changes)


def upgrade(folder: Path, *names: str, revision: str = "r001") -> Report:
    with load(folder) as project:
        return project.upgrade(project.plan(revision, tenants=names), executor="inline")


def test_a_fresh_plan_runs_just_as_it_was_saved(folder: Path) -> None:
    plan = saved(folder)
    with load(folder) as project:
        fresh = project.verify(plan)
        report = project.upgrade(fresh, executor="inline", approved=plan.digest[:20])
        assert (report.status, report.counts["upgraded"]) == (RunStatus.SUCCEEDED, 4)
        assert report.plan_digest == plan.digest == project.ledger.run(report.run).plan_digest
        (entry,) = project.runs.audit()
    assert entry.detail["approved"] == plan.digest[:20]
    assert entry.detail["digest"] == plan.digest


def test_a_copy_of_the_project_elsewhere_agrees_on_the_digest(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plan = saved(folder)
    other = tmp_path_factory.mktemp("elsewhere") / "checkout"
    shutil.copytree(folder, other)
    with load(other) as project:
        assert project.verify(plan).digest == plan.digest


def joins(folder: Path) -> None:
    registry(folder, *NAMES, "e", "f")


def leaves(folder: Path) -> None:
    registry(folder, "a", "b", "d")


def is_quarantined(folder: Path) -> None:
    registry(folder, *NAMES, b="state: quarantined, reason: restoring")


def moves(folder: Path) -> None:
    shutil.copy(folder / "db" / "c.db", folder / "db" / "other.db")
    registry(folder, *NAMES, c='url: "sqlite:///db/other.db"')


def is_upgraded(folder: Path) -> None:
    upgrade(folder, "d")


def is_lost(folder: Path) -> None:
    (folder / "db" / "a.db").unlink()


def changes_revision(folder: Path) -> None:
    path = histories.file_of(folder, "r002")
    path.write_text(path.read_text() + "\n# harmless, or not\n")


def changes_environment(folder: Path) -> None:
    path = folder / "alembic" / "env.py"
    path.write_text(path.read_text() + "\n# harmless, or not\n")


def changes_labels(folder: Path) -> None:
    registry(folder, *NAMES, a="labels: {tier: free}")


def renames_project(folder: Path) -> None:
    path = folder / "tenants.yaml"
    path.write_text(path.read_text().replace("project: shop", "project: store"))


def changes_environment_name(folder: Path) -> None:
    registry(folder, *NAMES, top="environment: production\n")


def lifts_budget(folder: Path) -> None:
    registry(folder, *NAMES, strategy=STRATEGY.replace("max_failures: 1", "max_failures: 3"))


def lengthens_pause(folder: Path) -> None:
    registry(folder, *NAMES, strategy=STRATEGY.replace("pause: 1ms", "pause: 10m"))


def adds_gate(folder: Path) -> None:
    gated = STRATEGY.replace("pause: 1ms", 'pause: 1ms, gate: {command: ["./smoke"]}')
    registry(folder, *NAMES, strategy=gated)


def loses_strategy(folder: Path) -> None:
    path = folder / "tenants.yaml"
    path.write_text(path.read_text().replace("careful:", "careless:"))


def caps_server(folder: Path) -> None:
    registry(folder, *NAMES, top="servers: {sqlite: {concurrency: 1}}\n")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (joins, "2 targets joined: e, f"),
        (leaves, "1 target left: c"),
        (is_quarantined, "1 target is quarantined now, and was active: b"),
        (moves, "1 target has moved: c db/c.db [alembic] -> db/other.db [alembic]"),
        (is_upgraded, "1 target is elsewhere than then: d base -> r001"),
        (is_lost, "1 target is not there now: a"),
        (changes_revision, "revision file r002 changed"),
        (changes_environment, "env.py changed"),
        (changes_labels, "1 target has other labels: a"),
        (renames_project, "the project is store now, and was shop"),
        (changes_environment_name, "the environment is production now, and was default"),
        (lifts_budget, "strategy careful changed: failures allowed 1 -> 3"),
        (lengthens_pause, "wave canary changed: pause 0.001s -> 600s"),
        (adds_gate, "wave canary changed: gate none -> command ./smoke"),
        (loses_strategy, "no strategy `careful` in tenants.yaml; it has careless, default"),
        (caps_server, "strategy careful changed: at once on sqlite as others -> 1"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_whatever_changes_makes_a_plan_stale(folder: Path, change: Callable[[Path], None], says: str) -> None:
    plan = saved(folder)
    change(folder)
    assert says in changes(folder, plan)


def test_a_new_revision_makes_a_plan_to_head_stale_and_no_other(folder: Path) -> None:
    to_head, to_r003 = saved(folder, revision="head"), saved(folder)
    histories.add_head(folder, "x005")
    assert changes(folder, to_head) == [
        "the goal is x005 now, and was r004",
        "x005 was added",
        "4 targets go another way: c, a, b and 1 more",
    ]
    with load(folder) as project:
        assert project.verify(to_r003).digest == to_r003.digest


def test_a_second_head_makes_a_plan_to_head_stale(folder: Path) -> None:
    plan = saved(folder, revision="head")
    histories.write_revision(folder / "alembic" / "versions", "y004", "r003")
    assert "there are several heads (r004, y004)" in changes(folder, plan)[0]


def test_what_cannot_be_asked_any_more_is_stale_too(folder: Path) -> None:
    plan = saved(folder, tenants=["a", "c"])
    leaves(folder)
    assert changes(folder, plan)[0].startswith("unknown tenant `c`")


def test_who_has_left_is_named_though_the_fleet_is_much_smaller(folder: Path) -> None:
    """One of four is more than a tenth: that alone would not say who it was."""
    upgrade(folder, "d", revision="r003")
    of_all, of_one = saved(folder), saved(folder, tenants=["a"])
    leaves(folder)

    assert changes(folder, of_all)[0] == "1 target left: c"
    with load(folder) as project, pytest.raises(Refused, match="the registry has 3 targets, 1 fewer"):
        project.verify(of_one)


def test_the_run_of_a_stale_plan_is_named(folder: Path) -> None:
    plan = saved(folder)
    stop = StopSignal()
    heard: list[str] = []

    def stop_after_the_first(event: object) -> None:
        heard.append(type(event).__name__)
        if heard.count("JobFinished") == 1:
            stop.drain()

    with load(folder) as project:
        fresh = project.verify(plan)
        report = project.upgrade(fresh, executor="inline", stop=stop, listeners=[stop_after_the_first])
        assert (report.status, report.counts["upgraded"]) == (RunStatus.INTERRUPTED, 1)
        with pytest.raises(StalePlan, match=f"`orchestrate resume {report.run}` goes on with it"):
            project.verify(plan)
        resumed = project.runs.resume(executor="inline")
        assert resumed is not None
        assert resumed.plan_digest == plan.digest
        with pytest.raises(StalePlan, match=f"run {report.run} was of this plan, and has ended: succeeded"):
            project.verify(plan)


def test_a_plan_of_somebody_else_is_not_the_approved_one(folder: Path) -> None:
    plan = saved(folder)
    with load(folder) as project:
        with pytest.raises(Refused, match="what it rests on has changed"):
            project.upgrade(plan, executor="inline", approved="sha256:" + "0" * 12)
        with pytest.raises(UsageError, match="at least 12 hex digits"):
            project.upgrade(plan, executor="inline", approved="all of it")
        assert project.ledger_if_any() is None


def test_an_approval_counts_in_a_protected_environment(folder: Path) -> None:
    registry(folder, *NAMES, top="environment: production\nprotected: true\n")
    plan = saved(folder)
    with load(folder) as project:
        with pytest.raises(Refused, match="protected"):
            project.upgrade(plan, executor="inline")
        report = project.upgrade(project.verify(plan), executor="inline", approved=plan.digest)
    assert report.counts["upgraded"] == 4


def test_what_is_asked_with_nothing_and_with_all_is_the_same(folder: Path) -> None:
    with load(folder) as project:
        digests = {
            project.plan(selection=selection).digest for selection in (None, Selection(), Selection(everything=True))
        }
    assert len(digests) == 1


def test_other_plans_can_be_held_against_now_as_well(folder: Path) -> None:
    upgrade(folder, *NAMES, revision="r002")
    with load(folder) as project:
        plan = project.plan("-1", command=Command.DOWNGRADE, tenants=["a"], keep_going=True)
        again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
        assert project.verify(again).digest == plan.digest
        _, plan = project.runs.rollback_plan()
        with pytest.raises(UsageError, match="does not say what it was made from"):
            project.verify(plan)


def test_a_plan_file_says_what_sql_there_is_and_why_not(folder: Path) -> None:
    path = histories.file_of(folder, "r003")
    path.write_text(
        path.read_text().replace(
            "def upgrade():\n", "def upgrade():\n    op.get_bind().execute(sa.text('SELECT 1')).one()\n", 1
        )
    )
    upgrade(folder, "d", revision="r003")
    saved(folder, revision="r004")
    first, second = json.loads((folder / "plan.json").read_text())["sql"]
    assert (first["targets"], first["path"], first["first"]) == (3, ["r001", "r002", "r003", "r004"], "c")
    assert "CREATE TABLE accounts" in first["text"]
    assert first["flaw"].startswith("revision r003 cannot be written as SQL")
    assert (second["targets"], second["found"], second["flaw"]) == (1, ["r003"], None)


def test_a_secret_of_a_revision_stays_out_of_the_file(folder: Path) -> None:
    statement = "op.execute(\"CREATE USER app PASSWORD 'hunter2-secret'\")"
    histories.edit(folder, "r003", "def upgrade():\n", f"def upgrade():\n    {statement}\n")
    saved(folder)
    text = (folder / "plan.json").read_text()
    assert "CREATE USER app PASSWORD" in text
    assert "hunter2" not in text


def test_a_broken_env_py_keeps_no_plan_from_being_saved(folder: Path) -> None:
    (folder / "alembic" / "env.py").write_text("import sys\nsys.exit(0)\n")
    plan = saved(folder)
    (sql,) = json.loads((folder / "plan.json").read_text())["sql"]
    assert sql["text"] is None
    assert "sys.exit" in sql["flaw"]
    assert plan.files["alembic"].revisions.keys() == {"r001", "r002", "r003"}

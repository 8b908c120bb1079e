"""`resume`, `retry`, `rollback`, `abort`, and what looks after the ledger: consent, answers, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestrator.cli import commands, terminals
from orchestrator.errors import LeaseHeld
from orchestrator.events import RunHalted
from orchestrator.ledger import AuditEntry, Holder, Lease
from orchestrator.outcomes import Status
from orchestrator.plans import Command
from orchestrator.records import Differing
from orchestrator.rollout import StopCause
from tests.unit.cli_fakes import NOON, FakeProject, job, outcome, plan, skipped, tell
from tests.unit.cli_runs import Invoke, invoke, project

__all__ = ["invoke", "project"]

BACK = {"command": Command.DOWNGRADE, "found": ("r007",), "wanted": ("r006",)}


@pytest.fixture
def earlier(project: FakeProject) -> str:
    """A run that the ledger has already."""
    return project.ledger.open_run(plan(job("acme"), job("globex")), operator="ann@build7", fleet=3).id


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_what_is_left_is_done_and_reported(invoke: Invoke, project: FakeProject, verb: str) -> None:
    project.runs.left = plan(job("globex"), settled=[outcome("acme")])

    result = invoke(verb, "r-1", "--executor", "inline", "--end-orphans", "-o", "json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["counts"]["upgraded"] == 2
    assert project.runs.asked == {"verb": verb, "run": "r-1"}
    assert (project.ran["executor"], project.ran["end_orphans"]) == ("inline", True)


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_what_fails_again_is_exit_code_one(invoke: Invoke, project: FakeProject, verb: str) -> None:
    project.runs.left = plan(job("globex"))
    project.ends = {"globex": Status.FAILED}

    result = invoke(verb)

    assert result.exit_code == 1
    assert "once mended: orchestrate retry" in result.stdout
    assert project.runs.asked["run"] is None


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_nothing_left_is_said_and_no_failure(invoke: Invoke, project: FakeProject, verb: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    assert invoke(verb).stdout == f"nothing to {verb}\n"
    result = invoke(verb, "-o", "json", "--report", str(file))

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"format": "orchestrate.nothing/1", "text": f"nothing to {verb}"}
    assert json.loads(file.read_text()) == json.loads(result.stdout)
    assert json.loads(invoke(verb, "-o", "jsonl").stdout)["text"] == f"nothing to {verb}"


@pytest.mark.parametrize("words", [["resume"], ["retry"], ["rollback", "--yes"], ["abort"]])
def test_a_protected_environment_must_be_named(
    invoke: Invoke, project: FakeProject, earlier: str, words: list[str]
) -> None:
    project.registry.protected = True
    project.runs.left = plan(job("globex", **BACK), command=Command.DOWNGRADE)

    assert invoke(*words).exit_code == 3
    assert not project.runs.asked
    assert invoke(*words, "--confirm", "staging").exit_code == 0
    assert project.runs.asked["verb"] == words[0]


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_a_run_of_somebody_else_refuses(invoke: Invoke, project: FakeProject, verb: str) -> None:
    project.runs.left = plan(job("globex"))
    project.refusal = LeaseHeld("run r-1 of ann@build7 is live since 03:00")

    result = invoke(verb)

    assert result.exit_code == 3
    assert "run r-1 of ann@build7 is live since 03:00" in result.stderr


def test_a_rollback_shows_what_it_takes_back_and_runs_as_a_child(
    invoke: Invoke, project: FakeProject, earlier: str
) -> None:
    back = [job(name, path=("r007",), **BACK) for name in ("acme", "globex")]
    project.runs.left = plan(*back, settled=[skipped("initech", "moved", "is at r008 now")], revision=("r006",))

    result = invoke("rollback", earlier, "--yes")

    assert result.exit_code == 0
    assert "2 targets from r007 to r006: r007\n  acme, globex" in result.stderr
    assert "1 skipped, moved: is at r008 now" in result.stderr
    assert f"takes back {earlier}" in result.stdout
    assert (project.ran["parent"], project.ran["action"]) == (earlier, "rollback")


def test_a_rollback_needs_yes_without_a_terminal(invoke: Invoke, project: FakeProject, earlier: str) -> None:
    project.runs.left = plan(job("acme", **BACK))

    result = invoke("rollback")

    assert result.exit_code == 2
    assert f"roll back run {earlier}: 1 of 1 target in billing staging: there is no terminal" in result.stderr
    assert not project.ran


@pytest.mark.parametrize(("typed", "code", "runs"), [("y\n", 0, True), ("n\n", 3, False)])
def test_a_rollback_asks_a_person(
    invoke: Invoke,
    project: FakeProject,
    earlier: str,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    code: int,
    runs: bool,
) -> None:
    monkeypatch.setattr(terminals, "is_interactive", lambda: True)
    project.runs.left = plan(job("acme", **BACK))

    result = invoke("rollback", typed=typed)

    assert f"roll back run {earlier}: 1 of 1 target in billing staging? [y/N]" in result.stderr
    assert result.exit_code == code
    assert bool(project.ran) is runs


def test_a_dry_rollback_is_its_plan(invoke: Invoke, project: FakeProject, earlier: str) -> None:
    project.registry.protected = True
    project.runs.left = plan(job("acme", **BACK), command=Command.DOWNGRADE, revision=("r006",))

    assert "1 target from r007 to r006" in invoke("rollback", "--dry-run").stdout
    assert json.loads(invoke("rollback", "--dry-run", "-o", "json").stdout)["command"] == "downgrade"
    assert not project.ran


def test_a_run_that_changed_nothing_has_nothing_to_roll_back(
    invoke: Invoke, project: FakeProject, earlier: str
) -> None:
    result = invoke("rollback")

    assert result.exit_code == 0
    assert result.stdout == f"nothing to roll back: run {earlier} changed no target\n"
    assert not project.ran


def test_a_dead_run_is_aborted_and_its_targets_are_told(invoke: Invoke, project: FakeProject, earlier: str) -> None:
    project.ledger.record(earlier, outcome("acme", Status.UPGRADED, at=("r007",)))
    project.ledger.record(earlier, outcome("globex", Status.NOT_STARTED, at=("r006",)))

    result = invoke("abort", "--now")

    assert result.exit_code == 0
    assert project.runs.asked == {"verb": "abort", "run": None, "now": True, "confirm": None}
    assert result.stdout.splitlines() == [
        f"run {earlier} is aborted; nobody was running it",
        "  targets  outcome      at",
        "        1  upgraded     r007",
        "        1  not started  r006",
        f"to take it back: orchestrate rollback {earlier}",
    ]


def test_a_live_run_is_asked_to_stop_and_its_runner_is_named(
    invoke: Invoke, project: FakeProject, earlier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Holder(operator="ann@build7", host="build7", pid=4711)
    monkeypatch.setattr(project.ledger, "live", lambda: Lease(token=2, holder=holder, run=earlier), raising=False)
    project.runs.live = True

    shown = invoke("abort", earlier).stdout
    document = json.loads(invoke("abort", earlier, "-o", "json").stdout)

    assert f"run {earlier} is asked to stop" in shown
    assert "ann@build7 ends it when what is at work has ended: process 4711 on build7" in shown
    at_once = invoke("abort", "--now", earlier).stdout
    assert f"run {earlier} is asked to stop at once: what is at work is cancelled" in at_once
    assert "ann@build7 ends it after that: process 4711 on build7" in at_once
    assert document["format"] == "orchestrate.abort/1"
    assert document["live"] is True
    assert document["runner"] == {"operator": "ann@build7", "host": "build7", "pid": 4711}


def test_the_runner_of_an_aborted_run_says_why_it_stops(invoke: Invoke, project: FakeProject) -> None:
    def abort(fake: FakeProject) -> None:
        fake.ran["stop"].drain(StopCause.ABORTED)
        halt = RunHalted(cause="interrupted", text="asked to stop (aborted)", in_flight=1, not_started=2)
        tell(fake.ran["listeners"], halt)

    project.during = abort

    assert "aborted by somebody else, see `orchestrate runs audit`: 1 running, 2 not started" in (
        invoke("upgrade", "-t", "acme").stderr
    )


def test_a_reconciliation_says_what_it_read_and_what_differs(invoke: Invoke, project: FakeProject) -> None:
    project.runs.read = tuple(outcome(f"t{n}", Status.UNCHANGED) for n in range(9))
    project.runs.differing = tuple(
        Differing(target=f"t{n}", recorded=("r007",) if n else None, found=("r006",)) for n in range(7)
    )
    project.runs.settled = ("r-20261122-110000-0001",)

    result = invoke("runs", "reconcile")

    assert result.exit_code == 0
    assert result.stdout.startswith("9 targets of 9 read\n\n7 targets elsewhere than the ledger said:\n")
    assert "  t0      nothing  r006\n  t1      r007     r006\n" in result.stdout
    assert "  and 2 more; -v shows them" in result.stdout
    assert "run r-20261122-110000-0001 had no runner left" in result.stdout
    assert "t6" in invoke("runs", "reconcile", "-v").stdout


def test_a_reconciliation_that_could_not_read_a_target_is_exit_code_one(invoke: Invoke, project: FakeProject) -> None:
    project.runs.read = (outcome("acme", Status.UNCHANGED), outcome("globex", Status.FAILED))

    result = invoke("runs", "reconcile")
    document = json.loads(invoke("runs", "reconcile", "-o", "json").stdout)

    assert result.exit_code == 1
    assert "1 target of 2 read" in result.stdout
    assert "1 target could not be read: globex" in result.stdout
    assert "none is elsewhere" in result.stdout
    assert document["unreadable"] == ["globex"]
    assert document["counts"]["unchanged"] == 1


def test_pruning_names_what_is_gone(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("runs", "prune", "--keep", "5", "--older-than", "90d", "--yes")

    assert result.stdout.startswith("1 run deleted from the ledger")
    assert "r-20260101-000000-0001" in result.stdout
    asked = project.runs.asked
    assert (asked["keep"], asked["older_than"].days) == (5, 90)
    assert json.loads(invoke("runs", "prune", "--yes", "-o", "json").stdout)["runs"] == ["r-20260101-000000-0001"]
    assert project.runs.asked == {"verb": "prune", "keep": 20, "older_than": None}


def test_pruning_asks(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("runs", "prune", "--older-than", "90d")

    assert result.exit_code == 2
    assert re.search(r"delete the closed runs of before \d{4}-.* UTC but the latest 20 from the ledger", result.stderr)
    assert not project.runs.asked


def test_an_age_that_is_none_is_refused(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("runs", "prune", "--older-than", "long", "--yes")

    assert result.exit_code == 2
    assert "'long' is not a duration" in result.stderr


def test_the_audit_table_is_a_line_per_action(invoke: Invoke, project: FakeProject) -> None:
    entry = AuditEntry(
        at=NOON, operator="ann@build7", host="build7", action="abort", run="r-1", detail={"now": True, "days": None}
    )
    project.runs.entries = (entry, entry, entry)

    assert invoke("runs", "audit", "--last", "1").stdout.splitlines() == [
        "  at                    operator    action  run  detail",
        "  2026-11-22T12:00:00Z  ann@build7  abort   r-1  now true",
    ]
    rows = json.loads(invoke("runs", "audit", "-o", "json").stdout)["entries"]
    assert len(rows) == 3
    assert rows[0]["detail"] == {"now": True, "days": None}
    project.runs.entries = ()
    assert invoke("runs", "audit").stdout == "nothing was done yet\n"


@pytest.mark.parametrize("verb", ["resume", "retry", "rollback", "abort"])
def test_the_shell_proposes_runs(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".orchestrate").mkdir()
    (tmp_path / ".orchestrate" / "completion.json").write_text('{"runs": ["r-2", "r-1"]}')
    monkeypatch.chdir(tmp_path)
    context = commands.make_context("orchestrate", [verb, "r-1"], resilient_parsing=True)
    command = commands.get_command(context, verb)
    assert command is not None
    argument = next(parameter for parameter in command.params if parameter.name == "run")

    assert [item.value for item in argument.shell_complete(context, "r-")] == ["r-2", "r-1"]

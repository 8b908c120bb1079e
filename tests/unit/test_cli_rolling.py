"""`upgrade`, `downgrade` and `stamp`: consent, the run, the report."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import pytest

from orchestrator.cli import terminals
from orchestrator.errors import LeaseHeld, LedgerError, SettingsError
from orchestrator.outcomes import Status
from orchestrator.plans import Command
from orchestrator.selectors import Selection
from tests.unit.cli_fakes import FakeProject, outcome, plan, skipped
from tests.unit.cli_runs import Invoke, invoke, project

__all__ = ["invoke", "project"]

ALL = Selection(everything=True)


def protect(project: FakeProject) -> None:
    project.registry.protected = True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminals, "is_interactive", lambda: True)


def test_an_upgrade_runs_and_reports(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("upgrade", "--all")

    assert result.exit_code == 0
    assert "3  upgraded" in result.stdout
    assert project.planned["command"] is Command.UPGRADE
    assert project.ran["executor"] == "processes"
    assert project.closed


def test_a_failed_target_makes_exit_code_one_and_says_what_to_type(invoke: Invoke, project: FakeProject) -> None:
    project.ends = {"globex": Status.FAILED}

    result = invoke("upgrade", "--all", "--executor", "inline")

    assert result.exit_code == 1
    assert "23505 UniqueViolation in revision r007" in result.stdout
    assert f"once mended: orchestrate retry {project.ledger.run().id}" in result.stdout
    assert project.ran["executor"] == "inline"


def test_json_leaves_standard_output_to_the_report(invoke: Invoke, project: FakeProject) -> None:
    project.notes = ("asyncpg was replaced by psycopg",)
    project.ends = {"globex": Status.FAILED}
    project.__post_init__()

    result = invoke("upgrade", "--all", "-o", "json")

    document = json.loads(result.stdout)
    assert document["format"] == "orchestrate.report/1"
    assert document["counts"]["failed"] == 1
    assert "asyncpg was replaced" in result.stderr
    run = document["run"]
    assert result.stderr.endswith(
        f"once mended: orchestrate retry {run}\nto take it back: orchestrate rollback {run}\n"
    )


def test_jsonl_streams_one_event_a_line(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("upgrade", "--all", "-o", "jsonl")

    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["type"] == "RunStarted"
    assert events[-1]["type"] == "RunFinished"
    assert [event["type"] for event in events].count("JobFinished") == 3
    assert all(event["format"] == "orchestrate.event/1" for event in events)


@pytest.mark.parametrize(("ends", "code"), [({}, 2), ({"globex": Status.FAILED}, 1)])
def test_a_stream_that_a_full_disk_cuts_short_is_said(
    invoke: Invoke, project: FakeProject, monkeypatch: pytest.MonkeyPatch, ends: dict[str, Status], code: int
) -> None:
    project.ends = ends

    def fail(*_: object) -> None:
        raise SettingsError("standard output cannot be written: No space left on device")

    monkeypatch.setattr(terminals.Screen, "raw", fail)
    result = invoke("upgrade", "--all", "-o", "jsonl")

    assert result.exit_code == code
    assert result.stderr.count("orchestrate: error: standard output cannot be written") == 1


def test_the_report_goes_to_a_file_as_well(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    result = invoke("upgrade", "--all", "--report", str(file))

    assert "3  upgraded" in result.stdout
    assert json.loads(file.read_text())["counts"]["upgraded"] == 3


def test_the_report_file_is_written_though_standard_output_fails(
    invoke: Invoke, project: FakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(terminals.Screen, "data", full)
    file = tmp_path / "report.json"

    assert invoke("upgrade", "--all", "--report", str(file)).exit_code != 0
    assert json.loads(file.read_text())["format"] == "orchestrate.report/1"


def test_the_report_is_written_even_when_the_run_breaks(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    def breaks(fake: FakeProject) -> None:
        raise LedgerError("the ledger cannot be written: disk full")

    project.during = breaks
    file = tmp_path / "report.json"

    result = invoke("upgrade", "--all", "--report", str(file))

    assert result.exit_code == 2
    assert "disk full" in result.stderr
    document = json.loads(file.read_text())
    assert (document["status"], document["exit_code"]) == ("interrupted", 2)
    assert document["counts"]["not_started"] == 3


def test_a_run_that_breaks_says_how_to_go_on(invoke: Invoke, project: FakeProject) -> None:
    def breaks(fake: FakeProject) -> None:
        raise LedgerError("the ledger cannot be written: disk full")

    project.during = breaks

    shown = invoke("upgrade", "--all").stdout

    assert shown.endswith(f"to go on: orchestrate resume {project.ledger.run().id}\n")


def test_silence_leaves_only_the_report(invoke: Invoke, project: FakeProject) -> None:
    project.ends = {"globex": Status.FAILED}

    assert "globex failed" in invoke("upgrade", "--all").stderr
    assert invoke("upgrade", "--all", "-q").stderr == ""


def test_a_dry_run_shows_the_plan_and_stops(invoke: Invoke, project: FakeProject) -> None:
    protect(project)

    result = invoke("downgrade", "-1", "--all", "--dry-run")

    assert result.exit_code == 0
    assert "3 targets from r006 to r007" in result.stdout
    assert not project.ran


def test_an_upgrade_does_not_ask(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("upgrade", "--all", typed="").exit_code == 0
    assert project.ran


@pytest.mark.parametrize("verb", ["downgrade", "stamp"])
def test_what_removes_needs_yes_without_a_terminal(invoke: Invoke, project: FakeProject, verb: str) -> None:
    result = invoke(verb, "r006", "--all")

    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert not project.ran
    assert invoke(verb, "r006", "--all", "--yes").exit_code == 0
    assert project.ran


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("typed", "code", "runs"), [("y\n", 0, True), ("n\n", 3, False), ("\n", 3, False)])
def test_a_person_is_asked_with_the_counts(
    invoke: Invoke, project: FakeProject, typed: str, code: int, runs: bool
) -> None:
    project.settled = (outcome("umbrella", Status.UNCHANGED),)

    result = invoke("downgrade", "-1", "--all", typed=typed)

    assert "downgrade 3 of 4 targets in billing staging to r007? [y/N]" in result.stderr
    assert result.exit_code == code
    assert bool(project.ran) is runs


@pytest.mark.usefixtures("terminal")
def test_nobody_is_asked_when_nothing_would_be_done(
    invoke: Invoke, project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "plan", lambda *_, **__: plan(settled=[skipped("acme")], command=Command.DOWNGRADE))

    assert invoke("downgrade", "-1", "--all").exit_code == 0


@pytest.mark.usefixtures("terminal")
def test_a_question_that_nobody_answers_ends_the_command(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("downgrade", "-1", "--all", typed="")

    assert result.exit_code == 130
    assert not project.ran


@pytest.mark.parametrize("verb", ["upgrade", "downgrade", "stamp"])
@pytest.mark.parametrize("words", [[], ["--yes"], ["--confirm", "production"]])
def test_a_protected_environment_must_be_named(
    invoke: Invoke, project: FakeProject, verb: str, words: list[str]
) -> None:
    protect(project)

    result = invoke(verb, "r006", "--all", *words)

    assert result.exit_code == 3
    assert "staging" in result.stderr
    assert not project.ran


def test_a_protected_environment_that_is_named_is_written_to(invoke: Invoke, project: FakeProject) -> None:
    protect(project)

    assert invoke("upgrade", "--all", "--confirm", "staging").exit_code == 0
    assert project.ran


def test_the_wrong_name_is_refused_where_nothing_is_protected(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("upgrade", "--all", "--confirm", "production").exit_code == 3
    assert not project.ran


def test_names_are_kept_for_completion(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    invoke("upgrade", "--all")

    kept = json.loads((tmp_path / ".orchestrate" / "completion.json").read_text())
    assert kept["tenants"] == ["acme", "globex", "initech"]
    assert kept["runs"] == [project.ledger.runs()[0].id]


def test_names_are_kept_before_a_run_can_be_killed(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    def look(fake: FakeProject) -> None:
        kept = json.loads((tmp_path / ".orchestrate" / "completion.json").read_text())
        assert kept["runs"] == [fake.ledger.runs()[0].id]

    project.during = look

    assert invoke("upgrade", "--all").exit_code == 0


def test_another_live_run_is_exit_code_three(invoke: Invoke, project: FakeProject) -> None:
    project.refusal = LeaseHeld("run r-1 of ann@build7 is live since 03:00; wait, or `orchestrate abort r-1`")

    result = invoke("upgrade", "--all")

    assert result.exit_code == 3
    assert "run r-1 of ann@build7 is live" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("verb", ["upgrade", "downgrade", "stamp"])
def test_orphans_are_ended_only_on_request(invoke: Invoke, project: FakeProject, verb: str) -> None:
    assert invoke(verb, "r006", "--all", "--yes").exit_code == 0
    assert project.ran["end_orphans"] is False
    assert invoke(verb, "r006", "--all", "--yes", "--end-orphans").exit_code == 0
    assert project.ran["end_orphans"] is True


def test_what_the_plan_has_to_say_is_said(
    invoke: Invoke, project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = dataclasses.replace(project.plan("head", command=Command.UPGRADE, selection=ALL), notes=("mind the gap",))
    monkeypatch.setattr(project, "plan", lambda *words, **more: noted)

    for command in (["upgrade", "--all"], ["plan"]):
        assert "note: mind the gap" in invoke(*command).stderr

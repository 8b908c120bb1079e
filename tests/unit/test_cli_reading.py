"""Commands that only read: status, plan, tenants, runs, doctor, revision, init."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.diagnosis import Check, Verdict
from orchestrator.outcomes import Status
from orchestrator.standings import Standing
from tests.unit.cli_fakes import PASSWORD, FakeProject, outcome, status_row, target
from tests.unit.cli_runs import Invoke, invoke, project

__all__ = ["invoke", "project"]

BEHIND = status_row("globex", Standing.BEHIND, heads=("r006",), behind_by=1)


@pytest.mark.parametrize(("rows", "code"), [((status_row("acme"),), 0), ((status_row("acme"), BEHIND), 5)])
def test_status_check_says_by_its_exit_code_whether_something_is_due(
    invoke: Invoke, project: FakeProject, rows: tuple, code: int
) -> None:
    project.rows = rows

    assert invoke("status").exit_code == 0
    assert invoke("status", "--check").exit_code == code


def test_status_as_json_and_as_lines(invoke: Invoke, project: FakeProject) -> None:
    project.rows = (status_row("acme"), BEHIND)

    document = json.loads(invoke("status", "-o", "json").stdout)
    rows = [json.loads(line) for line in invoke("status", "-o", "jsonl").stdout.splitlines()]

    assert document["format"] == "orchestrate.status/1"
    assert [row["target"] for row in rows] == ["acme", "globex"]
    assert document["targets"] == rows


def test_the_answer_of_a_reading_command_goes_to_the_report_file_too(
    invoke: Invoke, project: FakeProject, tmp_path: Path
) -> None:
    invoke("status", "--report", str(tmp_path / "s.json"))

    assert json.loads((tmp_path / "s.json").read_text())["format"] == "orchestrate.status/1"


@pytest.mark.parametrize("words", [["plan"], ["plan", "--sql"], ["upgrade", "--all", "--dry-run"]])
def test_a_plan_without_targets_that_cannot_be_read_ends_with_one(
    invoke: Invoke, project: FakeProject, words: list[str]
) -> None:
    project.settled = (outcome("initech", Status.SKIPPED),)
    assert invoke(*words).exit_code == 0

    project.settled = (outcome("initech", Status.FAILED),)
    assert invoke(*words).exit_code == 1


def test_a_plan_as_text_json_and_sql(invoke: Invoke, project: FakeProject) -> None:
    assert "3 targets from r006 to r007" in invoke("plan").stdout
    document = json.loads(invoke("plan", "-o", "json").stdout)
    assert document["format"] == "orchestrate.plan/1"
    assert document["digest"].startswith("sha256:")
    lines = [json.loads(line) for line in invoke("plan", "-o", "jsonl", "-t", "acme").stdout.splitlines()]
    assert [(line["type"], line["target"]) for line in lines] == [("Job", "acme")]
    sql = invoke("plan", "--sql").stdout
    assert sql.startswith("-- 3 targets from r006 to r007: r007\n--   acme, globex, initech\n")
    assert "CREATE TABLE t (id int);" in sql
    assert invoke("plan", "--sql", "-o", "json").exit_code == 2


def test_tenants_are_listed_without_secrets(invoke: Invoke, project: FakeProject) -> None:
    project.targets = (target("acme", labels={"region": "eu"}), target("globex"))

    shown = invoke("tenants", "list").stdout

    assert "acme    active  region=eu  db.internal:5432/saas schema tenant_acme" in shown
    for form in ("text", "json", "jsonl"):
        assert PASSWORD not in invoke("tenants", "list", "-o", form).stdout
        assert PASSWORD not in invoke("tenants", "show", "acme", "-o", form).stdout


def test_one_tenant_is_shown_with_all_its_databases(invoke: Invoke, project: FakeProject) -> None:
    project.targets = (target("acme", database="core"), target("acme", database="analytics", section="analytics"))

    shown = invoke("tenants", "show", "acme").stdout

    assert "acme/core" in shown
    assert "acme/analytics" in shown
    assert invoke("tenants", "show", "nobody").exit_code == 2


def test_a_forgotten_schema_makes_the_check_fail(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("tenants", "check").exit_code == 0
    project.forgotten = ["db.internal:5432/saas schema tenant_old"]

    result = invoke("tenants", "check")

    assert result.exit_code == 1
    assert "tenant_old" in result.stdout
    assert json.loads(invoke("tenants", "check", "-o", "json").stdout)["unregistered"] == project.forgotten


def test_runs_before_the_first_one(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("runs", "list").stdout == "no runs yet\n"
    assert invoke("runs", "show").exit_code == 2


def test_runs_are_listed_and_shown_as_they_were_reported(invoke: Invoke, project: FakeProject) -> None:
    project.ends = {"globex": Status.FAILED}
    told = invoke("upgrade", "--all").stdout
    run = project.ledger.runs()[0].id

    listed = invoke("runs", "list").stdout
    shown = invoke("runs", "show").stdout

    assert run in listed
    assert "2 upgraded, 1 failed" in listed
    assert shown.splitlines()[1:] == told.splitlines()[1:]
    assert json.loads(invoke("runs", "list", "-o", "json").stdout)["runs"][0]["run"] == run
    assert json.loads(invoke("runs", "show", run, "-o", "json").stdout)["counts"]["failed"] == 1


def test_a_targets_story_has_its_failure(invoke: Invoke, project: FakeProject) -> None:
    project.ends = {"globex": Status.FAILED}
    invoke("upgrade", "--all")

    shown = invoke("runs", "show", "--target", "globex").stdout

    assert "23505 UniqueViolation in revision r007" in shown
    assert 'CREATE UNIQUE INDEX "uq_users_email" ON users (email)' in shown
    assert invoke("runs", "show", "--target", "nobody").exit_code == 2


def test_the_doctors_findings_decide_its_exit_code(invoke: Invoke, project: FakeProject) -> None:
    project.checks = [Check(name="ledger", verdict=Verdict.OK, text="fine")]
    assert invoke("doctor").exit_code == 0
    project.checks.append(Check(name="server db:5432", verdict=Verdict.FAILED, text="refused", remedy="start it"))

    result = invoke("doctor")

    assert result.exit_code == 1
    assert "failed   server db:5432" in result.stdout
    assert "-> start it" in result.stdout


@pytest.mark.parametrize("words", [["doctor"], ["runs", "list"]])
def test_what_is_asked_when_the_registry_is_wrong_does_not_need_it(
    invoke: Invoke, project: FakeProject, words: list[str]
) -> None:
    del project.registry

    assert invoke(*words).exit_code == 0


def test_a_new_revision_prints_its_file(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("revision", "-m", "add a table", "--head", "r007", "--splice")

    assert result.stdout.strip().endswith("abc_message.py")
    assert project.revised["message"] == "add a table"
    assert (project.revised["options"].head, project.revised["options"].splice) == ("r007", True)


def test_autogenerate_compares_with_the_tenant_that_was_named(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("revision", "-m", "x", "--autogenerate", "-t", "acme")

    assert result.exit_code == 0
    assert project.revised["selection"].names == ("acme",)
    assert result.stdout == ""
    assert "nothing was written" in result.stderr


def test_revision_needs_a_message_and_a_reason_for_its_tenant(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("revision").exit_code == 2
    assert invoke("revision", "-m", "x", "-t", "acme").exit_code == 2


def test_init_shows_and_writes_only_with_yes(invoke: Invoke, tmp_path: Path) -> None:
    shown = invoke("init", str(tmp_path))

    assert shown.exit_code == 2
    assert "--yes" in shown.stderr
    assert "+++ b/tenants.yaml" in shown.stdout
    assert not list(tmp_path.iterdir())
    assert invoke("init", str(tmp_path), "--yes").exit_code == 0
    assert (tmp_path / "tenants.yaml").is_file()
    assert invoke("init", str(tmp_path)).exit_code == 0


def test_notes_of_the_registry_are_said_once_on_standard_error(invoke: Invoke, project: FakeProject) -> None:
    project.notes = ("asyncpg was replaced by psycopg",)
    project.__post_init__()

    result = invoke("status")

    assert result.stderr == "note: asyncpg was replaced by psycopg\n"
    assert invoke("status", "-q").stderr == ""

"""What the words on the command line add up to."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.options import Format
from orchestrator.selectors import Selection
from orchestrator.strategy import Budget
from tests.unit.cli_fakes import FakeProject
from tests.unit.cli_runs import Invoke, invoke, project

__all__ = ["invoke", "project"]


def test_common_options_may_stand_before_and_after_the_command(invoke: Invoke, project: FakeProject) -> None:
    words = ["-c", "a.ini", "-x", "one=1", "-f", "t.yaml", "status", "-c", "b.ini", "-x", "two=2", "-n", "analytics"]

    assert invoke(*words).exit_code == 0
    common = project.loaded_with
    assert (common.config, common.registry, common.section) == ("b.ini", "t.yaml", "analytics")
    assert common.x == ("one=1", "two=2")


def test_common_options_may_stand_between_a_group_and_its_command(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("tenants", "-o", "json", "list", "-q").exit_code == 0
    assert (project.loaded_with.output, project.loaded_with.quiet) == (Format.JSON, True)


def test_one_invocation_leaves_nothing_behind_for_the_next(invoke: Invoke, project: FakeProject) -> None:
    invoke("-x", "one=1", "-o", "json", "status")
    invoke("status")

    assert (project.loaded_with.x, project.loaded_with.output) == ((), Format.TEXT)


@pytest.mark.parametrize("name", ["r.htm", "r.txt", "r", "html"])
def test_a_report_with_an_ending_that_is_not_supported_is_refused(invoke: Invoke, name: str) -> None:
    result = invoke("upgrade", "--all", "--report", "good.json", "--report", name)

    assert result.exit_code == 2
    assert ".json, .html, .xml or .md" in result.stderr


@pytest.mark.parametrize("command", [["status"], ["runs", "reconcile"], ["abort"], ["tenants", "list"]])
def test_a_form_of_a_report_is_refused_where_there_is_no_report_of_a_run(
    invoke: Invoke, project: FakeProject, command: list[str], tmp_path: Path
) -> None:
    result = invoke("--report", str(tmp_path / "r.html"), *command)

    assert result.exit_code == 2
    assert f"the answer of `orchestrate {' '.join(command)}` is written as .json" in result.stderr
    assert project.loaded_with is None
    assert not list(tmp_path.iterdir())


def test_metrics_go_to_a_file_for_a_textfile_collector_only(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("upgrade", "--all", "--metrics", "r.txt")

    assert result.exit_code == 2
    assert "must end in .prom" in result.stderr
    assert not project.ran


def test_a_report_into_a_missing_folder_is_refused_before_any_work(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("upgrade", "--all", "--report", "/does/not/exist/r.json")

    assert result.exit_code == 2
    assert not project.ran


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--all"], Selection(everything=True)),
        (["-t", "acme", "--tenant", "globex"], Selection(names=("acme", "globex"))),
        (["-t", "acme, globex,"], Selection(names=("acme", "globex"))),
        (["-t", "a*", "--exclude", "acme,initech"], Selection(names=("a*",), exclude=("acme", "initech"))),
        (["-l", "region=eu"], Selection(labels="region=eu")),
        (["--selector", "tier!=free", "--all"], Selection(everything=True, labels="tier!=free")),
        (["--database", "core"], Selection(database="core")),
        (["--failed"], Selection(failed=("globex",))),
        (["--failed-in", "r-1"], Selection(failed=("initech",))),
        (["--all", "--limit", "10%"], Selection(everything=True, limit="10%")),
    ],
)
def test_targeting_flags_become_one_selection(
    invoke: Invoke, project: FakeProject, words: list[str], expected: Selection
) -> None:
    invoke("status", *words)

    assert project.planned["selection"] == expected


def test_a_run_without_failures_is_named_as_such(
    invoke: Invoke, project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "failed_targets", lambda run: ())

    for words, run in ((["--failed"], "the latest finished run"), (["--failed-in", "r-1"], "run r-1")):
        result = invoke("upgrade", *words)
        assert result.exit_code == 2
        assert f"no target failed in {run}" in result.stderr
    assert not project.ran


def test_names_come_from_a_file_or_standard_input(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("# today\nacme\n\n  globex  \n")

    invoke("status", "--from-file", str(file))
    assert project.planned["selection"].listed == ("acme", "globex")
    invoke("status", "--from-file", "-", typed="initech\n")
    assert project.planned["selection"].listed == ("initech",)


def test_a_file_of_names_that_cannot_be_read_is_a_usage_error(
    invoke: Invoke, project: FakeProject, tmp_path: Path
) -> None:
    binary = tmp_path / "names"
    binary.write_bytes(b"\xff\xfe\x00acme")

    assert invoke("status", "--from-file", str(tmp_path / "missing")).exit_code == 2
    assert invoke("status", "--from-file", str(binary)).exit_code == 2


@pytest.mark.parametrize("verb", ["upgrade", "downgrade", "stamp"])
@pytest.mark.parametrize("words", [[], ["--exclude", "acme"], ["--limit", "3"]])
def test_writing_commands_demand_a_target_and_say_what_to_type(
    invoke: Invoke, project: FakeProject, verb: str, words: list[str]
) -> None:
    result = invoke(verb, "r007", *words)

    assert result.exit_code == 2
    assert f"orchestrate {verb}" in result.stderr
    assert "--all" in result.stderr
    assert project.loaded_with is None


def test_reading_commands_default_to_all(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("status").exit_code == 0
    assert project.planned["selection"] == Selection()


@pytest.mark.parametrize("revision", ["-1", "-12", "+2", "base", "billing@-1", "ae10"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_relative_revisions_are_not_options(invoke: Invoke, project: FakeProject, revision: str, place: str) -> None:
    targets = ["-t", "acme", "--yes"]

    result = invoke("downgrade", *([revision, *targets] if place == "first" else [*targets, revision]))

    assert result.exit_code == 0
    assert project.planned["revision"] == revision


def test_a_value_that_looks_like_a_revision_stays_a_value(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("upgrade", "--all", "--concurrency", "-1")

    assert result.exit_code == 2
    assert "-1 is not in the range" in result.stderr


def test_an_unknown_option_is_still_an_error_with_a_suggestion(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("downgrade", "-1", "-t", "acme", "--keep-goin")

    assert result.exit_code == 2
    assert "--keep-going" in result.stderr
    assert invoke("downgrade", "-1", "-t", "acme", "-5x").exit_code == 2


def test_an_unknown_command_is_an_error(invoke: Invoke) -> None:
    assert invoke("upgarde").exit_code == 2


def test_planning_flags_reach_the_plan(invoke: Invoke, project: FakeProject) -> None:
    words = [
        "--strategy",
        "careful",
        "--concurrency",
        "3",
        "--max-failures",
        "2%",
        "--provision",
        "--allow-ahead",
        "--each",
    ]

    assert invoke("upgrade", "r007", "--all", *words).exit_code == 0
    planned = project.planned
    assert planned["revision"] == "r007"
    assert (planned["strategy"], planned["concurrency"], planned["max_failures"]) == ("careful", 3, Budget(percent=2))
    assert planned["provision"]
    assert planned["allow_ahead"]
    assert planned["each"]
    assert not planned["keep_going"]


@pytest.mark.parametrize("value", ["many", "-1", "101%", ""])
def test_a_budget_that_is_no_number_is_a_usage_error(invoke: Invoke, project: FakeProject, value: str) -> None:
    result = invoke("upgrade", "--all", "--max-failures", value)

    assert result.exit_code == 2
    assert not project.ran


def test_two_answers_to_how_many_failures_exclude_each_other(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("upgrade", "--all", "--keep-going", "--max-failures", "3")

    assert result.exit_code == 2
    assert "--max-failures" in result.stderr
    assert not project.ran

"""Where the command line writes a report: files of every form, GitHub Actions, gauges; at once and later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from orchestrator.cli import commands
from orchestrator.cli.groups import Reporting
from orchestrator.errors import LedgerError
from orchestrator.outcomes import Failure, FailureKind, Status
from tests.unit import cli_fakes
from tests.unit.cli_fakes import FakeProject
from tests.unit.cli_runs import Invoke, invoke, project
from tests.unit.test_cli_help import walk

__all__ = ["invoke", "project"]

#: how the file of each form begins
BEGINS = {".json": "{\n", ".html": "<!DOCTYPE html>\n", ".xml": "<?xml ", ".md": "## `upgrade to r007` "}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"report{ending}" for ending in BEGINS]


def asked(files: list[Path]) -> list[str]:
    return [word for file in files for word in ("--report", str(file))]


def vanishing(folder: Path) -> Callable[[FakeProject], None]:
    """A folder that is there when the command line is checked, and gone when a file is to be written."""
    folder.mkdir()

    def vanish(fake: FakeProject) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    return vanish


def check(files: list[Path]) -> None:
    for file in files:
        assert file.read_text().startswith(BEGINS[file.suffix])
        assert "acme" in file.read_text() or file.suffix == ".md"


def test_a_run_is_written_in_every_form_that_is_asked_for(
    invoke: Invoke, project: FakeProject, files: list[Path]
) -> None:
    result = invoke(*asked(files[:1]), "upgrade", "--all", *asked(files[1:]))

    assert result.exit_code == 0
    assert "3  upgraded" in result.stdout
    check(files)


def test_every_form_is_written_when_the_run_breaks(invoke: Invoke, project: FakeProject, files: list[Path]) -> None:
    def breaks(fake: FakeProject) -> None:
        raise LedgerError("the ledger cannot be written: disk full")

    project.during = breaks

    result = invoke("upgrade", "--all", *asked(files))

    assert result.exit_code == 2
    assert "disk full" in result.stderr
    check(files)
    assert len(ElementTree.parse(files[2]).findall(".//skipped")) == 3


@pytest.mark.parametrize(("ends", "exit_code"), [({}, 2), ({"globex": Status.FAILED}, 1)])
def test_a_file_that_cannot_be_written_hides_nothing(
    invoke: Invoke, project: FakeProject, files: list[Path], ends: dict[str, Status], exit_code: int
) -> None:
    project.ends = ends
    project.during = vanishing(files[0].parent / "sub")
    gone = files[0].parent / "sub" / "r.md"

    result = invoke("upgrade", "--all", "--report", str(gone), *asked(files))

    assert result.exit_code == exit_code
    assert "r.md: No such file or directory; name a file that can be written" in result.stderr
    assert f"{3 - len(ends)}  upgraded" in result.stdout
    check(files)


@pytest.mark.parametrize("ending", BEGINS)
def test_a_file_is_replaced_whole_and_can_be_read_by_others(
    invoke: Invoke, project: FakeProject, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"report{ending}"
    file.write_text("old " * 100_000)

    invoke("upgrade", "--all", "--report", str(file))

    assert "old " not in file.read_text()
    assert file.stat().st_mode & 0o444 == 0o444
    assert list(tmp_path.glob(".report*")) == []


def test_the_report_of_a_recorded_run_is_written_at_any_later_time(
    invoke: Invoke, project: FakeProject, files: list[Path]
) -> None:
    project.ends = {"globex": Status.FAILED}
    run = json.loads(invoke("upgrade", "--all", "-o", "json").stdout)["run"]

    result = invoke("runs", "report", run, *asked(files))

    assert result.exit_code == 0
    assert f"once mended: orchestrate retry {run}" in result.stdout
    check(files)
    assert json.loads(invoke("runs", "report", "-o", "json").stdout) == json.loads(files[0].read_text())
    assert [json.loads(line)["target"] for line in invoke("runs", "report", "-o", "jsonl").stdout.splitlines()]
    assert invoke("runs", "show", *asked(files)).exit_code == 0


def test_only_the_report_of_a_whole_run_has_forms(invoke: Invoke, project: FakeProject, files: list[Path]) -> None:
    invoke("upgrade", "--all")

    for words in (["upgrade", "--all", "--dry-run"], ["runs", "show", "--target", "acme"]):
        result = invoke(*words, *asked(files[:2]))
        assert result.exit_code == 2
        assert "report.html: only the report of a run has this form" in result.stderr
        assert json.loads(files[0].read_text())
        assert result.stdout


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_nothing_to_do_leaves_a_file_that_can_be_collected(
    invoke: Invoke, project: FakeProject, files: list[Path], verb: str
) -> None:
    assert invoke(verb, *asked(files)).exit_code == 0

    for file in files:
        assert f"nothing to {verb}" in file.read_text()
    assert ElementTree.parse(files[2]).getroot().get("tests") == "0"


def test_every_command_that_runs_answers_with_a_report() -> None:
    running = {
        " ".join(path): command
        for path, command in walk(commands)
        if any(parameter.name == "executor" for parameter in command.params)
    }

    assert {"upgrade", "resume", "rollback"} <= set(running)
    assert [name for name, command in running.items() if not isinstance(command, Reporting)] == []
    assert [name for name, command in running.items() if "metrics" not in names(command)] == []


def names(command: click.Command) -> set[str | None]:
    return {parameter.name for parameter in command.params}


# -- GitHub Actions ---------------------------------------------------------------------------------------------


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process is a step of a workflow, and its summary goes there."""
    file = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    return file


def test_github_is_told_beside_the_json(invoke: Invoke, project: FakeProject, summary: Path) -> None:
    project.ends = {"globex": Status.FAILED}

    result = invoke("upgrade", "--all", "-o", "json")

    assert json.loads(result.stdout)["counts"]["failed"] == 1
    told = [line for line in result.stderr.splitlines() if line.startswith("::")]
    assert [line.split("::")[1] for line in told] == ["error title=1 failed%3A 23505 UniqueViolation in revision r007"]
    assert summary.read_text().startswith("\n## `upgrade to r007` failed in 12 s")


def test_a_good_run_leaves_a_summary_and_no_annotation(invoke: Invoke, project: FakeProject, summary: Path) -> None:
    result = invoke("upgrade", "--all")

    assert "::" not in result.output
    assert "| 3 |" in summary.read_text()


def test_a_summary_that_cannot_be_written_fails_nothing(invoke: Invoke, project: FakeProject, summary: Path) -> None:
    summary.mkdir()

    result = invoke("upgrade", "--all")

    assert result.exit_code == 0
    assert "summary.md cannot be written: Is a directory" in result.stderr


def test_elsewhere_nobody_is_told(
    invoke: Invoke, project: FakeProject, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    project.ends = {"globex": Status.FAILED}

    assert "::" not in invoke("upgrade", "--all").output
    assert not summary.exists()


@pytest.mark.parametrize("output", ["text", "json", "jsonl"])
def test_no_text_of_a_database_is_a_command_to_the_runner(
    invoke: Invoke, project: FakeProject, summary: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = "::add-mask::a\n##[error]owned"
    failure = Failure(kind=FailureKind.PERMANENT, type="::error::x", message=owned, statement=owned, advice=owned)
    monkeypatch.setattr(cli_fakes, "UNIQUE", failure)
    project.ends = {"globex": Status.FAILED}

    result = invoke("upgrade", "--all", "-v", "-o", output)

    for line in result.output.splitlines():
        assert "##[" not in line
        if line.lstrip().startswith("::"):
            assert line.startswith("::error title=1 failed%3A %3A%3Aerror%3A%3Ax::")
    if output == "json":
        failures = [outcome["failure"] for outcome in json.loads(result.stdout)["outcomes"] if outcome["failure"]]
        assert [one["message"] for one in failures] == [owned]


# -- gauges -----------------------------------------------------------------------------------------------------


def test_gauges_go_to_the_file_of_the_option_or_of_the_environment(
    invoke: Invoke, project: FakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.ends = {"globex": Status.FAILED}
    monkeypatch.setenv("ORCHESTRATE_METRICS", str(tmp_path / "from_environment.prom"))

    invoke("upgrade", "--all")
    invoke("upgrade", "--all", "--metrics", str(tmp_path / "named.prom"))

    for name in ("from_environment.prom", "named.prom"):
        text = (tmp_path / name).read_text()
        assert (
            'orchestrate_targets{project="billing",environment="staging",command="upgrade",status="failed"} 1' in text
        )
        assert "last_success" not in text


def test_the_last_success_is_known_from_the_ledger(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    invoke("upgrade", "--all")
    finished = project.ledger.run().finished_at
    assert finished is not None
    project.ends = {"globex": Status.FAILED}

    invoke("upgrade", "--all", "--metrics", str(tmp_path / "run.prom"))

    lines = (tmp_path / "run.prom").read_text().splitlines()
    told = [line for line in lines if line.startswith("orchestrate_last_success_timestamp_seconds{")]
    assert [float(line.split()[-1]) for line in told] == [round(finished.timestamp(), 3)]


def test_gauges_that_cannot_be_written_hide_no_report(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    project.during = vanishing(tmp_path / "sub")
    file = tmp_path / "report.json"

    result = invoke("upgrade", "--all", "--metrics", str(tmp_path / "sub" / "run.prom"), "--report", str(file))

    assert result.exit_code == 2
    assert "--metrics" in result.stderr
    assert "3  upgraded" in result.stdout
    assert json.loads(file.read_text())["exit_code"] == 0

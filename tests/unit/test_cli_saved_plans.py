"""`plan --out`, `plan --diff`, `upgrade --plan` and `--approve-digest`."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator import plan_files
from orchestrator.differences import Difference, Kind
from orchestrator.plans import Command, Plan
from orchestrator.selectors import Selection
from tests.unit.cli_fakes import FakeProject, job, plan
from tests.unit.cli_runs import Invoke, invoke, project

__all__ = ["invoke", "project"]

LEFT = Difference(kind=Kind.LEFT, text="1 target left: globex", targets=("globex",))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "plan.json", plan(job("acme"), job("globex")))


def save(path: Path, made: Plan, **changes: Any) -> Path:
    path.write_text(whole(made, **changes))
    return path


def whole(made: Plan | None = None, **changes: Any) -> str:
    document = plan_files.document(made or plan(job("acme")), operator="ada@host", sql=[])
    return plan_files.text({**document, **changes})


def test_a_plan_goes_to_a_file_whole(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"

    result = invoke("plan", "--out", str(file))

    assert result.exit_code == 0
    assert "3 targets from r006 to r007" in result.stdout
    document = json.loads(file.read_text())
    assert (document["format"], document["made_by"], document["sql"]) == ("orchestrate.plan/1", "ada@host", [])
    shown = json.loads(invoke("plan", "-o", "json").stdout)
    assert {**shown, "made_at": None} == {**document, "made_at": None}
    assert plan_files.read(file).digest == document["digest"]
    assert [path.name for path in tmp_path.iterdir() if "plan" in path.name] == ["plan.json"]


def test_links_and_devices_stay_what_they_are(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    real, link, pipe = (tmp_path / name for name in (f"{'r' * 250}.json", "link.json", "pipe"))
    link.symlink_to(real)
    os.mkfifo(pipe)
    # As somebody who reads the pipe: what is written waits in it.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (link, pipe):
            assert invoke("plan", "--out", str(path)).exit_code == 0
        assert json.loads(os.read(reader, 65536))["format"] == "orchestrate.plan/1"
    finally:
        os.close(reader)

    assert plan_files.read(link).digest == plan_files.read(real).digest
    assert link.is_symlink()
    assert pipe.is_fifo()


def test_a_folder_that_is_not_there_is_said_at_once(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("plan", "--out", "nowhere/plan.json")
    assert result.exit_code == 2
    assert "the folder does not exist" in result.stderr
    assert project.loaded_with is None


def test_a_saved_plan_is_run_as_it_is(invoke: Invoke, project: FakeProject, saved: Path) -> None:
    result = invoke("upgrade", "--plan", str(saved), "--executor", "inline")

    assert result.exit_code == 0
    assert "2  upgraded" in result.stdout
    assert project.planned == {}
    assert project.ran["plan"].digest == plan_files.read(saved).digest
    assert project.ran["approved"] is None


def test_a_stale_plan_is_refused_with_what_changed(invoke: Invoke, project: FakeProject, saved: Path) -> None:
    project.changes = (LEFT,)

    result = invoke("upgrade", "--plan", str(saved))

    assert result.exit_code == 3
    assert "the plan is stale: what it rests on has changed" in result.stderr
    assert "1 target left: globex" in result.stderr
    assert project.ran == {}


def test_a_saved_plan_can_be_shown_without_being_run(invoke: Invoke, project: FakeProject, saved: Path) -> None:
    result = invoke("upgrade", "--plan", str(saved), "--dry-run")
    assert (result.exit_code, project.ran) == (0, {})
    assert "2 targets from r006 to r007" in result.stdout


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["r003"], "REVISION"),
        (["--all"], "--all"),
        (["-t", "acme"], "--tenant"),
        (["--limit", "3"], "--limit"),
        (["--strategy", "fast"], "--strategy"),
        (["--keep-going"], "--keep-going"),
        (["--provision"], "--provision"),
    ],
)
def test_a_saved_plan_has_been_asked_for_already(
    invoke: Invoke, project: FakeProject, saved: Path, words: list[str], name: str
) -> None:
    for command in (["upgrade", "--plan", str(saved)], ["plan", "--diff", str(saved)]):
        result = invoke(*command, *words)
        assert result.exit_code == 2, result.output
        assert f"leave out {name}" in result.stderr
    assert project.ran == {}


def test_only_an_upgrade_is_run_from_a_file(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    file = save(tmp_path / "plan.json", plan(job("acme", command=Command.DOWNGRADE)))
    result = invoke("upgrade", "--plan", str(file))
    assert result.exit_code == 2
    assert "the plan of a downgrade" in result.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("", "plan.json:1:1: Expecting value"),
        ('{"format": "orchestrate.plan/1",\n "waves": [', "plan.json:2:12: Expecting value"),
        ("[]", "not a plan of format orchestrate.plan/1"),
        ('{"format": "orchestrate.report/1"}', "but orchestrate.report/1"),
        ('{"format": "orchestrate.plan/1"}', "not a whole plan"),
        (b"\xff", "not UTF-8 text at byte 0"),
        (whole(deadline="@").replace('"@"', "1" * 5000), "plan.json: "),
        (whole(deadline="@").replace('"@"', "NaN"), "NaN is no number"),
        (whole(sweep="@").replace('"@"', '{"a": ' * 900 + "1" + "}" * 900), "lists within lists without end"),
        (whole(dataclasses.replace(plan(job("acme")), asked=5)), "`asked` is no text"),
        (whole()[:-3] + ',\n"waves": []}', "key `waves` stands there twice"),
    ],
)
def test_what_is_no_plan_is_said_with_its_place(
    invoke: Invoke, project: FakeProject, tmp_path: Path, content: str | bytes | None, says: str
) -> None:
    file = tmp_path / "plan.json"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    for command in ("upgrade", "plan"):
        result = invoke(command, "--plan" if command == "upgrade" else "--diff", str(file))
        assert result.exit_code == 2
        assert says in result.stderr
        assert "plan.json" in result.stderr


def test_a_file_that_somebody_changed_is_refused(invoke: Invoke, project: FakeProject, tmp_path: Path) -> None:
    file = save(tmp_path / "plan.json", plan(job("acme")), max_failures=99)
    result = invoke("upgrade", "--plan", str(file))
    assert result.exit_code == 2
    assert "key `digest`" in result.stderr
    whole = save(tmp_path / "plan.json", plan(job("acme"))).read_text()
    for end in range(0, len(whole) - 2, 97):
        file.write_text(whole[:end])
        assert invoke("upgrade", "--plan", str(file)).exit_code == 2
    assert project.ran == {}


def test_the_approved_digest_is_the_only_one_that_runs(invoke: Invoke, project: FakeProject) -> None:
    made = project.plan("head", command=Command.UPGRADE, selection=Selection(everything=True))

    refused = invoke("upgrade", "--all", "--approve-digest", "sha256:" + "0" * 64)
    assert refused.exit_code == 3
    assert made.digest in refused.stderr
    assert project.ran == {}
    assert invoke("upgrade", "--all", "--approve-digest", "sha256:0000").exit_code == 2

    for digest in (made.digest, made.digest[: len("sha256:") + 12], made.digest.removeprefix("sha256:")):
        assert invoke("upgrade", "--all", "--approve-digest", digest).exit_code == 0
        assert made.digest.startswith(project.ran["approved"])


def test_an_approval_stands_for_the_name_of_a_protected_environment(
    invoke: Invoke, project: FakeProject, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.registry.protected = True
    digest = plan_files.read(saved).digest
    assert invoke("upgrade", "--plan", str(saved), "--yes").exit_code == 3
    assert invoke("upgrade", "--plan", str(saved), "--approve-digest", "a" * 64).exit_code == 3
    assert invoke("upgrade", "--plan", str(saved), "--approve-digest", digest, "--confirm", "other").exit_code == 3
    assert project.ran == {}
    monkeypatch.setenv("ORCHESTRATE_APPROVED_DIGEST", digest)
    assert invoke("upgrade", "--plan", str(saved)).exit_code == 0
    assert project.ran["approved"] == digest


def test_what_changed_since_a_plan_is_shown(invoke: Invoke, project: FakeProject, saved: Path) -> None:
    assert "nothing has changed since" in invoke("plan", "--diff", str(saved), "--check").stdout
    project.changes = (LEFT, dataclasses.replace(LEFT, text="env.py changed", targets=(), kind=Kind.FILES))

    result = invoke("plan", "--diff", str(saved))

    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == ["  1 target left: globex", "  env.py changed"]
    assert invoke("plan", "--diff", str(saved), "--check").exit_code == 5
    document = json.loads(invoke("plan", "--diff", str(saved), "-o", "json").stdout)
    assert document["format"] == "orchestrate.plan_diff/1"
    assert document["differences"][0] == LEFT.to_json()
    assert (document["then"], document["now"]) == (plan_files.read(saved).digest, None)


@pytest.mark.parametrize("words", [["--check"], ["--sql", "--out", "x.json"], ["--diff", "x.json", "--out", "y.json"]])
def test_options_that_make_no_sense_together_are_refused(
    invoke: Invoke, project: FakeProject, words: list[str]
) -> None:
    assert invoke("plan", *words).exit_code == 2
    assert project.loaded_with is None

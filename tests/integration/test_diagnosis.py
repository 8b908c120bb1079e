"""What `doctor` finds on a real project, the broken ones included."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import Project
from orchestrator.diagnosis import Verdict
from tests import histories

TENANTS = 'version: 1\ndefaults: {url: "sqlite:///db/{tenant}.db"}\ntenants: {acme: {}}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=2)
    return tmp_path


def verdicts(folder: Path, text: str, ledger: str | None = None) -> dict[str, Verdict]:
    (folder / "tenants.yaml").write_text(text)
    with Project.load(folder / "alembic.ini", ledger=ledger) as project:
        return {check.name: check.verdict for check in project.doctor()}


def test_a_sound_project(folder: Path) -> None:
    found = verdicts(folder, TENANTS)
    assert list(found) == ["tenants.yaml", "revisions [alembic]", "ledger", "fleet size", "server sqlite"]
    assert set(found.values()) == {Verdict.OK}
    assert not (folder / ".orchestrate").exists()


def test_the_command_of_a_gate_must_be_there_and_executable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "smoke").write_text("#!/bin/sh\n")
    monkeypatch.setenv("CHECKS", ".")
    waves = [
        f"{{name: {name}, size: 1, gate: {{command: ['{program}', '--quick']}}}}"
        for name, program in {"a": "${CHECKS}/smoke", "b": "true", "c": "./absent", "d": "no-such-program"}.items()
    ]
    text = f"{TENANTS}strategies: {{careful: {{waves: [{', '.join(waves)}, {{name: e}}]}}}}\n"

    plain = gates(verdicts(folder, text))
    (folder / "smoke").chmod(0o755)
    executable = gates(verdicts(folder, text))

    assert plain == {"a": Verdict.FAILED, "b": Verdict.OK, "c": Verdict.FAILED, "d": Verdict.FAILED}
    assert executable == plain | {"a": Verdict.OK}


def gates(found: dict[str, Verdict]) -> dict[str, Verdict]:
    prefix = "gate careful/"
    return {name.removeprefix(prefix): verdict for name, verdict in found.items() if name.startswith(prefix)}


def test_a_registry_that_is_wrong_is_a_finding(folder: Path) -> None:
    assert verdicts(folder, TENANTS + "sources: [{type: command, run: ['false']}]\n") == {
        "tenants.yaml": Verdict.FAILED
    }


def test_a_ledger_that_is_away_does_not_hide_the_servers(folder: Path) -> None:
    found = verdicts(folder, TENANTS, ledger="postgresql+psycopg://nobody@127.0.0.1:1/ledger")
    assert found["ledger"] is Verdict.FAILED
    assert found["server sqlite"] is Verdict.OK

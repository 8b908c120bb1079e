"""What Tab proposes, and what it must not touch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from orchestrator.cli import commands, suggestions
from tests.unit.cli_runs import Invoke, invoke

__all__ = ["invoke"]

REGISTRY = """\
version: 1
defaults:
    url: x
tenants:            # ours
  acme: {labels: {region: eu}}
  # globex: gone
  initech:
    databases:
      core: {url: x}
  "hooli": {}
sources:
  - {type: command, run: ["touch", "was-run"]}
strategies:
  careful: {max_failures: 2%}
"""


def proposed(*words: str, incomplete: str = "") -> list[str]:
    shell = ShellComplete(commands, {}, "orchestrate", "_ORCHESTRATE_COMPLETE")
    return [item.value for item in shell.get_completions(list(words), incomplete)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tenants.yaml").write_text(REGISTRY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCHESTRATE_REGISTRY", raising=False)
    return tmp_path


def test_commands_and_options_are_proposed(folder: Path) -> None:
    assert proposed(incomplete="up") == ["upgrade"]
    assert proposed("runs", incomplete="s") == ["show"]
    assert proposed("upgrade", incomplete="--keep") == ["--keep-going"]
    assert proposed("-o", incomplete="json") == ["json", "jsonl"]


def test_tenants_come_from_the_registry_and_the_cache(folder: Path) -> None:
    suggestions.remember(folder, tenants=["from-a-source", "acme"])

    assert proposed("status", "-t") == ["acme", "from-a-source", "hooli", "initech"]
    assert proposed("tenants", "show", incomplete="i") == ["initech"]
    assert not (folder / "was-run").exists()


def test_names_after_a_comma_are_proposed_too(folder: Path) -> None:
    assert proposed("upgrade", "-t", incomplete="acme,in") == ["acme,initech"]


def test_the_registry_may_be_named_on_the_line(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)

    assert proposed("-f", str(folder / "tenants.yaml"), "status", "-t", incomplete="a") == ["acme"]
    assert proposed("-c", str(folder / "alembic.ini"), "status", "-t", incomplete="a") == ["acme"]
    assert proposed("status", "-t", incomplete="a") == []


def test_strategies_and_runs_are_proposed(folder: Path) -> None:
    suggestions.remember(folder, runs=["r-2", "r-1"])

    assert proposed("upgrade", "--strategy") == ["careful", "default"]
    assert proposed("runs", "show") == ["r-2", "r-1"]


def test_names_that_were_kept_survive_the_next_command(folder: Path) -> None:
    suggestions.remember(folder, tenants=["b"], runs=["r-1"])
    suggestions.remember(folder, tenants=["a"])

    kept = json.loads((folder / ".orchestrate" / "completion.json").read_text())
    assert kept == {"tenants": ["a"], "runs": ["r-1"]}


@pytest.mark.parametrize("text", ["", "not json", "[]"])
def test_a_broken_cache_proposes_nothing_and_is_mended(folder: Path, text: str) -> None:
    (folder / ".orchestrate").mkdir()
    (folder / ".orchestrate" / "completion.json").write_text(text)

    assert proposed("runs", "show") == []
    suggestions.remember(folder, runs=["r-1"])
    assert proposed("runs", "show") == ["r-1"]


def test_a_folder_that_cannot_be_written_costs_nothing_else(folder: Path) -> None:
    (folder / ".orchestrate").write_text("a file where the folder should be")

    suggestions.remember(folder, tenants=["acme"])

    assert proposed("runs", "show") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(invoke: Invoke, shell: str) -> None:
    result = invoke("completion", shell)

    assert result.exit_code == 0
    assert "_ORCHESTRATE_COMPLETE" in result.stdout


def test_the_script_for_bash_is_one(invoke: Invoke) -> None:
    script = invoke("completion", "bash").stdout

    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_another_shell_is_a_usage_error(invoke: Invoke) -> None:
    assert invoke("completion", "tcsh").exit_code == 2

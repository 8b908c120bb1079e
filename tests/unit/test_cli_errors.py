"""How errors end: one message, one exit code, no secret, no traceback unless asked for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from orchestrator.cli import options
from orchestrator.errors import OrchestratorError, Problem, Refused, RegistryError, ScriptsError
from tests.unit.cli_runs import Invoke, invoke

__all__ = ["invoke"]

SECRET = "postgresql://app:hunter2@db.internal/saas"


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Any:
    def prepare(error: BaseException) -> None:
        def load(common: options.Common) -> None:
            raise error

        monkeypatch.setattr(options, "load_project", load)

    return prepare


@pytest.mark.parametrize(("error", "code"), [(OrchestratorError("no"), 2), (ScriptsError("no"), 2), (Refused("no"), 3)])
def test_our_errors_are_one_line_with_their_exit_code(
    invoke: Invoke, raising: Any, error: OrchestratorError, code: int
) -> None:
    raising(error)

    result = invoke("status")

    assert result.exit_code == code
    assert result.stderr == "orchestrate: error: no\n"
    assert result.stdout == ""


def test_several_problems_are_one_line_each(invoke: Invoke, raising: Any) -> None:
    raising(RegistryError([Problem(place="tenants.yaml:1:1", text="a"), Problem(place="tenants.yaml:2:1", text="b")]))

    lines = invoke("status").stderr.splitlines()

    assert lines == ["orchestrate: error: tenants.yaml:1:1: a", "orchestrate: error: tenants.yaml:2:1: b"]


def test_an_unexpected_error_is_an_internal_one(invoke: Invoke, raising: Any) -> None:
    raising(ValueError(f"cannot parse {SECRET}\nwith a second line"))

    result = invoke("status")

    assert result.exit_code == 70
    assert result.stderr.startswith("orchestrate: error: internal error: ValueError at test_cli_errors.py:")
    assert "run with -v for the traceback" in result.stderr
    assert "Traceback" not in result.stderr
    assert "second line" not in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("words", [["-v", "status"], ["status", "-v"]])
def test_the_traceback_is_there_when_asked_for_without_secrets(invoke: Invoke, raising: Any, words: list[str]) -> None:
    raising(ValueError(f"cannot parse {SECRET}"))

    result = invoke(*words)

    assert "Traceback" in result.stderr
    assert "hunter2" not in result.stderr


def test_ctrl_c_outside_a_run_is_130(invoke: Invoke, raising: Any) -> None:
    raising(KeyboardInterrupt())

    result = invoke("status")

    assert result.exit_code == 130
    assert result.stderr == "orchestrate: error: interrupted; nothing was written\n"


def test_control_characters_in_a_message_are_shown_not_obeyed(invoke: Invoke, raising: Any) -> None:
    raising(Refused("tenant `ac\x1b[2Jme\u202e` is odd\rreally"))

    stderr = invoke("status").stderr

    assert "\x1b" not in stderr
    assert "\u202e" not in stderr
    assert r"ac\x1b[2Jme\u202e` is odd\rreally" in stderr


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    code = (
        "from orchestrator.cli import commands, main, options\n"
        "import sys\n"
        "def load(common):\n"
        "    for _ in range(100_000): print('x' * 80)\n"
        "options.load_project = load\n"
        "sys.argv = ['orchestrate', 'status']\n"
        "main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 141

    assert errors == b""

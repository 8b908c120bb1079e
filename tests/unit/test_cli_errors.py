"""How errors end: one message, one exit code, no secret, no traceback unless asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
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


def test_code_of_others_cannot_end_a_command_as_a_success(invoke: Invoke, raising: Any) -> None:
    raising(SystemExit(0))

    result = invoke("status")

    assert result.exit_code == 70
    assert "internal error: SystemExit" in result.stderr


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


def test_the_traceback_holds_no_row_of_the_customer(invoke: Invoke, raising: Any) -> None:
    raising(RuntimeError("not unique\nDETAIL:  Key (email)=(" + "ada@" + "example.com) already exists."))

    result = invoke("-v", "status")

    assert "Traceback" in result.stderr
    assert "example.com) already" not in result.stderr


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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("completion bash", 0), ("status -c nowhere.ini", 2)])
def test_a_closed_stream_changes_no_exit_code(tmp_path: Path, closed: str, words: str, code: int) -> None:
    line = f'exec "$0" -c "from orchestrator.cli import main; main()" {words} {closed}'

    assert subprocess.run(["sh", "-c", line, sys.executable], cwd=tmp_path, check=False).returncode == code


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys; from orchestrator.cli import terminals; terminals.open_closed_streams();"
        "file = open('database', 'w'); subprocess.run(['sh', '-c', 'echo stray >&2; echo stray']);"
        "print('lost'); print('lost', file=sys.stderr); file.write(str(file.fileno()))"
    )

    subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program], cwd=tmp_path, check=True)

    assert int((tmp_path / "database").read_text()) > 2


def test_a_full_disk_behind_standard_output_is_said(tmp_path: Path) -> None:
    line = 'exec "$0" -c "from orchestrator.cli import main; main()" completion bash > /dev/full'

    ended = subprocess.run(["sh", "-c", line, sys.executable], stderr=subprocess.PIPE, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr == (
        "orchestrate: error: standard output cannot be written: No space left on device; send it somewhere else\n"
    )

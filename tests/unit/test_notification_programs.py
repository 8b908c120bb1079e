"""Notifications by a command: what it gets, and what becomes of one that fails or does not end."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from orchestrator import redaction
from orchestrator.notifications import Undelivered
from orchestrator.notifications.programs import Program
from tests.unit.receivers import is_running, program, send, wait_for
from tests.unit.test_notifications import RUN


def test_a_command_gets_the_body_and_what_it_is_about(tmp_path: Path) -> None:
    page = program(tmp_path, 'cat > got.json; echo "$1 $ORCHESTRATE_RUN $ORCHESTRATE_EVENT $ORCHESTRATE_PROJECT '
                   '$ORCHESTRATE_ENVIRONMENT $ORCHESTRATE_STATUS" > said', "a; b")  # fmt: skip
    assert page.flaw() is None
    send(page)
    assert json.loads((tmp_path / "got.json").read_text())["run"] == RUN
    assert (tmp_path / "said").read_text() == f"a; b {RUN} started billing test running\n"


def test_a_command_that_fails_says_why_itself(tmp_path: Path) -> None:
    redaction.remember("sesame-4711")
    try:
        with pytest.raises(Undelivered) as caught:
            send(program(tmp_path, "echo pager sesame-4711 is away >&2; exit 3"))
    finally:
        redaction.forget()
    assert str(caught.value) == "it ended with status 3: pager *** is away"


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    absent = Program(name="`./nothing`", arguments=("./nothing",), folder=tmp_path)
    with pytest.raises(Undelivered, match="it cannot be started: No such file"):
        send(absent)
    assert "there is no such program" in (absent.flaw() or "")
    assert Program(name="`sh`", arguments=("sh",), folder=tmp_path).flaw() is None


def test_a_command_that_takes_too_long_ends_with_its_children(tmp_path: Path) -> None:
    page = program(tmp_path, "sleep 60 &\necho $! > child\nwait")
    with pytest.raises(Undelivered, match=r"it took longer than 0.5 s and was ended"):
        send(page, seconds=0.5)
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not is_running(child))


def test_a_command_that_leaves_a_child_behind_is_not_waited_for(tmp_path: Path) -> None:
    before = time.monotonic()
    send(program(tmp_path, "sleep 20 &\necho $! > child"))
    assert time.monotonic() - before < 5
    os.kill(int((tmp_path / "child").read_text()), 9)

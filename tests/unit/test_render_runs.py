"""Runs from the ledger, and one target's story."""

from __future__ import annotations

import dataclasses

from orchestrator.cli.render_runs import runs_lines, story_document, story_lines
from orchestrator.errors import ExitCode
from orchestrator.ledger.protocol import Attempt, Run
from orchestrator.outcomes import RunStatus, Status
from orchestrator.plans import Command
from tests.unit.cli_fakes import NOON, UNIQUE, outcome, report

RUN = Run(
    id="r-20261122-120000-4f2a",
    project="billing",
    environment="staging",
    command=Command.UPGRADE,
    revision=("r007",),
    strategy="default",
    plan_digest="sha256:0",
    operator="ada@host",
    status=RunStatus.FAILED,
    exit_code=ExitCode.FAILURES,
    started_at=NOON,
    size=1200,
    fleet=1200,
    counts={"upgraded": 1199, "failed": 1, "lost": 0},
)
RECORD = {
    "time": "2026-11-22T12:00:01.000Z",
    "level": "ERROR",
    "run": RUN.id,
    "target": "acme",
    "revision": "r007",
    "message": "failed",
    "exception": {"type": "IntegrityError", "traceback": "Traceback\n  secret"},
}


def test_a_run_is_one_line() -> None:
    assert [line.text for line in runs_lines([RUN])] == [
        "  run                     command          status  targets  outcomes",
        "  r-20261122-120000-4f2a  upgrade to r007  failed    1,200  1,199 upgraded, 1 failed",
    ]


def test_a_run_without_a_goal_names_its_command_only() -> None:
    lines = [line.text for line in runs_lines([dataclasses.replace(RUN, revision=())])]

    assert "  upgrade  failed" in lines[1]


def test_a_story_tells_each_try_and_the_log_in_short() -> None:
    failed = outcome("acme", Status.FAILED, found=("r006",), wanted=("r007",), at=("r006",), failure=UNIQUE)
    attempts = [Attempt(number=1, started_at=NOON), Attempt(number=2, started_at=NOON, outcome=failed)]

    story = story_document(report(failed), failed, attempts, [RECORD])
    text = "\n".join(line.text for line in story_lines(story, width=80))

    assert text.startswith("acme in run r-20261122-120000-4f2a: failed\n  from  r006\n  to    r007\n  at    r006\n")
    assert "try 1, 2026-11-22T12:00:00.000Z: never ended" in text
    assert "try 2, 2026-11-22T12:00:00.000Z: failed" in text
    assert "2026-11-22T12:00:01.000Z ERROR r007 failed (IntegrityError)" in text
    assert "secret" not in text
    assert story["log"] == [RECORD]


def test_a_run_that_stopped_says_how_to_go_on() -> None:
    stopped = [dataclasses.replace(RUN, status=status) for status in (RunStatus.INTERRUPTED, RunStatus.HALTED)]
    shown = [line.text for line in runs_lines([*stopped, RUN])]

    assert shown[-2:] == [
        f"run {RUN.id} is interrupted; to go on: orchestrate resume {RUN.id}",
        f"run {RUN.id} is halted; see why: orchestrate runs show {RUN.id}",
    ]


def test_a_rollback_is_listed_with_the_run_that_it_takes_back() -> None:
    child = dataclasses.replace(RUN, command=Command.DOWNGRADE, revision=("r006",), parent="r-20261122-110000-0001")

    assert "downgrade to r006, takes back r-20261122-110000-0001" in [line.text for line in runs_lines([child])][1]

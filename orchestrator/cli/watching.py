"""`orchestrate runs watch`: a run as its ledger tells it, from another terminal or another machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestrator.cli import documents, live, progress
from orchestrator.cli.following import Follower
from orchestrator.cli.options import Common, Format
from orchestrator.cli.render_report import report_lines
from orchestrator.cli.terminals import Mood
from orchestrator.errors import ExitCode, LedgerError, UsageError
from orchestrator.outcomes import RunStatus
from orchestrator.redaction import scrub

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger, Run
    from orchestrator.project import Project

SECONDS_BETWEEN_LOOKS = 1.0
#: looks that may fail one after the other: a server of the ledger that starts anew takes some seconds
MOST_FAILED_LOOKS = 60
HINT = "Ctrl-C: watch no longer, the run goes on"


def watch(common: Common, project: Project, named: str | None, wait: Callable[[float], None] = time.sleep) -> int:
    """Show the run until it ends, then its report; returns the exit code of the run."""
    ledger = project.ledger_if_any()
    if ledger is None:
        raise UsageError("no run has been recorded yet")
    run = _meant(ledger, named)
    try:
        if not _is_over(ledger, run):
            with progress.shown(common.screen, hint=HINT, lines=live.streams(common)) as shown:
                _follow(common, ledger, Follower(ledger, run.id, shown), shown, wait)
    except KeyboardInterrupt:
        common.screen.say(f"run {run.id} goes on; to look again: orchestrate runs watch {run.id}", Mood.WARNING)
        return ExitCode.INTERRUPTED
    report = project.report(run.id)
    document = report.to_json()
    lines = report_lines(report, live.view(common))
    documents.answer(common, document=document, rows=[{**document, "outcomes": []}], lines=lines, report=report)
    return report.exit_code


def _meant(ledger: Ledger, named: str | None) -> Run:
    """The run of that name, else the live one, else the latest that is open, else the latest."""
    lease = ledger.live()
    if named is None and lease is not None and lease.run is not None:
        return ledger.run(lease.run)
    found = ledger.open_runs() if named is None else ()
    return found[0] if found else ledger.run(named)


def _follow(
    common: Common, ledger: Ledger, follower: Follower, shown: progress.Progress, wait: Callable[[float], None]
) -> None:
    before: dict[str, Any] = {}
    failed = 0
    while True:
        try:
            is_over = _is_over(ledger, follower.look())
            failed = 0
        except LedgerError as error:
            is_over, failed = False, failed + 1
            if failed == 1:
                shown.announce(f"{scrub(str(error))}; trying again")
            if failed > MOST_FAILED_LOOKS:
                raise
        if common.output is Format.JSONL:
            before = _stream(common, shown, before)
        if is_over:
            return
        wait(SECONDS_BETWEEN_LOOKS)


def _is_over(ledger: Ledger, run: Run) -> bool:
    """Whether nobody drives the run any more: one that waits for a person may do so with or without its runner."""
    if run.status is RunStatus.PAUSED:
        lease = ledger.live()
        return lease is None or lease.run != run.id
    return run.status is not RunStatus.RUNNING


def _stream(common: Common, shown: progress.Progress, before: dict[str, Any]) -> dict[str, Any]:
    """Write the picture when it is another one, however long it has stood."""
    picture = shown.tally.picture()
    if picture is None:
        return before
    row = picture.to_json()
    moving = {"seconds", "seconds_left", "rate", "longest"}
    if {**row, **dict.fromkeys(moving)} != {**before, **dict.fromkeys(moving)}:
        common.screen.raw(documents.json_line(row))
    return row

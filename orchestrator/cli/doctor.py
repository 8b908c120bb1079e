"""`orchestrate doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli import documents, options
from orchestrator.cli.groups import Command
from orchestrator.cli.render import wrapped
from orchestrator.cli.terminals import Line, Mood
from orchestrator.errors import ExitCode

if TYPE_CHECKING:
    from orchestrator.diagnosis import Check

_FAILED = "failed"
_MOODS = {"ok": Mood.GOOD, "warning": Mood.WARNING, _FAILED: Mood.BAD}


@click.command("doctor", cls=Command)
@options.option("--notify", heading="Output", is_flag=True, help="Send each receiver of notifications a trial message.")
@options.common
def command(*, notify: bool) -> None:
    """Check files, revisions, servers and the ledger, and say what to do about what is wrong.

    Nothing is written. Exits 1 when a check failed.
    """
    common = options.current()
    checks = options.open_records(common).doctor(notify=notify)  # a registry that is wrong is a finding, not an end
    rows = [
        {"name": check.name, "verdict": check.verdict.value, "text": check.text, "remedy": check.remedy}
        for check in checks
    ]
    document = {"format": "orchestrate.doctor/1", "checks": rows}
    documents.answer(common, document=document, rows=rows, lines=_lines(checks, common.screen.width))
    if any(check.verdict.value == _FAILED for check in checks):
        click.get_current_context().exit(ExitCode.FAILURES)


def _lines(checks: Sequence[Check], width: int) -> Iterator[Line]:
    for check in checks:
        mood = _MOODS[check.verdict.value]
        yield Line(f"{check.verdict.value:<8} {check.name}", mood)
        for text in check.text.splitlines():
            yield from wrapped(text, width, indent=" " * 9)
        if check.remedy:
            yield from wrapped(f"-> {check.remedy}", width, indent=" " * 9)

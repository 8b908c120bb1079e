"""What `pause`, `continue`, `skip` and `runs budget` answer: what was asked of which run, and who hears it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import documents
from orchestrator.cli.options import Common
from orchestrator.cli.terminals import Line, Mood

if TYPE_CHECKING:
    from orchestrator.control import Asked

ASKED_FORMAT = "orchestrate.asked/1"


def answer(common: Common, asked: Asked) -> None:
    """Say it in the form that was asked for."""
    run = asked.run
    document = {
        "format": ASKED_FORMAT,
        "run": run.id,
        "status": run.status.value,
        "live": asked.live,
        "target": asked.target,
        "text": asked.text,
    }
    subject = f"run {run.id}" if asked.target is None else f"{asked.target} of run {run.id}"
    lines = [Line(f"{subject} {asked.text}", Mood.WARNING)]
    if asked.live:
        lines.append(Line(f"its runner hears it within seconds; to look on: orchestrate runs watch {run.id}"))
    else:
        lines.append(Line(f"to go on with it: orchestrate resume {run.id}"))
    documents.answer(common, document=document, rows=[document], lines=lines)

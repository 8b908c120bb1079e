"""What `resume` and `retry` share: go on with a recorded run, or say that there is nothing to go on with."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from orchestrator.cli import confirm, documents, live
from orchestrator.cli import options as shared
from orchestrator.cli.terminals import Line, Mood

if TYPE_CHECKING:
    from orchestrator.project import Project

NOTHING_FORMAT = "orchestrate.nothing/1"


def go_on(verb: str, run: str | None, execution: shared.Execution, *, project: Project | None = None) -> None:
    """Do the verb, `resume` or `retry`, and exit with the code of the run."""
    common = shared.current()
    project = project or shared.open_project(common)
    fleet = project.registry
    confirm.environment(execution.confirm, name=fleet.environment, protected=fleet.protected)
    action = project.runs.resume if verb == "resume" else project.runs.retry
    report = live.run(functools.partial(action, run), project=project, common=common, execution=execution)
    if report is None:
        text = f"nothing to {verb}"
        document = {"format": NOTHING_FORMAT, "text": text}
        documents.answer(common, document=document, rows=[document], lines=[Line(text, Mood.GOOD)], nothing=text)
        return
    click.get_current_context().exit(report.exit_code)

"""`orchestrate continue`."""

from __future__ import annotations

import click

from orchestrator.cli import continuing, options
from orchestrator.cli.asking import answer
from orchestrator.cli.groups import Reporting


@click.command("continue", cls=Reporting)
@options.run_argument
@options.execution
@options.common
def command(run: str | None, execution: options.Execution) -> None:
    """Let RUN go on that waits for somebody, by default the one that is open.

    A run with a live runner is told. One whose runner has ended is gone on with here, as `resume` does. It overrules a
    gate that was inconclusive, and cuts the pause behind a wave short.
    """
    common = options.current()
    project = options.open_project(common)
    asked = project.control.release(run, confirm=execution.confirm)
    if asked.live:
        answer(common, asked)
        return
    continuing.go_on("resume", asked.run.id, execution, project=project)

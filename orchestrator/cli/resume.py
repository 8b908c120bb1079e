"""`orchestrate resume`."""

from __future__ import annotations

import click

from orchestrator.cli import continuing, options
from orchestrator.cli.groups import Reporting


@click.command("resume", cls=Reporting)
@options.run_argument
@options.execution
@options.common
def command(run: str | None, execution: options.Execution) -> None:
    """Go on with RUN, by default the latest, where it stopped.

    Does what never started, was put off, was lost, or was at work when its runner died: every target is read first, and
    what is done already is not done twice. What failed is left to `retry`. With nothing left it does nothing and
    exits 0.
    """
    continuing.go_on("resume", run, execution)

"""`orchestrate retry`."""

from __future__ import annotations

import click

from orchestrator.cli import continuing, options
from orchestrator.cli.groups import Reporting


@click.command("retry", cls=Reporting)
@options.run_argument
@options.execution
@options.common
def command(run: str | None, execution: options.Execution) -> None:
    """Do what failed or was lost in RUN once more, by default in the latest.

    It goes on as the same run, with the revisions that were planned then; `upgrade --failed` starts a new run instead.
    Does what was skipped behind a failure as well. When nothing failed it does nothing and exits 0.
    """
    continuing.go_on("retry", run, execution)

"""`orchestrate abort`."""

from __future__ import annotations

import click

from orchestrator.cli import documents, options
from orchestrator.cli.confirm import environment as confirm_environment
from orchestrator.cli.groups import Command
from orchestrator.cli.render_records import aborted_document, aborted_lines


@click.command("abort", cls=Command)
@options.run_argument
@options.option(
    "--now", heading="Rolling out", is_flag=True, help="Cancel what is at work as well; do not wait for it."
)
@options.confirming
@options.common
def command(run: str | None, confirm: str | None, *, now: bool) -> None:
    """End RUN for good, by default the latest that is open.

    A run that is live is asked to stop: what is at work ends, nothing new starts, and its own command ends it. A run
    whose runner is dead is ended here, after its targets have been read. Either way `resume` will not take it up again.
    """
    common = options.current()
    project = options.open_project(common)
    fleet = project.registry
    confirm_environment(confirm, name=fleet.environment, protected=fleet.protected)
    aborted = project.runs.abort(run, now=now, confirm=confirm)
    lease = project.ledger.live() if aborted.live else None
    document = aborted_document(aborted, lease, () if aborted.live else project.report(aborted.run.id).outcomes)
    documents.answer(common, document=document, rows=[document], lines=aborted_lines(document, now=now))

"""`orchestrate status`."""

from __future__ import annotations

import click

from orchestrator.cli import documents, live, options, rolling
from orchestrator.cli.groups import Command
from orchestrator.cli.render_status import status_lines
from orchestrator.errors import ExitCode
from orchestrator.standings import Standing


@click.command("status", cls=Command)
@options.targeting
@options.option("--check", heading="Output", is_flag=True, help="Exit 5 unless every target is at head.")
@options.common
def command(targeting: options.Targeting, *, check: bool) -> None:
    """Show who is at which revision, and write nothing.

    Each distinct revision is shown once, with its number of targets and the odd ones by name; -v lists them all.
    """
    common = options.current()
    project = options.open_project(common)
    selection = targeting.selection(project)
    with common.screen.waiting(rolling.reading(project)):
        report = project.status(selection)
    documents.answer(
        common,
        document=report.to_json(),
        rows=(row.to_json() for row in report.rows),
        lines=status_lines(report, live.view(common)),
    )
    if check and report.due:
        click.get_current_context().exit(ExitCode.DUE)
    if any(row.standing is Standing.UNREACHABLE for row in report.rows):
        click.get_current_context().exit(ExitCode.FAILURES)

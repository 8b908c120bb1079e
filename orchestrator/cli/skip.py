"""`orchestrate skip`."""

from __future__ import annotations

import click

from orchestrator.cli import options, suggestions
from orchestrator.cli.asking import answer
from orchestrator.cli.groups import Command


@click.command("skip", cls=Command)
@options.run_argument
@options.option(
    "--target",
    heading="Targets",
    metavar="NAME",
    required=True,
    shell_complete=suggestions.tenants,
    help="The target to leave alone.",
)
@options.option(
    "--reason", heading="Targets", metavar="TEXT", required=True, help="Why; it stands in every report of the run."
)
@options.confirming
@options.common
def command(run: str | None, target: str, reason: str, confirm: str | None) -> None:
    """Leave one target of RUN alone, by default of the run that is open.

    One that has not been begun is `skipped`. One that has failed does not count any more once the run is resumed. What
    comes after it in the registry is skipped with it.
    """
    common = options.current()
    answer(common, options.open_project(common).control.skip(target, reason, run, confirm=confirm))

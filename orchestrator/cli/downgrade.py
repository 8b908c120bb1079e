"""`orchestrate downgrade`."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, options, rolling
from orchestrator.cli.groups import Reporting


@click.command("downgrade", cls=Reporting)
@options.revision_argument()
@options.targeting
@options.planning
@options.running
@options.common
def command(revision: str, targeting: options.Targeting, planning: options.Planning, running: options.Running) -> None:
    """Take targets back to REVISION: an id, `base`, or `-1` for one step.

    Downgrades can remove data, so this asks first; without a terminal it needs --yes.
    """
    rolling.roll(
        deferred.plans.Command.DOWNGRADE,
        revision,
        targeting=targeting,
        planning=planning,
        running=running,
        question="downgrade {targets} to {goal}",
    )

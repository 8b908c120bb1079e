"""`orchestrate upgrade`."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, options, rolling
from orchestrator.cli.groups import Reporting


@click.command("upgrade", cls=Reporting)
@options.revision_argument(default="head")
@options.targeting
@options.planning
@options.running
@options.common
def command(revision: str, targeting: options.Targeting, planning: options.Planning, running: options.Running) -> None:
    """Bring targets up to REVISION, by default `head`.

    The first failure stops the start of new work unless --max-failures or --keep-going says otherwise; what is
    running ends properly. Targets that are there already are left alone.
    """
    rolling.roll(deferred.plans.Command.UPGRADE, revision, targeting=targeting, planning=planning, running=running)

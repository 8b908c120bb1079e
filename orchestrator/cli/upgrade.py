"""`orchestrate upgrade`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import deferred, options, rolling, saved_plans
from orchestrator.cli.groups import Reporting


@click.command("upgrade", cls=Reporting)
@options.revision_argument(default="head")
@options.targeting
@options.planning
@options.running
@saved_plans.plan_option
@saved_plans.approve_option
@options.common
def command(
    revision: str,
    targeting: options.Targeting,
    planning: options.Planning,
    running: options.Running,
    *,
    plan_file: Path | None,
    approved: str | None,
) -> None:
    """Bring targets up to REVISION, by default `head`.

    The first failure stops the start of new work unless --max-failures or --keep-going says otherwise; what is
    running ends properly. Targets that are there already are left alone.

    With --plan exactly what `orchestrate plan --out FILE` wrote is run, or nothing when anything that it rests on has
    changed since. With --approve-digest the plan must be the one that was approved.
    """
    if plan_file is not None:
        saved_plans.refuse_beside("--plan")
        rolling.roll_saved(plan_file, running=running, approved=approved)
        return
    upgrade = deferred.plans.Command.UPGRADE
    rolling.roll(upgrade, revision, targeting=targeting, planning=planning, running=running, approved=approved)

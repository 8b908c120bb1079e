"""`orchestrate stamp`."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, options, rolling
from orchestrator.cli.groups import Reporting


@click.command("stamp", cls=Reporting)
@options.revision_argument()
@options.targeting
@options.planning
@options.running
@options.common
def command(revision: str, targeting: options.Targeting, planning: options.Planning, running: options.Running) -> None:
    """Record that targets are at REVISION, without running anything.

    For tables that exist already, made by other means. It asks first; without a terminal it needs --yes.
    """
    rolling.roll(
        deferred.plans.Command.STAMP,
        revision,
        targeting=targeting,
        planning=planning,
        running=running,
        question="stamp {targets} with {goal}",
    )

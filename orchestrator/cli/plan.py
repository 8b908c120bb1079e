"""`orchestrate plan`."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, live, options, rolling
from orchestrator.cli.groups import Command
from orchestrator.cli.options import Format
from orchestrator.cli.render_plan import path_lines
from orchestrator.cli.terminals import Line
from orchestrator.errors import UsageError


@click.command("plan", cls=Command)
@options.revision_argument(default="head")
@options.targeting
@options.planning
@options.option("--sql", heading="Output", is_flag=True, help="Show the SQL that would be sent.")
@options.common
def command(revision: str, targeting: options.Targeting, planning: options.Planning, *, sql: bool) -> None:
    """Show what `upgrade REVISION` would do, and write nothing.

    Each distinct path is shown once, with the number of targets that take it. All targets unless told otherwise.
    Exits 1 when a target cannot be read.
    """
    common = options.current()
    if sql and common.output is not Format.TEXT:
        raise UsageError("--sql writes SQL: leave out --output")
    planning.check()
    project = options.open_project(common)
    upgrade = deferred.plans.Command.UPGRADE
    plan = rolling.make_plan(project, upgrade, revision, common=common, targeting=targeting, planning=planning)
    if not sql:
        rolling.show_plan(common, plan)
        return
    for jobs, text in project.sql(plan):
        common.screen.data([Line(f"-- {line.text}") for line in path_lines(jobs, live.view(common))])
        common.screen.raw(text)
    rolling.end_plan(plan)

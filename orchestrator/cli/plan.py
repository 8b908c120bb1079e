"""`orchestrate plan`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import deferred, live, options, rolling, saved_plans
from orchestrator.cli.groups import Command
from orchestrator.cli.options import Common, Format
from orchestrator.cli.render_plan import path_lines
from orchestrator.cli.terminals import Line
from orchestrator.errors import ExitCode, UsageError


@click.command("plan", cls=Command)
@options.revision_argument(default="head")
@options.targeting
@options.planning
@options.option("--sql", heading="Output", is_flag=True, help="Show the SQL that would be sent.")
@saved_plans.out_option
@saved_plans.diff_option
@saved_plans.check_option
@options.common
def command(
    revision: str,
    targeting: options.Targeting,
    planning: options.Planning,
    *,
    sql: bool,
    out: Path | None,
    diff: Path | None,
    check: bool,
) -> None:
    """Show what `upgrade REVISION` would do, and write nothing.

    Each distinct path is shown once, with the number of targets that take it. All targets unless told otherwise.
    Exits 1 when a target cannot be read. --out writes the plan to a file, to be approved and run by
    `upgrade --plan FILE`; --diff says what has changed since such a file was written.
    """
    common = options.current()
    _refuse_mixtures(common, sql=sql, out=out, diff=diff, check=check)
    planning.check()
    if diff is not None:
        _compare(common, diff, check=check)
        return
    project = options.open_project(common)
    upgrade = deferred.plans.Command.UPGRADE
    plan = rolling.make_plan(project, upgrade, revision, common=common, targeting=targeting, planning=planning)
    if not sql:
        whole = out is not None or common.reports or common.output is Format.JSON
        document = project.document(plan) if whole else None
        if out is not None and document is not None:
            saved_plans.write(out, document)
        rolling.show_plan(common, plan, document)
        return
    for jobs, text in project.sql(plan):
        common.screen.data([Line(f"-- {line.text}") for line in path_lines(jobs, live.view(common))])
        common.screen.raw(text)
    rolling.end_plan(plan)


def _refuse_mixtures(common: Common, *, sql: bool, out: Path | None, diff: Path | None, check: bool) -> None:
    if sql and common.output is not Format.TEXT:
        raise UsageError("--sql writes SQL: leave out --output")
    if sql and out is not None:
        raise UsageError("--out has the SQL of each path in it: leave out --sql")
    if check and diff is None:
        raise UsageError("--check looks at what --diff FILE has found; for what is due there is `status --check`")
    if diff is not None:
        saved_plans.refuse_beside("--diff")
        if sql or out is not None:
            raise UsageError("--diff says what has changed: leave out --sql and --out")


def _compare(common: Common, path: Path, *, check: bool) -> None:
    then = deferred.plan_files.read(path)
    project = options.open_project(common)
    with common.screen.waiting(rolling.reading(project)):
        now, changes = project.compare(then)
    saved_plans.show_changes(common, path, then, now, changes)
    if changes and check:
        click.get_current_context().exit(ExitCode.DUE)

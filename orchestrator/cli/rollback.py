"""`orchestrate rollback`."""

from __future__ import annotations

import functools

import click

from orchestrator.cli import confirm, documents, live, options, rolling
from orchestrator.cli.continuing import NOTHING_FORMAT
from orchestrator.cli.groups import Reporting
from orchestrator.cli.render_plan import plan_lines
from orchestrator.cli.terminals import Line, Mood


@click.command("rollback", cls=Reporting)
@options.run_argument
@options.running
@options.common
def command(run: str | None, running: options.Running) -> None:
    """Take back what RUN did, by default the latest that changed anything.

    Each target that the run changed goes back to where the run found it, in reverse order, as a run of its own. Targets
    that somebody has moved since are left alone. Downgrades can remove data, so this asks first; without a terminal it
    needs --yes. Revisions that cannot go down are refused before anything is done.
    """
    common = options.current()
    project = options.open_project(common)
    fleet = project.registry
    if not running.dry_run:
        confirm.environment(running.confirm, name=fleet.environment, protected=fleet.protected)
    with common.screen.waiting(rolling.reading(project)):
        past, plan = project.runs.rollback_plan(run)
    for note in plan.notes:
        common.screen.say(f"note: {note}", Mood.WARNING)
    if running.dry_run:
        rolling.show_plan(common, plan)
        return
    if not plan.waves and not plan.settled:
        text = f"nothing to roll back: run {past.id} changed no target"
        document = {"format": NOTHING_FORMAT, "text": text}
        documents.answer(common, document=document, rows=[document], lines=[Line(text, Mood.GOOD)], nothing=text)
        return
    if any(plan.jobs):
        for line in plan_lines(plan, live.view(common)):
            common.screen.say(line.text, line.mood)
        confirm.consent(f"roll back run {past.id}: {rolling.plan_counts(plan)}", yes=running.yes)
    action = functools.partial(project.run, plan, parent=past.id, action="rollback")
    report = live.run(action, project=project, common=common, execution=running)
    click.get_current_context().exit(report.exit_code)

"""What `upgrade`, `downgrade` and `stamp` share: plan, ask, run."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from orchestrator.cli import confirm, documents, live, render_plan, terminals
from orchestrator.cli import options as shared
from orchestrator.cli.options import Common, Planning, Running, Targeting
from orchestrator.cli.render import FIRST_NAMES, counted, heads_text
from orchestrator.errors import ExitCode
from orchestrator.outcomes import FAILING

if TYPE_CHECKING:
    from orchestrator.plans import Command, Plan
    from orchestrator.project import Project


def roll(
    command: Command,
    revision: str,
    *,
    targeting: Targeting,
    planning: Planning,
    running: Running,
    question: str | None = None,
) -> None:
    """Do the whole command and exit with its code; a `question` may hold `{targets}` and `{goal}`."""
    common = shared.current()
    targeting.demand(command.value)
    planning.check()
    project = shared.open_project(common)
    if not running.dry_run:
        confirm.environment(running.confirm, name=project.registry.environment, protected=project.registry.protected)
    plan = make_plan(project, command, revision, common=common, targeting=targeting, planning=planning)
    if running.dry_run:
        show_plan(common, plan)
        return
    if question is not None and any(plan.jobs):
        confirm.consent(question.format(targets=plan_counts(plan), goal=plan_goal(plan)), yes=running.yes)
    report = live.run(functools.partial(project.run, plan), project=project, common=common, execution=running)
    click.get_current_context().exit(report.exit_code)


def make_plan(
    project: Project, command: Command, revision: str, *, common: Common, targeting: Targeting, planning: Planning
) -> Plan:
    """Look at every target and decide."""
    selection = targeting.selection(project)
    with common.screen.waiting(reading(project)):
        plan = project.plan(revision, command=command, selection=selection, **planning.arguments())
    for note in plan.notes:
        common.screen.say(f"note: {note}", terminals.Mood.WARNING)
    return plan


def reading(project: Project) -> str:
    """What is said while targets are looked at."""
    return f"reading where {counted(len(project.registry.targets), 'target')} stand"


def show_plan(common: Common, plan: Plan) -> None:
    """Answer with the plan."""
    jobs = [{"type": "Job", **job.to_json()} for job in plan.jobs]
    settled = [{"type": "Settled", **outcome.to_json()} for outcome in plan.settled]
    documents.answer(
        common,
        document={**plan.to_json(), "digest": plan.digest},
        rows=[*jobs, *settled],
        lines=render_plan.plan_lines(plan, live.view(common)),
    )
    end_plan(plan)


def end_plan(plan: Plan) -> None:
    """Exit as `status` does when a target could not be read: a plan without it is no promise for the fleet."""
    if any(outcome.status in FAILING for outcome in plan.settled):
        click.get_current_context().exit(ExitCode.FAILURES)


def plan_counts(plan: Plan) -> str:
    """`3 of 4 targets in billing staging`."""
    jobs = sum(1 for _ in plan.jobs)
    place = " ".join(part for part in (plan.project, plan.environment) if part)
    return f"{jobs:,} of {counted(jobs + len(plan.settled), 'target')} in {place}"


def plan_goal(plan: Plan) -> str:
    """Where it goes; a relative step over many starting points goes to too many places to name."""
    return heads_text(plan.revision) if len(plan.revision) <= FIRST_NAMES else plan.asked

"""What `upgrade`, `downgrade` and `stamp` share: plan, ask, run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import confirm, deferred, documents, live, render_plan, terminals
from orchestrator.cli import options as shared
from orchestrator.cli.options import Common, Planning, Running, Targeting
from orchestrator.cli.render import FIRST_NAMES, counted, heads_text
from orchestrator.errors import ExitCode, UsageError
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
    approved: str | None = None,
) -> None:
    """Do the whole command and exit with its code.

    A `question` may hold `{targets}` and `{goal}`; an `approved` digest is that of the only plan to be run.
    """
    common = shared.current()
    targeting.demand(command.value)
    planning.check()
    project = shared.open_project(common)
    _refuse_unconfirmed(project, running, approved)
    plan = make_plan(project, command, revision, common=common, targeting=targeting, planning=planning)
    _run(plan, project=project, running=running, question=question, approved=approved)


def roll_saved(path: Path, *, running: Running, approved: str | None = None) -> None:
    """Run the upgrade's plan in a file if it still holds, and exit with the run's code."""
    common = shared.current()
    saved = deferred.plan_files.read(path)
    if saved.command is not deferred.plans.Command.UPGRADE:
        raise UsageError(f"{path}: this is the plan of a {saved.command}, and only an upgrade's can be run from a file")
    project = shared.open_project(common)
    _refuse_unconfirmed(project, running, approved)
    deferred.questions.refuse_unapproved(saved, approved)
    with common.screen.waiting(reading(project)):
        plan = project.verify(saved)
    _say_notes(common, plan)
    _run(plan, project=project, running=running, approved=approved)


def _refuse_unconfirmed(project: Project, running: Running, approved: str | None) -> None:
    """Before anything is read; whether the plan is the approved one shows when it is made."""
    fleet = project.registry
    if not running.dry_run:
        confirm.environment(running.confirm, name=fleet.environment, protected=fleet.protected and approved is None)


def _run(
    plan: Plan, *, project: Project, running: Running, question: str | None = None, approved: str | None = None
) -> None:
    common = shared.current()
    deferred.questions.refuse_unapproved(plan, approved)
    if running.dry_run:
        show_plan(common, plan)
        return
    if question is not None and any(plan.jobs):
        confirm.consent(question.format(targets=plan_counts(plan), goal=plan_goal(plan)), yes=running.yes)
    action = functools.partial(project.run, plan, approved=approved)
    report = live.run(action, project=project, common=common, execution=running)
    click.get_current_context().exit(report.exit_code)


def make_plan(
    project: Project, command: Command, revision: str, *, common: Common, targeting: Targeting, planning: Planning
) -> Plan:
    """Look at every target and decide."""
    selection = targeting.selection(project)
    with common.screen.waiting(reading(project)):
        plan = project.plan(revision, command=command, selection=selection, **planning.arguments())
    _say_notes(common, plan)
    return plan


def _say_notes(common: Common, plan: Plan) -> None:
    for note in plan.notes:
        common.screen.say(f"note: {note}", terminals.Mood.WARNING)


def reading(project: Project) -> str:
    """What is said while targets are looked at."""
    return f"reading where {counted(len(project.registry.targets), 'target')} stand"


def show_plan(common: Common, plan: Plan, document: dict[str, Any] | None = None) -> None:
    """Answer with the plan; the `document` is all of it, where more is known than the plan."""
    jobs = [{"type": "Job", **job.to_json()} for job in plan.jobs]
    settled = [{"type": "Settled", **outcome.to_json()} for outcome in plan.settled]
    documents.answer(
        common,
        document=document or {**plan.to_json(), "digest": plan.digest},
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

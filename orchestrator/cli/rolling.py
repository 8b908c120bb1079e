"""What `upgrade`, `downgrade` and `stamp` share: plan, ask, run with progress, report."""

from __future__ import annotations

import contextlib
import datetime
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.cli import confirm, deferred, documents, progress, render_plan, signals, suggestions, terminals
from orchestrator.cli import options as shared
from orchestrator.cli.options import Common, Format, Planning, Running, Targeting
from orchestrator.cli.render import FIRST_NAMES, counted, heads_text
from orchestrator.cli.render_causes import View
from orchestrator.cli.render_report import closing_lines, report_lines
from orchestrator.errors import ExitCode, OrchestratorError
from orchestrator.outcomes import FAILING, Outcome, Reason, Report, RunStatus, Status
from orchestrator.redaction import scrub

if TYPE_CHECKING:
    from orchestrator.events import Event, Listener, RunStarted
    from orchestrator.plans import Command, Plan
    from orchestrator.project import Project

LATEST_RUNS = 20
LONGEST_COMMAND = 200
_RELATIVE = re.compile(r"[+-]\d+\Z")


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
        confirm.consent(question.format(targets=_counts(plan), goal=_goal(plan)), yes=running.yes)
    report = run(project, plan, common=common, running=running)
    _remember(project)
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
        lines=render_plan.plan_lines(plan, view(common)),
    )
    end_plan(plan)


def end_plan(plan: Plan) -> None:
    """Exit as `status` does when a target could not be read: a plan without it is no promise for the fleet."""
    if any(outcome.status in FAILING for outcome in plan.settled):
        click.get_current_context().exit(ExitCode.FAILURES)


def view(common: Common, again: str | None = None) -> View:
    """How much to show on this terminal."""
    return View(width=common.screen.width, verbose=common.verbose, again=again)


def run(project: Project, plan: Plan, *, common: Common, running: Running) -> Report:
    """Run the plan, show how it goes, and write the report on every way out."""
    stop = deferred.rollout.StopSignal()
    record = _Record()
    # A step counted from where a target is would take those that made it one further.
    again = None if _RELATIVE.search(plan.asked) else _typed()
    with _reported(common, record, again), progress.shown(common.screen) as shown:
        listeners: list[Listener] = [record, shown]
        if common.output is Format.JSONL:
            listeners.append(_json_lines(common))
        with signals.draining(stop, shown.tally, quiet=common.quiet):
            report = project.run(
                plan, listeners=tuple(listeners), executor=running.executor, stop=stop, confirm=running.confirm
            )
        record.report = report
    return report


class _Record:
    """Keeps what the events say, so that there is a report even when the run ends in an exception."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self._started: RunStarted | None = None
        self._started_at = datetime.datetime.now(datetime.UTC)
        self._outcomes: dict[str, Outcome] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case deferred.events.RunStarted():
                self._started, self._started_at = event, datetime.datetime.now(datetime.UTC)
            case deferred.events.JobFinished(outcome=outcome):
                self._outcomes[outcome.target] = outcome
            case deferred.events.RunFinished(report=report):
                self.report = report
            case _:
                pass

    def broken(self, exit_code: ExitCode) -> Report | None:
        """What is known of a run that nobody concluded; None when it never began."""
        if self._started is None:
            return None
        plan = self._started.plan
        reason = Reason(code="halted", text="the command ended before its turn")
        rest = (job.outcome(Status.NOT_STARTED, reason=reason) for job in plan.jobs if job.target not in self._outcomes)
        return Report(
            run=self._started.run,
            command=plan.command.value,
            revision=plan.revision,
            project=plan.project,
            environment=plan.environment,
            operator="unknown",
            strategy=plan.strategy,
            plan_digest=plan.digest,
            status=RunStatus.INTERRUPTED,
            exit_code=exit_code,
            started_at=self._started_at,
            duration_s=(datetime.datetime.now(datetime.UTC) - self._started_at).total_seconds(),
            outcomes=(*self._outcomes.values(), *rest, *plan.settled),
        )


@contextlib.contextmanager
def _reported(common: Common, record: _Record, again: str | None) -> Iterator[None]:
    """Answer with the report when the run ends, however it ends; `again` is what to type to go on."""
    exit_code = ExitCode.INTERNAL
    try:
        yield
    except OrchestratorError as error:
        exit_code = error.exit_code
        raise
    finally:
        report = record.report or record.broken(exit_code)
        if report is not None:
            _answer(common, report, view(common, again=again))


def _answer(common: Common, report: Report, shown: View) -> None:
    """The report in the form that was asked for; whoever watches a program read it gets its ends in words."""
    documents.answer(common, document=report.to_json(), rows=(), lines=report_lines(report, shown))
    if common.output is not Format.TEXT:
        for line in closing_lines(report, shown):
            common.screen.say(line.text, line.mood)


def _json_lines(common: Common) -> Callable[[Event], None]:
    """A listener that streams events; a reader that went away does not stop the run."""
    gone = False

    def stream(event: Event) -> None:
        nonlocal gone
        if gone:
            return
        try:
            common.screen.raw(documents.json_line(deferred.events.event_json(event)))
        except BrokenPipeError:
            gone = True

    return stream


def _counts(plan: Plan) -> str:
    jobs = sum(1 for _ in plan.jobs)
    place = " ".join(part for part in (plan.project, plan.environment) if part)
    return f"{jobs:,} of {counted(jobs + len(plan.settled), 'target')} in {place}"


def _goal(plan: Plan) -> str:
    """Where it goes; a relative step over many starting points goes to too many places to name."""
    return heads_text(plan.revision) if len(plan.revision) <= FIRST_NAMES else plan.asked


def _typed() -> str | None:
    """The command line as it was typed, where `orchestrate` was; a long one is not worth repeating."""
    if not sys.argv[0].endswith("orchestrate"):
        return None
    typed = scrub(shlex.join(["orchestrate", *sys.argv[1:]]))
    return typed if len(typed) <= LONGEST_COMMAND else None


def _remember(project: Project) -> None:
    suggestions.remember(
        project.settings.root,
        tenants=(target.tenant.name for target in project.registry.targets),
        runs=[run.id for run in project.ledger.runs(limit=LATEST_RUNS)],
    )

"""A run as it goes: its progress, its signals, its events as lines, and its report on every way out."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from orchestrator.cli import deferred, documents, progress, signals, suggestions
from orchestrator.cli.options import Common, Execution, Format
from orchestrator.cli.render_causes import View
from orchestrator.cli.render_report import closing_lines, report_lines
from orchestrator.cli.terminals import Mood
from orchestrator.errors import ExitCode, OrchestratorError, SettingsError
from orchestrator.outcomes import Outcome, Reason, Report, RunStatus, Status
from orchestrator.redaction import scrub
from orchestrator.reports import workflow

if TYPE_CHECKING:
    from orchestrator.events import Event, Listener, RunStarted
    from orchestrator.notifications import Notifier
    from orchestrator.project import Project
    from orchestrator.reports.prometheus import Gauges
    from orchestrator.rollout import StopSignal

LATEST_RUNS = 20
#: for the latest one that succeeded
RUNS_LOOKED_AT = 200

Answer_co = TypeVar("Answer_co", bound="Report | None", covariant=True)


class Action(Protocol[Answer_co]):
    """`Project.run` of a plan, `Project.runs.resume` or `Project.runs.retry` of a run."""

    def __call__(
        self,
        *,
        listeners: Sequence[Listener],
        stop: StopSignal,
        executor: str,
        confirm: str | None,
        end_orphans: bool,
        on_pause: str,
    ) -> Answer_co:
        """Run it, and return its report; None when there was nothing to do."""


def run(action: Action[Answer_co], *, project: Project, common: Common, execution: Execution) -> Answer_co:
    """Do it, show how it goes, and write the report on every way out."""
    stop = deferred.rollout.StopSignal()
    record = _Record()
    gauges = _gauges(project, execution)
    stream = _JsonLines(common) if common.output is Format.JSONL else None
    # The report comes first: nobody waits for it because a receiver of notifications hangs.
    with (
        signals.finishing() as spare,
        _notified(common, project) as notifier,
        _reported(common, record, gauges, stream),
        progress.shown(common.screen, lines=streams(common)) as shown,
    ):
        listeners: list[Listener] = [record, shown, notifier, _completion(project), _aborted(common, stop)]
        if gauges is not None:
            listeners.append(gauges)
        if stream is not None:
            listeners.append(stream)
        spare()
        with signals.draining(stop, shown.tally, shown.announce):
            report = action(listeners=tuple(listeners), stop=stop, **execution.arguments())
        record.report = report
    return report


def view(common: Common) -> View:
    """How much to show on this terminal."""
    return View(width=common.screen.width, verbose=common.verbose)


def streams(common: Common) -> bool:
    """Whether events go to a terminal line by line, where no picture can stand between them."""
    return common.output is Format.JSONL and sys.stdout.isatty()


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
def _notified(common: Common, project: Project) -> Iterator[Notifier]:
    """A listener that sends notifications; what of them is lost is said at the end, and changes no exit code."""
    notifier = project.notifier()
    for text in notifier.complaints:
        common.screen.complain(f"no notification: {text}", Mood.WARNING)
    try:
        yield notifier
    finally:
        for line in _sent(common, notifier):
            common.screen.complain(line, Mood.WARNING)


def _sent(common: Common, notifier: Notifier) -> Sequence[str]:
    """Wait for what is not sent yet; Ctrl-C or SIGTERM ends the wait, and not the command: the run is over."""
    with signals.leaving():
        try:
            with common.screen.waiting("sending notifications; Ctrl-C to leave it at that"):
                return notifier.close()
        except KeyboardInterrupt:
            return notifier.close(0)


@contextlib.contextmanager
def _reported(common: Common, record: _Record, gauges: Gauges | None, stream: _JsonLines | None) -> Iterator[None]:
    """Answer with the report when the run ends, however it ends."""
    exit_code = ExitCode.INTERNAL
    try:
        yield
    except OrchestratorError as error:
        exit_code = error.exit_code
        raise
    finally:
        report = record.report or record.broken(exit_code)
        if report is not None:
            _answer(common, report, gauges, stream)


def _answer(common: Common, report: Report, gauges: Gauges | None, stream: _JsonLines | None) -> None:
    """The report wherever it was asked for; a place that cannot be written never hides how the run ended."""
    try:
        try:
            if gauges is not None:
                gauges.finish(report)
        finally:
            _say(common, report)
            if stream is not None:
                stream.finish()
    except SettingsError as error:
        if report.exit_code is ExitCode.OK:
            raise
        for line in scrub(str(error)).split("\n"):
            common.screen.complain(f"orchestrate: error: {line}", Mood.BAD)
    finally:
        if workflow.is_watching():
            _annotate(common, report)


def _say(common: Common, report: Report) -> None:
    """In the form that was asked for; whoever watches a program read it gets its ends in words."""
    lines = report_lines(report, view(common))
    documents.answer(common, document=report.to_json(), rows=(), lines=lines, report=report)
    if common.output is not Format.TEXT:
        for line in closing_lines(report):
            common.screen.say(line.text, line.mood)


def _annotate(common: Common, report: Report) -> None:
    """Tell GitHub Actions on standard error, which its runner reads as well: standard output may be somebody's JSON."""
    for command in deferred.github.annotated(report):
        common.screen.instruct(command)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    try:
        if not deferred.github.summarise(report, Path(summary)):
            common.screen.say("note: the summary of this step has no room for the report", Mood.WARNING)
    except OSError as error:
        common.screen.say(f"note: {summary} cannot be written: {error.strerror or error}", Mood.WARNING)


def _gauges(project: Project, execution: Execution) -> Gauges | None:
    """A listener that writes them, None where nobody asked."""
    if execution.metrics is None:
        return None

    def last_success(command: str) -> datetime.datetime | None:
        runs = (run for run in project.ledger.runs(limit=RUNS_LOOKED_AT) if run.command == command)
        return next((run.finished_at for run in runs if run.status is RunStatus.SUCCEEDED), None)

    return deferred.prometheus.Gauges(execution.metrics, last_success)


class _JsonLines:
    """A listener that streams events; a reader that went away, or a full disk, does not stop the run."""

    def __init__(self, common: Common) -> None:
        self._common = common
        self._gone = False
        self._lost: SettingsError | None = None

    def __call__(self, event: Event) -> None:
        if self._gone:
            return
        try:
            self._common.screen.raw(documents.json_line(deferred.events.event_json(event)))
        except BrokenPipeError:
            self._gone = True
        except SettingsError as error:
            self._gone, self._lost = True, error

    def finish(self) -> None:
        """Raise what has cut the stream short; a reader that went away knows."""
        if self._lost is not None:
            raise self._lost


def _aborted(common: Common, stop: StopSignal) -> Callable[[Event], None]:
    """A listener that says that somebody else asked the run to stop; a signal has been answered by its handler."""

    def say(event: Event) -> None:
        if isinstance(event, deferred.events.RunHalted) and stop.cause is deferred.rollout.StopCause.ABORTED:
            numbers = f"{event.in_flight:,} running, {event.not_started:,} not started"
            common.screen.say(f"aborted by somebody else, see `orchestrate runs audit`: {numbers}", Mood.WARNING)

    return say


def _completion(project: Project) -> Callable[[Event], None]:
    """A listener that keeps names for the next Tab as soon as the run has one: it may be killed and resumed."""

    def keep(event: Event) -> None:
        if isinstance(event, deferred.events.RunStarted):
            suggestions.remember(
                project.settings.root,
                tenants=(target.tenant.name for target in project.registry.targets),
                runs=[run.id for run in project.ledger.runs(limit=LATEST_RUNS)],
            )

    return keep

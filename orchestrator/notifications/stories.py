"""What is known of a run while it goes, and the bodies of its notifications."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.events import (
    Event,
    GateAnswered,
    JobFinished,
    JobsAdded,
    RunContinued,
    RunFinished,
    RunHalted,
    RunPaused,
    RunStarted,
    WaveFinished,
    WaveStarted,
)
from orchestrator.notifications.rules import Message, Moment
from orchestrator.outcomes import FAILING, Outcome, Report, RunStatus, Status, Verdict, format_time
from orchestrator.plans import Plan
from orchestrator.redaction import first_line, scrub

NOTIFICATION_FORMAT = "orchestrate.notification/1"
#: the event of a message that is about no run
TRIAL = "trial"

#: bytes of a body; what does not fit is left out and counted
LARGEST_BODY = 20_000
MOST_CAUSES = 10
MOST_WAVES = 20
MOST_NAMES = 5
MOST_REVISIONS = 10
LONGEST_TEXT = 500
#: a pause that ends by itself
BAKE = "bake"
#: halts that are no fault of the run: their end says what they are
QUIET_HALTS = frozenset({"interrupted", "paused", "deferred"})

_ENDS = {
    RunStatus.SUCCEEDED: Moment.SUCCEEDED,
    RunStatus.FAILED: Moment.FAILED,
    RunStatus.HALTED: Moment.HALTED,
    RunStatus.PAUSED: Moment.PAUSED,
}
_STATUSES = {
    Moment.PAUSED: RunStatus.PAUSED,
    Moment.HALTED: RunStatus.HALTED,
    Moment.INTERRUPTED: RunStatus.INTERRUPTED,
}


@dataclasses.dataclass(slots=True)
class _Cause:
    """Outcomes that failed alike."""

    first: Outcome
    names: list[str] = dataclasses.field(default_factory=list)
    count: int = 0


class _Causes:
    """What failed so far, by cause."""

    def __init__(self, outcomes: Iterable[Outcome] = ()) -> None:
        self._by_key: dict[object, _Cause] = {}
        for outcome in outcomes:
            self.add(outcome)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome, if it failed."""
        if outcome.status not in FAILING:
            return
        failure = outcome.failure
        key = (outcome.status, failure and (failure.fingerprint or (failure.code, failure.type, failure.message)))
        cause = self._by_key.setdefault(key, _Cause(outcome))
        cause.count += 1
        if len(cause.names) < MOST_NAMES:
            cause.names.append(outcome.target)

    def __len__(self) -> int:
        return len(self._by_key)

    def largest(self) -> list[dict[str, Any]]:
        """The causes with the most targets first."""
        causes = sorted(self._by_key.values(), key=lambda cause: cause.count, reverse=True)
        return [_cause(cause) for cause in causes[:MOST_CAUSES]]


class Story:
    """One run, as its events tell it."""

    def __init__(self, started: RunStarted, operator: str) -> None:
        self.run = started.run
        self._plan: Plan = started.plan
        self._operator = operator
        self._counts = collections.Counter(outcome.status for outcome in self._plan.settled)
        self._causes = _Causes(self._plan.settled)
        self._targets = sum(1 for _ in self._plan.jobs) + len(self._plan.settled)
        self._waves: dict[str, dict[str, Any]] = {
            wave.name: {"name": wave.name, "status": "not_started", "counts": {}} for wave in self._plan.waves
        }
        self._is_waiting = False
        self._has_halted = False
        self._report: Report | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self._report is not None

    def hear(self, event: Event) -> tuple[Moment, ...]:
        """Take an event in; what it is to whoever listens, the exact word first."""
        match event:
            case RunStarted():
                return (Moment.STARTED,)
            case JobFinished(outcome=outcome):
                self._count(outcome)
            case WaveStarted(wave=wave):
                self._wave(wave)["status"] = "running"
            case WaveFinished(wave=wave):
                self._wave(wave)["status"] = "finished"
                return (Moment.WAVE_FINISHED,)
            case JobsAdded(jobs=jobs):
                self._targets += len(jobs)
            case GateAnswered(result=result):
                return (Moment.GATE_FAILED,) if result.verdict is Verdict.FAILED else ()
            case RunFinished(report=report):
                return self._end(report)
            case _:
                return self._turn(event)
        return ()

    def _turn(self, event: Event) -> tuple[Moment, ...]:
        """What stops a run, and lets it go on."""
        match event:
            case RunPaused(cause=cause) if cause != BAKE:
                self._is_waiting = True
                return (Moment.PAUSED,)
            case RunContinued() if self._is_waiting:
                self._is_waiting = False
                return (Moment.CONTINUED,)
            case RunHalted(cause=cause) if cause not in QUIET_HALTS:
                self._has_halted = True
                return (Moment.HALTED,)
        return ()

    def _end(self, report: Report) -> tuple[Moment, ...]:
        self._report = report
        self._causes = _Causes(report.outcomes)
        end = _ENDS.get(report.status, Moment.INTERRUPTED)
        told = (end is Moment.HALTED and self._has_halted) or (end is Moment.PAUSED and self._is_waiting)
        return (Moment.FINISHED,) if told else (end, Moment.FINISHED)

    def _count(self, outcome: Outcome) -> None:
        self._counts[outcome.status] += 1
        self._causes.add(outcome)
        if outcome.wave is not None:
            counts = self._wave(outcome.wave)["counts"]
            counts[outcome.status.value] = counts.get(outcome.status.value, 0) + 1

    def _wave(self, name: str) -> dict[str, Any]:
        return self._waves.setdefault(name, {"name": name, "status": "not_started", "counts": {}})

    def message(self, moment: Moment, event: Event | None, identifier: str) -> Message:
        """The notification of a moment; without an event, that of a run whose runner never said how it ended."""
        body = {
            "format": NOTIFICATION_FORMAT,
            "id": identifier,
            "event": moment.value,
            "run": self.run,
            "project": self._plan.project,
            "environment": self._plan.environment,
            "command": self._plan.command.value,
            "revision": list(self._plan.revision[:MOST_REVISIONS]),
            "strategy": self._plan.strategy,
            **self._standing(moment),
            "text": self._text(moment, event),
            "targets": self._targets,
            "counts": self._numbers(),
            "waves": self._shown_waves(),
            "failures": self._causes.largest(),
            "causes": len(self._causes),
            "next": self._next(moment),
            "at": format_time(datetime.datetime.now(datetime.UTC)),
        }
        return Message(moment=moment, id=identifier, body=_fitted(_scrubbed(body)))

    def _standing(self, moment: Moment) -> dict[str, Any]:
        report = self._report
        status = report.status if report else _STATUSES.get(moment, RunStatus.RUNNING)
        return {
            "operator": report.operator if report else self._operator,
            "status": status.value,
            "exit_code": int(report.exit_code) if report else None,
        }

    def _numbers(self) -> dict[str, int]:
        if self._report:
            return self._report.counts
        return {status.value: self._counts[status] for status in Status}

    def _shown_waves(self) -> list[dict[str, Any]]:
        """The latest of many waves say how it goes."""
        waves: list[dict[str, Any]]
        if self._report and self._report.waves:
            waves = [{"name": one.name, "status": one.status, "counts": one.counts} for one in self._report.waves]
        else:
            waves = list(self._waves.values())
        begun = [wave for wave in waves if wave["status"] != "not_started"] or waves
        shown = begun[-MOST_WAVES:]
        return [{**wave, "counts": {name: n for name, n in wave["counts"].items() if n}} for wave in shown]

    # -- in words -----------------------------------------------------------------------------------------------

    def _text(self, moment: Moment, event: Event | None) -> str:
        """One line for people."""
        place = " ".join(part for part in (self._plan.project, self._plan.environment) if part)
        what = f"{self._plan.command.value}{_goal(self._plan.revision)}"
        return f"{place}: {what} {self._happening(moment, event)} (run {self.run})"

    def _happening(self, moment: Moment, event: Event | None) -> str:
        match event:
            case RunStarted():
                waves = [len(wave.jobs) for wave in self._plan.waves if wave.jobs]
                return f"started: {_counted(sum(waves), 'target')} in {_counted(len(waves), 'wave')}"
            case WaveFinished(wave=wave):
                return f"has finished wave {wave}: {_numbers_text(self._wave(wave)['counts'])}"
            case GateAnswered(wave=wave, result=result):
                return f"is stopped by the gate of wave {wave}: {_line(result.text)}"
            case RunPaused(text=text) | RunContinued(text=text) | RunHalted(text=text):
                return f"{moment.value}: {_line(text)}"
            case RunFinished(report=report):
                return f"{report.status.value}: {_numbers_text(report.counts)}{self._first_cause()}"
            case _:
                return f"interrupted: its runner ended before the run did; {_numbers_text(self._numbers())}"

    def _first_cause(self) -> str:
        cause = next(iter(self._causes.largest()), None)
        if cause is None:
            return ""
        what = cause["message"] or "its worker died"
        return f"; {', '.join(cause['targets'][:2])}: {_line(what, 200)}"

    def _next(self, moment: Moment) -> str | None:
        """What to type."""
        status = self._report.status if self._report else None
        if moment is Moment.PAUSED or (status is RunStatus.PAUSED and self._is_waiting):
            return f"orchestrate {'continue' if self._is_waiting else 'resume'} {self.run}"
        if moment in (Moment.HALTED, Moment.GATE_FAILED) or status in (RunStatus.HALTED, RunStatus.FAILED):
            return f"orchestrate {'retry' if len(self._causes) else 'resume'} {self.run}"
        if moment is Moment.INTERRUPTED or status is RunStatus.INTERRUPTED:
            return None if status is RunStatus.ABORTED else f"orchestrate resume {self.run}"
        return None


def trial(project: str, environment: str) -> Message:
    """A message of the usual form for trying things out: its event and its status are those of no run."""
    place = " ".join(part for part in (project, environment) if part)
    identifier = uuid.uuid4().hex
    body: dict[str, Any] = {
        "format": NOTIFICATION_FORMAT,
        "id": identifier,
        "event": TRIAL,
        "run": None,
        "project": project,
        "environment": environment,
        "command": None,
        "revision": [],
        "strategy": None,
        "operator": None,
        "status": None,
        "exit_code": None,
        "text": f"{place}: a trial of `orchestrate doctor --notify`; nothing was run",
        "targets": 0,
        "counts": dict.fromkeys((status.value for status in Status), 0),
        "waves": [],
        "failures": [],
        "causes": 0,
        "next": None,
        "at": format_time(datetime.datetime.now(datetime.UTC)),
    }
    return Message(moment=Moment.STARTED, id=identifier, body=_fitted(_scrubbed(body)))


def _cause(cause: _Cause) -> dict[str, Any]:
    failure, reason = cause.first.failure, cause.first.reason
    return {
        "status": cause.first.status.value,
        "fingerprint": failure.fingerprint if failure else "",
        "code": failure.code if failure else None,
        "type": failure.type if failure else None,
        "message": _line(failure.message if failure else reason.text if reason else ""),
        "revision": failure.revision if failure else None,
        "advice": _line(failure.advice) if failure else "",
        "targets": cause.names,
        "count": cause.count,
    }


def _goal(revision: Sequence[str]) -> str:
    shown = ", ".join(revision[:3]) + (" and more" if len(revision) > 3 else "")
    return f" to {shown}" if shown else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _numbers_text(counts: Mapping[str, int]) -> str:
    """`998 upgraded, 1 failed`."""
    told = (f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items() if number)
    return ", ".join(told) or "no targets"


def _line(text: str, longest: int = LONGEST_TEXT) -> str:
    line = first_line(scrub(text))
    return line if len(line) <= longest else f"{line[:longest]}…"


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {key: _scrubbed(item) for key, item in value.items()}
    return [_scrubbed(item) for item in value] if isinstance(value, list) else value


def _fitted(body: dict[str, Any]) -> dict[str, Any]:
    """The body, without the last of its causes, waves and revisions where it would be too large."""
    while len(json.dumps(body)) > LARGEST_BODY:
        key = next((key for key in ("failures", "waves", "revision") if body[key]), None)
        if key is None:
            return body
        body = {**body, key: body[key][:-1]}
    return body

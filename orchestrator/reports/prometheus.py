"""A run as gauges in a file, for the textfile collector of Prometheus' node exporter.

The format is a dozen lines to write and the file has three labels, so no library is asked for it: `--metrics` works
wherever orchestrate does. A tenant is never a label: a fleet would be ten thousand series for each gauge.
"""

from __future__ import annotations

import collections
import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.events import Event, JobFinished, JobsAdded, RunContinued, RunPaused, RunStarted
from orchestrator.outcomes import Report, RunStatus, Status
from orchestrator.plans import Plan
from orchestrator.reports import files, words

SECONDS_BETWEEN_WRITES = 10.0

#: when a command of that name last succeeded before this run, None where it never did
LastSuccess = Callable[[str], "datetime.datetime | None"]

_HELP = {
    "run_info": "The run that these figures are about.",
    "targets": "Targets by what happened to them; not_started while a run is on means not yet.",
    "wave_targets": "The same for each wave.",
    "run_duration_seconds": "How long the run took, or has taken so far.",
    "run_status": "1 for the status that the run has, 0 for every other.",
    "last_run_timestamp_seconds": "When the run ended, or when these figures were written while it is on.",
    "last_success_timestamp_seconds": "When such a command last succeeded.",
}


class Gauges:
    """A listener that writes the file when a run begins or pauses, every ten seconds, and with `finish` at the end."""

    def __init__(self, path: Path, last_success: LastSuccess, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._last_success = last_success
        self._clock = clock
        self._plan: Plan | None = None
        self._run = ""
        self._status = RunStatus.RUNNING
        self._began = self._written = 0.0
        self._succeeded: datetime.datetime | None = None
        self._counts: dict[str | None, collections.Counter[str]] = {}

    def __call__(self, event: Event) -> None:
        """Count, and write when it is time; a file that cannot be written is told of at the end."""
        match event:
            case RunStarted(run=run, plan=plan):
                self._begin(run, plan)
            case JobFinished(outcome=outcome):
                counts = self._counts.setdefault(outcome.wave, collections.Counter())
                counts[Status.NOT_STARTED] -= 1
                counts[outcome.status] += 1
                if self._status is RunStatus.PAUSED:
                    # What was at work when the pause began ends in it, and nothing comes after that for long.
                    self._written = 0.0
            case RunPaused() | RunContinued():
                self._status = RunStatus.PAUSED if isinstance(event, RunPaused) else RunStatus.RUNNING
                # A pause may be long, and nothing happens in it.
                self._written = 0.0
            case JobsAdded(wave=wave, jobs=jobs):
                self._counts.setdefault(wave, collections.Counter())[Status.NOT_STARTED] += len(jobs)
            case _:
                pass
        if self._plan is not None and self._clock() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write_so_far(self._plan)

    def finish(self, report: Report) -> None:
        """Write what the run came to; raises `SettingsError` when the file cannot be written."""
        now = self._clock()
        success = now if report.status is RunStatus.SUCCEEDED else _timestamp(self._succeeded)
        files.write(self._path, render(report, ended=now, last_success=success), option="--metrics")

    def _begin(self, run: str, plan: Plan) -> None:
        self._run, self._plan, self._began = run, plan, self._clock()
        self._succeeded = self._last_success(plan.command.value)
        for outcome in plan.settled:
            self._counts.setdefault(outcome.wave, collections.Counter())[outcome.status] += 1
        for wave in plan.waves:
            self._counts.setdefault(wave.name, collections.Counter())[Status.NOT_STARTED] += len(wave.jobs)

    def _write_so_far(self, plan: Plan) -> None:
        self._written = now = self._clock()
        lines = _lines(
            _labels(plan.project, plan.environment, plan.command.value),
            info={"run": self._run, "revision": ",".join(plan.revision), "strategy": plan.strategy},
            counts=self._counts,
            status=self._status,
            duration=now - self._began,
            ended=now,
            last_success=_timestamp(self._succeeded),
        )
        try:
            files.write(self._path, "\n".join(lines) + "\n", option="--metrics")
        except SettingsError:
            pass  # the run matters more; `finish` says it


def render(report: Report, *, ended: float, last_success: float | None) -> str:
    """The gauges of a run; times are seconds since 1970."""
    counts: dict[str | None, collections.Counter[str]] = {}
    for outcome in report.outcomes:
        counts.setdefault(outcome.wave, collections.Counter())[outcome.status] += 1
    lines = _lines(
        _labels(report.project, report.environment, report.command),
        info={"run": report.run, "revision": ",".join(report.revision), "strategy": report.strategy},
        counts=counts,
        status=report.status,
        duration=report.duration_s,
        ended=ended,
        last_success=last_success,
    )
    return "\n".join(lines) + "\n"


def _labels(project: str, environment: str, command: str) -> dict[str, str]:
    return {"project": project, "environment": environment, "command": command}


def _lines(
    labels: Mapping[str, str],
    *,
    info: Mapping[str, str],
    counts: Mapping[str | None, Mapping[str, int]],
    status: RunStatus,
    duration: float,
    ended: float,
    last_success: float | None,
) -> Iterator[str]:
    total: collections.Counter[str] = collections.Counter()
    for own in counts.values():
        total.update(own)
    waves = [(name, own) for name, own in counts.items() if name is not None]
    yield from _gauge("run_info", [({**labels, **info}, 1)])
    yield from _gauge("targets", [({**labels, "status": one}, total[one]) for one in Status])
    yield from _gauge(
        "wave_targets",
        [({**labels, "wave": name, "status": one}, own.get(one, 0)) for name, own in waves for one in Status],
    )
    yield from _gauge("run_duration_seconds", [(labels, round(duration, 3))])
    yield from _gauge("run_status", [({**labels, "status": one}, int(one is status)) for one in RunStatus])
    yield from _gauge("last_run_timestamp_seconds", [(labels, round(ended, 3))])
    if last_success is not None:
        yield from _gauge("last_success_timestamp_seconds", [(labels, round(last_success, 3))])


def _gauge(name: str, samples: list[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP orchestrate_{name} {_HELP[name]}"
    yield f"# TYPE orchestrate_{name} gauge"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"orchestrate_{name}{{{pairs}}} {value}"


def _escaped(text: str) -> str:
    return words.visible(text).replace("\\", "\\\\").replace('"', '\\"')


def _timestamp(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()

"""What can be reckoned from a report, for every form of it: when waves ran, where targets stand, what took long."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.outcomes import GateResult, Outcome, Report, RunStatus, Status

#: shown of the slowest
SLOWEST = 20
UNKNOWN, ABSENT = "unknown", "not there"
#: nobody has read them again: they are where they were found
_UNTOUCHED = frozenset({Status.SKIPPED, Status.DEFERRED, Status.NOT_STARTED})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A wave and when it ran."""

    name: str
    status: str
    counts: Mapping[str, int]
    gate: GateResult | None
    #: both None for a wave that did not begin
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None
    #: from the end of the wave to the start of the next one: its pause and its gate
    pause_s: float = 0.0

    @property
    def seconds(self) -> float:
        """How long its jobs took, from the first to the last."""
        if self.started_at is None or self.finished_at is None:
            return 0.0
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


def spans(report: Report) -> list[Span]:
    """All waves in order; where the report has no times of a wave, those of its outcomes stand for them."""
    by_wave: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        if outcome.wave is not None:
            by_wave.setdefault(outcome.wave, []).append(outcome)
    made = []
    for wave in report.waves:
        started, finished = _times(by_wave.get(wave.name, ()))
        made.append(
            Span(
                name=wave.name,
                status=wave.status,
                counts=wave.counts,
                gate=wave.gate,
                started_at=wave.started_at or started,
                finished_at=wave.finished_at or finished,
            )
        )
    return _with_pauses(made)


def standings(outcomes: Iterable[Outcome]) -> list[tuple[str, int]]:
    """Number of targets at each set of heads, the most first; those of which nobody knows are last."""
    counts = collections.Counter(_at(outcome) for outcome in outcomes)
    return sorted(counts.items(), key=lambda item: (item[0] == UNKNOWN, -item[1], item[0]))


def slowest(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The targets that took longest, in their last try."""
    timed = [outcome for outcome in outcomes if outcome.duration_ms is not None]
    return sorted(timed, key=_milliseconds, reverse=True)[:SLOWEST]


def quantiles(outcomes: Iterable[Outcome]) -> tuple[float, float] | None:
    """Median and 95th percentile of the milliseconds that a target took; None where too few have any."""
    timed = [_milliseconds(outcome) for outcome in outcomes if outcome.duration_ms is not None]
    if len(timed) < SLOWEST:
        return None
    return statistics.median(timed), statistics.quantiles(timed, n=20)[-1]


def finished_at(report: Report) -> datetime.datetime | None:
    """When the run ended, None while it is live."""
    if report.status is RunStatus.RUNNING:
        return None
    return report.started_at + datetime.timedelta(seconds=report.duration_s)


def _times(outcomes: Sequence[Outcome]) -> tuple[datetime.datetime | None, datetime.datetime | None]:
    timed = [outcome for outcome in outcomes if outcome.started_at is not None]
    if not timed:
        return None, None
    ends = [one.started_at + datetime.timedelta(milliseconds=_milliseconds(one)) for one in timed if one.started_at]
    return min(one.started_at for one in timed if one.started_at), max(ends)


def _with_pauses(waves: Sequence[Span]) -> list[Span]:
    """What lies between the end of a wave and the start of the next one that began."""
    made = []
    for number, wave in enumerate(waves):
        later = (other.started_at for other in waves[number + 1 :] if other.started_at is not None)
        following = next(later, None)
        if following is None or wave.finished_at is None:
            made.append(wave)
            continue
        pause = max(0.0, (following - wave.finished_at).total_seconds())
        made.append(dataclasses.replace(wave, pause_s=pause))
    return made


def _at(outcome: Outcome) -> str:
    if outcome.status is Status.NOT_PROVISIONED:
        return ABSENT
    at = outcome.found if outcome.at is None and outcome.status in _UNTOUCHED else outcome.at
    return UNKNOWN if at is None else ", ".join(at) or "base"


def _milliseconds(outcome: Outcome) -> float:
    return outcome.duration_ms or 0.0

"""A run of somebody else's, followed by its ledger alone: what is written there becomes the events of its runner."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.cli import deferred
from orchestrator.outcomes import FAILING, Outcome, RunStatus, Status

if TYPE_CHECKING:
    from orchestrator.cli.progress import Progress
    from orchestrator.events import Event
    from orchestrator.ledger import Ledger, News, Request, Run, WaveMark
    from orchestrator.plans import Job, Plan

#: reasons for putting a target off to another run; for the others it waits for its turn in this one
FOR_GOOD = frozenset({"window", "freeze", "deadline", "paused"})


class _Seen(NamedTuple):
    """What one look found in the ledger."""

    run: Run
    news: News
    requests: Sequence[Request]
    marks: Sequence[WaveMark]


class Follower:
    """Reads a run of the ledger again and again, and tells a progress what is new."""

    def __init__(self, ledger: Ledger, run: str, progress: Progress) -> None:
        self._ledger = ledger
        self._run = run
        self._progress = progress
        self._tell: Callable[[Event], None] = progress
        self._plan: Plan | None = None
        self._known: set[str] = set()
        self._last = 0
        self._at_work: set[str] = set()
        self._marks: dict[str, WaveMark] = {}
        #: waves behind which the run waits, and whether it waits in the middle of one
        self._waiting: set[str] = set()
        self._paused = False
        self._heard = 0

    def look(self) -> Run:
        """Take in what has come since the last look; returns the run as it is now.

        Nothing is taken in where the ledger fails in the middle of it: the next look has it all.
        """
        run = self._ledger.run(self._run)
        news = self._ledger.news(run.id, after=self._last)
        requests, marks = self._ledger.requests(run.id), self._ledger.wave_marks(run.id)
        if self._plan is None:
            self._begin(_Seen(run, news, requests, marks), self._ledger.plan(run.id))
            return run
        # Tenants may have joined since the plan was read.
        joined = not {*news.at_work, *(outcome.target for outcome in news.outcomes)} <= self._known
        plan = self._ledger.plan(run.id) if joined else None
        if plan is not None:
            self._add_unknown(plan)
        self._catch_up(_Seen(run, news, requests, marks))
        return run

    def _begin(self, seen: _Seen, plan: Plan) -> None:
        """All that was before is counted without a word, but for failures: these are what one looks for."""
        run, news = seen.run, seen.news
        self._plan = plan
        self._known = {job.target for job in plan.jobs} | {outcome.target for outcome in plan.settled}
        latest = {outcome.target: outcome for outcome in news.outcomes}
        over = {target: one for target, one in latest.items() if not _waits(one) and one.status not in FAILING}
        tally = self._progress.tally
        self._tell = tally.take
        tally.take(deferred.events.RunStarted(run=run.id, plan=_left(plan, over)))
        planned = {outcome.target: outcome for outcome in plan.settled}
        rest = [one for target, one in latest.items() if target not in over and planned.get(target) != one]
        self._catch_up(seen._replace(news=dataclasses.replace(news, outcomes=rest)))
        now = _now()
        tally.come_late((now - run.started_at).total_seconds(), _seconds(news.at_work, now))
        self._tell = self._progress
        self._progress.begin("is on")

    def _catch_up(self, seen: _Seen) -> None:
        news = seen.news
        self._last = news.last
        for outcome in news.outcomes:
            waits = _waits(outcome)
            events = deferred.events
            self._tell(
                events.JobDeferred(outcome=outcome, delay_s=0.0) if waits else events.JobFinished(outcome=outcome)
            )
        # A target with an outcome may be at work again.
        heard = {outcome.target for outcome in news.outcomes}
        for target in news.at_work:
            if target not in self._at_work or target in heard:
                self._tell(deferred.events.JobStarted(job=self._job(target)))
        self._at_work = set(news.at_work)
        self._heed_requests(seen.requests)
        self._heed_marks(seen.marks, paused=seen.run.status is RunStatus.PAUSED)

    # -- jobs ---------------------------------------------------------------------------------------------------

    def _add_unknown(self, plan: Plan) -> None:
        self._plan = plan
        for wave in plan.waves:
            jobs = tuple(job for job in wave.jobs if job.target not in self._known)
            if jobs:
                self._tell(deferred.events.JobsAdded(wave=wave.name, jobs=jobs))
                self._known |= {job.target for job in jobs}

    def _job(self, target: str) -> Job:
        assert self._plan is not None
        return next(job for job in self._plan.jobs if job.target == target)

    # -- waves, pauses, budgets ---------------------------------------------------------------------------------

    def _heed_requests(self, requests: Sequence[Request]) -> None:
        kinds = deferred.ledger.RequestKind
        for request in requests:
            if request.id <= self._heard:
                continue
            self._heard = request.id
            if request.kind is kinds.BUDGET:
                detail = request.detail
                self._tell(
                    deferred.events.BudgetChanged(wave=detail.get("wave"), max_failures=detail.get("max_failures"))
                )

    def _heed_marks(self, marks: Sequence[WaveMark], *, paused: bool) -> None:
        for mark in marks:
            for event in self._heed_mark(mark, paused=paused):
                self._tell(event)
            self._marks[mark.wave] = mark
        behind = any(mark.holds for mark in self._marks.values())
        self._heed_pause(paused=paused and not behind)

    def _heed_mark(self, mark: WaveMark, *, paused: bool) -> Iterator[Event]:
        before = self._marks.get(mark.wave) or deferred.ledger.WaveMark(wave=mark.wave)
        events = deferred.events
        if mark.started_at is not None and before.started_at is None:
            yield events.WaveStarted(wave=mark.wave, jobs=self._jobs_of(mark.wave))
        if mark.finished_at is not None and before.finished_at is None:
            yield events.WaveFinished(wave=mark.wave)
        yield from self._heed_wait(mark, paused=paused)
        if mark.gate is not None and mark.gate != before.gate:
            yield events.GateAnswered(wave=mark.wave, result=mark.gate)

    def _heed_wait(self, mark: WaveMark, *, paused: bool) -> Iterator[Event]:
        """The pause behind a wave that has ended, and the end of it."""
        left = self._seconds_behind(mark)
        # Where only a person ends it, the run itself says that it waits for one.
        waits = paused if left is None else left > 0
        if waits and mark.wave not in self._waiting:
            self._waiting.add(mark.wave)
            cause = "person" if left is None else "bake"
            yield deferred.events.RunPaused(cause=cause, text=f"wave {mark.wave} is done", wave=mark.wave, seconds=left)
        elif mark.wave in self._waiting and not waits:
            self._waiting.discard(mark.wave)
            yield deferred.events.RunContinued(text=f"the pause behind wave {mark.wave} is over")

    def _seconds_behind(self, mark: WaveMark) -> float | None:
        """What is left of the pause behind a wave, None where a person ends it."""
        pause = self._pause_of(mark.wave)
        if mark.finished_at is None or mark.passed or pause is None or mark.gate is not None:
            return 0.0
        return None if isinstance(pause, str) else pause - (_now() - mark.finished_at).total_seconds()

    def _heed_pause(self, *, paused: bool) -> None:
        if paused and not self._paused:
            self._tell(deferred.events.RunPaused(cause="person", text="somebody has paused the run"))
        if self._paused and not paused:
            self._tell(deferred.events.RunContinued(text="somebody has continued the run"))
        self._paused = paused

    def _jobs_of(self, wave: str) -> int:
        assert self._plan is not None
        return sum(len(one.jobs) for one in self._plan.waves if one.name == wave)

    def _pause_of(self, wave: str) -> float | str | None:
        assert self._plan is not None
        return next((one.pause for one in self._plan.waves if one.name == wave), None)


def _left(plan: Plan, over: Mapping[str, Outcome]) -> Plan:
    """The plan as a runner has it that goes on with the run: what is over is settled."""
    waves = (
        dataclasses.replace(wave, jobs=tuple(job for job in wave.jobs if job.target not in over)) for wave in plan.waves
    )
    settled = {**{outcome.target: outcome for outcome in plan.settled}, **over}
    return dataclasses.replace(plan, waves=tuple(waves), settled=tuple(settled.values()))


def _waits(outcome: Outcome) -> bool:
    """Whether the target will get another turn in this run."""
    code = outcome.reason.code if outcome.reason else None
    return outcome.status is Status.DEFERRED and code not in FOR_GOOD


def _seconds(at_work: Mapping[str, datetime.datetime], now: datetime.datetime) -> dict[str, float]:
    return {target: max(0.0, (now - since).total_seconds()) for target, since in at_work.items()}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

"""The numbers of a run so far, counted from its events, and pictures of them that other threads may draw."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from orchestrator.cli import deferred
from orchestrator.cli.pictures import Counts, Phase, Picture, WavePicture, WaveState
from orchestrator.outcomes import DONE, FAILING, GateResult, Outcome, Status, Verdict

if TYPE_CHECKING:
    from orchestrator.events import Event, RunPaused
    from orchestrator.plans import Job, Plan, Wave

#: the rate is that of so many seconds, or of so many ends where these took longer
RATE_SECONDS = 30.0
RATE_ENDS = 10
SECONDS_BETWEEN_SAMPLES = 0.5
#: targets at work whose names are shown
LONGEST = 3


@dataclasses.dataclass(slots=True)
class WaveTally:
    """Numbers of one wave."""

    name: str
    max_failures: int | None = None
    #: measurements that its gate takes, 0 without one
    measurements: int = 0
    members: set[str] = dataclasses.field(default_factory=set)
    ended: Counter[str] = dataclasses.field(default_factory=Counter)
    state: WaveState = WaveState.NOT_STARTED
    until: float | None = None
    asked: int = 0
    text: str = ""

    def picture(self, now: float, faults: Iterable[str]) -> WavePicture:
        """The wave at this moment; `faults` are what its budget counts."""
        asking = self.state is WaveState.ASKING and self.asked > 0
        return WavePicture(
            name=self.name,
            state=self.state,
            total=len(self.members),
            done=self.ended["done"],
            failed=self.ended["failed"],
            ended=self.ended.total(),
            failures_left=_left(self.max_failures, faults),
            seconds_left=None if self.until is None else max(0.0, self.until - now),
            asking=(min(self.asked + 1, self.measurements), self.measurements) if asking else None,
            text=self.text,
        )

    def change(self, state: WaveState, *, until: float | None = None, text: str = "") -> None:
        """Enter another state."""
        self.state, self.until, self.text = state, until, text

    def answer(self, result: GateResult) -> None:
        """Take in what its gate came to, once or in all."""
        self.asked = max(self.asked + 1, result.measurements)
        overruled = result.is_overruled
        match result.verdict:
            case Verdict.PASSED if self.asked < self.measurements and not overruled:
                pass
            case Verdict.PASSED:
                self.change(WaveState.DONE, text=result.text)
            case Verdict.FAILED:
                self.change(WaveState.REFUSED, text=result.text)
            case Verdict.INCONCLUSIVE:
                self.change(WaveState.WAITING, text=result.text)


class Rate:
    """How fast jobs end of late."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def start(self, now: float, ended: int) -> None:
        """Forget what was before a pause."""
        self._samples.clear()
        self._samples.append((now, ended))

    def add(self, now: float, ended: int) -> None:
        """Note how many have ended by now."""
        samples = self._samples
        if samples and now - samples[-1][0] < SECONDS_BETWEEN_SAMPLES:
            return
        samples.append((now, ended))
        while len(samples) > 1 and self._is_stale(samples[1], now, ended):
            samples.popleft()

    def now(self, now: float, ended: int) -> float:
        """Jobs per second."""
        if not self._samples:
            return 0.0
        since, before = self._samples[0]
        return (ended - before) / (now - since) if now > since else 0.0

    @staticmethod
    def _is_stale(next_one: tuple[float, int], now: float, ended: int) -> bool:
        """Whether the sample that follows the first one is old enough to take its place."""
        since, before = next_one
        return now - since >= RATE_SECONDS and ended - before >= RATE_ENDS


class Tally:
    """Numbers of the run so far. Events come in one thread; `picture` may be called from any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._run = ""
        self._began = clock()
        self._phase, self._text = Phase.RUNNING, ""
        self._failures_allowed: int | None = None
        self._waves: dict[str, WaveTally] = {}
        self._wave_of: dict[str, WaveTally] = {}
        #: every target of the run is in the fleet, and in at most one of the three below
        self._fleet: set[str] = set()
        self._running: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._ended: dict[str, str] = {}
        #: how many of `_ended` are there, by what became of them
        self._kinds: Counter[str] = Counter()
        self._jobs_ended = 0
        #: what the budgets count, by target: a server that is down is one fault of all its targets
        self._faults: dict[str, str] = {}
        self._rate = Rate()
        #: how often a target went back to the queue, and how often one failed
        self.deferrals = 0
        self.failures = 0

    # -- reading ------------------------------------------------------------------------------------------------

    # Without the lock, since a signal handler may have interrupted the thread that holds it.

    @property
    def running(self) -> int:
        """Targets at work."""
        return len(self._running)

    @property
    def not_started(self) -> int:
        """Targets that no worker has seen yet."""
        return len(self._fleet) - len(self._ended) - len(self._running) - len(self._waiting)

    @property
    def jobs(self) -> int:
        """Jobs of the run, done or not."""
        return len(self._wave_of)

    @property
    def ended(self) -> int:
        """Jobs that have an outcome."""
        return self._jobs_ended

    def picture(self) -> Picture | None:
        """The run at this moment, None before it has begun."""
        with self._lock:
            return None if self._plan is None else self._picture(self._plan, self.clock())

    def _picture(self, plan: Plan, now: float) -> Picture:
        rate = self._rate.now(now, self._jobs_ended) if self._running else None
        left = self.jobs - self._jobs_ended
        return Picture(
            run=self._run,
            command=plan.command.value,
            revision=plan.revision,
            project=plan.project,
            environment=plan.environment,
            phase=self._phase,
            text=self._text,
            seconds=now - self._began,
            counts=self._counts(),
            jobs=self.jobs,
            ended=self._jobs_ended,
            rate=rate,
            seconds_left=left / rate if rate and left and self._phase is Phase.RUNNING else None,
            failures_left=_left(self._failures_allowed, self._faults.values()),
            waves=tuple(self._wave_pictures(now)),
            longest=tuple((name, max(0.0, now - since)) for name, since in self._oldest()),
        )

    def _counts(self) -> Counts:
        return Counts(
            done=self._kinds["done"],
            failed=self._kinds["failed"],
            running=self.running,
            waiting=len(self._waiting),
            left_alone=self._kinds["left_alone"],
            not_started=self.not_started,
        )

    def _wave_pictures(self, now: float) -> Iterable[WavePicture]:
        faults: dict[str, list[str]] = {}
        for target, fault in self._faults.items():
            if target in self._wave_of:
                faults.setdefault(self._wave_of[target].name, []).append(fault)
        return (wave.picture(now, faults.get(wave.name, ())) for wave in self._waves.values())

    def _oldest(self) -> Iterable[tuple[str, float]]:
        """In the order in which they started, which is the order of the dictionary."""
        return itertools.islice(self._running.items(), LONGEST)

    # -- counting -----------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            self._take_job(event)
            self._take_wave(event)
            self._take_run(event)

    def come_late(self, seconds: float, at_work: Mapping[str, float]) -> None:
        """What whoever watches a run of others cannot have seen: since when it runs, and each of its targets at work.

        What was counted before is no rate.
        """
        with self._lock:
            now = self.clock()
            self._began = now - seconds
            self._rate.start(now, self._jobs_ended)
            since = {target: now - at_work.get(target, 0.0) for target in self._running}
            self._running = dict(sorted(since.items(), key=lambda pair: pair[1]))

    def _take_job(self, event: Event) -> None:
        match event:
            case deferred.events.JobStarted(job=job):
                self._move(job.target)
                self._running[job.target] = self.clock()
            case deferred.events.JobDeferred(outcome=outcome):
                self._move(outcome.target)
                self._waiting.add(outcome.target)
                self.deferrals += 1
            case deferred.events.JobFinished(outcome=outcome):
                self._end(outcome)
                self.failures += outcome.status in FAILING
                self._rate.add(self.clock(), self._jobs_ended)
            case _:
                pass

    def _take_wave(self, event: Event) -> None:
        match event:
            case deferred.events.WaveStarted(wave=name):
                self._begin(name)
            case deferred.events.WaveFinished(wave=name):
                # Its pause, when there is one, says so itself.
                wave = self._wave(name)
                wave.change(WaveState.ASKING if wave.measurements else WaveState.DONE)
            case deferred.events.GateAnswered(wave=name, result=result):
                self._wave(name).answer(result)
            case deferred.events.BudgetChanged(wave=None, max_failures=number):
                self._failures_allowed = number
            case deferred.events.BudgetChanged(wave=str(name), max_failures=number):
                self._wave(name).max_failures = number
            case deferred.events.JobsAdded(wave=name, jobs=jobs):
                self._add_jobs(name, jobs)
            case _:
                pass

    def _take_run(self, event: Event) -> None:
        match event:
            case deferred.events.RunStarted(run=run, plan=plan):
                self._start(run, plan)
            case deferred.events.RunPaused():
                self._pause(event)
            case deferred.events.RunContinued():
                self._go_on()
            case deferred.events.RunHalted(cause=cause, text=text):
                self._phase = Phase.DRAINING if cause == "interrupted" else Phase.HALTED
                self._text = text
            case _:
                pass

    def _start(self, run: str, plan: Plan) -> None:
        self._run, self._plan, self._began = run, plan, self.clock()
        self._failures_allowed = plan.max_failures
        planned = {wave.name for wave in plan.waves}
        for outcome in plan.settled:
            if outcome.wave is not None and outcome.wave not in planned:
                # An earlier runner of this run has done with it.
                self._wave(outcome.wave).change(WaveState.DONE)
        for wave in plan.waves:
            self._add_wave(wave)
        for outcome in plan.settled:
            wave_of = None if outcome.wave is None else self._wave(outcome.wave)
            if wave_of is not None:
                wave_of.members.add(outcome.target)
                self._wave_of[outcome.target] = wave_of
            self._end(outcome, settled=True)
        self._rate.start(self._began, self._jobs_ended)

    def _wave(self, name: str) -> WaveTally:
        return self._waves.setdefault(name, WaveTally(name))

    def _add_wave(self, wave: Wave) -> None:
        tally = self._wave(wave.name)
        tally.max_failures = wave.max_failures
        tally.measurements = wave.gate.count if wave.gate else 0
        self._add_jobs(wave.name, wave.jobs)

    def _add_jobs(self, name: str, jobs: Iterable[Job]) -> None:
        wave = self._wave(name)
        for job in jobs:
            wave.members.add(job.target)
            self._wave_of[job.target] = wave
            self._fleet.add(job.target)

    def _begin(self, name: str) -> None:
        begun = self._wave(name)
        for wave in self._waves.values():
            if wave is begun:
                break
            wave.change(WaveState.DONE)
        begun.change(WaveState.RUNNING)
        self._rate.start(self.clock(), self._jobs_ended)

    def _pause(self, event: RunPaused) -> None:
        wave = self._waves.get(event.wave) if event.wave is not None else None
        if wave is None:
            self._phase, self._text = Phase.PAUSED, event.text
            return
        until = None if event.seconds is None else self.clock() + event.seconds
        wave.change(WaveState.WAITING if until is None else WaveState.BAKING, until=until, text=event.text)

    def _go_on(self) -> None:
        if self._phase is Phase.PAUSED:
            self._phase, self._text = Phase.RUNNING, ""
        for wave in self._waves.values():
            if wave.state in {WaveState.BAKING, WaveState.WAITING}:
                wave.change(WaveState.ASKING if wave.measurements and not wave.asked else WaveState.DONE)
        self._rate.start(self.clock(), self._jobs_ended)

    def _end(self, outcome: Outcome, *, settled: bool = False) -> None:
        self._move(outcome.target)
        kind = _kind(outcome)
        if kind is None:
            return
        self._ended[outcome.target] = kind
        self._kinds[kind] += 1
        if outcome.target in self._wave_of:
            self._wave_of[outcome.target].ended[kind] += 1
            self._jobs_ended += 1
        fault = _fault(outcome, settled=settled)
        if fault is not None:
            self._faults[outcome.target] = fault

    def _move(self, target: str) -> None:
        """Take a target out of the place where it was; one that nobody announced is of the fleet from now on."""
        self._fleet.add(target)
        self._running.pop(target, None)
        self._waiting.discard(target)
        self._faults.pop(target, None)
        kind = self._ended.pop(target, None)
        if kind is not None:
            self._kinds[kind] -= 1
            if target in self._wave_of:
                self._wave_of[target].ended[kind] -= 1
                self._jobs_ended -= 1


def _kind(outcome: Outcome) -> str | None:
    """Where the target is counted; None when it has not been started."""
    if outcome.status is Status.NOT_STARTED:
        return None
    if outcome.status in DONE:
        return "done"
    return "failed" if outcome.status in FAILING else "left_alone"


def _fault(outcome: Outcome, *, settled: bool) -> str | None:
    """What the budgets count it as; they leave out a server that was down before the run began."""
    if outcome.status not in FAILING:
        return None
    down = deferred.rollout.is_server_down(outcome)
    if down and settled:
        return None
    return f"server {outcome.server}" if down else f"target {outcome.target}"


def _left(allowed: int | None, faults: Iterable[str]) -> int | None:
    return None if allowed is None else max(0, allowed - len(set(faults)))

"""Whatever the plan, the caps and the fates of its jobs: what must always hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import rollout
from orchestrator.errors import ExitCode
from orchestrator.events import Event, JobDeferred, JobFinished, RunHalted, WaveStarted
from orchestrator.outcomes import DONE, FAILING, FailureKind, Outcome, RunStatus, Status
from orchestrator.plans import Job, Plan, Retries
from orchestrator.rollout import StopSignal
from orchestrator.testing import (
    FakeClock,
    MemoryLedger,
    RecordingListener,
    ScriptedExecutor,
    a_failure,
    a_job,
    a_plan,
    a_wave,
    an_outcome,
)

FATES = st.sampled_from(
    [Status.UPGRADED] * 6
    + [Status.FAILED, Status.LOST, Status.SKIPPED, Status.DEFERRED, Status.UNCHANGED, Status.NOT_PROVISIONED]
)


def fault(kind: FailureKind, *, crowded: bool = False, known: bool = False) -> Callable[[Job], Outcome]:
    def outcome(job: Job) -> Outcome:
        at = job.found if known else None
        return an_outcome(job, Status.FAILED, at=at, failure=a_failure(kind, crowded=crowded))

    return outcome


FAULTS = {
    "busy": fault(FailureKind.TRANSIENT, known=True),
    "crowded": fault(FailureKind.TRANSIENT, crowded=True),
    "down": fault(FailureKind.SERVER),
    "unknown": fault(FailureKind.AMBIGUOUS),
    "known": fault(FailureKind.AMBIGUOUS, known=True),
}
DELAYS = st.lists(st.floats(0.1, 5.0), max_size=3).map(tuple)
RETRIES = st.builds(Retries, busy=DELAYS, server=DELAYS, lost=st.integers(0, 2))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    number = draw(st.integers(0, 14))
    names = [f"t{index}" for index in range(number)]
    # Any of the others, itself and strangers included: circles and dead ends are the planner's mistakes, not deadlocks.
    befores = st.lists(st.sampled_from([*names, "settled", "stranger"]), max_size=2, unique=True)
    sizes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    waves, rest = [], list(names)
    for index, size in enumerate(sizes):
        taken = rest if index == len(sizes) - 1 else rest[:size]
        rest = rest[len(taken) :]
        jobs = [
            a_job(
                name,
                wave=f"w{index}",
                server=draw(st.sampled_from(["s1", "s2", "sqlite"])),
                after=tuple(draw(befores)) if draw(st.booleans()) else (),
            )
            for name in taken
        ]
        limit = draw(st.none() | st.integers(0, 3))
        waves.append(a_wave(*jobs, name=f"w{index}", concurrency=draw(st.integers(1, 5)), max_failures=limit))
    settled = [an_outcome("settled", draw(FATES), wave=None)] if draw(st.booleans()) else []
    caps = draw(st.dictionaries(st.sampled_from(["s1", "s2", "*"]), st.integers(1, 3)))
    limit = draw(st.none() | st.integers(0, 3))
    return a_plan(*waves, settled=settled, server_caps=caps, max_failures=limit, retries=draw(RETRIES))


class Watched(FakeClock):
    """Ends a random job, or lets time pass, whenever the run waits; checks what must hold at each submission."""

    def __init__(self, plan: Plan, tries: dict[str, list[Outcome]], seed: int, stop: StopSignal, stops_at: int) -> None:
        super().__init__()
        self.plan = plan
        self.known = {job.target for job in plan.jobs} | {outcome.target for outcome in plan.settled}
        self.limits = {wave.name: wave.concurrency for wave in plan.waves}
        self.wave = ""
        self.executor = ScriptedExecutor({name: [*answers] for name, answers in tries.items()}, hold=True)
        self.random = random.Random(seed)
        self.stop = stop
        self.stops_at = stops_at
        self.done: dict[str, Outcome] = {outcome.target: outcome for outcome in plan.settled}
        self.not_before: dict[str, float] = {}
        self.broken: list[str] = []
        self.steps = 0

    def receive(self, inbox: SimpleQueue[Any], seconds: float) -> Any:
        self.steps += 1
        assert self.steps < 20_000, "the run does not end"
        if self.steps == self.stops_at:
            self.stop.drain()
        elif self.executor.in_flight and self.random.random() < 0.7:
            self.executor.finish(self.random.choice(self.executor.in_flight))
        return super().receive(inbox, seconds)

    def submit(self, job: Job) -> Future[Outcome]:
        self.must(job.target not in self.executor.in_flight, "one try at a time")
        self.must(job.target not in self.done, "nothing after the outcome")
        self.must(self.seconds >= self.not_before.get(job.target, 0.0), "delays")
        future = self.executor.submit(job)
        jobs = {found.target: found for found in self.executor.submitted}
        servers = Counter(jobs[target].server for target in self.executor.in_flight)
        caps = self.plan.server_caps
        self.must(servers.total() <= self.limits[self.wave], "concurrency of the wave")
        self.must(all(number <= caps.get(name, caps.get("*", 8)) for name, number in servers.items()), "server cap")
        self.must(all(self.done[name].status in DONE for name in job.after if name in self.known), "order")
        return future

    def hear(self, event: Event) -> None:
        if isinstance(event, WaveStarted):
            self.must(not self.executor.in_flight, "waves one after the other")
            self.wave = event.wave
        if isinstance(event, JobDeferred) and event.outcome.reason and event.outcome.reason.code == "retrying":
            self.not_before[event.outcome.target] = self.seconds + event.delay_s
        if isinstance(event, JobFinished):
            self.must(event.outcome.target not in self.done, "told once")
            self.done[event.outcome.target] = event.outcome

    def must(self, holds: bool, rule: str) -> None:
        # Collected, because the rollout survives whatever its listeners and executors raise.
        if not holds:
            self.broken.append(rule)


def tries_of(job: Job, fates: list[Status | str]) -> list[Outcome]:
    """Answers of the executor; the last one is given for ever."""
    return [an_outcome(job, fate) if isinstance(fate, Status) else FAULTS[fate](job) for fate in fates]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans(), st.data())
def test_every_target_has_one_outcome_and_no_cap_is_exceeded(plan: Plan, data: st.DataObject) -> None:
    fates = {job.target: data.draw(st.lists(FATES | st.sampled_from([*FAULTS]), min_size=1)) for job in plan.jobs}
    tries = {job.target: tries_of(job, fates[job.target]) for job in plan.jobs}
    stop = StopSignal()
    watched = Watched(plan, tries, data.draw(st.integers()), stop, data.draw(st.integers(0, 60)))
    events, ledger = RecordingListener(), MemoryLedger()
    run = ledger.open_run(plan, operator="tester", fleet=1).id
    conclusion = rollout.execute(run, plan, watched.submit, ledger, [events, watched.hear], stop, clock=watched)
    assert not watched.broken

    names = [job.target for job in plan.jobs] + [outcome.target for outcome in plan.settled]
    assert [outcome.target for outcome in conclusion.outcomes] == names
    assert sum(sum(wave.counts.values()) for wave in conclusion.waves) == len(names) - len(plan.settled)
    assert not watched.executor.in_flight
    by_name = {outcome.target: outcome for outcome in conclusion.outcomes}
    submitted = Counter(job.target for job in watched.executor.submitted)
    for name, number in submitted.items():
        assert by_name[name].attempts == len(ledger.attempts(run, name)) == number
        assert by_name[name].status in {answer.status for answer in tries[name][:number]} | {Status.DEFERRED}
    in_ledger = {outcome.target: outcome for outcome in ledger.outcomes(run)}
    unrecorded = {outcome.target for outcome in conclusion.unrecorded}
    assert in_ledger.keys() | unrecorded == set(names)
    assert not in_ledger.keys() & unrecorded
    assert all(by_name[name].status is outcome.status for name, outcome in in_ledger.items())

    statuses = {outcome.status for outcome in conclusion.outcomes}
    halts = [event for event in events.events if isinstance(event, RunHalted)]
    assert len(halts) <= 1
    assert not (Status.NOT_STARTED in statuses and not halts)
    if conclusion.exit_code is ExitCode.OK:
        assert conclusion.status is RunStatus.SUCCEEDED
        assert not statuses & {*FAILING, Status.NOT_STARTED, Status.DEFERRED, Status.NOT_PROVISIONED}

"""Whatever the plan, the caps and the fates of its jobs: what must always hold."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import Future

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import rollout
from orchestrator.errors import ExitCode
from orchestrator.events import Event, JobFinished, RunHalted, WaveStarted
from orchestrator.outcomes import DONE, FAILING, Outcome, RunStatus, Status
from orchestrator.plans import Job, Plan
from orchestrator.rollout import Conclusion, StopSignal
from orchestrator.testing import MemoryLedger, RecordingListener, ScriptedExecutor, a_job, a_plan, a_wave, an_outcome

FATES = st.sampled_from(
    [Status.UPGRADED] * 6
    + [Status.FAILED, Status.LOST, Status.SKIPPED, Status.DEFERRED, Status.UNCHANGED, Status.NOT_PROVISIONED]
)


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
                server=draw(st.sampled_from(["s1", "s2", "s3"])),
                after=tuple(draw(befores)) if draw(st.booleans()) else (),
            )
            for name in taken
        ]
        limit = draw(st.none() | st.integers(0, 3))
        waves.append(a_wave(*jobs, name=f"w{index}", concurrency=draw(st.integers(1, 5)), max_failures=limit))
    settled = [an_outcome("settled", draw(FATES), wave=None)] if draw(st.booleans()) else []
    caps = draw(st.dictionaries(st.sampled_from(["s1", "s2", "*"]), st.integers(1, 3)))
    limit = draw(st.none() | st.integers(0, 3))
    return a_plan(*waves, settled=settled, server_caps=caps, max_failures=limit)


class Watched:
    """Holds jobs open until no more are submitted, then ends one at random; checks what holds at each submission."""

    def __init__(self, plan: Plan, fates: dict[str, Status], seed: int, stop: StopSignal, stop_after: int) -> None:
        self.plan = plan
        self.known = {job.target for job in plan.jobs} | {outcome.target for outcome in plan.settled}
        self.limits = {wave.name: wave.concurrency for wave in plan.waves}
        self.wave = ""
        self.executor = ScriptedExecutor(fates, hold=True)
        self.random = random.Random(seed)
        self.stop = stop
        self.stop_after = stop_after
        self.done: dict[str, Outcome] = {outcome.target: outcome for outcome in plan.settled}
        self.changed = threading.Condition()
        self.over = False
        self.broken: list[str] = []

    def submit(self, job: Job) -> Future[Outcome]:
        with self.changed:
            future = self.executor.submit(job)
            jobs = {found.target: found for found in self.executor.submitted}
            servers = Counter(jobs[target].server for target in self.executor.in_flight)
            caps = self.plan.server_caps
            self.must(servers.total() <= self.limits[self.wave], "concurrency of the wave")
            self.must(all(number <= caps.get(name, caps.get("*", 8)) for name, number in servers.items()), "server cap")
            self.must(all(self.done[name].status in DONE for name in job.after if name in self.known), "order")
            if len(self.executor.submitted) == self.stop_after:
                self.stop.drain()
            self.changed.notify_all()
        return future

    def hear(self, event: Event) -> None:
        if isinstance(event, WaveStarted):
            self.must(not self.executor.in_flight, "waves one after the other")
            self.wave = event.wave
        if isinstance(event, JobFinished):
            self.must(event.outcome.target not in self.done, "told once")
            self.done[event.outcome.target] = event.outcome

    def must(self, holds: bool, rule: str) -> None:
        # Collected, because the rollout survives whatever its listeners and executors raise.
        if not holds:
            self.broken.append(rule)

    def finish_jobs(self) -> None:
        with self.changed:
            while not self.over:
                submitted = len(self.executor.submitted)
                if self.changed.wait_for(lambda: self.over or len(self.executor.submitted) > submitted, 0.001):  # noqa: B023
                    continue
                if self.executor.in_flight:
                    self.executor.finish(self.random.choice(self.executor.in_flight))

    def execute(self, listener: RecordingListener) -> Conclusion:
        finisher = threading.Thread(target=self.finish_jobs)
        finisher.start()
        ledger = MemoryLedger()
        run = ledger.open_run(self.plan, operator="tester", fleet=1).id
        try:
            return rollout.execute(run, self.plan, self.submit, ledger, [listener, self.hear], self.stop)
        finally:
            with self.changed:
                self.over = True
                self.changed.notify_all()
            finisher.join()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans(), st.data())
def test_every_target_has_one_outcome_and_no_cap_is_exceeded(plan: Plan, data: st.DataObject) -> None:
    fates = {job.target: data.draw(FATES) for job in plan.jobs}
    stop = StopSignal()
    watched = Watched(plan, fates, data.draw(st.integers()), stop, data.draw(st.integers(0, 20)))
    events = RecordingListener()
    conclusion = watched.execute(events)
    assert not watched.broken

    names = [job.target for job in plan.jobs] + [outcome.target for outcome in plan.settled]
    assert [outcome.target for outcome in conclusion.outcomes] == names
    assert sum(sum(wave.counts.values()) for wave in conclusion.waves) == len(names) - len(plan.settled)
    submitted = [job.target for job in watched.executor.submitted]
    assert len(submitted) == len(set(submitted))
    by_name = {outcome.target: outcome for outcome in conclusion.outcomes}
    assert all(by_name[name].status is fates[name] for name in submitted)

    statuses = {outcome.status for outcome in conclusion.outcomes}
    halts = [event for event in events.events if isinstance(event, RunHalted)]
    assert len(halts) <= 1
    assert not (Status.NOT_STARTED in statuses and not halts)
    if conclusion.exit_code is ExitCode.OK:
        assert conclusion.status is RunStatus.SUCCEEDED
        assert not statuses & {*FAILING, Status.NOT_STARTED, Status.DEFERRED, Status.NOT_PROVISIONED}

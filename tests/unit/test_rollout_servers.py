"""The rollout leaves a server in peace that is down or full, and goes on with the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from orchestrator import rollout
from orchestrator.errors import ExitCode
from orchestrator.events import JobStarted
from orchestrator.outcomes import Failure, FailureKind, Outcome, RunStatus, Status
from orchestrator.plans import Job, Plan, Retries
from orchestrator.rollout.throttles import FIRST_PAUSE, LONGEST_PAUSE, Throttle
from orchestrator.testing import (
    FakeClock,
    MemoryLedger,
    RecordingListener,
    a_failure,
    a_job,
    a_plan,
    a_wave,
    an_outcome,
)
from tests.unit.rollout_drives import drive, statuses

RETRIES = Retries(busy=(60.0,), server=(5.0, 10.0, 15.0, 30.0), lost=2)
DOWN = a_failure(FailureKind.SERVER, code="08001", message="connection refused")
CROWDED = a_failure(FailureKind.TRANSIENT, code="53300", message="too many clients", crowded=True)
UNKNOWN = a_failure(FailureKind.AMBIGUOUS, message="the connection was lost")


class World:
    """Servers that answer by the time of a fake clock; every answer comes after the time that the job takes."""

    def __init__(self, plan: Plan, answer: Callable[[World, Job], Failure | None], *, takes: float = 0.1) -> None:
        self.plan = plan
        self.answer = answer
        self.takes = takes
        self.clock = _Ticking(self)
        self.open: list[tuple[float, Job, Future[Outcome]]] = []
        #: moment, target and server of every try
        self.tries: list[tuple[float, Job]] = []
        self.most: dict[str, int] = {}
        self.listener = RecordingListener()
        self.ledger = MemoryLedger()

    def submit(self, job: Job) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self.tries.append((self.clock.seconds, job))
        self.open.append((self.clock.seconds + self.takes, job, future))
        running = self.running(job.server)
        self.most[job.server] = max(running, self.most.get(job.server, 0))
        return future

    def running(self, server: str) -> int:
        return sum(job.server == server for _, job, _ in self.open)

    def finish_due(self) -> None:
        for entry in [entry for entry in self.open if entry[0] <= self.clock.seconds + 1e-9]:
            _, job, future = entry
            failure = self.answer(self, job)
            self.open.remove(entry)
            at = job.wanted if failure is None else None
            status = Status.UPGRADED if failure is None else Status.FAILED
            future.set_result(job.outcome(status, at=at, failure=failure))

    def run(self) -> rollout.Conclusion:
        run = self.ledger.open_run(self.plan, operator="tester", fleet=1).id
        return rollout.execute(run, self.plan, self.submit, self.ledger, [self.listener], clock=self.clock)

    def moments(self, server: str) -> list[float]:
        return [round(moment, 1) for moment, job in self.tries if job.server == server]


class _Ticking(FakeClock):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def receive(self, inbox, seconds):  # type: ignore[no-untyped-def]
        dues = [due - self.seconds for due, _, _ in self._world.open]
        self.seconds += max(0.0, min([seconds, *dues]))
        self._world.finish_due()
        return inbox.get_nowait()


def fleet(*servers: str, each: int = 5, cap: int = 8, concurrency: int = 16, **fields: Any) -> Plan:
    jobs = [a_job(f"{server}-{number}", server=server) for number in range(each) for server in servers]
    defaults: dict[str, Any] = {"retries": RETRIES, "server_caps": {"*": cap}, "max_failures": 0}
    return a_plan(a_wave(*jobs, concurrency=concurrency), **{**defaults, **fields})


def down(server: str = "s1", *, until: float = 1e9, since: float = 0.0) -> Callable[[World, Job], Failure | None]:
    def answer(world: World, job: Job) -> Failure | None:
        return DOWN if job.server == server and since <= world.clock.seconds < until else None

    return answer


class TestAServerThatIsDown:
    def test_is_probed_by_one_job_after_each_delay(self) -> None:
        world = World(fleet("s1", each=20, cap=1), down())
        conclusion = world.run()
        assert world.moments("s1") == [0.0, 5.1, 15.2, 30.3, 60.4]
        assert len({job.target for _, job in world.tries}) == 5, "another target each time"
        assert statuses(conclusion) == {f"s1-{number}": "deferred" if number else "failed" for number in range(20)}, (
            "the first one that failed is told, the others wait"
        )

    def test_outcomes_say_so(self) -> None:
        plan = fleet("s1", each=2, cap=1)
        conclusion = World(plan, down()).run()
        failed, put_off = conclusion.outcomes
        assert failed.failure == DOWN
        assert failed.reason is None
        assert put_off.reason is not None
        assert put_off.reason.code == "server_down"
        assert put_off.reason.text == "s1 is down, it failed for s1-0: connection refused"
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.FAILED, ExitCode.FAILURES)

    def test_thousands_behind_it_are_no_thousands_of_writes(self) -> None:
        world = World(fleet("s1", each=100, cap=1), down())
        conclusion = world.run()
        tried = {job.target for _, job in world.tries}
        assert len(tried) == 5
        assert {outcome.target for outcome in conclusion.unrecorded} == set(statuses(conclusion)) - tried

    def test_no_more_than_five_tries_come_after_those_in_flight(self) -> None:
        world = World(fleet("s1", each=100, cap=8), down())
        world.run()
        assert world.moments("s1")[:8] == [0.0] * 8
        assert len(world.tries) - 8 <= 5

    def test_is_used_again_when_it_is_back(self) -> None:
        world = World(fleet("s1", each=20, cap=4), down(until=20.0))
        conclusion = world.run()
        assert set(statuses(conclusion).values()) == {"upgraded"}
        assert conclusion.exit_code is ExitCode.OK
        assert world.moments("s1")[:7] == [0.0] * 4 + [5.1, 15.2, 30.3]
        assert world.clock.seconds < 32

    def test_the_others_go_on_undisturbed(self) -> None:
        plan = fleet("s1", "s2", "s3", "s4", "s5", each=40, cap=2)
        world, quiet = World(plan, down(), takes=4.0), World(plan, lambda *_: None, takes=4.0)
        conclusion = world.run()
        quiet.run()
        counts = conclusion.waves[0].counts
        assert (counts["upgraded"], counts["failed"], counts["deferred"]) == (160, 1, 39)
        assert world.listener.names.count("RunHalted") == 0
        for name in ("s2", "s3", "s4", "s5"):
            assert world.moments(name) == quiet.moments(name)

    def test_gets_a_last_probe_when_the_rest_took_long(self) -> None:
        plan = fleet("s1", "s2", each=10, cap=1)
        world = World(plan, down(until=150.0), takes=20.0)
        conclusion = world.run()
        assert conclusion.exit_code is ExitCode.OK
        hopeless = World(plan, down(), takes=20.0)
        assert hopeless.run().exit_code is ExitCode.FAILURES
        assert len(hopeless.moments("s1")) == 1 + 5

    def test_jobs_in_flight_come_back_without_a_failure(self) -> None:
        def crash(world: World, job: Job) -> Failure | None:
            if not 1.0 <= world.clock.seconds < 7.0:
                return None
            return DOWN if job.target == "s1-0" else UNKNOWN

        world = World(fleet("s1", each=4, cap=4, retries=Retries(busy=(), server=(5.0, 10.0), lost=0)), crash, takes=1)
        conclusion = world.run()
        assert conclusion.exit_code is ExitCode.OK
        resumed = {job.target for moment, job in world.tries if moment and job.resumed}
        assert {"s1-1", "s1-2", "s1-3"} <= resumed

    def test_a_target_that_alone_meets_it_fails_alone(self) -> None:
        def answer(world: World, job: Job) -> Failure | None:
            return DOWN if job.target == "s1-0" else None

        world = World(fleet("s1", each=30, cap=2, max_failures=1), answer)
        conclusion = world.run()
        assert statuses(conclusion).pop("s1-0") == "failed"
        assert conclusion.waves[0].counts["upgraded"] == 29
        assert sum(job.target == "s1-0" for _, job in world.tries) <= len(RETRIES.server) + 2

    def test_without_delays_it_gets_no_probe(self) -> None:
        world = World(fleet("s1", "s2", each=3, cap=1, retries=Retries(busy=(), server=(), lost=0)), down())
        conclusion = world.run()
        assert world.moments("s1") == [0.0]
        counts = conclusion.waves[0].counts
        assert (counts["upgraded"], counts["failed"], counts["deferred"]) == (3, 1, 2)

    def test_those_behind_its_targets_follow_them(self) -> None:
        jobs = [
            a_job("a", server="s1"),
            a_job("b", server="s1"),
            a_job("behind-a", server="s2", after=("a",)),
            a_job("behind-b", server="s2", after=("b",)),
        ]
        plan = a_plan(a_wave(*jobs), retries=RETRIES, server_caps={"s1": 1})
        conclusion = World(plan, down()).run()
        assert statuses(conclusion) == {"a": "failed", "b": "deferred", "behind-a": "skipped", "behind-b": "deferred"}

    def test_later_waves_leave_it_alone(self) -> None:
        waves = [a_wave(*(a_job(f"{wave}-{s}", wave=wave, server=s) for s in ("s1", "s2")), name=wave) for wave in "xy"]
        world = World(a_plan(*waves, retries=RETRIES, max_failures=1), down())
        assert statuses(world.run()) == {"x-s1": "failed", "x-s2": "upgraded", "y-s1": "deferred", "y-s2": "upgraded"}
        assert len(world.moments("s1")) == 5

    def test_a_file_is_no_server(self) -> None:
        world = World(fleet("sqlite", each=3, max_failures=1), lambda _, job: DOWN if job.target[-1] in "01" else None)
        conclusion = world.run()
        assert statuses(conclusion) == {"sqlite-0": "failed", "sqlite-1": "failed", "sqlite-2": "upgraded"}
        assert len(world.tries) == 3
        (halts,) = [World(fleet("sqlite", each=9, concurrency=1, max_failures=1), lambda *_: DOWN).run()]
        assert halts.waves[0].counts["failed"] == 2, "each file counts by itself"


class TestACrowdedServer:
    @staticmethod
    def room(number: int, *, until: float = 1e9) -> Callable[[World, Job], Failure | None]:
        """A server that takes only so many at once."""

        def answer(world: World, job: Job) -> Failure | None:
            is_full = world.running(job.server) > number and world.clock.seconds < until
            return CROWDED if is_full else None

        return answer

    @pytest.mark.parametrize("number", [1, 3, 20])
    def test_fails_nobody(self, number: int) -> None:
        world = World(fleet("s1", each=200, cap=64, concurrency=64), self.room(number))
        conclusion = world.run()
        assert set(statuses(conclusion).values()) == {"upgraded"}
        assert conclusion.exit_code is ExitCode.OK

    def test_gets_half_as_many_and_then_slowly_more(self) -> None:
        clock = FakeClock()
        throttle = Throttle(8, 60.0, clock)
        for name in "abcdefgh":
            throttle.start(name)
        for name in "abcdefgh":
            throttle.crowd(name)
        assert throttle.cap == 4, "they were too many once, not eight times"
        grown = []
        for _ in range(4 + 5 + 6 + 7 + 20):
            throttle.succeed()
            grown.append(throttle.cap)
        assert [grown.index(cap) + 1 for cap in (5, 6, 7, 8)] == [4, 9, 15, 22]
        assert max(grown) == 8

    def test_is_left_in_peace_for_longer_and_longer(self) -> None:
        clock = FakeClock()
        throttle = Throttle(2, 60.0, clock)
        pauses = []
        for _ in range(8):
            throttle.start("a")
            throttle.crowd("a")
            assert not throttle.admits(0)
            pauses.append(throttle.wakes_at - clock.seconds)
            clock.seconds = throttle.wakes_at
            assert throttle.admits(0)
            assert not throttle.admits(1)
        assert pauses == [FIRST_PAUSE, 1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
        throttle.succeed()
        throttle.start("a")
        throttle.crowd("a")
        assert throttle.wakes_at - clock.seconds == FIRST_PAUSE

    def test_without_any_room_for_long_its_jobs_are_put_off(self) -> None:
        world = World(fleet("s1", "s2", each=5, cap=2), lambda _, job: CROWDED if job.server == "s1" else None)
        conclusion = world.run()
        counts = conclusion.waves[0].counts
        assert (counts["upgraded"], counts["deferred"]) == (5, 5)
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.PAUSED, ExitCode.PAUSED)
        reasons = {outcome.reason.code for outcome in conclusion.outcomes if outcome.reason}
        assert reasons == {"crowded"}
        assert 60 <= world.clock.seconds < 90
        assert len(world.moments("s1")) < 20

    def test_an_executor_that_answers_at_once_puts_them_off_too(self) -> None:
        plan = fleet("s1", each=4, cap=1)
        plan = dataclasses.replace(plan, waves=tuple(dataclasses.replace(wave, concurrency=1) for wave in plan.waves))
        crowded = {job.target: an_outcome(job, Status.FAILED, failure=CROWDED, at=None) for job in plan.jobs}
        conclusion = drive(plan, **crowded).end()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.PAUSED, ExitCode.PAUSED)
        assert set(statuses(conclusion).values()) == {"deferred"}

    def test_room_that_comes_in_time_is_used(self) -> None:
        conclusion = World(fleet("s1", each=5, cap=2), self.room(0, until=50.0)).run()
        assert conclusion.exit_code is ExitCode.OK

    def test_the_cap_of_the_server_holds(self) -> None:
        world = World(fleet("s1", each=60, cap=6), self.room(4))
        world.run()
        assert world.most["s1"] == 6

    def test_each_try_is_told(self) -> None:
        world = World(fleet("s1", each=1), self.room(0, until=1.0))
        world.run()
        assert world.listener.names == [
            "WaveStarted",
            *["JobStarted", "JobDeferred"] * 2,
            "JobStarted",
            "JobFinished",
            "WaveFinished",
        ]
        assert len([event for event in world.listener.events if isinstance(event, JobStarted)]) == 3

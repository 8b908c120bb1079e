"""When jobs may start, what people ask of a run while it is on, and who joins it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Collection, Sequence

import pytest

from orchestrator import rollout
from orchestrator.errors import ExitCode, SettingsError
from orchestrator.events import Event, JobFinished, RunHalted, WaveStarted
from orchestrator.ledger import RequestKind
from orchestrator.outcomes import Outcome, RunStatus, Status
from orchestrator.plans import Job, Plan, Wave
from orchestrator.running import lanes_of
from orchestrator.testing import FakeClock, MemoryLedger, ScriptedExecutor, a_job, a_plan, a_wave, an_outcome
from tests.unit.rollout_drives import statuses
from tests.unit.rollout_worlds import GATE, World, resumed, wave


class TestWhenJobsMayStart:
    def clock(self, text: str) -> FakeClock:
        return FakeClock(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC))

    def world(self, plan: Plan, at: str, **fields) -> World:
        world = World(plan, **fields)
        world.clock = self.clock(at)
        return world

    def test_a_tenant_out_of_its_window_is_put_off(self) -> None:
        closed = dataclasses.replace(a_job("b"), window=("Sat 02:00-04:00",))
        open_now = dataclasses.replace(a_job("c"), window=("Sat 02:00-04:00", "Sun 07:00-08:00"))
        plan = a_plan(wave("a", name="all"))
        plan = dataclasses.replace(
            plan, waves=(dataclasses.replace(plan.waves[0], jobs=(a_job("a"), closed, open_now)),)
        )
        world = self.world(plan, "2026-11-22T07:31:00")
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "upgraded", "b": "deferred", "c": "upgraded"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.PAUSED, ExitCode.PAUSED)
        reason = conclusion.outcomes[1].reason
        assert reason is not None
        assert (reason.code, reason.text) == ("window", "its window opens 2026-11-28 02:00 UTC")
        world.begin()
        world.clock = self.clock("2026-11-28T02:00:00")
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED

    def test_thousands_out_of_their_window_are_no_thousands_of_writes(self) -> None:
        jobs = [dataclasses.replace(a_job(name), window=("Sat 02:00-04:00",)) for name in "abc"]
        behind = dataclasses.replace(a_job("d"), after=("a",))
        begun = dataclasses.replace(jobs[2], resumed=True)
        plan = a_plan(wave("a", name="all"))
        world = self.world(
            dataclasses.replace(plan, waves=(dataclasses.replace(plan.waves[0], jobs=(*jobs[:2], begun, behind)),)),
            "2026-11-22T07:31:00",
        )
        conclusion = world.drive()
        assert statuses(conclusion) == dict.fromkeys("abcd", "deferred")
        assert [outcome.target for outcome in world.ledger.outcomes(world.run)] == ["c"]
        assert {outcome.target for outcome in conclusion.unrecorded} == {"a", "b", "d"}
        world.ledger.close_run(world.run, conclusion.status, conclusion.exit_code, conclusion.outcomes)
        assert {outcome.status for outcome in world.ledger.outcomes(world.run)} == {Status.DEFERRED}
        assert len(world.ledger.outcomes(world.run)) == 4

    def test_the_window_of_a_wave_closes_while_it_is_on(self) -> None:
        world = self.world(
            a_plan(wave("a", "b", name="first", window=("07:00-08:00",), concurrency=1), wave("c", name="rest")),
            "2026-11-22T07:59:59",
        )
        world.on(JobFinished, lambda _: setattr(world.clock, "seconds", world.clock.seconds + 2))
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "upgraded", "b": "deferred", "c": "deferred"}
        assert conclusion.exit_code is ExitCode.PAUSED
        assert [event.cause for event in world.events(RunHalted)] == ["deferred"]
        assert {one.reason.code for one in conclusion.outcomes if one.reason} == {"window"}

    def test_its_window_does_not_matter_once_all_have_started(self) -> None:
        world = self.world(
            a_plan(wave("a", name="first", window=("07:00-08:00",)), wave("c", name="rest")), "2026-11-22T07:59:59"
        )
        world.on(JobFinished, lambda _: setattr(world.clock, "seconds", world.clock.seconds + 2))
        assert world.drive().status is RunStatus.SUCCEEDED

    def test_a_freeze(self) -> None:
        plan = dataclasses.replace(a_plan("a", "b"), freeze=("2026-12-20/2027-01-03", "2026-11-22"))
        world = self.world(plan, "2026-11-22T07:31:00")
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "deferred", "b": "deferred"}
        assert conclusion.exit_code is ExitCode.PAUSED
        assert conclusion.outcomes[0].reason is not None
        assert conclusion.outcomes[0].reason.text == "nothing is started before the freeze ends, 2026-11-23 00:00 UTC"

    def test_the_deadline(self) -> None:
        plan = dataclasses.replace(a_plan(wave("a", name="first", pause=600.0), wave("b", name="rest")), deadline=100.0)
        world = self.world(plan, "2026-11-22T07:31:00")
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "upgraded", "b": "deferred"}
        assert conclusion.exit_code is ExitCode.PAUSED
        assert world.clock.now() == pytest.approx(100, abs=1)
        assert conclusion.outcomes[1].reason is not None
        assert conclusion.outcomes[1].reason.code == "deadline"
        # The next runner has as long again; the pause is nearly over by then.
        world.clock.seconds += 450
        world.begin()
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED

    def test_a_wave_in_which_nothing_could_be_done_holds_back_the_later_ones(self) -> None:
        plan = a_plan(wave("a", name="canary", gate=GATE), wave("b", name="rest"))
        canary = dataclasses.replace(plan.waves[0], jobs=(dataclasses.replace(plan.waves[0].jobs[0], window=("Sat",)),))
        world = self.world(dataclasses.replace(plan, waves=(canary, plan.waves[1])), "2026-11-22T07:31:00")
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "deferred", "b": "deferred"}
        assert world.asked == []
        assert conclusion.exit_code is ExitCode.PAUSED


class TestPeople:
    def test_a_target_is_skipped_wherever_it_waits(self) -> None:
        plan = a_plan(a_wave("a", "b", "c", concurrency=1, name="first"), wave("d", name="later"))
        world = World(plan)

        def skip(event: Event) -> None:
            if event.outcome.target == "a":
                for target in ("b", "d", "a"):
                    world.request(RequestKind.SKIP, target=target, reason="asked to wait")

        world.on(JobFinished, skip)
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "upgraded", "b": "skipped", "c": "upgraded", "d": "skipped"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.SUCCEEDED, ExitCode.OK)
        reason = conclusion.outcomes[1].reason
        assert reason is not None
        assert (reason.code, reason.text) == ("skipped", "asked to wait (ann@build7)")

    def test_what_comes_behind_a_skipped_target_is_skipped(self) -> None:
        plan = a_plan(a_wave("a", "b", concurrency=1))
        behind = dataclasses.replace(plan.waves[0].jobs[1], after=("a",))
        plan = dataclasses.replace(
            plan, waves=(dataclasses.replace(plan.waves[0], jobs=(plan.waves[0].jobs[0], behind)),)
        )
        world = World(plan)
        world.request(RequestKind.SKIP, target="a", reason="broken")
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "skipped", "b": "skipped"}
        assert conclusion.exit_code is ExitCode.FAILURES

    def test_more_failures_are_tolerated(self) -> None:
        script = dict.fromkeys("abcd", Status.FAILED)
        plan = a_plan(a_wave("a", "b", "c", "d", "e", concurrency=1, name="first", max_failures=1), max_failures=1)
        world = World(plan, script)

        def raise_it(event: Event) -> None:
            if event.outcome.target == "a":
                world.request(RequestKind.BUDGET, max_failures=2)
                world.request(RequestKind.BUDGET, max_failures=2, wave="first")

        world.on(JobFinished, raise_it)
        assert list(statuses(world.drive()).values()) == ["failed"] * 3 + ["not_started"] * 2
        # A later runner of the same run has heard it as well, and of a later change.
        world.begin()
        world.reactions.clear()
        world.request(RequestKind.BUDGET, max_failures=9)
        world.request(RequestKind.BUDGET, max_failures=9, wave="first")
        conclusion = world.drive(resumed(world))
        assert list(statuses(conclusion).values()).count("failed") == 4
        assert conclusion.status is RunStatus.FAILED

    def test_fewer_failures_are_tolerated(self) -> None:
        world = World(a_plan(a_wave("a", "b", "c", concurrency=1), max_failures=5), {"a": Status.FAILED})
        world.on(JobFinished, lambda _: world.request(RequestKind.BUDGET, max_failures=0))
        assert list(statuses(world.drive()).values()) == ["failed", "not_started", "not_started"]


class TestStrictWaves:
    @pytest.mark.parametrize("budget", [0, 2, 5])
    def test_never_more_in_flight_than_failures_left_plus_one(self, budget: int) -> None:
        names = [f"t{number:02}" for number in range(20)]
        plan = a_plan(wave(*names, name="all", strict=True, concurrency=10, max_failures=budget), max_failures=None)
        executor = ScriptedExecutor({}, hold=True)
        most, failures = 0, 0
        ledger = MemoryLedger()
        run = ledger.open_run(plan, operator="me", fleet=20).id

        class Clock(FakeClock):
            def receive(self, inbox, seconds):
                nonlocal most, failures
                most = max(most, len(executor.in_flight))
                assert len(executor.in_flight) <= budget - failures + 1
                if executor.in_flight and inbox.empty():
                    failures += 1
                    executor.finish(executor.in_flight[0], Status.FAILED)
                return super().receive(inbox, seconds)

        conclusion = rollout.execute(run, plan, executor.submit, ledger, clock=Clock())
        assert most == budget + 1
        assert list(statuses(conclusion).values()).count("failed") == budget + 1
        assert conclusion.status is RunStatus.HALTED


class TestSweeping:
    def sweep(self, *rounds: tuple[str, ...]) -> Callable[[Collection[str]], Sequence[Job]]:
        left = list(rounds)
        self.known: list[Collection[str]] = []

        def look(known: Collection[str]) -> Sequence[Job]:
            self.known.append(known)
            return [a_job(name) for name in left.pop(0)] if left else []

        return look

    def swept(self, *waves: Wave, **fields) -> Plan:
        return dataclasses.replace(a_plan(*waves, **fields), sweep={"everything": True})

    def test_tenants_that_joined_come_last(self) -> None:
        world = World(self.swept(wave("a", name="rest")), sweep=self.sweep(("x", "y"), ("z",)))
        conclusion = world.drive()
        assert statuses(conclusion) == dict.fromkeys("axyz", "upgraded")
        assert [event.wave for event in world.events(WaveStarted)] == ["rest", "sweep", "sweep-2"]
        assert [set(known) for known in self.known] == [{"a"}, {"a", "x", "y"}, {"a", "x", "y", "z"}]
        assert [each.name for each in world.ledger.plan(world.run).waves] == ["rest", "sweep", "sweep-2"]
        assert {one.target for one in world.ledger.outcomes(world.run)} == set("axyz")

    def test_who_joined_and_needs_nothing_is_in_the_report_as_well(self) -> None:
        absent = an_outcome("x", Status.NOT_PROVISIONED)
        rounds: list[list[Job | Outcome]] = [[absent, a_job("y")], []]
        world = World(self.swept(wave("a", name="rest")), sweep=lambda _: rounds.pop(0))
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "upgraded", "y": "upgraded", "x": "not_provisioned"}
        assert conclusion.exit_code is ExitCode.FAILURES

    def test_a_run_that_halted_takes_in_nobody(self) -> None:
        world = World(self.swept(a_wave("a", "b", concurrency=1)), {"a": Status.FAILED}, sweep=self.sweep(("x",)))
        assert world.drive().status is RunStatus.HALTED
        assert self.known == []

    def test_a_plan_that_does_not_ask_for_it_takes_in_nobody(self) -> None:
        world = World(a_plan("a"), sweep=self.sweep(("x",)))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert self.known == []

    @pytest.mark.parametrize(
        ("error", "said"), [(SettingsError("the source is down"), "the source is down"), (KeyError("x"), "KeyError")]
    )
    def test_nobody_can_say_who_joined(self, error: Exception, said: str) -> None:
        def fail(_: Collection[str]) -> Sequence[Job]:
            raise error

        world = World(self.swept(wave("a", name="rest")), sweep=fail)
        conclusion = world.drive()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.FAILURES)
        assert statuses(conclusion) == {"a": "upgraded"}
        assert said in world.events(RunHalted)[0].text

    def test_a_run_with_little_left_has_room_for_many_who_join(self) -> None:
        plan = a_plan(wave("a", name="rest", concurrency=8))
        assert lanes_of(plan) == 1
        assert lanes_of(dataclasses.replace(plan, sweep={"everything": True})) == 8
        assert lanes_of(a_plan()) == 1

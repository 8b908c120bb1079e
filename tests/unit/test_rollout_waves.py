"""What lies between waves: pauses, people, gates."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.errors import ExitCode
from orchestrator.events import Event, GateAnswered, JobFinished, RunContinued, RunHalted, RunPaused
from orchestrator.ledger import RequestKind
from orchestrator.outcomes import RunStatus, Status, Verdict
from orchestrator.plans import UNTIL_CONTINUED, Plan
from orchestrator.rollout import StopCause
from orchestrator.testing import a_job, a_plan, a_wave
from tests.unit.rollout_drives import statuses
from tests.unit.rollout_worlds import GATE, OPS, World, answer, resumed, wave


class TestBaking:
    def test_the_next_wave_waits(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=600.0), wave("b", name="rest")))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert world.clock.now() == pytest.approx(600.0)
        (paused,) = world.events(RunPaused)
        assert (paused.cause, paused.wave, paused.seconds) == ("bake", "canary", 600.0)
        assert [event.text for event in world.events(RunContinued)] == ["the pause is over"]
        assert world.marks["canary"].passed
        assert world.marks["rest"].passed

    def test_nothing_follows_so_nothing_waits(self) -> None:
        world = World(a_plan(wave("a", name="only", pause=600.0)))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert world.clock.now() == 0

    def test_what_is_left_of_it_is_remembered(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=600.0), wave("b", name="rest")))
        world.on(RunPaused, lambda _: world.stop.drain(StopCause.TERMINATED))
        assert world.drive().status is RunStatus.INTERRUPTED
        assert statuses(world.conclusion) == {"a": "upgraded", "b": "not_started"}
        world.clock.seconds += 450
        world.reactions.clear()
        world.begin()
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        assert [event.seconds for event in world.events(RunPaused)] == [pytest.approx(150.0, abs=1)]
        assert world.clock.now() == pytest.approx(600.0, abs=1)

    def test_a_person_may_cut_it_short(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=600.0), wave("b", name="rest")))
        world.on(RunPaused, lambda _: world.request(RequestKind.CONTINUE))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert world.clock.now() < 2
        assert [event.text for event in world.events(RunContinued)] == ["the pause was cut short"]

    def test_a_continue_that_ends_a_pause_leaves_the_bake_time_alone(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=600.0), wave("b", name="rest")))

        def pause_and_continue(_: Event) -> None:
            world.request(RequestKind.PAUSE)
            world.request(RequestKind.CONTINUE)

        world.on(RunPaused, pause_and_continue)
        assert world.drive().status is RunStatus.SUCCEEDED
        assert world.clock.now() == pytest.approx(600.0)


class TestWaitingForAPerson:
    def test_until_continued(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest")))

        def go_on(_: Event) -> None:
            assert world.ledger.run(world.run).status is RunStatus.INTERRUPTED  # not yet said, and nobody has the lease
            world.request(RequestKind.CONTINUE)

        world.on(RunPaused, go_on)
        assert world.drive().status is RunStatus.SUCCEEDED
        assert [event.cause for event in world.events(RunPaused)] == ["person"]
        assert [event.text for event in world.events(RunContinued)] == ["continued by ann@build7"]

    @pytest.mark.parametrize("early", [True, False])
    def test_one_word_ends_it_and_the_pause_of_a_person_with_it(self, early: bool) -> None:
        plan = a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest"))
        world = World(dataclasses.replace(plan, deadline=3600.0))

        def react(event: RunPaused) -> None:
            asked = [request.kind for request in world.ledger.requests(world.run)]
            if RequestKind.PAUSE not in asked:
                world.request(RequestKind.PAUSE)
            if event.wave == "canary" and RequestKind.CONTINUE not in asked:
                world.request(RequestKind.CONTINUE)

        world.on(RunPaused, react)
        if early:
            world.on(JobFinished, lambda _: world.reactions.pop(JobFinished) and world.request(RequestKind.PAUSE))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert {event.text for event in world.events(RunContinued)} == {"continued by ann@build7"}

    def test_where_nobody_waits_the_run_ends_paused(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest")), waits=False)
        conclusion = world.drive()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.PAUSED, ExitCode.PAUSED)
        assert statuses(conclusion) == {"a": "upgraded", "b": "not_started"}
        assert conclusion.outcomes[1].reason is not None
        assert conclusion.outcomes[1].reason.code == "paused"
        assert [each.status for each in conclusion.waves] == ["succeeded", "not_started"]
        # Once more: it is still paused.
        world.begin()
        assert world.drive(resumed(world)).status is RunStatus.PAUSED
        # Somebody says that it goes on, whoever runs it then.
        world.begin()
        world.request(RequestKind.CONTINUE)
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        assert world.events(RunPaused) == []

    def test_an_earlier_continue_is_none_of_this_pause(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest")), waits=False)
        world.request(RequestKind.CONTINUE)
        assert world.drive().status is RunStatus.PAUSED

    def test_somebody_pauses_in_the_middle_of_a_wave(self) -> None:
        world = World(a_plan(a_wave("a", "b", "c", concurrency=1)), waits=False)
        finished = []

        def pause(event: Event) -> None:
            finished.append(event)
            if len(finished) == 1:
                world.request(RequestKind.PAUSE)

        world.on(JobFinished, pause)
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "upgraded", "b": "not_started", "c": "not_started"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.PAUSED, ExitCode.PAUSED)
        assert [each.status for each in conclusion.waves] == ["paused"]
        assert [event.text for event in world.events(RunPaused)] == ["paused by ann@build7"]
        # A later runner finds it paused, before it starts anything.
        world.begin()
        assert world.drive(resumed(world)).status is RunStatus.PAUSED
        assert world.executor.submitted == []
        world.begin()
        world.request(RequestKind.CONTINUE)
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED

    def test_a_waiting_run_hears_that_it_is_aborted(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest")))
        world.on(RunPaused, lambda _: world.stop.drain(StopCause.ABORTED))
        conclusion = world.drive()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.INTERRUPTED, ExitCode.FAILURES)
        assert statuses(conclusion) == {"a": "upgraded", "b": "not_started"}

    def test_the_ledger_says_that_it_is_paused_while_it_waits(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest")))
        lease = world.ledger.acquire(OPS)
        world.ledger.adopt_run(world.run, lease, reopen=True)
        seen = []
        receive = world.clock.receive

        def watch(inbox, seconds):
            if len(world.events(RunPaused)) and not world.events(RunContinued):
                seen.append(world.ledger.run(world.run).status)
                if len(seen) == 3:
                    world.request(RequestKind.CONTINUE)
            return receive(inbox, seconds)

        world.clock.receive = watch  # type: ignore[method-assign]
        world.on(RunContinued, lambda _: seen.append(world.ledger.run(world.run).status))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert set(seen[:-1]) == {RunStatus.PAUSED}
        assert seen[-1] is RunStatus.RUNNING


class TestGates:
    def plan(self, **gate) -> Plan:
        return a_plan(
            wave("a", "b", name="canary", gate=dataclasses.replace(GATE, **gate), max_failures=1),
            wave("c", name="rest"),
        )

    def test_it_is_asked_after_the_pause_about_what_was_done(self) -> None:
        plan = self.plan()
        plan = dataclasses.replace(plan, waves=(dataclasses.replace(plan.waves[0], pause=60.0), plan.waves[1]))
        world = World(dataclasses.replace(plan, max_failures=1), {"b": Status.FAILED})
        assert world.drive().status is RunStatus.FAILED
        assert world.asked == [("canary", ("a",), pytest.approx(60.0))]
        (answered,) = world.events(GateAnswered)
        assert (answered.wave, answered.result.verdict) == ("canary", Verdict.PASSED)
        gate = world.conclusion.waves[0].gate
        assert gate is not None
        assert (gate.verdict, gate.at) == (Verdict.PASSED, world.clock.utc())
        assert statuses(world.conclusion)["c"] == "upgraded"

    def test_all_measurements_must_pass(self) -> None:
        world = World(self.plan(count=3))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert [moment for _, _, moment in world.asked] == pytest.approx([0, 10, 20])
        assert world.events(GateAnswered)[0].result.measurements == 3

    def test_one_that_fails_halts(self) -> None:
        world = World(self.plan(count=3))
        world.answers = [answer(Verdict.PASSED), answer(Verdict.FAILED, "exit code 2")]
        conclusion = world.drive()
        assert len(world.asked) == 2
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.FAILURES)
        assert statuses(conclusion) == {"a": "upgraded", "b": "upgraded", "c": "not_started"}
        assert [each.status for each in conclusion.waves] == ["failed", "not_started"]
        (halt,) = world.events(RunHalted)
        assert (halt.cause, halt.text) == ("gate", "the gate of wave canary failed: exit code 2")
        # The next runner asks anew.
        world.begin()
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        assert len(world.asked) == 2 + 3

    def test_one_that_is_inconclusive_waits_for_a_person(self) -> None:
        world = World(self.plan())
        world.answers = [answer(Verdict.INCONCLUSIVE, "no answer in 30 s")]
        world.on(RunPaused, lambda _: world.request(RequestKind.CONTINUE))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert [event.cause for event in world.events(RunPaused)] == ["gate"]
        gate = world.marks["canary"].gate
        assert gate is not None
        assert (gate.kind, gate.verdict) == ("person", Verdict.PASSED)
        assert "continued by ann@build7" in gate.text
        assert "no answer in 30 s" in gate.text

    def test_one_that_is_inconclusive_ends_paused_where_nobody_waits(self) -> None:
        world = World(self.plan(), waits=False)
        world.answers = [answer(Verdict.INCONCLUSIVE), answer(Verdict.INCONCLUSIVE)]
        assert world.drive().exit_code is ExitCode.PAUSED
        # `resume` asks it once more, `continue` overrules it.
        world.begin()
        assert world.drive(resumed(world)).exit_code is ExitCode.PAUSED
        assert len(world.asked) == 2
        world.begin()
        world.request(RequestKind.CONTINUE)
        assert world.drive(resumed(world)).exit_code is ExitCode.OK
        assert len(world.asked) == 2

    def test_a_continue_of_before_overrules_nothing(self) -> None:
        plan = self.plan()
        plan = dataclasses.replace(plan, waves=(dataclasses.replace(plan.waves[0], pause=600.0), plan.waves[1]))
        world = World(plan, waits=False)
        world.answers = [answer(Verdict.INCONCLUSIVE)]
        world.on(RunPaused, lambda event: event.cause == "bake" and world.request(RequestKind.CONTINUE))
        assert world.drive().exit_code is ExitCode.PAUSED

    def test_a_continue_that_the_runner_has_not_heard_yet_overrules_nothing_that_comes_after_it(self) -> None:
        plan = self.plan()
        plan = dataclasses.replace(plan, waves=(dataclasses.replace(plan.waves[0], pause=600.0), plan.waves[1]))
        world = World(plan, waits=False)
        world.answers = [answer(Verdict.INCONCLUSIVE), answer(Verdict.INCONCLUSIVE)]
        # Said in the last moment of the bake time: the heartbeat would bring it after the answer.
        world.on(RunContinued, lambda _: world.ledger.request(world.run, OPS, RequestKind.CONTINUE, {}))
        assert world.drive().exit_code is ExitCode.PAUSED
        world.begin()
        assert world.drive(resumed(world)).exit_code is ExitCode.PAUSED

    def test_nor_does_it_end_the_pause_behind_the_next_wave(self) -> None:
        canary, early = wave("a", name="canary", pause=600.0), wave("b", name="early", pause=UNTIL_CONTINUED)
        world = World(a_plan(canary, early, wave("c", name="rest")), waits=False)
        world.on(RunContinued, lambda _: world.ledger.request(world.run, OPS, RequestKind.CONTINUE, {}))
        world.drive()
        world.begin()
        assert world.drive(resumed(world)).exit_code is ExitCode.PAUSED

    def test_one_behind_the_last_wave_has_the_last_word(self) -> None:
        world = World(a_plan(wave("a", name="only", gate=GATE)))
        world.answers = [answer(Verdict.FAILED)]
        conclusion = world.drive()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.FAILURES)
        assert statuses(conclusion) == {"a": "upgraded"}
        world.begin()
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        world.begin()
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        assert len(world.asked) == 2

    def test_one_that_cannot_be_asked_is_inconclusive(self) -> None:
        world = World(self.plan(), waits=False)
        world.answers = [RuntimeError("no such thing")]
        assert world.drive().exit_code is ExitCode.PAUSED
        assert world.marks["canary"].gate is not None

    def in_two_parts(self, verdict: Verdict) -> World:
        """The gate of the last wave has passed without `b`, which is mended now; its pause is long over."""
        world = World(a_plan(wave("a", "b", name="only", gate=GATE, pause=60.0), max_failures=1), {"b": Status.FAILED})
        assert world.drive().status is RunStatus.FAILED
        world.script = {}
        world.begin()
        world.answers = [answer(verdict)]
        world.drive(resumed(world, "b"))
        return world

    def test_one_that_has_passed_is_asked_of_what_was_done_only_then(self) -> None:
        world = self.in_two_parts(Verdict.PASSED)
        assert world.conclusion.status is RunStatus.SUCCEEDED
        assert world.asked == [("only", ("a",), pytest.approx(60.0)), ("only", ("b", "a"), pytest.approx(60.0))]

    def test_one_that_has_passed_may_fail_by_what_was_done_only_then(self) -> None:
        world = self.in_two_parts(Verdict.FAILED)
        assert (world.conclusion.status, world.conclusion.exit_code) == (RunStatus.HALTED, ExitCode.FAILURES)
        assert not world.marks["only"].passed

    def test_one_that_has_passed_is_asked_when_its_next_runner_was_killed(self) -> None:
        world = World(a_plan(wave("a", "b", name="only", gate=GATE), max_failures=1), {"b": Status.FAILED})
        world.drive()
        killed = dataclasses.replace(world.marks["only"], passed=False)
        world.ledger.mark_wave(world.run, killed)
        world.begin()
        world.drive(resumed(world))
        assert len(world.asked) == 2

    def test_one_that_has_passed_is_not_asked_where_nothing_was_done(self) -> None:
        closed = dataclasses.replace(a_job("b"), window=("Sat 02:00-04:00",))
        canary = wave("a", name="canary", gate=GATE)
        later = wave("c", name="rest", window=("Sat 02:00-04:00",))
        world = World(a_plan(dataclasses.replace(canary, jobs=(*canary.jobs, closed)), later))
        assert world.drive().exit_code is ExitCode.PAUSED
        world.begin()
        assert world.drive(resumed(world)).exit_code is ExitCode.PAUSED
        assert len(world.asked) == 1
        assert world.marks["canary"].passed

    def test_a_person_who_has_overruled_one_is_not_asked_again(self) -> None:
        world = World(a_plan(wave("a", "b", name="only", gate=GATE), max_failures=1), {"b": Status.FAILED}, waits=False)
        world.answers = [answer(Verdict.INCONCLUSIVE)]
        assert world.drive().status is RunStatus.PAUSED
        world.request(RequestKind.CONTINUE)
        world.begin()
        world.drive(resumed(world))
        world.script = {}
        world.begin()
        assert world.drive(resumed(world, "b")).status is RunStatus.SUCCEEDED
        assert len(world.asked) == 1

    def test_none_is_asked_of_a_retry_that_nothing_follows(self) -> None:
        plan = a_plan(wave("a", name="canary", gate=GATE, max_failures=0), wave("b", name="rest", gate=GATE))
        world = World(plan, {"a": Status.FAILED})
        assert world.drive().status is RunStatus.HALTED
        world.script = {}
        world.begin()
        plan = resumed(world, "a")
        assert world.drive(plan).status is RunStatus.HALTED
        assert world.asked == []
        assert dataclasses.asdict(world.marks["canary"])["passed"] is False

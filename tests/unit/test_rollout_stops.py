"""What a run has waited for, been told and measured, when it is stopped between waves or its runner dies there."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection
from concurrent.futures import Future

import pytest

from orchestrator.errors import LedgerError
from orchestrator.events import GateAnswered, JobStarted, RunContinued, RunPaused, WaveFinished
from orchestrator.ledger import RequestKind, WaveMark
from orchestrator.outcomes import Failure, FailureKind, GateResult, RunStatus, Status, Verdict
from orchestrator.plans import UNTIL_CONTINUED, Job, Plan, Retries, Wave
from orchestrator.rollout import Mailbox, StopCause
from orchestrator.testing import FakeClock, a_job, a_plan, an_outcome
from tests.unit.rollout_drives import statuses
from tests.unit.rollout_worlds import GATE, OPS, World, answer, resumed, wave

_SATURDAY = datetime.datetime(2026, 11, 28, 2, tzinfo=datetime.UTC)


def with_closed(each: Wave, target: str = "w") -> Wave:
    """The wave, and a target in it whose window does not open before Saturday."""
    closed = dataclasses.replace(a_job(target), wave=each.name, window=("Sat 02:00-04:00",))
    return dataclasses.replace(each, jobs=(*each.jobs, closed))


class TestStoppedWhileItWaitsForAPerson:
    """Whoever stops the runner has not said that the run may go on: what to type next is `continue`."""

    @pytest.mark.parametrize("cause", [StopCause.INTERRUPTED, StopCause.TERMINATED])
    def test_behind_a_wave(self, cause: StopCause) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest")))
        world.on(RunPaused, lambda _: world.stop.drain(cause))
        conclusion = world.drive()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.PAUSED, cause.exit_code)
        reason = conclusion.outcomes[1].reason
        assert reason is not None
        assert reason.code == "paused"
        assert reason.text.endswith(f"waits for somebody to continue; asked to stop ({cause})")

    def test_in_the_middle_of_a_wave(self) -> None:
        world = World(a_plan(wave("a", "b", name="canary")))
        world.on(JobStarted, lambda _: world.request(RequestKind.PAUSE))
        world.on(RunPaused, lambda _: world.stop.drain())
        conclusion = world.drive()
        assert (conclusion.status, statuses(conclusion)) == (RunStatus.PAUSED, {"a": "upgraded", "b": "not_started"})

    def test_not_where_it_is_aborted(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", name="rest")))
        world.on(RunPaused, lambda _: world.stop.drain(StopCause.ABORTED))
        assert world.drive().status is RunStatus.INTERRUPTED

    def test_not_where_it_has_been_continued(self) -> None:
        world = World(a_plan(wave("a", name="canary", pause=UNTIL_CONTINUED), wave("b", "c", name="rest")))
        world.on(RunPaused, lambda _: world.request(RequestKind.CONTINUE))
        world.on(RunContinued, lambda _: world.stop.drain())
        assert world.drive().status is RunStatus.INTERRUPTED


class TestTheLastWord:
    @pytest.mark.parametrize("cause", [StopCause.INTERRUPTED, StopCause.ABORTED])
    def test_a_stop_while_the_last_gate_is_measured_is_no_success(self, cause: StopCause) -> None:
        world = World(a_plan(wave("a", name="only", gate=GATE)))
        world.on(WaveFinished, lambda _: world.stop.drain(cause))
        world._ask = lambda *_: Future()  # type: ignore[assignment, method-assign]
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "upgraded"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.INTERRUPTED, cause.exit_code)

    def test_nor_is_one_before_it_is_asked(self) -> None:
        world = World(a_plan(wave("a", name="only", gate=GATE, pause=600.0)))
        world.on(RunPaused, lambda _: world.stop.drain())
        assert world.drive().status is RunStatus.INTERRUPTED
        world.begin()
        world.stop.drain()
        assert world.drive(resumed(world)).status is RunStatus.INTERRUPTED
        world.begin()
        world.reactions = {}
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        assert [name for name, _, _ in world.asked] == ["only"]

    def test_a_stop_once_it_has_passed_changes_nothing(self) -> None:
        world = World(a_plan(wave("a", name="only", gate=GATE)))
        world.on(GateAnswered, lambda _: world.stop.drain())
        assert world.drive().status is RunStatus.SUCCEEDED

    def test_a_stop_before_it_is_known_who_has_joined(self) -> None:
        plan = dataclasses.replace(a_plan(wave("a", name="only")), sweep={"everything": True})
        world = World(plan, sweep=lambda _: [])
        world.on(WaveFinished, lambda _: world.stop.drain())
        assert world.drive().status is RunStatus.INTERRUPTED
        world.begin()
        world.reactions = {}
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED

    def test_it_comes_once_those_are_done_that_were_put_off(self) -> None:
        known: list[Collection[str]] = []
        plan = dataclasses.replace(a_plan(with_closed(wave("a", name="only", gate=GATE))), sweep={"everything": True})

        def nobody(names: Collection[str]) -> list[Job]:
            known.append(names)
            return []

        world = World(plan, sweep=nobody)
        assert world.drive().status is RunStatus.PAUSED
        assert (world.asked, known) == ([], [])
        world.begin()
        world.clock = FakeClock(_SATURDAY)
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        assert [(name, set(done)) for name, done, _ in world.asked] == [("only", {"a", "w"})]
        assert [set(names) for names in known] == [{"a", "w"}]


class TestPutOffInAWaveThatIsOver:
    def plan(self, **fields) -> Plan:
        return a_plan(with_closed(wave("a", name="first", **fields)), wave("b", name="rest"))

    def test_who_has_said_to_go_on_need_not_say_so_again(self) -> None:
        world = World(self.plan(pause=UNTIL_CONTINUED), waits=False)
        assert world.drive().status is RunStatus.PAUSED
        world.begin()
        world.ledger.request(world.run, OPS, RequestKind.CONTINUE, {})
        assert statuses(world.drive(resumed(world))) == {"a": "upgraded", "w": "deferred", "b": "upgraded"}

    def test_nor_overrule_a_gate_again(self) -> None:
        world = World(self.plan(gate=GATE), waits=False)
        world.answers = [answer(Verdict.INCONCLUSIVE)] * 2
        assert world.drive().status is RunStatus.PAUSED
        world.begin()
        world.ledger.request(world.run, OPS, RequestKind.CONTINUE, {})
        assert statuses(world.drive(resumed(world)))["b"] == "upgraded"
        assert len(world.asked) == 1

    def test_but_nobody_has_said_so_of_what_was_done_since(self) -> None:
        world = World(self.plan(pause=UNTIL_CONTINUED), waits=False)
        assert world.drive().status is RunStatus.PAUSED
        world.begin()
        world.clock = FakeClock(_SATURDAY)
        assert statuses(world.drive(resumed(world)))["b"] == "not_started"

    def test_its_pause_goes_on_where_it_was(self) -> None:
        world = World(self.plan(pause=600.0))
        world.on(RunPaused, lambda _: world.stop.drain())
        assert world.drive().status is RunStatus.INTERRUPTED
        before = world.marks["first"]
        world.begin()
        world.reactions = {}
        world.clock.seconds += 500
        assert statuses(world.drive(resumed(world)))["b"] == "upgraded"
        assert world.marks["first"].finished_at == before.finished_at
        assert [event.seconds for event in world.events(RunPaused)] == [100.0]


class TestADeadRunner:
    @pytest.mark.parametrize("kind", ["command", "person"])
    def test_an_answer_that_was_written_is_not_asked_for_again(self, kind: str) -> None:
        world = World(a_plan(wave("a", name="canary", gate=GATE), wave("b", name="rest")))
        world.answers = [answer(Verdict.PASSED if kind == "command" else Verdict.INCONCLUSIVE)]
        world.on(RunPaused, lambda _: world.request(RequestKind.CONTINUE))
        write = world.ledger.mark_wave

        def write_and_die(run: str, mark: WaveMark) -> None:
            write(run, mark)
            if isinstance(mark.gate, GateResult) and mark.gate.kind == kind:
                raise LedgerError("the runner dies right behind this write")

        world.ledger.mark_wave = write_and_die  # type: ignore[method-assign]
        assert world.drive().status is RunStatus.HALTED
        world.ledger.mark_wave = write  # type: ignore[method-assign]
        world.begin()
        world.waits = False
        assert world.drive(resumed(world)).status is RunStatus.SUCCEEDED
        assert len(world.asked) == 1


class TestClocksAndMail:
    def test_a_clock_that_is_set_back_makes_no_run_busy(self) -> None:
        world = World(a_plan(wave("a", name="first", pause=600.0), wave("b", name="rest")))
        slept: list[float] = []
        receive = world.clock.receive

        def watch(inbox, seconds):
            slept.append(seconds)
            return receive(inbox, max(seconds, 0.01))

        world.clock.receive = watch  # type: ignore[method-assign]
        world.on(RunPaused, lambda _: setattr(world.clock, "began", world.clock.began - datetime.timedelta(minutes=1)))
        assert world.drive().status is RunStatus.SUCCEEDED
        assert slept.count(0.0) < 10

    def test_what_was_read_before_takes_nothing_back(self) -> None:
        world = World(a_plan("a"))
        none = world.ledger.requests(world.run)
        world.ledger.request(world.run, OPS, RequestKind.PAUSE, {})
        mailbox = Mailbox()
        mailbox.deliver(world.ledger.requests(world.run))
        mailbox.deliver(none)
        assert [request.kind for request in mailbox.read()] == [RequestKind.PAUSE]

    def test_who_is_at_work_when_it_is_skipped_is_not_tried_again(self) -> None:
        busy = Failure(kind=FailureKind.TRANSIENT, type="LockNotAvailable", message="locked")
        failed = an_outcome(a_job("a"), Status.FAILED, failure=busy)
        plan = dataclasses.replace(a_plan("a", "b"), retries=Retries(busy=(60.0,)))
        world = World(plan, {"a": [failed, Status.UPGRADED]})

        def skip(event: JobStarted) -> None:
            if event.job.target == "a":
                world.request(RequestKind.SKIP, target="a", reason="the customer asked")

        world.on(JobStarted, skip)  # type: ignore[arg-type]
        conclusion = world.drive()
        assert statuses(conclusion) == {"a": "skipped", "b": "upgraded"}
        assert conclusion.status is RunStatus.SUCCEEDED
        assert [job.target for job in world.executor.submitted] == ["a", "b"]
        assert world.ledger.unsettled(world.run) == []

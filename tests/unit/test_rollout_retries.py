"""The rollout goes on after what may pass: a busy target, a dead worker, a connection lost with nothing known."""

from __future__ import annotations

import os
import signal
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from orchestrator.errors import ExitCode, LeaseLost
from orchestrator.outcomes import FailureKind, Outcome, Reason, RunStatus, Status
from orchestrator.plans import Retries
from orchestrator.rollout import StopCause
from orchestrator.rollout.delays import JITTER, Clock
from orchestrator.rollout.jobs import LONGEST_SLEEP
from orchestrator.testing import FakeClock, Script, a_failure, a_job, a_plan, a_wave, an_outcome
from tests.unit.rollout_drives import BrokenLedger, Drive, drive, statuses, submitted

RETRIES = Retries(busy=(60.0, 300.0), server=(5.0, 10.0), lost=2)


def busy(target: str = "a", **fields: Any) -> Outcome:
    failure = a_failure(FailureKind.TRANSIENT, code="55P03", message="canceling statement due to lock timeout")
    return an_outcome(target, Status.FAILED, failure=failure, **fields)


def unknown(target: str = "a", code: str | None = None, **fields: Any) -> Outcome:
    failure = a_failure(FailureKind.AMBIGUOUS, code=code, message="the connection was lost")
    known: dict[str, Any] = {"status": Status.FAILED, "at": None, "failure": failure, **fields}
    return an_outcome(target, **known)


def elapsed(driven: Drive) -> float:
    assert isinstance(driven.clock, FakeClock)
    return driven.clock.seconds


class TestBusyTargets:
    def test_they_are_tried_again_after_each_delay(self) -> None:
        driven = drive(a_plan("a", retries=RETRIES), a=[busy(), busy(), Status.UPGRADED])
        conclusion = driven.end()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.SUCCEEDED, ExitCode.OK)
        assert [event.delay_s for event in driven.deferred] == [60, 300]
        assert elapsed(driven) == pytest.approx(360)
        assert conclusion.outcomes[0].attempts == 3
        assert conclusion.outcomes[0].failure is None
        assert driven.listener.names == [
            "WaveStarted",
            *["JobStarted", "JobDeferred"] * 2,
            *["JobStarted", "JobFinished", "WaveFinished"],
        ]

    def test_each_try_stands_in_the_ledger(self) -> None:
        driven = drive(a_plan("a", retries=RETRIES), a=[busy(), Status.UPGRADED])
        first, second = driven.ledger.attempts(driven.run, "a")
        assert first.outcome is not None
        assert first.outcome.status is Status.DEFERRED
        assert first.outcome.reason == Reason(
            code="retrying", text="put off for 60 s: canceling statement due to lock timeout"
        )
        assert first.outcome.failure is not None
        assert first.outcome.failure.code == "55P03"
        assert second.outcome is not None
        assert (second.number, second.outcome.status) == (2, Status.UPGRADED)

    def test_the_last_try_fails_as_it_came(self) -> None:
        driven = drive(a_plan("a", retries=RETRIES), a=busy())
        (outcome,) = driven.end().outcomes
        assert (outcome.status, outcome.attempts, outcome.reason) == (Status.FAILED, 3, None)
        assert outcome.failure == busy().failure
        assert len(driven.finished) == 1

    def test_the_others_go_on_meanwhile(self) -> None:
        plan = a_plan(a_wave("a", "b", "c", concurrency=1), retries=RETRIES)
        assert submitted(drive(plan, a=[busy(), Status.UPGRADED])) == ["a", "b", "c", "a"]

    def test_the_next_wave_waits_for_them(self) -> None:
        plan = a_plan(a_wave("a", name="one"), a_wave("b", name="two"), retries=RETRIES)
        assert submitted(drive(plan, a=[busy(), Status.UPGRADED])) == ["a", "a", "b"]

    def test_those_behind_them_wait_and_are_skipped_only_in_the_end(self) -> None:
        plan = a_plan("a", a_job("b", after=("a",)), retries=RETRIES, max_failures=None)
        assert submitted(drive(plan, a=[busy(), Status.UPGRADED])) == ["a", "a", "b"]
        assert statuses(drive(plan, a=busy()).end()) == {"a": "failed", "b": "skipped"}

    def test_only_the_last_try_counts_for_the_budget(self) -> None:
        plan = a_plan(a_wave("a", "b", "c", concurrency=1), retries=RETRIES)
        assert drive(plan, a=[busy(), Status.UPGRADED], b=[busy("b"), Status.UPGRADED]).end().exit_code == 0
        driven = drive(a_plan(a_wave("a", "b", concurrency=1), retries=RETRIES), a=busy(), b=busy("b"))
        assert [(halt.cause, halt.not_started) for halt in driven.halts] == [("budget", 0)]
        assert statuses(driven.end()) == {"a": "failed", "b": "deferred"}
        assert driven.end().status is RunStatus.HALTED

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (FailureKind.PERMANENT, None),
            (FailureKind.RUN, None),
            (FailureKind.AMBIGUOUS, "lock_lost"),
            (FailureKind.AMBIGUOUS, "25P03"),
        ],
    )
    def test_other_failures_are_final(self, kind: FailureKind, code: str | None) -> None:
        failed = an_outcome("a", Status.FAILED, failure=a_failure(kind, code=code))
        assert submitted(drive(a_plan("a", retries=RETRIES), a=failed)) == ["a"]

    def test_what_earlier_tries_did_stays_in_the_outcome(self) -> None:
        job = a_job("a", found=("r1",), wanted=("r3",), path=("r2", "r3"))
        first = busy("a", found=("r1",), at=("r2",), applied=("r2",))
        second = an_outcome("a", found=("r2",), wanted=("r3",), at=("r3",), applied=("r3",))
        driven = drive(a_plan(job, retries=RETRIES), a=[first, second])
        (outcome,) = driven.end().outcomes
        assert (outcome.found, outcome.at, outcome.applied) == (("r1",), ("r3",), ("r2", "r3"))
        assert [job.resumed for job in driven.executor.submitted] == [False, True]

    def test_a_try_that_changed_nothing_leaves_nothing_to_resume(self) -> None:
        driven = drive(a_plan("a", retries=RETRIES), a=[busy(), Status.UPGRADED])
        assert [job.resumed for job in driven.executor.submitted] == [False, False]


class TestLostJobs:
    @pytest.mark.parametrize("lost", [an_outcome("a", Status.LOST), unknown(), unknown(at=("r1",))])
    def test_they_are_resumed(self, lost: Outcome) -> None:
        driven = drive(a_plan("a", retries=RETRIES), a=[lost, Status.UPGRADED])
        assert driven.end().exit_code is ExitCode.OK
        assert [job.resumed for job in driven.executor.submitted] == [False, True]
        (event,) = driven.deferred
        assert event.outcome.reason is not None
        assert (event.outcome.status, event.outcome.reason.code) == (Status.DEFERRED, "retrying")
        assert 0 < elapsed(driven) < 5

    @pytest.mark.parametrize("lost", [an_outcome("a", Status.LOST), unknown()])
    def test_not_for_ever(self, lost: Outcome) -> None:
        driven = drive(a_plan("a", retries=RETRIES), a=lost)
        (outcome,) = driven.end().outcomes
        assert (outcome.status, outcome.attempts, outcome.failure) == (lost.status, 3, lost.failure)

    @pytest.mark.parametrize("code", ["job_timeout", "cancelled"])
    @pytest.mark.parametrize("status", [Status.LOST, Status.FAILED])
    def test_what_was_ended_on_purpose_is_not_begun_again(self, code: str, status: Status) -> None:
        driven = drive(a_plan("a", retries=RETRIES), a=unknown(code=code, status=status))
        assert submitted(driven) == ["a"]
        assert statuses(driven.end()) == {"a": status.value}

    @pytest.mark.parametrize("code", ["lock_lost", "version_moved"])
    def test_a_known_end_is_the_last_word_where_no_network_is_to_blame(self, code: str) -> None:
        lost = unknown(at=("r001",), code=code)
        assert submitted(drive(a_plan("a", retries=RETRIES), a=lost)) == ["a"]

    def test_a_future_that_raises_is_a_lost_job(self) -> None:
        assert submitted(drive(a_plan("a", retries=RETRIES), a=[RuntimeError("no"), Status.UPGRADED])) == ["a", "a"]

    def test_each_fault_has_tries_of_its_own(self) -> None:
        tries: list[Script] = [
            busy(),
            an_outcome("a", Status.LOST),
            busy(),
            an_outcome("a", Status.LOST),
            Status.UPGRADED,
        ]
        driven = drive(a_plan("a", retries=RETRIES), a=tries)
        assert driven.end().outcomes[0].attempts == 5


class TestStopping:
    def drained(self, plan_wave: int = 1) -> Drive:
        """A run with a job that waits for a minute, asked to stop meanwhile."""
        driven = Drive(a_plan(a_wave("a", "b", concurrency=plan_wave), retries=RETRIES)).start()
        driven.in_flight("a")
        driven.executor.finish("a", busy())
        driven.in_flight("b")
        driven.stop.drain(StopCause.TERMINATED)
        driven.until(lambda: bool(driven.halts))
        driven.finish("b")
        return driven

    def test_a_job_that_waits_keeps_its_latest_outcome(self) -> None:
        driven = self.drained()
        conclusion = driven.end()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.INTERRUPTED, ExitCode.TERMINATED)
        assert statuses(conclusion) == {"a": "deferred", "b": "upgraded"}
        assert conclusion.outcomes[0].failure is not None
        assert conclusion.unrecorded == ()
        assert [(halt.in_flight, halt.not_started) for halt in driven.halts] == [(1, 0)]

    def test_a_run_that_only_waits_stops_at_once(self) -> None:
        driven = Drive(a_plan("a", retries=RETRIES), hold=False, a=busy()).start()
        driven.until(lambda: bool(driven.deferred))
        driven.stop.drain()
        assert driven.end().exit_code is ExitCode.INTERRUPTED
        assert statuses(driven.end()) == {"a": "deferred"}

    def test_a_busy_target_of_a_run_that_ends_is_left_for_another(self) -> None:
        driven = Drive(a_plan("a", retries=RETRIES)).start()
        driven.in_flight("a")
        driven.stop.drain()
        driven.until(lambda: bool(driven.halts))
        driven.executor.finish("a", busy())
        assert statuses(driven.end()) == {"a": "deferred"}
        assert driven.end().status is RunStatus.INTERRUPTED

    def test_a_signal_ends_the_waiting(self) -> None:
        driven = Drive(a_plan("a", retries=RETRIES), hold=False, a=busy())
        before = signal.signal(signal.SIGTERM, lambda number, frame: driven.stop.request(StopCause.TERMINATED))

        def interrupt() -> None:
            driven.until(lambda: bool(driven.deferred))
            os.kill(os.getpid(), signal.SIGTERM)

        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            driven._drive()  # in the main thread, where Python runs signal handlers
        finally:
            signal.signal(signal.SIGTERM, before)
            helper.join()
        assert driven.end().exit_code is ExitCode.TERMINATED

    def test_no_sleep_is_long(self) -> None:
        sleeps: list[float] = []

        class Watched(FakeClock):
            def receive(self, inbox: SimpleQueue[object], seconds: float) -> object:  # type: ignore[override]
                sleeps.append(seconds)
                return super().receive(inbox, seconds)

        driven = Drive(a_plan("a", retries=RETRIES), hold=False, clock=Watched(), a=[busy(), Status.UPGRADED])
        driven._drive()
        assert sum(sleeps) == pytest.approx(60)
        assert max(sleeps) <= LONGEST_SLEEP


class TestLeases:
    @pytest.mark.parametrize("place", ["start", "record"])
    def test_a_lost_lease_ends_the_run_as_refused(self, place: str) -> None:
        driven = Drive(a_plan(a_wave("a", "b", "c", concurrency=1), max_failures=None), hold=False)
        driven.ledger = BrokenLedger(driven, error=LeaseLost, **{place: "b"})
        driven._drive()
        conclusion = driven.end()
        assert submitted(driven) == ["a", "b"][: 1 if place == "start" else 2]
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.REFUSED)
        assert [halt.cause for halt in driven.halts] == ["ledger"]
        assert [outcome.target for outcome in conclusion.unrecorded] == ["b", "c"]

    def test_outcomes_that_the_ledger_has_are_not_written_again(self) -> None:
        driven = drive(a_plan(a_wave("a", "b", a_job("c", after=("a",)), concurrency=1)), a=Status.FAILED)
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": "failed", "b": "not_started", "c": "skipped"}
        assert [outcome.target for outcome in conclusion.unrecorded] == ["b", "c"]


class TestRunsThatGoOn:
    """A plan whose earlier jobs have been settled by an earlier runner."""

    def test_waves_count_what_was_settled_before(self) -> None:
        settled = [an_outcome("x", wave="one"), an_outcome("y", wave="two"), an_outcome("z", wave=None)]
        plan = a_plan(a_wave(name="one"), a_wave("a", name="two"), a_wave("b", name="three"), settled=settled)
        conclusion = drive(plan).end()
        assert [(wave.name, wave.status, wave.counts["upgraded"]) for wave in conclusion.waves] == [
            ("one", "succeeded", 1),
            ("two", "succeeded", 2),
            ("three", "succeeded", 1),
        ]

    def test_waves_that_are_over_stand_first(self) -> None:
        settled = [an_outcome("x", wave="one"), an_outcome("y", Status.FAILED, wave="two")]
        conclusion = drive(a_plan(a_wave("a", name="three"), settled=settled, max_failures=1)).end()
        assert [(wave.name, wave.status) for wave in conclusion.waves] == [
            ("one", "succeeded"),
            ("two", "failed"),
            ("three", "succeeded"),
        ]

    @pytest.mark.parametrize(("limit", "expected"), [(0, "not_started"), (1, "upgraded")])
    def test_their_failures_count_for_the_wave(self, limit: int, expected: str) -> None:
        settled = [an_outcome("x", Status.FAILED, wave="one")]
        plan = a_plan(a_wave("a", name="one", max_failures=limit), settled=settled, max_failures=9)
        assert statuses(drive(plan).end()) == {"a": expected, "x": "failed"}

    def test_a_wave_that_failed_before_keeps_the_next_one_from_starting(self) -> None:
        settled = [an_outcome("x", Status.FAILED, wave="one")]
        plan = a_plan(a_wave(name="one", max_failures=0), a_wave("a", name="two"), settled=settled, max_failures=9)
        conclusion = drive(plan).end()
        assert statuses(conclusion)["a"] == "not_started"
        assert [wave.status for wave in conclusion.waves] == ["failed", "not_started"]

    def test_targets_behind_them_may_start(self) -> None:
        plan = a_plan(a_job("a", after=("x",)), settled=[an_outcome("x")])
        assert statuses(drive(plan).end())["a"] == "upgraded"

    def test_the_ledger_has_them(self) -> None:
        assert drive(a_plan("a", settled=[an_outcome("x")])).end().unrecorded == ()


class TestClock:
    def test_delays_are_spread(self) -> None:
        clock = Clock()
        spread = {clock.spread(100.0) for _ in range(50)}
        assert len(spread) > 1
        assert all(100 * (1 - JITTER) <= seconds <= 100 * (1 + JITTER) for seconds in spread)

    def test_it_waits_for_news(self) -> None:
        inbox: SimpleQueue[str] = SimpleQueue()
        with pytest.raises(Empty):
            Clock().receive(inbox, 0.001)
        inbox.put("news")
        assert Clock().receive(inbox, 60.0) == "news"
        assert Clock().now() <= time.monotonic()

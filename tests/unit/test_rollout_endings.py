"""How a rollout ends: stopped, misled, and with which exit code."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future

import pytest

from orchestrator import rollout
from orchestrator.errors import ExitCode, LeaseLost, OrchestratorError
from orchestrator.events import Event, JobStarted
from orchestrator.outcomes import FailureKind, Outcome, Reason, RunStatus, Status
from orchestrator.plans import Job
from orchestrator.rollout import StopCause
from orchestrator.testing import (
    MemoryLedger,
    RecordingListener,
    ScriptedExecutor,
    a_failure,
    a_job,
    a_plan,
    a_wave,
    an_outcome,
)
from tests.unit.rollout_drives import Drive, drive, statuses


class TestStopping:
    @pytest.mark.parametrize(("cause", "exit_code"), [(StopCause.INTERRUPTED, 130), (StopCause.TERMINATED, 143)])
    def test_a_drain_lets_jobs_in_flight_finish(self, cause: StopCause, exit_code: int) -> None:
        driven = Drive(a_plan(a_wave("a", "b", "c", concurrency=2), a_wave("d", name="later"))).start()
        driven.in_flight("a", "b")
        driven.stop.request(cause)
        driven.until(lambda: bool(driven.halts))
        driven.finish("a")
        driven.finish("b")
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": "upgraded", "b": "upgraded", "c": "not_started", "d": "not_started"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.INTERRUPTED, exit_code)
        (halt,) = driven.halts
        assert (halt.cause, halt.in_flight, halt.not_started) == ("interrupted", 2, 2)
        assert conclusion.outcomes[3].reason is not None
        assert conclusion.outcomes[3].reason.code == "interrupted"
        assert [wave.status for wave in conclusion.waves] == ["interrupted", "not_started"]

    def test_the_second_request_cancels_what_is_in_flight(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", concurrency=1))).start()
        driven.in_flight("a")
        driven.stop.request()
        driven.stop.request()
        conclusion = driven.end()
        assert driven.executor.cancelled
        assert statuses(conclusion) == {"a": "lost", "b": "not_started"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.INTERRUPTED, 130)

    def test_a_run_that_lost_its_last_jobs_to_a_stop_is_interrupted(self) -> None:
        driven = Drive(a_plan("a")).start()
        driven.in_flight("a")
        driven.stop.now(StopCause.TERMINATED)
        assert driven.end().exit_code is ExitCode.TERMINATED

    def test_a_drain_that_finds_nothing_left_changes_nothing(self) -> None:
        driven = Drive(a_plan("a")).start()
        driven.in_flight("a")
        driven.stop.drain()
        driven.until(lambda: bool(driven.halts))
        driven.finish("a")
        assert driven.end().status is RunStatus.SUCCEEDED

    def test_a_stop_before_the_start_starts_nothing(self) -> None:
        driven = Drive(a_plan("a"))
        driven.stop.drain()
        driven._drive()
        assert statuses(driven.end()) == {"a": "not_started"}
        assert driven.listener.names == ["RunHalted"]

    @pytest.mark.parametrize("before", [StopCause.INTERRUPTED, StopCause.TERMINATED])
    def test_an_abort_has_the_last_word(self, before: StopCause) -> None:
        driven = Drive(a_plan(a_wave("a", "b", concurrency=1))).start()
        driven.in_flight("a")
        driven.stop.drain(before)
        driven.stop.drain(StopCause.ABORTED)
        driven.stop.drain(before)
        driven.finish("a")
        assert (driven.end().exit_code, driven.stop.cause) == (ExitCode.FAILURES, StopCause.ABORTED)

    def test_who_lost_the_lease_is_halted_not_interrupted(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", concurrency=1))).start()
        driven.in_flight("a")
        driven.stop.fail(LeaseLost("taken over"))
        driven.until(lambda: bool(driven.halts))
        driven.finish("a")
        conclusion = driven.end()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.REFUSED)
        assert statuses(conclusion) == {"a": "upgraded", "b": "not_started"}

    def test_what_never_reached_a_worker_has_had_no_try(self) -> None:
        resumed = a_job("b", resumed=True)
        told = {name: an_outcome(name, Status.NOT_STARTED) for name in ("a", "b")}
        conclusion = drive(a_plan("a", resumed), **told).end()
        assert {outcome.target: outcome.attempts for outcome in conclusion.outcomes} == {"a": 0, "b": 1}

    def test_what_an_earlier_runner_began_stays_begun(self) -> None:
        driven = Drive(a_plan(a_job("a", resumed=True), a_job("b")))
        driven.stop.drain()
        driven._drive()
        assert {outcome.target: outcome.attempts for outcome in driven.end().outcomes} == {"a": 1, "b": 0}

    def test_a_cancel_that_fails_is_waited_out(self) -> None:
        driven = Drive(a_plan("a"))

        def close(*, cancel: bool = False) -> None:
            raise RuntimeError("cannot cancel")

        driven.executor.close = close  # type: ignore[method-assign]
        driven.start()
        driven.in_flight("a")
        driven.stop.now()
        driven.finish("a")
        assert statuses(driven.end()) == {"a": "upgraded"}

    def test_a_signal_handler_wakes_the_waiting_rollout(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", concurrency=1)))
        before = signal.signal(signal.SIGTERM, lambda number, frame: driven.stop.request(StopCause.TERMINATED))

        def interrupt() -> None:
            driven.in_flight("a")
            os.kill(os.getpid(), signal.SIGTERM)
            driven.until(lambda: bool(driven.halts))
            driven.executor.finish("a")

        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            driven._drive()  # in the main thread, where Python runs signal handlers
        finally:
            signal.signal(signal.SIGTERM, before)
            helper.join()
        assert driven.end().exit_code is ExitCode.TERMINATED

    def test_ctrl_c_without_a_handler_drains_as_well(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", concurrency=1)))

        def interrupt() -> None:
            driven.in_flight("a")
            os.kill(os.getpid(), signal.SIGINT)
            driven.until(lambda: bool(driven.halts))
            driven.executor.finish("a")

        helper = threading.Thread(target=interrupt)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        helper.start()
        try:
            driven._drive()
        finally:
            signal.signal(signal.SIGINT, before)
            helper.join()
        assert driven.end().exit_code is ExitCode.INTERRUPTED

    def test_the_handler_of_the_program_is_kept(self) -> None:
        def own(number: int, frame: object) -> None:
            pass

        for handler in (own, signal.default_int_handler):
            before = signal.signal(signal.SIGINT, handler)
            try:
                drive(a_plan("a"))
                assert signal.getsignal(signal.SIGINT) is handler
            finally:
                signal.signal(signal.SIGINT, before)


class TestMisbehaviour:
    def test_a_listener_that_raises_stops_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        plan = a_plan("a", "b")
        ledger = MemoryLedger()
        run = ledger.open_run(plan, operator="tester", fleet=2).id
        recording = RecordingListener()

        def broken(event: Event) -> None:
            raise RuntimeError("cannot draw")

        conclusion = rollout.execute(run, plan, ScriptedExecutor().submit, ledger, [broken, recording])
        assert conclusion.exit_code is ExitCode.OK
        assert recording.names.count("JobFinished") == 2
        assert "a listener failed on JobStarted" in caplog.text

    def test_a_future_that_raises_is_a_lost_job(self) -> None:
        plan = a_plan(a_wave("a", "b", concurrency=1), max_failures=1)
        conclusion = drive(plan, a=RuntimeError("s3cret")).end()
        assert statuses(conclusion) == {"a": "lost", "b": "upgraded"}
        assert conclusion.outcomes[0].failure is not None
        assert conclusion.outcomes[0].failure.kind is FailureKind.AMBIGUOUS
        assert "s3cret" not in str(conclusion)

    @pytest.mark.parametrize("limit", [0, 5, None])
    def test_an_executor_that_cannot_run_jobs_halts_the_run(self, limit: int | None) -> None:
        error = OrchestratorError("a worker process cannot start: no module named env")
        driven = drive(a_plan(a_wave("a", "b", concurrency=1), max_failures=limit), a=error)
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": "failed", "b": "not_started"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.FAILURES)
        assert conclusion.error is error
        assert [(halt.cause, halt.not_started) for halt in driven.halts] == [("run_level", 1)]

    def test_a_submit_that_raises_is_the_jobs_own_outcome(self) -> None:
        driven = Drive(a_plan("a"), hold=False)

        def submit(job: Job) -> Future[Outcome]:
            raise RuntimeError("no")

        conclusion = rollout.execute(driven.run, driven.plan, submit, driven.ledger)
        assert statuses(conclusion) == {"a": "lost"}

    def test_jobs_are_told_before_they_are_submitted(self) -> None:
        driven = drive(a_plan("a"))
        started = [event for event in driven.listener.events if isinstance(event, JobStarted)]
        assert [event.job for event in started] == driven.executor.submitted


def _skipped(code: str) -> Outcome:
    return an_outcome("a", Status.SKIPPED, reason=Reason(code=code, text=""))


class TestExitCode:
    def test_a_pooler_refuses_the_run_unless_something_else_failed_as_well(self) -> None:
        plan = a_plan(a_wave("a", "b", "c", concurrency=1))
        behind = an_outcome("a", Status.FAILED, failure=a_failure(FailureKind.RUN, code="pooler"))
        conclusion = drive(plan, a=behind).end()
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.REFUSED)
        lenient = a_plan(a_wave("a", "b", "c", concurrency=1), max_failures=None)
        assert drive(lenient, a=behind, b=Status.FAILED).end().exit_code is ExitCode.FAILURES

    @pytest.mark.parametrize(
        ("outcome", "exit_code", "status"),
        [
            (an_outcome("a"), 0, "succeeded"),
            (an_outcome("a", Status.DOWNGRADED), 0, "succeeded"),
            (an_outcome("a", Status.STAMPED), 0, "succeeded"),
            (an_outcome("a", Status.UNCHANGED), 0, "succeeded"),
            (_skipped("quarantined"), 0, "succeeded"),
            (_skipped("suspended"), 0, "succeeded"),
            (_skipped("past"), 0, "succeeded"),
            (_skipped("unknown_revision"), 1, "failed"),
            (_skipped("unversioned"), 1, "failed"),
            (_skipped("dependency_failed"), 1, "failed"),
            (_skipped("something new"), 1, "failed"),
            (an_outcome("a", Status.SKIPPED), 1, "failed"),
            (an_outcome("a", Status.FAILED), 1, "failed"),
            (an_outcome("a", Status.LOST), 1, "failed"),
            (an_outcome("a", Status.NOT_PROVISIONED), 1, "failed"),
            (an_outcome("a", Status.DEFERRED), 4, "paused"),
        ],
        ids=lambda value: str(getattr(value, "status", value)),
    )
    @pytest.mark.parametrize("settled", [False, True])
    def test_of_one_outcome(self, outcome: Outcome, exit_code: int, status: str, settled: bool) -> None:
        plan = a_plan(settled=[outcome]) if settled else a_plan("a")
        conclusion = drive(plan, **({} if settled else {"a": outcome})).end()
        assert (conclusion.exit_code, conclusion.status) == (exit_code, status)

    def test_targets_ahead_of_the_code_are_fine_when_allowed(self) -> None:
        plan = a_plan("b", settled=[_skipped("unknown_revision")], allow_ahead=True)
        assert drive(plan).end().exit_code is ExitCode.OK

    def test_a_failure_outweighs_a_deferral(self) -> None:
        plan = a_plan("a", "b", max_failures=None)
        assert drive(plan, a=Status.DEFERRED, b=Status.FAILED).end().exit_code is ExitCode.FAILURES

    def test_a_deferral_outweighs_a_success(self) -> None:
        conclusion = drive(a_plan("a", "b"), a=Status.DEFERRED).end()
        assert conclusion.exit_code is ExitCode.PAUSED
        assert [wave.status for wave in conclusion.waves] == ["deferred"]

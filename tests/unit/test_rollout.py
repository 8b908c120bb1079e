"""The rollout: order, bounds, records, budgets and dependencies."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from orchestrator import rollout
from orchestrator.errors import ExitCode, LedgerError
from orchestrator.events import Event, JobFinished, WaveStarted
from orchestrator.outcomes import FailureKind, Outcome, Reason, RunStatus, Status
from orchestrator.plans import Job
from orchestrator.testing import (
    MemoryLedger,
    ScriptedExecutor,
    a_failure,
    a_job,
    a_plan,
    a_wave,
    an_outcome,
)
from tests.unit.rollout_drives import BrokenLedger, Drive, drive, statuses, submitted


class TestOrder:
    def test_waves_run_one_after_the_other(self) -> None:
        plan = a_plan(a_wave("a", "b", name="canary"), a_wave("c", name="rest"))
        driven = Drive(plan).start()
        driven.in_flight("a", "b")
        driven.finish("a")
        assert submitted(driven) == ["a", "b"]
        driven.finish("b")
        driven.in_flight("c")
        driven.finish("c")
        conclusion = driven.end()
        assert conclusion.status is RunStatus.SUCCEEDED
        assert conclusion.exit_code is ExitCode.OK
        assert [(wave.name, wave.status, wave.counts["upgraded"]) for wave in conclusion.waves] == [
            ("canary", "succeeded", 2),
            ("rest", "succeeded", 1),
        ]

    def test_events_come_in_order(self) -> None:
        driven = drive(a_plan(a_wave("a", name="canary"), a_wave("b", name="rest")))
        assert driven.listener.names == ["WaveStarted", "JobStarted", "JobFinished", "WaveFinished"] * 2
        assert [event.wave for event in driven.listener.events if isinstance(event, WaveStarted)] == ["canary", "rest"]

    def test_no_more_jobs_in_flight_than_the_wave_allows(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", "c", concurrency=2))).start()
        driven.in_flight("a", "b")
        driven.finish("b")
        driven.in_flight("a", "c")
        driven.finish("a")
        driven.finish("c")
        driven.end()

    def test_no_more_jobs_in_flight_than_a_server_allows(self) -> None:
        jobs = [a_job(name, server=server) for name, server in (("a", "s1"), ("b", "s1"), ("c", "s1"), ("d", "s2"))]
        driven = Drive(a_plan(*jobs, server_caps={"s1": 1})).start()
        driven.in_flight("a", "d")
        driven.finish("a")
        driven.in_flight("d", "b")
        for name in ("d", "b"):
            driven.finish(name)
        driven.in_flight("c")
        driven.finish("c")
        driven.end()

    @pytest.mark.parametrize(("caps", "expected"), [({}, 8), ({"*": 3}, 3), ({"*": 3, "s1": 5}, 5), ({"s1": 0}, 1)])
    def test_the_cap_of_a_server(self, caps: dict[str, int], expected: int) -> None:
        jobs = [a_job(f"t{number:02}", server="s1") for number in range(12)]
        driven = Drive(a_plan(a_wave(*jobs, concurrency=12), server_caps=caps)).start()
        driven.until(lambda: len(driven.executor.in_flight) == expected)
        driven.finish("t00")
        driven.until(lambda: len(driven.executor.submitted) == expected + 1)
        assert len(driven.executor.in_flight) == expected
        driven.stop.now()
        driven.end()

    def test_servers_take_turns(self) -> None:
        jobs = [a_job(f"{server}{number}", server=server) for server in "xyz" for number in range(3)]
        driven = Drive(a_plan(a_wave(*jobs, concurrency=6))).start()
        driven.in_flight("x0", "y0", "z0", "x1", "y1", "z1")
        driven.stop.now()
        driven.end()

    def test_one_at_a_time_keeps_the_order_of_the_plan(self) -> None:
        jobs = [a_job(name, server=server) for name, server in (("a", "s1"), ("b", "s1"), ("c", "s2"), ("d", "s1"))]
        assert submitted(drive(a_plan(a_wave(*jobs, concurrency=1)))) == ["a", "b", "c", "d"]

    def test_outcomes_stand_in_the_order_of_the_plan(self) -> None:
        plan = a_plan("a", "b", settled=[an_outcome("z", Status.UNCHANGED)])
        driven = Drive(plan).start()
        driven.in_flight("a", "b")
        driven.finish("b")
        driven.finish("a")
        assert [outcome.target for outcome in driven.end().outcomes] == ["a", "b", "z"]

    def test_a_plan_without_jobs_succeeds(self) -> None:
        driven = drive(a_plan(settled=[an_outcome("a", Status.UNCHANGED)]))
        assert driven.conclusion is not None
        assert driven.conclusion.status is RunStatus.SUCCEEDED
        assert driven.listener.events == []


class TestLedger:
    def test_the_intent_is_written_before_the_job_is_submitted(self) -> None:
        plan = a_plan("a")
        driven = Drive(plan)
        seen = []

        def submit(job: Job) -> Future[Outcome]:
            seen.append(driven.ledger.attempts(driven.run, job.target))
            return driven.executor.submit(job)

        driven.executor = ScriptedExecutor()
        rollout.execute(driven.run, plan, submit, driven.ledger)
        ((attempt,),) = seen
        assert attempt.number == 1
        assert attempt.outcome is None

    def test_the_outcome_is_written_before_it_is_told(self) -> None:
        plan = a_plan("a")
        ledger = MemoryLedger()
        run = ledger.open_run(plan, operator="tester", fleet=1).id
        written = []

        def listener(event: Event) -> None:
            if isinstance(event, JobFinished):
                written.extend(ledger.outcomes(run))

        rollout.execute(run, plan, ScriptedExecutor().submit, ledger, [listener])
        assert [outcome.status for outcome in written] == [Status.UPGRADED]

    def test_the_number_of_the_attempt_is_kept(self) -> None:
        (outcome,) = drive(a_plan("a")).end().outcomes
        assert outcome.attempts == 1

    def test_nothing_is_submitted_when_the_intent_cannot_be_written(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", concurrency=1), max_failures=None), hold=False)
        driven.ledger = BrokenLedger(driven, start="b")
        driven._drive()
        conclusion = driven.end()
        assert submitted(driven) == ["a"]
        assert statuses(conclusion) == {"a": "upgraded", "b": "not_started"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.FAILURES)
        assert isinstance(conclusion.error, LedgerError)
        assert [halt.cause for halt in driven.halts] == ["ledger"]

    def test_jobs_in_flight_end_when_an_outcome_cannot_be_written(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", "c", concurrency=2)))
        driven.ledger = BrokenLedger(driven, record="a")
        driven.start()
        driven.in_flight("a", "b")
        driven.finish("a")
        driven.finish("b")
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": "upgraded", "b": "upgraded", "c": "not_started"}
        assert conclusion.status is RunStatus.HALTED
        assert "disk" in str(conclusion.error)

    def test_a_last_outcome_that_cannot_be_written_is_not_a_success(self) -> None:
        driven = Drive(a_plan("a"), hold=False)
        driven.ledger = BrokenLedger(driven, record="a")
        driven._drive()
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": "upgraded"}
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.HALTED, ExitCode.FAILURES)
        assert [(halt.cause, halt.not_started) for halt in driven.halts] == [("ledger", 0)], "nobody knew why"


class TestBudget:
    @pytest.mark.parametrize(("limit", "started"), [(0, 1), (1, 2), (2, 3), (None, 6)])
    def test_a_run_halts_when_its_failures_exceed_the_limit(self, limit: int | None, started: int) -> None:
        names = [f"t{number}" for number in range(6)]
        plan = a_plan(a_wave(*names, concurrency=1), max_failures=limit)
        driven = drive(plan, **dict.fromkeys(names, Status.FAILED))
        assert len(driven.executor.submitted) == started
        conclusion = driven.end()
        assert conclusion.exit_code is ExitCode.FAILURES
        assert conclusion.status is (RunStatus.FAILED if limit is None else RunStatus.HALTED)

    @pytest.mark.parametrize("limit", [0, 1])
    def test_a_wave_has_a_budget_of_its_own(self, limit: int) -> None:
        plan = a_plan(
            a_wave("a", "b", name="canary", concurrency=1, max_failures=limit), a_wave("c", name="rest"), max_failures=9
        )
        conclusion = drive(plan, a=Status.FAILED).end()
        after = "not_started" if limit == 0 else "upgraded"
        assert statuses(conclusion) == {"a": "failed", "b": after, "c": after}
        assert [wave.status for wave in conclusion.waves] == (
            ["halted", "not_started"] if limit == 0 else ["failed", "succeeded"]
        )

    def test_failures_of_an_earlier_wave_do_not_count_for_the_next_one(self) -> None:
        first = a_wave("a", name="first", max_failures=1)
        second = a_wave("b", "c", name="second", concurrency=1, max_failures=1)
        conclusion = drive(a_plan(first, second, max_failures=None), a=Status.FAILED, b=Status.FAILED).end()
        assert statuses(conclusion)["c"] == "upgraded"

    def test_lost_jobs_count(self) -> None:
        conclusion = drive(a_plan(a_wave("a", "b", concurrency=1)), a=Status.LOST).end()
        assert statuses(conclusion) == {"a": "lost", "b": "not_started"}

    def test_targets_that_were_unreachable_when_planning_count(self) -> None:
        driven = drive(a_plan("a", settled=[an_outcome("z", Status.FAILED, wave=None)]))
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": "not_started", "z": "failed"}
        assert conclusion.status is RunStatus.HALTED
        assert [wave.status for wave in conclusion.waves] == ["not_started"]
        assert driven.listener.names == ["RunHalted"]

    @pytest.mark.parametrize("status", [Status.SKIPPED, Status.DEFERRED, Status.NOT_PROVISIONED])
    def test_targets_that_did_not_fail_do_not_count(self, status: Status) -> None:
        plan = a_plan(a_wave("a", "b", concurrency=1), settled=[an_outcome("z", status)])
        assert statuses(drive(plan, a=status).end())["b"] == "upgraded"

    def test_a_server_that_is_down_from_the_start_keeps_no_other_from_its_work(self) -> None:
        down = a_failure(FailureKind.SERVER, code="2003")
        settled = [an_outcome("x", Status.FAILED, failure=down, wave=None)]
        conclusion = drive(a_plan("a", settled=settled, max_failures=0)).end()
        assert statuses(conclusion)["a"] == "upgraded"
        assert (conclusion.status, conclusion.exit_code) == (RunStatus.FAILED, ExitCode.FAILURES)

    def test_what_is_in_flight_ends(self) -> None:
        driven = Drive(a_plan(a_wave("a", "b", "c", concurrency=2))).start()
        driven.in_flight("a", "b")
        driven.finish("a", Status.FAILED)
        driven.finish("b")
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": "failed", "b": "upgraded", "c": "not_started"}
        (halt,) = driven.halts
        assert (halt.cause, halt.in_flight, halt.not_started) == ("budget", 1, 1)
        assert "1 failure exceeds max_failures 0 of the run: a" in halt.text
        assert conclusion.outcomes[2].reason == Reason(code="halted", text=halt.text)

    def test_a_failure_with_nothing_left_is_not_a_halt(self) -> None:
        driven = drive(a_plan("a"), a=Status.FAILED)
        assert driven.end().status is RunStatus.FAILED
        assert driven.halts == []

    @pytest.mark.parametrize(("limit", "rest"), [(9, "not_started"), (None, "upgraded")])
    def test_a_failure_that_all_would_share_halts_at_once(self, limit: int | None, rest: str) -> None:
        plan = a_plan(a_wave("a", "b", concurrency=1), max_failures=limit)
        failure = a_failure(FailureKind.RUN, message="env.py is broken")
        driven = drive(plan, a=an_outcome("a", Status.FAILED, failure=failure))
        assert statuses(driven.end())["b"] == rest
        assert [(halt.cause, "env.py is broken" in halt.text) for halt in driven.halts] == (
            [("run_level", True)] if limit else []
        )


class TestDependencies:
    def test_a_target_waits_for_those_before_it(self) -> None:
        driven = Drive(a_plan(a_job("b", after=("a",)), "a", "c")).start()
        driven.in_flight("a", "c")
        driven.finish("c")
        assert submitted(driven) == ["a", "c"]
        driven.finish("a")
        driven.in_flight("b")
        driven.finish("b")
        assert driven.end().exit_code is ExitCode.OK

    def test_it_waits_for_all_of_them(self) -> None:
        driven = Drive(a_plan(a_job("c", after=("a", "b")), "a", "b")).start()
        driven.in_flight("a", "b")
        driven.finish("a")
        assert driven.executor.in_flight == ("b",)
        driven.finish("b")
        driven.in_flight("c")
        driven.finish("c")
        driven.end()

    @pytest.mark.parametrize("status", [Status.FAILED, Status.LOST, Status.SKIPPED, Status.NOT_PROVISIONED])
    def test_it_is_skipped_when_one_of_them_is_not_done(self, status: Status) -> None:
        plan = a_plan("a", a_job("b", after=("a",)), a_job("c", after=("b",)), "d", max_failures=None)
        driven = drive(plan, a=status)
        conclusion = driven.end()
        assert statuses(conclusion) == {"a": status.value, "b": "skipped", "c": "skipped", "d": "upgraded"}
        reasons = {outcome.target: outcome.reason for outcome in conclusion.outcomes}
        assert reasons["b"] is not None
        assert reasons["b"].code == "dependency_failed"
        assert reasons["b"].text.startswith("a must be done first")
        assert reasons["c"] is not None
        assert reasons["c"].text.startswith("b must be done first")
        assert [event.outcome.target for event in driven.finished][:3] == ["a", "b", "c"]
        # The end of the run writes the others: there may be thousands of them.
        assert {outcome.target for outcome in driven.ledger.outcomes(driven.run)} == {"a", "d"}
        assert {outcome.target for outcome in conclusion.unrecorded} == {"b", "c"}

    def test_a_thousand_targets_behind_a_failed_one(self) -> None:
        chain = [a_job(f"t{number}", after=(f"t{number - 1}",)) for number in range(1, 3000)]
        conclusion = drive(a_plan("t0", *chain), t0=Status.FAILED).end()
        assert set(statuses(conclusion).values()) == {"failed", "skipped"}

    @pytest.mark.parametrize(
        ("settled", "expected"),
        [
            (an_outcome("a", Status.UNCHANGED), "upgraded"),
            (an_outcome("a", Status.SKIPPED, reason=Reason(code="past", text="")), "upgraded"),
            (an_outcome("a", Status.SKIPPED, reason=Reason(code="quarantined", text="")), "skipped"),
            (an_outcome("a", Status.SKIPPED, reason=Reason(code="unknown_revision", text="")), "skipped"),
            (an_outcome("a", Status.NOT_PROVISIONED), "skipped"),
            (an_outcome("a", Status.FAILED), "skipped"),
            (an_outcome("a", Status.DEFERRED, reason=Reason(code="server_down", text="")), "deferred"),
        ],
    )
    def test_what_the_plan_settled_decides_as_well(self, settled: Outcome, expected: str) -> None:
        plan = a_plan(a_job("b", after=("a",)), settled=[settled], max_failures=None)
        assert statuses(drive(plan).end())["b"] == expected

    def test_a_target_ahead_of_the_code_is_good_enough_when_that_is_allowed(self) -> None:
        ahead = an_outcome("a", Status.SKIPPED, reason=Reason(code="unknown_revision", text=""))
        plan = a_plan(a_job("b", after=("a",)), settled=[ahead], allow_ahead=True)
        conclusion = drive(plan).end()
        assert statuses(conclusion)["b"] == "upgraded"
        assert conclusion.exit_code is ExitCode.OK

    def test_a_target_outside_the_plan_keeps_nobody_waiting(self) -> None:
        assert statuses(drive(a_plan(a_job("b", after=("elsewhere",)))).end()) == {"b": "upgraded"}

    def test_a_chain_across_waves(self) -> None:
        plan = a_plan(
            a_wave("a", name="one"),
            a_wave(a_job("b", wave="two", after=("a",)), name="two"),
            a_wave(a_job("c", wave="three", after=("b",)), name="three"),
        )
        assert submitted(drive(plan)) == ["a", "b", "c"]
        keep_going = a_plan(*plan.waves, max_failures=None)
        assert statuses(drive(keep_going, a=Status.FAILED).end()) == {"a": "failed", "b": "skipped", "c": "skipped"}

    def test_a_target_before_one_of_a_later_wave_runs_with_that_wave(self) -> None:
        plan = a_plan(a_wave(a_job("b", wave="one", after=("a",)), "c", name="one"), a_wave("a", name="two"))
        driven = drive(plan)
        assert submitted(driven) == ["c", "a", "b"]
        assert driven.end().exit_code is ExitCode.OK

    def test_a_circle_is_skipped_instead_of_waited_for(self) -> None:
        plan = a_plan(a_job("a", after=("b",)), a_job("b", after=("a",)), a_job("c", after=("c",)), "d")
        conclusion = drive(plan).end()
        assert statuses(conclusion) == {"a": "skipped", "b": "skipped", "c": "skipped", "d": "upgraded"}
        assert conclusion.exit_code is ExitCode.FAILURES

    def test_those_behind_a_target_that_halts_the_run_are_skipped_and_the_rest_not_started(self) -> None:
        plan = a_plan(a_wave("a", a_job("b", after=("a",)), "c", concurrency=1))
        assert statuses(drive(plan, a=Status.FAILED).end()) == {"a": "failed", "b": "skipped", "c": "not_started"}

"""What every `Ledger` must do, as tests that any implementation can inherit.

```python
class TestMyLedger(LedgerContract):
    def open(self, *, project="billing", environment="test"):
        return MyLedger(…)      # every call within one test opens the same store, as another process would
```

Plain assertions: it needs no test runner to be imported.
"""

from __future__ import annotations

import dataclasses
import datetime

from orchestrator.errors import ExitCode, LeaseLost, OrchestratorError, UsageError
from orchestrator.ledger.contract_leases import LeaseContract, elsewhere, here, raises
from orchestrator.ledger.holders import this_process
from orchestrator.ledger.protocol import LEASE_SECONDS, Ledger, RequestKind, WaveMark
from orchestrator.ledger.samples import failure, job, outcome, plan, settled, wave
from orchestrator.outcomes import GateResult, RunStatus, Status, Verdict
from orchestrator.plans import Command

__all__ = ["LedgerContract", "failure", "job", "outcome", "plan", "settled", "wave"]


class LedgerContract(LeaseContract):
    """Inherit it, say how to open the ledger, and the tests are yours."""

    def test_an_empty_ledger_has_no_runs(self) -> None:
        """Nothing to show is not an error; asking for a run is."""
        with self._opened() as ledger:
            assert list(ledger.runs()) == []
            assert ledger.fleet() is None
            with raises(UsageError, "no run"):
                ledger.run()
            with raises(UsageError, "no run"):
                ledger.run("r-2026")

    def test_a_run_is_there_before_any_work(self) -> None:
        """All that `Run` shows comes back, from another connection too."""
        decided = plan([wave("acme", "globex")], settled("hooli"))
        with self._opened() as ledger:
            lease = ledger.acquire(this_process("ops@host"))
            run = ledger.open_run(decided, operator="ops@host", fleet=40, parent="r-20261121-000000-0001", lease=lease)
            assert run.id.startswith("r-")
            assert (run.project, run.environment, run.parent) == ("billing", "test", "r-20261121-000000-0001")
            assert (run.command, run.revision, run.strategy) == (Command.UPGRADE, ("r003",), "careful")
            assert (run.plan_digest, run.operator) == (decided.digest, "ops@host")
            assert (run.status, run.exit_code, run.finished_at) == (RunStatus.RUNNING, None, None)
            assert (run.size, run.fleet) == (3, 40)
            assert run.started_at.utcoffset() == datetime.timedelta(0)
            assert run.counts == {**dict.fromkeys((status.value for status in Status), 0), "unchanged": 1}
            with self._opened() as other:
                assert other.run(run.id) == run
                assert list(other.runs()) == [run]
                assert list(other.outcomes(run.id)) == [settled("hooli")]
                assert other.fleet() == 40

    def test_the_latest_run_comes_first(self) -> None:
        """Order is the order of opening, though many runs open within one second."""
        with self._opened() as ledger:
            opened = [ledger.open_run(plan([wave("acme")]), operator="ops", fleet=size).id for size in range(1, 8)]
            assert [run.id for run in ledger.runs()] == opened[::-1]
            assert [run.id for run in ledger.runs(limit=2)] == [opened[-1], opened[-2]]
            assert ledger.run().id == opened[-1]
            assert ledger.fleet() == 7
            assert len(set(opened)) == len(opened)

    def test_a_reconciliation_is_no_measure_for_the_size_of_the_fleet(self) -> None:
        """It reads whatever is registered, so nobody has agreed to a smaller fleet by it; better than nothing it is."""
        reconciliation = dataclasses.replace(plan([]), command=Command.RECONCILE)
        with self._opened() as ledger:
            ledger.open_run(reconciliation, operator="ops", fleet=3)
            assert ledger.fleet() == 3
            ledger.open_run(plan([wave("acme")]), operator="ops", fleet=9)
            ledger.open_run(reconciliation, operator="ops", fleet=5)
            assert ledger.fleet() == 9

    def test_a_run_is_found_by_a_unique_beginning(self) -> None:
        """A beginning that several share is refused with their names; `%` and `_` mean themselves."""
        with self._opened() as ledger:
            first = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            assert ledger.run(first[:10]).id == first
            second = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            with raises(UsageError, second):
                ledger.run("r-")
            with raises(UsageError, first):
                ledger.run("r-19")
            for wild in ("%", "_" * len(first), f"{first[:-1]}_"):
                with raises(UsageError, "no run"):
                    ledger.run(wild)

    def test_an_intent_is_there_before_its_outcome(self) -> None:
        """A runner that dies leaves an attempt without an outcome."""
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops", fleet=2).id
            assert ledger.start(run, job("acme")) == 1
            with self._opened() as other:
                (attempt,) = other.attempts(run, "acme")
                assert (attempt.number, attempt.finished_at, attempt.outcome) == (1, None, None)
                assert attempt.started_at.utcoffset() == datetime.timedelta(0)
                assert list(other.attempts(run, "globex")) == []
                assert list(other.outcomes(run)) == []

    def test_news_are_what_came_since_the_last_look(self) -> None:
        """Every outcome once, in the order of writing, and what is at work, the longest first."""
        with self._opened() as ledger, self._opened() as other:
            planned = plan([wave("acme", "globex", "initech")], settled("hooli"))
            run = ledger.open_run(planned, operator="ops", fleet=4).id
            first = other.news(run)
            assert (list(first.outcomes), dict(first.at_work)) == ([settled("hooli")], {})
            for name in ("initech", "acme", "globex"):
                ledger.start(run, job(name))
            assert list(other.news(run).at_work) == ["initech", "acme", "globex"]
            ledger.record(run, outcome("acme", Status.DEFERRED))
            ledger.record(run, outcome("globex", Status.FAILED, failure=failure()))
            ledger.start(run, job("acme"))
            second = other.news(run, after=first.last)
            assert [(each.target, each.status) for each in second.outcomes] == [
                ("acme", Status.DEFERRED),
                ("globex", Status.FAILED),
            ]
            assert list(second.at_work) == ["initech", "acme"]
            assert all(since.utcoffset() == datetime.timedelta(0) for since in second.at_work.values())
            ledger.record(run, outcome("acme"))
            third = other.news(run, after=second.last)
            assert [(each.target, each.status) for each in third.outcomes] == [("acme", Status.UPGRADED)]
            assert list(third.at_work) == ["initech"]
            assert list(other.news(run, after=third.last).outcomes) == []
            assert other.news(run, after=third.last).last == third.last

    def test_an_outcome_comes_back_as_it_was(self) -> None:
        """Whatever a failure's text holds."""
        bad = outcome("globex", Status.FAILED, failure=failure())
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops", fleet=2).id
            for each in (outcome("acme"), bad):
                ledger.start(run, job(each.target))
                ledger.record(run, each)
            with self._opened() as other:
                assert list(other.outcomes(run)) == [outcome("acme"), bad]
                (attempt,) = other.attempts(run, "globex")
                assert attempt.outcome == bad
                assert attempt.finished_at is not None
                assert attempt.finished_at >= attempt.started_at

    def test_the_latest_outcome_counts(self) -> None:
        """A second attempt does not hide the first one's outcome, but replaces it in the run."""
        bad = outcome("acme", Status.FAILED, failure=failure())
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            assert ledger.start(run, job("acme")) == 1
            ledger.record(run, bad)
            assert ledger.start(run, job("acme")) == 2
            assert list(ledger.outcomes(run)) == [bad]
            ledger.record(run, outcome("acme"))
            assert list(ledger.outcomes(run)) == [outcome("acme")]
            assert [attempt.outcome for attempt in ledger.attempts(run, "acme")] == [bad, outcome("acme")]
            assert ledger.run(run).counts["upgraded"] == 1
            assert ledger.run(run).counts["failed"] == 0

    def test_an_outcome_that_comes_twice_counts_once(self) -> None:
        """A delivery may be repeated."""
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            ledger.start(run, job("acme"))
            ledger.record(run, outcome("acme"))
            ledger.record(run, outcome("acme"))
            assert list(ledger.outcomes(run)) == [outcome("acme")]
            assert [attempt.number for attempt in ledger.attempts(run, "acme")] == [1]
            assert ledger.run(run).counts["upgraded"] == 1

    def test_outcomes_stand_in_the_order_of_the_plan(self) -> None:
        """Whichever finishes first; what was settled beforehand comes last."""
        decided = plan([wave("zeta", name="canary"), wave("beta", "alpha", name="rest")], settled("hooli"))
        with self._opened() as ledger:
            run = ledger.open_run(decided, operator="ops", fleet=4).id
            for target in ("alpha", "zeta"):
                ledger.start(run, job(target))
                ledger.record(run, outcome(target))
            ledger.close_run(run, RunStatus.HALTED, ExitCode.FAILURES, [outcome("beta", Status.NOT_STARTED)])
            assert [each.target for each in ledger.outcomes(run)] == ["zeta", "beta", "alpha", "hooli"]

    def test_a_closed_run_says_how_it_ended(self) -> None:
        """With the outcomes of the jobs that never started, failing ones among them."""
        rest = [outcome("globex", Status.NOT_STARTED), outcome("hooli", Status.LOST, failure=failure())]
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme", "globex", "hooli")]), operator="ops", fleet=3).id
            ledger.start(run, job("acme"))
            ledger.record(run, outcome("acme"))
            closed = ledger.close_run(run, RunStatus.INTERRUPTED, ExitCode.INTERRUPTED, rest)
            assert (closed.status, closed.exit_code) == (RunStatus.INTERRUPTED, ExitCode.INTERRUPTED)
            assert closed.finished_at is not None
            assert closed.finished_at >= closed.started_at
            assert {status: number for status, number in closed.counts.items() if number} == {
                "upgraded": 1,
                "not_started": 1,
                "lost": 1,
            }
            with self._opened() as other:
                assert other.run(run) == closed
                assert list(other.outcomes(run)) == [outcome("acme"), *rest]

    def test_projects_and_environments_do_not_see_each_other(self) -> None:
        """Not even by a run's full name."""
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=9).id
        for scope in ({"project": "shop"}, {"environment": "production"}):
            with self._opened(**scope) as other:
                assert list(other.runs()) == []
                assert other.fleet() is None
                for ask in (other.run, other.outcomes):
                    with raises(UsageError, "no run"):
                        ask(run)
                with raises(UsageError, "no run"):
                    other.attempts(run, "acme")
                with raises(UsageError, "no run"):
                    other.start(run, job("acme"))
                with raises(UsageError, "no run"):
                    other.record(run, outcome("acme"))
                with raises(UsageError, "no run"):
                    other.close_run(run, RunStatus.ABORTED, ExitCode.FAILURES)
        with self._opened() as ledger:
            assert ledger.run(run).exit_code is None
            assert list(ledger.attempts(run, "acme")) == []

    def test_only_what_was_planned_is_started(self) -> None:
        """An intent needs a job of that run."""
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=2).id
            with raises(OrchestratorError, ""):
                ledger.start(run, job("globex"))
            assert list(ledger.attempts(run, "globex")) == []
            assert ledger.start(run, job("acme")) == 1

    def test_a_plan_without_work_is_a_run_too(self) -> None:
        """Nothing due, or nobody at all."""
        with self._opened() as ledger:
            idle = ledger.open_run(plan([], settled("acme")), operator="ops", fleet=1)
            empty = ledger.open_run(plan([]), operator="ops", fleet=1)
            assert (idle.size, empty.size) == (1, 0)
            assert list(ledger.outcomes(empty.id)) == []
            assert ledger.close_run(idle.id, RunStatus.SUCCEEDED, ExitCode.OK).status is RunStatus.SUCCEEDED

    def test_the_plan_comes_back_as_it_was_frozen(self) -> None:
        """A later process goes on with exactly that."""
        decided = plan([wave("acme", name="canary"), wave("globex", name="rest")], settled("hooli"))
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(decided, operator="ops", fleet=3).id
            assert other.plan(run) == decided
            with raises(UsageError, "no run"):
                other.plan("r-1")

    def test_an_intent_without_an_outcome_is_unsettled(self) -> None:
        """In the plan's order, whatever came before and whoever asks."""
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("zeta", "acme", "globex")]), operator="ops", fleet=3).id
            assert list(other.unsettled(run)) == []
            for target in ("globex", "acme", "zeta"):
                ledger.start(run, job(target))
            assert list(other.unsettled(run)) == ["zeta", "acme", "globex"]
            ledger.record(run, outcome("acme", Status.FAILED, failure=failure()))
            ledger.record(run, outcome("zeta"))
            assert list(other.unsettled(run)) == ["globex"]
            ledger.start(run, job("acme"))
            assert list(other.unsettled(run)) == ["acme", "globex"]
            ledger.close_run(run, RunStatus.HALTED, ExitCode.FAILURES, [outcome("globex", Status.LOST)])
            assert list(other.unsettled(run)) == ["acme"]
            (attempt,) = other.attempts(run, "globex")
            assert attempt.outcome == outcome("globex", Status.LOST)

    def test_what_was_never_tried_leaves_earlier_tries_alone(self) -> None:
        """A job that failed, and whose turn did not come again, still failed that first time."""
        bad = outcome("acme", Status.FAILED, failure=failure())
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            ledger.start(run, job("acme"))
            ledger.record(run, bad)
            ledger.close_run(run, RunStatus.HALTED, ExitCode.FAILURES, [outcome("acme", Status.DEFERRED)])
            assert list(ledger.outcomes(run)) == [outcome("acme", Status.DEFERRED)]
            assert [attempt.outcome for attempt in ledger.attempts(run, "acme")] == [bad]

    def test_a_run_is_closed_with_what_it_has_already(self) -> None:
        """The caller hands over all outcomes; what is new among them counts."""
        everything = [outcome("acme"), outcome("globex", Status.NOT_STARTED), settled("hooli")]
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("acme", "globex")], settled("hooli")), operator="ops", fleet=3).id
            ledger.start(run, job("acme"))
            ledger.record(run, outcome("acme"))
            for closing in (ledger, other):
                closed = closing.close_run(run, RunStatus.HALTED, ExitCode.FAILURES, everything)
                assert {status: number for status, number in closed.counts.items() if number} == {
                    "upgraded": 1,
                    "not_started": 1,
                    "unchanged": 1,
                }
                assert list(other.outcomes(run)) == everything

    def test_an_outcome_that_comes_after_the_end_counts(self) -> None:
        """Somebody looked, and knows more by now."""
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            ledger.start(run, job("acme"))
            ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES, [outcome("acme", Status.LOST)])
            other.record(run, outcome("acme"))
            for counts in (ledger.run(run).counts, other.runs()[0].counts):
                assert (counts["upgraded"], counts["lost"]) == (1, 0)

    def test_a_run_gets_jobs_that_it_was_not_opened_with(self) -> None:
        """For targets that nobody could read at that time; they come behind the others."""
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("zeta", "acme")], settled("hooli")), operator="ops", fleet=3).id
            ledger.add_jobs(run, [job("acme"), job("hooli"), job("globex")])
            ledger.add_jobs(run, [])
            for target in ("globex", "hooli", "acme", "zeta"):
                assert other.start(run, job(target)) == 1
            assert list(other.unsettled(run)) == ["zeta", "acme", "hooli", "globex"]
            grown = other.plan(run)
            assert [each.target for each in grown.jobs] == ["zeta", "acme", "hooli", "globex"]
            assert grown.settled == ()

    def test_open_runs_are_those_to_go_on_with(self) -> None:
        """Latest first; what has ended is not among them."""
        opened: dict[RunStatus, str] = {}
        with self._opened() as ledger, self._opened(environment="staging") as other:
            for status in RunStatus:
                run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
                opened[status] = run
                if status is not RunStatus.RUNNING:
                    ledger.close_run(run, status, ExitCode.FAILURES)
            expected = [RunStatus.HALTED, RunStatus.INTERRUPTED, RunStatus.PAUSED, RunStatus.RUNNING]
            assert [run.id for run in ledger.open_runs()] == [opened[status] for status in expected]
            assert list(other.open_runs()) == []

    def test_old_runs_are_forgotten(self) -> None:
        """With all that hangs on them; neither open ones, nor the latest, nor parents of what stays."""
        with self._opened() as ledger, self._opened(project="shop") as other:
            first = self._closed(ledger)
            closed = [first, self._closed(ledger, parent=first), self._closed(ledger)]
            halted = self._closed(ledger, RunStatus.HALTED)
            child = self._closed(ledger, parent=closed[1])
            later = [self._closed(ledger) for _ in range(2)]
            elsewhere = self._closed(other)
            ledger.note(here(), "upgrade", run=closed[0])
            assert list(ledger.prune(keep=20)) == []
            assert list(ledger.prune(before=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))) == []
            assert list(ledger.prune(keep=3)) == [closed[2]]
            assert [run.id for run in ledger.runs()] == [*later[::-1], child, halted, closed[1], closed[0]]
            assert list(ledger.prune()) == [closed[0], closed[1], child, later[0]]
            assert [run.id for run in ledger.runs()] == [later[1], halted]
            with raises(UsageError, "no run"):
                ledger.outcomes(child)
            assert list(ledger.outcomes(halted)) == [
                outcome("acme", Status.FAILED, failure=failure()),
                settled("hooli"),
            ]
            assert other.run().id == elsewhere
            assert [entry.run for entry in ledger.audit()] == [closed[0]]

    def _closed(self, ledger: Ledger, status: RunStatus = RunStatus.FAILED, *, parent: str | None = None) -> str:
        run = ledger.open_run(plan([wave("acme")], settled("hooli")), operator="ops", fleet=2, parent=parent).id
        ledger.start(run, job("acme"))
        ledger.record(run, outcome("acme", Status.FAILED, failure=failure()))
        return ledger.close_run(run, status, ExitCode.FAILURES).id

    def test_a_large_fleet_fits(self) -> None:
        """More rows than one statement can carry, and failing outcomes keep their own failures."""
        names = [f"tenant{number}" for number in range(3000)]
        down = [
            outcome(f"down{number}", Status.FAILED, failure=failure(fingerprint=f"f{number}")) for number in range(1500)
        ]
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave(*names)], *down), operator="ops", fleet=4500)
            assert (run.size, run.counts["failed"]) == (4500, 1500)
            ledger.close_run(
                run.id, RunStatus.HALTED, ExitCode.FAILURES, [outcome(name, Status.NOT_STARTED) for name in names]
            )
            written = ledger.outcomes(run.id)
            assert [each.target for each in written] == [*names, *(each.target for each in down)]
            assert list(written[3000:]) == down

    def test_what_people_ask_is_kept_with_the_run(self) -> None:
        """In the order of asking, also without a live runner, and for every process that looks."""
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops@host", fleet=2).id
            assert list(ledger.requests(run)) == []
            first = ledger.request(run, here(), RequestKind.PAUSE)
            second = other.request(run, elsewhere(), RequestKind.SKIP, {"target": "acme", "reason": "asked to wait"})
            third = ledger.request(run, here(), RequestKind.BUDGET, {"max_failures": 3, "wave": None})
            assert list(other.requests(run)) == list(ledger.requests(run)) == [first, second, third]
            assert first.id < second.id < third.id
            assert (second.kind, second.operator, dict(second.detail)["reason"]) == (
                RequestKind.SKIP,
                "ann@build7",
                "asked to wait",
            )
            assert dict(first.detail) == {}
            assert first.at.utcoffset() == datetime.timedelta(0)
            later = ledger.open_run(plan([wave("acme")]), operator="ops@host", fleet=2).id
            assert list(ledger.requests(later)) == []

    def test_how_far_a_run_is_with_its_waves(self) -> None:
        """The latest word on each wave, in the order in which they were reached."""
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("acme", name="canary"), wave("globex")]), operator="ops", fleet=2).id
            assert list(ledger.wave_marks(run)) == []
            begun = WaveMark(wave="canary", started_at=now)
            ledger.mark_wave(run, begun)
            assert list(other.wave_marks(run)) == [begun]
            ledger.mark_wave(run, WaveMark(wave="all", started_at=now))
            gate = GateResult(kind="sql", verdict=Verdict.PASSED, text="true on 1 target", measurements=3, at=now)
            done = WaveMark(wave="canary", started_at=now, finished_at=now, heard=7, gate=gate, passed=True)
            ledger.mark_wave(run, done)
            assert list(other.wave_marks(run)) == [done, WaveMark(wave="all", started_at=now)]

    def test_a_live_run_may_be_paused(self) -> None:
        """It stays so when its runner dies, and runs again once somebody goes on with it."""
        with self._opened() as ledger, self._opened() as other:
            lease = ledger.acquire(elsewhere())
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease).id
            ledger.set_status(run, RunStatus.PAUSED)
            assert other.run(run).status is RunStatus.PAUSED
            self.pass_time(LEASE_SECONDS)
            assert other.run(run).status is RunStatus.PAUSED
            assert [one.id for one in other.open_runs()] == [run]
            taken = other.acquire(here())
            with raises(LeaseLost, "taken over"):
                ledger.set_status(run, RunStatus.RUNNING)
            with raises(LeaseLost, "taken over"):
                ledger.mark_wave(run, WaveMark(wave="all"))
            assert other.adopt_run(run, taken, reopen=True).status is RunStatus.RUNNING
            assert list(other.wave_marks(run)) == []

    def test_jobs_of_a_new_wave_come_last(self) -> None:
        """Tenants that have joined while the run was on."""
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme", name="canary"), wave("globex")]), operator="ops", fleet=2).id
            ledger.add_jobs(run, [job("hooli", wave="sweep"), job("umbrella", wave="canary")])
            kept = ledger.plan(run)
            assert [(each.name, [one.target for one in each.jobs]) for each in kept.waves] == [
                ("canary", ["acme", "umbrella"]),
                ("all", ["globex"]),
                ("sweep", ["hooli"]),
            ]
            assert ledger.start(run, job("hooli", wave="sweep")) == 1

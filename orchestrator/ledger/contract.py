"""What every `Ledger` must do, as tests that any implementation can inherit.

```python
class TestMyLedger(LedgerContract):
    def open(self, *, project="billing", environment="test"):
        return MyLedger(…)      # every call within one test opens the same store, as another process would
```

Plain assertions: it needs no test runner to be imported.
"""

from __future__ import annotations

import abc
import contextlib
import datetime
from collections.abc import Iterator, Sequence

from orchestrator.errors import ExitCode, OrchestratorError, UsageError
from orchestrator.ledger.holders import this_process
from orchestrator.ledger.protocol import Ledger
from orchestrator.outcomes import Failure, FailureKind, Outcome, Reason, RunStatus, Status
from orchestrator.plans import Command, Job, Plan, Wave

SERVER = "db.internal:5432"


def job(target: str, *, wave: str = "all") -> Job:
    """A job of a tenant that is two revisions behind."""
    return Job(
        target=target,
        tenant=target,
        schema=f"tenant_{target}",
        labels={"region": "eu"},
        server=SERVER,
        command=Command.UPGRADE,
        found=("r001",),
        wanted=("r003",),
        path=("r002", "r003"),
        wave=wave,
    )


def outcome(target: str, status: Status = Status.UPGRADED, *, failure: Failure | None = None) -> Outcome:
    """What happened to `job(target)`, with a value in every field that survives being written down."""
    return Outcome(
        target=target,
        tenant=target,
        schema=f"tenant_{target}",
        labels={"region": "eu"},
        server=SERVER,
        wave="all",
        status=status,
        found=("r001",),
        wanted=("r003",),
        at=None if failure else ("r003",),
        applied=("r002",) if failure else ("r002", "r003"),
        attempts=1,
        started_at=datetime.datetime(2026, 11, 22, 7, 31, 0, 250_000, tzinfo=datetime.UTC),
        duration_ms=31,
        failure=failure,
    )


def failure(fingerprint: str = "f1") -> Failure:
    """A failure with awkward text in it."""
    return Failure(
        kind=FailureKind.PERMANENT,
        code="23505",
        type="UniqueViolation",
        message='could not create unique index "größe" \N{SNOWMAN} \x00',
        revision="r003",
        statement="CREATE UNIQUE INDEX …",
        advice="remove the duplicates",
        fingerprint=fingerprint,
    )


def settled(target: str) -> Outcome:
    """An outcome that the plan already knows."""
    return Outcome(
        target=target,
        tenant=target,
        server=SERVER,
        status=Status.UNCHANGED,
        found=("r003",),
        wanted=("r003",),
        at=("r003",),
        reason=Reason(code="at_head", text="already there"),
    )


def plan(waves: Sequence[Wave], *known: Outcome) -> Plan:
    """A plan of those waves, and those outcomes that are settled already."""
    return Plan(
        project="billing",
        environment="test",
        command=Command.UPGRADE,
        asked="head",
        revision=("r003",),
        strategy="careful",
        waves=tuple(waves),
        settled=known,
    )


def wave(*targets: str, name: str = "all") -> Wave:
    """A wave with a job for each target."""
    return Wave(name=name, jobs=tuple(job(target, wave=name) for target in targets), concurrency=2)


class LedgerContract(abc.ABC):
    """Inherit it, say how to open the ledger, and the tests are yours."""

    @abc.abstractmethod
    def open(self, *, project: str = "billing", environment: str = "test") -> Ledger:
        """Open the one store of the running test."""

    def test_an_empty_ledger_has_no_runs(self) -> None:
        """Nothing to show is not an error; asking for a run is."""
        with self._opened() as ledger:
            assert list(ledger.runs()) == []
            assert ledger.fleet() is None
            with _raises(UsageError, "no run"):
                ledger.run()
            with _raises(UsageError, "no run"):
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

    def test_a_run_is_found_by_a_unique_beginning(self) -> None:
        """A beginning that several share is refused with their names; `%` and `_` mean themselves."""
        with self._opened() as ledger:
            first = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            assert ledger.run(first[:10]).id == first
            second = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            with _raises(UsageError, second):
                ledger.run("r-")
            with _raises(UsageError, first):
                ledger.run("r-19")
            for wild in ("%", "_" * len(first), f"{first[:-1]}_"):
                with _raises(UsageError, "no run"):
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
                    with _raises(UsageError, "no run"):
                        ask(run)
                with _raises(UsageError, "no run"):
                    other.attempts(run, "acme")
                with _raises(UsageError, "no run"):
                    other.start(run, job("acme"))
                with _raises(UsageError, "no run"):
                    other.record(run, outcome("acme"))
                with _raises(UsageError, "no run"):
                    other.close_run(run, RunStatus.ABORTED, ExitCode.FAILURES)
        with self._opened() as ledger:
            assert ledger.run(run).exit_code is None
            assert list(ledger.attempts(run, "acme")) == []

    def test_only_what_was_planned_is_started(self) -> None:
        """An intent needs a job of that run."""
        with self._opened() as ledger:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=2).id
            with _raises(OrchestratorError, ""):
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

    @contextlib.contextmanager
    def _opened(self, *, project: str = "billing", environment: str = "test") -> Iterator[Ledger]:
        ledger = self.open(project=project, environment=environment)
        try:
            yield ledger
        finally:
            ledger.close()


@contextlib.contextmanager
def _raises(kind: type[OrchestratorError], saying: str) -> Iterator[None]:
    said: str | None = None
    try:
        yield
    except kind as error:
        said = str(error)
    assert said is not None, f"{kind.__name__} was not raised"
    assert saying in said, f"{said} does not say {saying!r}"

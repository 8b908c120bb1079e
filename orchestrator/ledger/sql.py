"""The ledger on SQLite or PostgreSQL, by SQLAlchemy."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Select, bindparam, exists, func, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from orchestrator.errors import ExitCode, LedgerError
from orchestrator.ledger import tables
from orchestrator.ledger.identifiers import NAMED, new_run_id, no_such_run, several_runs
from orchestrator.ledger.protocol import Attempt, Run
from orchestrator.ledger.rows import failure_columns, job_columns, outcome_columns, plan_columns, run_of
from orchestrator.outcomes import Outcome, RunStatus, count
from orchestrator.plans import Job, Plan
from orchestrator.redaction import first_line, scrub

T = TypeVar("T")

#: columns of a run that `Run` shows; the plan is large
_SHOWN = [column for column in tables.runs.c if column.name not in {"plan", "host"}]


_tried = tables.attempts.c
_last_try = (
    select(func.max(_tried.number))
    .where(_tried.run == bindparam("of_run"), _tried.target == bindparam("of_target"))
    .scalar_subquery()
)
#: the two statements that every job costs, built once: building them takes longer than SQLite takes to run them
_START = (
    insert(tables.attempts)
    .values(
        run=bindparam("of_run"),
        target=bindparam("of_target"),
        started_at=bindparam("moment"),
        number=func.coalesce(_last_try, 0) + 1,
    )
    .returning(_tried.number)
)
_RECORD = insert(tables.outcomes).values(attempt=_last_try).returning(tables.outcomes.c.id)
_FAIL = insert(tables.failures)


class SqlLedger:
    """Each write is one committed transaction; most are one statement, since a run of thousands makes thousands."""

    def __init__(self, engine: Engine, *, place: str, project: str, environment: str) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._place = place
        self._project = project
        self._environment = environment
        #: runs known to be of this project and environment
        self._known: set[str] = set()

    def open_run(self, plan: Plan, *, operator: str, fleet: int, parent: str | None = None) -> Run:
        """Write the run, its jobs and the outcomes that are settled already, before any work."""
        jobs = tuple(plan.jobs)
        row = {
            **plan_columns(plan),
            "parent": parent,
            "project": self._project,
            "environment": self._environment,
            "operator": operator,
            "status": RunStatus.RUNNING.value,
            "started_at": _now(),
            "size": len(jobs) + len(plan.settled),
            "fleet": fleet,
        }

        # This read also finds a dead connection, so that the write need not be tried again: it may not come twice.
        run = self._run_one(_free_id)

        def write(connection: Connection) -> None:
            connection.execute(insert(tables.runs), {**row, "id": run})
            if jobs:
                rows = [job_columns(run, job, position) for position, job in enumerate(jobs)]
                connection.execute(insert(tables.jobs), rows)
            _add_outcomes(connection, run, plan.settled)

        self._write(write, tries=1)
        return self.run(run)

    def start(self, run: str, job: Job) -> int:
        """Write the intent to run a job; returns the number of this attempt, from 1."""
        self._check(run)
        values = {"of_run": run, "of_target": job.target, "moment": _now()}
        return self._run_one(lambda connection: int(connection.execute(_START, values).scalar_one()))

    def record(self, run: str, outcome: Outcome) -> None:
        """Write what happened to a job."""
        self._check(run)
        values = {**outcome_columns(run, outcome, _now()), "of_run": run, "of_target": outcome.target}

        def write(connection: Connection) -> None:
            number = connection.execute(_RECORD, values).scalar_one()
            if outcome.failure is not None:
                connection.execute(_FAIL, failure_columns(run, outcome, number))

        # One statement is a transaction by itself, and spares the round trips of BEGIN and COMMIT.
        (self._run_one if outcome.failure is None else self._write)(write)

    def close_run(self, run: str, status: RunStatus, exit_code: ExitCode, outcomes: Sequence[Outcome] = ()) -> Run:
        """Write how the run ended, with the outcomes of jobs that never started."""
        self._check(run)
        ending = {"status": status.value, "exit_code": int(exit_code), "finished_at": _now()}

        def write(connection: Connection) -> None:
            _add_outcomes(connection, run, outcomes)
            connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(**ending))

        self._write(write)
        return self.run(run)

    def runs(self, limit: int = 20) -> Sequence[Run]:
        """Runs of this project and environment, latest first."""
        return self._find(self._own(*_SHOWN).limit(limit))

    def run(self, run: str | None = None) -> Run:
        """One run by its id or a unique beginning of it, the latest without one; `UsageError` when there is none."""
        if run is None:
            found = self.runs(limit=1)
        else:
            found = self._find(self._own(*_SHOWN).where(tables.runs.c.id.startswith(run, autoescape=True)).limit(NAMED))
        if not found:
            raise no_such_run(run, self._latest_ids(), self._scope)
        if len(found) > 1:
            raise several_runs(str(run), [each.id for each in found])
        self._known.add(found[0].id)
        return found[0]

    def outcomes(self, run: str) -> Sequence[Outcome]:
        """The latest outcome of each target of a run, in the plan's order; targets without one are left out."""
        self._check(run)
        same_job = (tables.jobs.c.run == tables.outcomes.c.run) & (tables.jobs.c.target == tables.outcomes.c.target)
        position = tables.jobs.c.position
        statement = (
            select(tables.outcomes.c.data)
            .outerjoin_from(tables.outcomes, tables.jobs, same_job)
            .where(tables.outcomes.c.id.in_(_latest([run])))
            .order_by(position.is_(None), position, tables.outcomes.c.id)
        )
        rows = self._run_one(lambda connection: connection.execute(statement).scalars().all())
        return [Outcome.from_json(data) for data in rows]

    def attempts(self, run: str, target: str) -> Sequence[Attempt]:
        """All tries of one target in one run, first to last."""
        self._check(run)
        tried, ended = tables.attempts.c, tables.outcomes.c
        same_try = (ended.run == tried.run) & (ended.target == tried.target) & (ended.attempt == tried.number)
        statement = (
            select(tried.number, tried.started_at, ended.recorded_at, ended.data)
            .outerjoin_from(tables.attempts, tables.outcomes, same_try)
            .where(_tries(run, target))
            .order_by(tried.number, ended.id)
        )
        rows = self._run_one(lambda connection: connection.execute(statement).all())
        # An outcome that came twice is there twice; the later one replaces the earlier.
        return tuple({row.number: _attempt(*row) for row in rows}.values())

    def fleet(self) -> int | None:
        """Size of the whole registry at the latest run, None before the first."""
        statement = self._own(tables.runs.c.fleet).limit(1)
        return self._run_one(lambda connection: connection.execute(statement).scalar_one_or_none())

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @property
    def _scope(self) -> str:
        return f"{self._project}/{self._environment}"

    def _own(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Runs of this project and environment, latest first."""
        return (
            select(*columns)
            .where(tables.runs.c.project == self._project, tables.runs.c.environment == self._environment)
            .order_by(tables.runs.c.number.desc())
        )

    def _find(self, statement: Select[Any]) -> list[Run]:
        rows = self._run_one(lambda connection: connection.execute(statement).all())
        counts = self._counts([row.id for row in rows])
        return [run_of(row, counts[row.id]) for row in rows]

    def _counts(self, runs: Sequence[str]) -> dict[str, dict[str, int]]:
        found = tables.outcomes.c
        statement = (
            select(found.run, found.status, func.count())
            .where(found.id.in_(_latest(runs)))
            .group_by(found.run, found.status)
        )
        counts = {run: count(()) for run in runs}
        for run, status, number in self._run_one(lambda connection: connection.execute(statement).all()):
            counts[run][status] = number
        return counts

    def _latest_ids(self) -> Sequence[str]:
        statement = self._own(tables.runs.c.id).limit(NAMED)
        return self._run_one(lambda connection: connection.execute(statement).scalars().all())

    def _check(self, run: str) -> None:
        """Refuse a run of another project or environment; asks the database once per run."""
        if run in self._known:
            return
        statement = self._own(tables.runs.c.id).where(tables.runs.c.id == run)
        if self._run_one(lambda connection: connection.execute(statement).scalar_one_or_none()) is None:
            raise no_such_run(run, self._latest_ids(), self._scope)
        self._known.add(run)

    def _run_one(self, work: Callable[[Connection], T]) -> T:
        """One statement, committed by itself."""
        return self._guarded(self._autocommit.connect, work, tries=2)

    def _write(self, work: Callable[[Connection], T], *, tries: int = 2) -> T:
        """Several statements in one transaction."""
        return self._guarded(self._engine.begin, work, tries=tries)

    def _guarded(self, connect: Callable[[], Any], work: Callable[[Connection], T], *, tries: int) -> T:
        """Try again on a new connection when the one that was kept turns out to be dead.

        What may be tried twice may be written twice: an intent or an outcome that is there twice says the same.
        """
        try:
            with connect() as connection:
                return work(connection)
        except DBAPIError as error:
            if not (error.connection_invalidated and tries > 1):
                raise ledger_error(error, self._place) from None
        except SQLAlchemyError as error:
            raise ledger_error(error, self._place) from None
        return self._guarded(connect, work, tries=tries - 1)


def ledger_error(error: SQLAlchemyError, place: str) -> LedgerError:
    """What a driver says, without what it may quote: the cause is not chained, since it may hold the URL."""
    cause = getattr(error, "orig", None) or error
    said = scrub(first_line(str(cause))) or type(cause).__name__
    return LedgerError(
        f"the ledger at {place} cannot be used: {said}; mend that, or name another ledger with `ledger:` in "
        "tenants.yaml or ORCHESTRATE_LEDGER"
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _attempt(
    number: int,
    started_at: datetime.datetime,
    finished_at: datetime.datetime | None,
    data: dict[str, Any] | None,
) -> Attempt:
    outcome = None if data is None else Outcome.from_json(data)
    return Attempt(number=number, started_at=started_at, finished_at=finished_at, outcome=outcome)


def _tries(run: str, target: str) -> ColumnElement[bool]:
    return (tables.attempts.c.run == run) & (tables.attempts.c.target == target)


def _latest(runs: Sequence[str]) -> Select[tuple[int]]:
    """Ids of the latest outcome of each target."""
    found = tables.outcomes.c
    return select(func.max(found.id)).where(found.run.in_(runs)).group_by(found.run, found.target)


def _free_id(connection: Connection) -> str:
    while True:
        run = new_run_id(_now())
        if not connection.execute(select(exists().where(tables.runs.c.id == run))).scalar_one():
            return run


def _add_outcomes(connection: Connection, run: str, outcomes: Sequence[Outcome]) -> None:
    moment = _now()
    plain = [outcome_columns(run, outcome, moment) for outcome in outcomes if outcome.failure is None]
    failing = [outcome for outcome in outcomes if outcome.failure is not None]
    if plain:
        connection.execute(insert(tables.outcomes), plain)
    if failing:
        statement = insert(tables.outcomes).returning(tables.outcomes.c.id, sort_by_parameter_order=True)
        numbers = connection.execute(
            statement, [outcome_columns(run, outcome, moment) for outcome in failing]
        ).scalars()
        rows = [failure_columns(run, outcome, number) for outcome, number in zip(failing, numbers, strict=True)]
        connection.execute(insert(tables.failures), rows)

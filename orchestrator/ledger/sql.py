"""The ledger on SQLite or PostgreSQL, by SQLAlchemy."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, delete, exists, func, insert, literal, select, update

from orchestrator.errors import ExitCode, LeaseLost
from orchestrator.ledger import leases, statements, tables
from orchestrator.ledger.audit import AuditRows
from orchestrator.ledger.controls import ControlRows
from orchestrator.ledger.identifiers import NAMED, new_run_id, no_such_run, several_runs
from orchestrator.ledger.lease_rows import LeaseRows
from orchestrator.ledger.protocol import (
    Attempt,
    AuditEntry,
    Holder,
    Lease,
    News,
    Request,
    RequestKind,
    Run,
    StopRequest,
    WaveMark,
)
from orchestrator.ledger.pruning import OPEN, Candidate, prunable
from orchestrator.ledger.rows import failure_columns, job_columns, outcome_columns, pack, plan_columns, run_of, unpack
from orchestrator.ledger.transactions import Transactions, now
from orchestrator.outcomes import Outcome, RunStatus, count
from orchestrator.plans import Command, Job, Plan

#: columns of a run that `Run` shows; the plan is large
_SHOWN = [column for column in tables.runs.c if column.name not in {"plan", "host"}]


class SqlLedger:
    """Each write is one committed transaction; most are one statement, since a run of thousands makes thousands."""

    def __init__(self, engine: Engine, *, place: str, project: str, environment: str) -> None:
        self._transactions = Transactions(engine, place)
        self._project = project
        self._environment = environment
        self._leases = LeaseRows(self._transactions, project=project, environment=environment)
        self._audit = AuditRows(self._transactions, project=project, environment=environment)
        self._controls = ControlRows(self._transactions)
        self._start_fenced = statements.fenced_start(self._leases)
        self._record_fenced = statements.fenced_record(self._leases)
        #: runs known to be of this project and environment
        self._known: set[str] = set()
        #: runs whose counts are known to be open, so that outcomes may be added
        self._counting: set[str] = set()
        #: fencing number under which a run is written
        self._tokens: dict[str, int] = {}
        #: for runs that were opened here, the latest outcome of each target: what need not be written again
        self._written: dict[str, dict[str, Outcome]] = {}

    # -- the lease and the audit table --------------------------------------------------------------------------

    def acquire(self, holder: Holder, *, pause: Callable[[float], None] | None = None) -> Lease:
        """Take the lease of this project and environment; raises `LeaseHeld` while somebody alive holds it."""
        return leases.acquire(self._leases, holder, pause)

    def renew(self, lease: Lease) -> StopRequest | None:
        """Say that the holder lives; returns what was asked of it."""
        return self._leases.renew(lease.token)

    def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens when it is another's already."""
        self._leases.release(lease.token)

    def live(self) -> Lease | None:
        """The lease as somebody alive holds it now, None when nobody does."""
        entry = leases.live(self._leases)
        return None if entry is None else entry.lease

    def request_stop(self, run: str, request: StopRequest) -> bool:
        """Ask the live runner of that run to stop; False when there is none."""
        return self._leases.ask(run, request)

    def request(self, run: str, holder: Holder, kind: RequestKind, detail: Mapping[str, Any] | None = None) -> Request:
        """Ask something of a run, whether a runner is live or comes later."""
        self._check(run)
        return self._controls.ask(run, holder, kind, detail or {})

    def requests(self, run: str) -> Sequence[Request]:
        """What was asked of a run, first to last."""
        return self._controls.requests(run)

    def mark_wave(self, run: str, mark: WaveMark) -> None:
        """Write how far the run is with a wave, instead of what was written of that wave before."""
        self._check(run)
        self._controls.mark(run, mark, lambda connection: self._guard(connection, self._tokens.get(run)))

    def wave_marks(self, run: str) -> Sequence[WaveMark]:
        """How far a run is with each wave that it has reached, in that order."""
        self._check(run)
        return self._controls.marks(run)

    def set_status(self, run: str, status: RunStatus) -> None:
        """Say that a live run is `paused`, or `running` again."""
        self._check(run)
        statement = update(tables.runs).where(tables.runs.c.id == run).values(status=status.value)

        def write(connection: Connection) -> None:
            connection.execute(statement)
            self._guard(connection, self._tokens.get(run))

        self._transactions.write(write)

    def note(
        self, holder: Holder, action: str, *, run: str | None = None, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Add one row to the audit table."""
        self._audit.add(holder, action, run=run, detail=detail or {})

    def audit(self, limit: int = 50) -> Sequence[AuditEntry]:
        """Rows of the audit table, latest first."""
        return self._audit.latest(limit)

    # -- writing runs -------------------------------------------------------------------------------------------

    def open_run(
        self, plan: Plan, *, operator: str, fleet: int, parent: str | None = None, lease: Lease | None = None
    ) -> Run:
        """Write the run, its jobs and the outcomes that are settled already, before any work; live under the lease."""
        jobs = tuple(plan.jobs)
        row = {
            **plan_columns(plan),
            "parent": parent,
            "project": self._project,
            "environment": self._environment,
            "operator": operator,
            "status": RunStatus.RUNNING.value,
            "started_at": now(),
            "size": len(jobs) + len(plan.settled),
            "fleet": fleet,
        }

        # This read also finds a dead connection, so that the write need not be tried again: it may not come twice.
        run = self._transactions.read(_free_id)

        def write(connection: Connection) -> None:
            connection.execute(insert(tables.runs), {**row, "id": run})
            if jobs:
                rows = [job_columns(run, job, position) for position, job in enumerate(jobs)]
                connection.execute(insert(tables.jobs), rows)
            _add_outcomes(connection, run, plan.settled, {})
            if lease is not None and not self._leases.link(connection, lease.token, run):
                raise self._lost(lease.token)

        self._transactions.write(write, tries=1)
        self._follow(run, lease)
        self._written[run] = {outcome.target: outcome for outcome in plan.settled}
        return dataclasses.replace(self.run(run), status=RunStatus.RUNNING)

    def adopt_run(self, run: str, lease: Lease, *, reopen: bool = False) -> Run:
        """Let later writes to a run of before stand under this lease; with `reopen` it is `running`, live, unended."""
        self._check(run)
        values: dict[str, Any] = {"counts": None}
        if reopen:
            values |= {"status": RunStatus.RUNNING.value, "exit_code": None, "finished_at": None}

        def write(connection: Connection) -> None:
            connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(**values))
            self._guard(connection, lease.token)
            if reopen:
                self._leases.link(connection, lease.token, run)

        self._transactions.write(write)
        self._follow(run, lease)
        self._written.pop(run, None)
        found = self.run(run)
        return dataclasses.replace(found, status=RunStatus.RUNNING) if reopen else found

    def add_jobs(self, run: str, jobs: Sequence[Job]) -> None:
        """Add jobs to a run of before and to its plan, behind its own; those that it has already are left alone."""
        if not jobs:
            return
        plan = pack(self.plan(run).with_jobs(jobs))
        planned = tables.jobs.c

        def write(connection: Connection) -> None:
            present = set(connection.execute(select(planned.target).where(planned.run == run)).scalars())
            last = connection.execute(select(func.max(planned.position)).where(planned.run == run)).scalar_one()
            first = 0 if last is None else last + 1
            new = [job for job in jobs if job.target not in present]
            if new:
                rows = [job_columns(run, job, position) for position, job in enumerate(new, first)]
                connection.execute(insert(tables.jobs), rows)
            connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(plan=plan))
            self._guard(connection, self._tokens.get(run))

        self._transactions.write(write)

    def start(self, run: str, job: Job) -> int:
        """Write the intent to run a job; returns the number of this attempt, from 1."""
        self._check(run)
        token = self._tokens.get(run)
        statement = statements.START if token is None else self._start_fenced
        values = {"of_run": run, "of_target": job.target, "of_started_at": now(), **_of(token)}
        number = self._transactions.write_one(
            lambda connection: connection.execute(statement, values).scalar_one_or_none()
        )
        if number is None:
            raise self._lost(token)
        return int(number)

    def record(self, run: str, outcome: Outcome) -> None:
        """Write what happened to a job."""
        self._check(run)
        self._reopen_counts(run)
        token = self._tokens.get(run)
        statement = statements.RECORD if token is None else self._record_fenced
        columns = outcome_columns(run, outcome, now())
        values = {**{f"of_{name}": value for name, value in columns.items()}, **_of(token)}

        def write(connection: Connection) -> bool:
            number = connection.execute(statement, values).scalar_one_or_none()
            if number is not None and outcome.failure is not None:
                connection.execute(statements.FAIL, failure_columns(run, outcome, number))
            return number is not None

        transactions = self._transactions
        if not (transactions.write_one if outcome.failure is None else transactions.write)(write):
            raise self._lost(token)
        if run in self._written:
            self._written[run][outcome.target] = outcome

    def close_run(self, run: str, status: RunStatus, exit_code: ExitCode, outcomes: Sequence[Outcome] = ()) -> Run:
        """Write how the run ended, with those of the outcomes that it does not have yet."""
        self._check(run)
        tries = self._transactions.read(lambda connection: _open_tries(connection, run)) if outcomes else {}
        new = self._unwritten(run, outcomes, tries)
        ending = {"status": status.value, "exit_code": int(exit_code), "finished_at": now()}

        def write(connection: Connection) -> None:
            _add_outcomes(connection, run, new, tries)
            counts = _counts(connection, [run])[run]
            connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(**ending, counts=counts))
            self._guard(connection, self._tokens.get(run))

        self._transactions.write(write)
        self._written.pop(run, None)
        self._counting.discard(run)
        return self.run(run)

    def prune(self, *, keep: int = 0, before: datetime.datetime | None = None) -> Sequence[str]:
        """Delete closed runs but the `keep` latest runs, those of before that moment only; returns their ids."""
        found = tables.runs.c
        statement = self._own(found.id, found.parent, found.status, found.started_at, found.finished_at)
        rows = self._transactions.read(lambda connection: connection.execute(statement).all())
        runs = [
            Candidate(id=row.id, parent=row.parent, status=RunStatus(row.status), at=row.finished_at or row.started_at)
            for row in rows
        ]
        pruned = [run for run in prunable(runs, keep=keep, before=before) if self._delete(run)]
        live = self.live()
        # Whoever prunes may hold the lease, but runs nothing.
        if pruned and (live is None or live.run is None):
            self._transactions.give_space_back()
        return pruned

    # -- reading runs -------------------------------------------------------------------------------------------

    def runs(self, limit: int = 20) -> Sequence[Run]:
        """Runs of this project and environment, latest first."""
        return self._find(self._own(*_SHOWN).limit(limit))

    def open_runs(self) -> Sequence[Run]:
        """Runs that are running, paused, interrupted or halted, latest first."""
        return self._find(self._own(*_SHOWN).where(tables.runs.c.status.in_(OPEN)))

    def run(self, run: str | None = None) -> Run:
        """One run by its id or a unique beginning of it, the latest without one; `UsageError` when there is none."""
        if run is None:
            found = self.runs(limit=1)
        else:
            found = self._find(self._own(*_SHOWN).where(tables.runs.c.id.startswith(run, autoescape=True)).limit(NAMED))
        if not found:
            raise no_such_run(run, self._latest_ids(), self._leases.scope)
        if len(found) > 1:
            raise several_runs(str(run), [each.id for each in found])
        self._known.add(found[0].id)
        return found[0]

    def plan(self, run: str) -> Plan:
        """The plan of a run as it was frozen, and the jobs that were added."""
        self._check(run)
        statement = select(tables.runs.c.plan).where(tables.runs.c.id == run)
        packed = self._transactions.read(lambda connection: connection.execute(statement).scalar_one())
        return unpack(packed)

    def outcomes(self, run: str) -> Sequence[Outcome]:
        """The latest outcome of each target of a run, in the plan's order; targets without one are left out."""
        return [Outcome.from_json(data) for _, data in self._latest_outcomes(run)]

    def unsettled(self, run: str) -> Sequence[str]:
        """Targets with an intent that no outcome followed, in the plan's order."""
        self._check(run)
        return list(self._transactions.read(lambda connection: _open_tries(connection, run)))

    def news(self, run: str, *, after: int = 0) -> News:
        """What was written of a run behind `after`, and what is at work now."""
        self._check(run)

        def look(connection: Connection) -> News:
            # In this order: what ends between the two reads is among the outcomes, and no longer at work.
            trying = connection.execute(statements.at_work(run)).all()
            rows = connection.execute(statements.outcomes_after(run, after)).all()
            ended = {(row.target, row.attempt) for row in rows}
            return News(
                last=rows[-1].id if rows else after,
                outcomes=[Outcome.from_json(row.data) for row in rows],
                at_work={row.target: row.started_at for row in trying if (row.target, row.number) not in ended},
            )

        return self._transactions.read(look)

    def attempts(self, run: str, target: str) -> Sequence[Attempt]:
        """All tries of one target in one run, first to last."""
        self._check(run)
        statement = statements.tries(run, target)
        rows = self._transactions.read(lambda connection: connection.execute(statement).all())
        # An outcome that came twice is there twice; the later one replaces the earlier.
        return tuple({row.number: _attempt(*row) for row in rows}.values())

    def fleet(self) -> int | None:
        """Size of the whole registry at the latest run, or reconciliation where nothing was run; None before."""
        columns = tables.runs.c
        only_read = columns.command == Command.RECONCILE.value
        statement = self._own(columns.fleet).order_by(None).order_by(only_read, columns.number.desc()).limit(1)
        return self._transactions.read(lambda connection: connection.execute(statement).scalar_one_or_none())

    def close(self) -> None:
        """Release the connections."""
        self._transactions.close()

    # -- parts --------------------------------------------------------------------------------------------------

    def _own(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Runs of this project and environment, latest first."""
        return (
            select(*columns)
            .where(tables.runs.c.project == self._project, tables.runs.c.environment == self._environment)
            .order_by(tables.runs.c.number.desc())
        )

    def _find(self, statement: Select[Any]) -> list[Run]:
        rows = self._transactions.read(lambda connection: connection.execute(statement).all())
        going = [row.id for row in rows if row.counts is None]
        counted = self._transactions.read(lambda connection: _counts(connection, going)) if going else {}
        runs = [run_of(row, counted.get(row.id) or {**count(()), **row.counts}) for row in rows]
        if all(run.status is not RunStatus.RUNNING for run in runs):
            return runs
        lease = self.live()
        return [_told(run, lease) for run in runs]

    def _latest_ids(self) -> Sequence[str]:
        statement = self._own(tables.runs.c.id).limit(NAMED)
        return self._transactions.read(lambda connection: connection.execute(statement).scalars().all())

    def _latest_outcomes(self, run: str) -> Sequence[tuple[str, dict[str, Any]]]:
        self._check(run)
        statement = statements.latest_outcomes(run)
        return self._transactions.read(
            lambda connection: [(target, data) for target, data in connection.execute(statement)]
        )

    def _check(self, run: str) -> None:
        """Refuse a run of another project or environment; asks the database once per run."""
        if run in self._known:
            return
        statement = self._own(tables.runs.c.id).where(tables.runs.c.id == run)
        if self._transactions.read(lambda connection: connection.execute(statement).scalar_one_or_none()) is None:
            raise no_such_run(run, self._latest_ids(), self._leases.scope)
        self._known.add(run)

    def _follow(self, run: str, lease: Lease | None) -> None:
        """Write to that run under that lease from now on."""
        self._known.add(run)
        self._counting.add(run)
        if lease is not None:
            self._tokens[run] = lease.token

    def _guard(self, connection: Connection, token: int | None) -> None:
        """Undo the transaction, at its end so that it holds up no heartbeat, when the lease has been lost."""
        if token is None:
            return
        held = connection.execute(self._leases.fence(literal(1), token=literal(token)))
        if held.scalar_one_or_none() is None:
            raise self._lost(token)

    def _lost(self, token: int | None) -> LeaseLost:
        return leases.lost(self._leases.read(), token or 0, self._leases.scope)

    def _reopen_counts(self, run: str) -> None:
        """Forget how often each status came when the run was closed: here comes another outcome."""
        if run in self._counting:
            return
        statement = update(tables.runs).where(tables.runs.c.id == run).values(counts=None)
        self._transactions.write_one(lambda connection: connection.execute(statement))
        self._counting.add(run)

    def _unwritten(self, run: str, outcomes: Sequence[Outcome], tries: Mapping[str, int]) -> list[Outcome]:
        """Those that are news: a fleet where nothing is due would be written down twice."""
        if not outcomes:
            return []
        written = self._written.get(run)
        if written is not None:
            return [each for each in outcomes if each.target in tries or written.get(each.target) != each]
        recorded = dict(self._latest_outcomes(run))
        return [each for each in outcomes if each.target in tries or recorded.get(each.target) != each.to_json()]

    def _delete(self, run: str) -> bool:
        """Delete a run with all that hangs on it, in one transaction; False when it is open again, or gone."""
        found = tables.runs.c
        statement = delete(tables.runs).where(found.id == run, found.status.not_in(OPEN)).returning(found.id)
        deleted = self._transactions.write_one(lambda connection: connection.execute(statement).scalar_one_or_none())
        self._known.discard(run)
        return deleted is not None


def _of(token: int | None) -> dict[str, int]:
    return {} if token is None else {"of_token": token}


def _told(run: Run, lease: Lease | None) -> Run:
    """A run that nobody alive drives was interrupted, though nobody could write that down."""
    is_live = run.status is not RunStatus.RUNNING or (lease is not None and lease.run == run.id)
    return run if is_live else dataclasses.replace(run, status=RunStatus.INTERRUPTED)


def _attempt(
    number: int,
    started_at: datetime.datetime,
    finished_at: datetime.datetime | None,
    data: dict[str, Any] | None,
) -> Attempt:
    outcome = None if data is None else Outcome.from_json(data)
    return Attempt(number=number, started_at=started_at, finished_at=finished_at, outcome=outcome)


def _counts(connection: Connection, runs: Sequence[str]) -> dict[str, dict[str, int]]:
    counts = {run: count(()) for run in runs}
    for run, status, number in connection.execute(statements.counts(runs)):
        counts[run][status] = number
    return counts


def _open_tries(connection: Connection, run: str) -> dict[str, int]:
    """Number of the attempt that no outcome followed, by target, in the plan's order."""
    rows = connection.execute(statements.unsettled(run)).all()
    return {target: number for target, number in rows}  # noqa: C416 - rows are not tuples to mypy


def _free_id(connection: Connection) -> str:
    while True:
        run = new_run_id(now())
        if not connection.execute(select(exists().where(tables.runs.c.id == run))).scalar_one():
            return run


def _add_outcomes(connection: Connection, run: str, outcomes: Sequence[Outcome], tries: Mapping[str, int]) -> None:
    """Outcomes of the attempts that are still open, by target, and of targets that were never tried."""
    moment = now()
    rows = [{**outcome_columns(run, outcome, moment), "attempt": tries.get(outcome.target)} for outcome in outcomes]
    plain = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome.failure is None]
    failing = [(row, outcome) for row, outcome in zip(rows, outcomes, strict=True) if outcome.failure is not None]
    if plain:
        connection.execute(insert(tables.outcomes), plain)
    if failing:
        statement = insert(tables.outcomes).returning(tables.outcomes.c.id, sort_by_parameter_order=True)
        numbers = connection.execute(statement, [row for row, _ in failing]).scalars()
        causes = [failure_columns(run, outcome, number) for (_, outcome), number in zip(failing, numbers, strict=True)]
        connection.execute(insert(tables.failures), causes)

"""Statements of the SQL ledger that do not depend on what is asked, built once: building costs more than running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Insert, Select, Table, bindparam, exists, func, insert, select
from sqlalchemy.sql.dml import ReturningInsert

from orchestrator.ledger import tables
from orchestrator.ledger.lease_rows import LeaseRows

_tried, _ended, _jobs = tables.attempts.c, tables.outcomes.c, tables.jobs.c
_last_try = (
    select(func.max(_tried.number))
    .where(_tried.run == bindparam("of_run"), _tried.target == bindparam("of_target"))
    .scalar_subquery()
)
_START = {
    "run": bindparam("of_run", type_=_tried.run.type),
    "target": bindparam("of_target", type_=_tried.target.type),
    "started_at": bindparam("of_started_at", type_=_tried.started_at.type),
    "number": func.coalesce(_last_try, 0) + 1,
}
_RECORD: dict[str, Any] = {
    column.name: bindparam(f"of_{column.name}", type_=column.type) for column in _ended if column.name != "id"
} | {"attempt": _last_try}

#: one intent; answers with the number of the attempt
START = insert(tables.attempts).values(_START).returning(_tried.number)
#: one outcome, of the latest attempt
RECORD = insert(tables.outcomes).values(_RECORD).returning(_ended.id)
FAIL = insert(tables.failures)


def fenced_start(leases: LeaseRows) -> ReturningInsert[tuple[int]]:
    """`START` under a lease; answers with nothing when that is lost."""
    return _fenced(tables.attempts, _START, leases).returning(_tried.number)


def fenced_record(leases: LeaseRows) -> ReturningInsert[tuple[int]]:
    """`RECORD` under a lease; answers with nothing when that is lost."""
    return _fenced(tables.outcomes, _RECORD, leases).returning(_ended.id)


def _fenced(table: Table, values: dict[str, Any], leases: LeaseRows) -> Insert:
    labelled: list[ColumnElement[Any]] = [value.label(name) for name, value in values.items()]
    return insert(table).from_select(list(values), leases.fence(*labelled, token=bindparam("of_token")))


def latest(runs: Sequence[str]) -> Select[tuple[int]]:
    """Ids of the latest outcome of each target."""
    return select(func.max(_ended.id)).where(_ended.run.in_(runs)).group_by(_ended.run, _ended.target)


def latest_outcomes(run: str) -> Select[str, Any]:
    """Target and data of the latest outcome of each target of a run, in the plan's order."""
    same_job = (_jobs.run == _ended.run) & (_jobs.target == _ended.target)
    return (
        select(_ended.target, _ended.data)
        .outerjoin_from(tables.outcomes, tables.jobs, same_job)
        .where(_ended.id.in_(latest([run])))
        .order_by(_jobs.position.is_(None), _jobs.position, _ended.id)
    )


def counts(runs: Sequence[str]) -> Select[str, str, int]:
    """Latest outcomes of runs, by status."""
    return (
        select(_ended.run, _ended.status, func.count())
        .where(_ended.id.in_(latest(runs)))
        .group_by(_ended.run, _ended.status)
    )


def tries(run: str, target: str) -> Select[Any]:
    """All tries of one target, each with its outcomes."""
    same_try = (_ended.run == _tried.run) & (_ended.target == _tried.target) & (_ended.attempt == _tried.number)
    return (
        select(_tried.number, _tried.started_at, _ended.recorded_at, _ended.data)
        .outerjoin_from(tables.attempts, tables.outcomes, same_try)
        .where(_tried.run == run, _tried.target == target)
        .order_by(_tried.number, _ended.id)
    )


def at_work(run: str) -> Select[Any]:
    """Targets whose latest attempt no outcome followed, its number and its start, the longest first."""
    return (
        select(_tried.target, _tried.number, _tried.started_at)
        .where(_tried.run == run, ~_has_outcome(), ~_has_successor())
        .order_by(_tried.started_at, _tried.target)
    )


def outcomes_after(run: str, after: int) -> Select[Any]:
    """Outcomes of a run with a higher id, in the order of writing."""
    return (
        select(_ended.id, _ended.target, _ended.attempt, _ended.data)
        .where(_ended.run == run, _ended.id > after)
        .order_by(_ended.id)
    )


def unsettled(run: str) -> Select[str, int]:
    """Targets whose latest attempt no outcome followed, and the number of that, in the plan's order."""
    return (
        select(_tried.target, _tried.number)
        .join_from(tables.attempts, tables.jobs, (_jobs.run == _tried.run) & (_jobs.target == _tried.target))
        .where(_tried.run == run, ~_has_outcome(), ~_has_successor())
        .order_by(_jobs.position)
    )


def _has_outcome() -> ColumnElement[bool]:
    same = (_ended.run == _tried.run) & (_ended.target == _tried.target) & (_ended.attempt == _tried.number)
    return exists().where(same)


def _has_successor() -> ColumnElement[bool]:
    later = tables.attempts.alias()
    same = (later.c.run == _tried.run) & (later.c.target == _tried.target) & (later.c.number > _tried.number)
    return exists().where(same)

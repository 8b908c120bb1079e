"""What people ask of a run, and how far it is with its waves, as rows of the SQL ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from orchestrator.ledger import tables
from orchestrator.ledger.audit import scrubbed
from orchestrator.ledger.protocol import Holder, Request, RequestKind, WaveMark
from orchestrator.ledger.transactions import Transactions
from orchestrator.outcomes import GateResult

_asked, _reached = tables.requests.c, tables.waves.c


class ControlRows:
    """Requests and wave marks of any run."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def ask(self, run: str, holder: Holder, kind: RequestKind, detail: Mapping[str, Any]) -> Request:
        """Add one request."""
        values = {
            "run": run,
            "at": self._transactions.moment(),
            "operator": holder.operator,
            "kind": kind.value,
            "detail": scrubbed(detail),
        }
        statement = insert(tables.requests).values(**values).returning(*tables.requests.c)
        # Not tried again: a word that is there twice may be heeded twice.
        return _request(self._transactions.write_one(lambda connection: connection.execute(statement).one(), tries=1))

    def requests(self, run: str) -> Sequence[Request]:
        """What was asked, first to last."""
        statement = select(tables.requests).where(_asked.run == run).order_by(_asked.id)
        rows = self._transactions.read(lambda connection: connection.execute(statement).all())
        return [_request(row) for row in rows]

    def mark(self, run: str, mark: WaveMark, guard: Callable[[Connection], None]) -> None:
        """Replace what is written of the wave; it keeps its place among the others."""
        here = (_reached.run == run) & (_reached.wave == mark.wave)
        values = {
            "run": run,
            "wave": mark.wave,
            "started_at": mark.started_at,
            "finished_at": mark.finished_at,
            "heard": mark.heard,
            "gate": None if mark.gate is None else mark.gate.to_json(),
            "passed": mark.passed,
        }

        def write(connection: Connection) -> None:
            place = connection.execute(
                delete(tables.waves).where(here).returning(_reached.position)
            ).scalar_one_or_none()
            if place is None:
                last = select(func.coalesce(func.max(_reached.position), -1)).where(_reached.run == run)
                place = connection.execute(last).scalar_one() + 1
            connection.execute(insert(tables.waves), {**values, "position": place})
            guard(connection)

        self._transactions.write(write)

    def marks(self, run: str) -> Sequence[WaveMark]:
        """How far a run is with each wave that it has reached, in that order."""
        statement = select(tables.waves).where(_reached.run == run).order_by(_reached.position)
        rows = self._transactions.read(lambda connection: connection.execute(statement).all())
        return [_mark(row) for row in rows]


def _request(row: Row[Any]) -> Request:
    return Request(id=row.id, at=row.at, operator=row.operator, kind=RequestKind(row.kind), detail=row.detail)


def _mark(row: Row[Any]) -> WaveMark:
    return WaveMark(
        wave=row.wave,
        started_at=row.started_at,
        finished_at=row.finished_at,
        heard=row.heard,
        gate=None if row.gate is None else GateResult.from_json(row.gate),
        passed=row.passed,
    )

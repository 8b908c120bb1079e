"""Who did what: rows that are only ever added; the database itself refuses to change or delete them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select

from orchestrator.ledger import tables
from orchestrator.ledger.protocol import AuditEntry, Holder
from orchestrator.ledger.transactions import Transactions
from orchestrator.redaction import scrub

_row = tables.audit.c


class AuditRows:
    """The audit table, as far as it tells of one project and environment."""

    def __init__(self, transactions: Transactions, *, project: str, environment: str) -> None:
        self._transactions = transactions
        self._scope = {"project": project, "environment": environment}

    def add(self, holder: Holder, action: str, *, run: str | None, detail: Mapping[str, Any]) -> None:
        """Add one row."""
        statement = insert(tables.audit).values(
            **self._scope,
            at=self._transactions.moment(),
            operator=holder.operator,
            host=holder.host,
            pid=holder.pid,
            action=action,
            run=run,
            detail=scrubbed(detail),
        )
        self._transactions.write_one(lambda connection: connection.execute(statement))

    def latest(self, limit: int) -> Sequence[AuditEntry]:
        """Rows, latest first."""
        statement = (
            select(_row.at, _row.operator, _row.host, _row.action, _row.run, _row.detail)
            .filter_by(**self._scope)
            .order_by(_row.id.desc())
            .limit(limit)
        )
        rows = self._transactions.read(lambda connection: connection.execute(statement).mappings().all())
        return [AuditEntry(**row) for row in rows]


def scrubbed(value: Any) -> Any:
    """Plain values with no secret in any of their texts: what is written here can never be taken out again."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {str(name): scrubbed(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [scrubbed(each) for each in value]
    return value

"""The lease as a row of the SQL ledger: each change is one statement that holds only if the row is as it was seen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.ledger import tables
from orchestrator.ledger.leases import Entry, live, lost
from orchestrator.ledger.protocol import Holder, Lease, StopRequest
from orchestrator.ledger.transactions import Transactions

_row = tables.leases.c


class LeaseRows:
    """The lease of one project and environment."""

    def __init__(self, transactions: Transactions, *, project: str, environment: str) -> None:
        self.scope = f"{project}/{environment}"
        self._key = {"project": project, "environment": environment}
        self._ours = (_row.project == project) & (_row.environment == environment)
        self._transactions = transactions

    def read(self) -> Entry | None:
        """The lease as it is now, None before the first holder."""
        statement = select(tables.leases, self._transactions.moment().label("now")).where(self._ours)
        row = self._transactions.read(lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else _entry(row)

    def take(self, seen: Entry | None, holder: Holder) -> Lease | None:
        """Write a new holder down if nothing has changed since that was read; None when something has."""
        token = 1 if seen is None else seen.token + 1
        moment = self._transactions.moment()
        values = {
            "token": token,
            "run": None,
            "operator": holder.operator,
            "host": holder.host,
            "pid": holder.pid,
            "birth": holder.birth,
            "acquired_at": moment,
            "renewed_at": moment,
            "stop": None,
            "released": False,
        }
        statement: Any
        if seen is None:
            insert = postgresql.insert if self._transactions.dialect == "postgresql" else sqlite.insert
            statement = insert(tables.leases).values(**self._key, **values).on_conflict_do_nothing()
        else:
            unchanged = (_row.token == seen.token) & (_row.renewed_at == seen.renewed_at)
            statement = update(tables.leases).where(self._ours, unchanged).values(**values)
        # Not tried again: the second try would find the first one's row, and take itself for somebody else.
        taken = self._transactions.write_one(
            lambda connection: connection.execute(statement.returning(_row.token)).scalar_one_or_none(), tries=1
        )
        return None if taken is None else Lease(token=token, holder=holder)

    def renew(self, token: int) -> StopRequest | None:
        """Say that the holder lives; returns what was asked of it."""
        statement = (
            update(tables.leases)
            .where(self._held(token))
            .values(renewed_at=self._transactions.moment())
            .returning(_row.stop)
        )
        row = self._transactions.write_one(lambda connection: connection.execute(statement).one_or_none())
        if row is None:
            raise lost(self.read(), token, self.scope)
        return None if row.stop is None else StopRequest(row.stop)

    def release(self, token: int) -> None:
        """Give it back, if it is still that holder's."""
        statement = update(tables.leases).where(self._held(token)).values(released=True, run=None, stop=None)
        self._transactions.write_one(lambda connection: connection.execute(statement))

    def ask(self, run: str, request: StopRequest) -> bool:
        """Leave a request for the live runner of that run; a stronger one stays."""
        entry = live(self)
        if entry is None or entry.run != run:
            return False
        stronger = case((_row.stop == StopRequest.NOW.value, _row.stop), else_=literal(request.value))
        statement = (
            update(tables.leases)
            .where(self._held(entry.token), _row.run == run)
            .values(stop=stronger)
            .returning(_row.token)
        )
        asked = self._transactions.write_one(lambda connection: connection.execute(statement).scalar_one_or_none())
        return asked is not None

    def link(self, connection: Connection, token: int, run: str) -> bool:
        """Say within a transaction which run is live under the lease; False when it is another's by now."""
        values = {"run": run, "renewed_at": self._transactions.moment()}
        statement = update(tables.leases).where(self._held(token)).values(**values).returning(_row.token)
        return connection.execute(statement).scalar_one_or_none() is not None

    def fence(self, *columns: ColumnElement[Any], token: ColumnElement[int]) -> Select[Any]:
        """One row of those columns while that holder has the lease, which stays as it is until the end of the write.

        Without the lock on PostgreSQL a takeover could be committed between this look and our commit.
        """
        return select(*columns).select_from(tables.leases).where(self._held(token)).with_for_update(read=True)

    def _held(self, token: int | ColumnElement[int]) -> ColumnElement[bool]:
        return self._ours & (_row.token == token) & _row.released.is_(False)


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        token=row.token,
        holder=Holder(operator=row.operator, host=row.host, pid=row.pid, birth=row.birth),
        run=row.run,
        acquired_at=row.acquired_at,
        renewed_at=row.renewed_at,
        now=row.now,
        stop=None if row.stop is None else StopRequest(row.stop),
        released=row.released,
    )

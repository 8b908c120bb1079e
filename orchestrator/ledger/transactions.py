"""Statements sent to the database of a ledger, one by one or in one transaction; a dead connection is replaced."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, func, literal
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from orchestrator import failpoints
from orchestrator.errors import LedgerError
from orchestrator.ledger.tables import Moment
from orchestrator.redaction import first_line, scrub

T = TypeVar("T")


class Transactions:
    """May be used by several threads at once: each has a connection of its own while it works."""

    def __init__(self, engine: Engine, place: str) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._place = place

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def moment(self) -> ColumnElement[datetime.datetime]:
        """The time by the one clock that all holders of the lease share: the server's, or this machine's for a file."""
        if self.dialect == "postgresql":
            return func.clock_timestamp(type_=Moment())
        return literal(now(), Moment())

    def read(self, work: Callable[[Connection], T]) -> T:
        """One statement that changes nothing."""
        return self._guarded(self._autocommit.connect, work, tries=2)

    def write_one(self, work: Callable[[Connection], T], *, tries: int = 2) -> T:
        """One statement, which is a transaction by itself and spares the round trips of BEGIN and COMMIT."""
        return self._written(self._autocommit.connect, work, tries=tries)

    def write(self, work: Callable[[Connection], T], *, tries: int = 2) -> T:
        """Several statements in one transaction."""
        return self._written(self._engine.begin, work, tries=tries)

    def give_space_back(self) -> None:
        """Shrink a SQLite file after much was deleted, if nobody else is busy with it; a server sees to that itself."""
        if self.dialect != "sqlite":
            return
        try:
            with self._autocommit.connect() as connection:
                # This connection waits for nobody, so it is no good for anything else.
                connection.detach()
                for statement in ("PRAGMA busy_timeout=0", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                    connection.exec_driver_sql(statement)
        except SQLAlchemyError:
            # The rows are gone, and later ones will take their place in the file.
            pass

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _written(self, connect: Callable[[], Any], work: Callable[[Connection], T], *, tries: int) -> T:
        failpoints.hit("ledger.before")
        done = self._guarded(connect, work, tries=tries)
        failpoints.hit("ledger.after")
        return done

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


def now() -> datetime.datetime:
    """The time of this machine, in UTC."""
    return datetime.datetime.now(datetime.UTC)

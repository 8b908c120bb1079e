"""SQLite has no lock that outlives a transaction: whoever begins one looks again at where the target is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from alembic.util import CommandError
from sqlalchemy import Connection, event

from orchestrator import failpoints
from orchestrator.databases.journal_tables import quoted_standard
from orchestrator.tenants import Target


class VersionGuard:
    """Refuses to begin another transaction when the version is not what our own last one has left."""

    def __init__(self, connection: Connection, target: Target, found: tuple[str, ...]) -> None:
        self._connection = connection
        self._target = target
        self._expected = sorted(found)
        parts = (target.version_table_schema, target.version_table)
        self._table = ".".join(quoted_standard(part) for part in parts if part)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While the body runs, no transaction of this connection begins at another version."""
        event.listen(self._connection, "begin", self._check)
        event.listen(self._connection, "commit", self._remember)
        try:
            yield
        finally:
            event.remove(self._connection, "begin", self._check)
            event.remove(self._connection, "commit", self._remember)

    def _check(self, connection: Connection) -> None:
        """Called with the write lock in hand, so that nobody can come between the look and the first statement."""
        if not self._driver().in_transaction:
            return
        seen = self._read()
        if seen == self._expected:
            return
        self._driver().rollback()
        raise CommandError(
            f"{self._target.name}: expected to match one row when going on from "
            f"{', '.join(self._expected) or 'base'}; somebody else has moved it to {', '.join(seen) or 'base'}"
        )

    def _remember(self, connection: Connection) -> None:
        if self._driver().in_transaction:
            self._expected = self._read()

    def _read(self) -> list[str]:
        failpoints.hit("guard.before")
        rows = self._driver().execute(f"SELECT version_num FROM {self._table}").fetchall()  # noqa: S608 - quoted
        failpoints.hit("guard.after")
        return sorted(str(version) for (version,) in rows)

    def _driver(self) -> Any:
        return self._connection.connection.driver_connection

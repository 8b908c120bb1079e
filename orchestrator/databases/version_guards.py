"""SQLite has no lock that outlives a transaction: whoever begins one looks again at where the target is."""

from __future__ import annotations

import contextlib
import sqlite3
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
        #: a transaction was begun, and nothing was done in it yet
        self._is_due = False
        parts = (target.version_table_schema, target.version_table)
        self._table = ".".join(quoted_standard(part) for part in parts if part)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While the body runs, no transaction of this connection begins at another version."""
        listeners: list[tuple[Connection, str, Any]] = [
            (self._connection, "begin", self._begin),
            (self._connection, "before_cursor_execute", self._check),
            (self._connection, "commit", self._remember),
        ]
        for listener in listeners:
            event.listen(*listener)
        try:
            yield
        finally:
            for listener in listeners:
                event.remove(*listener)

    def _begin(self, _connection: Connection) -> None:
        """The write lock is taken after this: the look comes before the first statement."""
        self._is_due = True

    def _check(self, *_details: object) -> None:
        """With the write lock in hand nobody can come between the look and the statement."""
        if not self._is_due or not self._driver().in_transaction:
            return
        self._is_due = False
        seen = self._read()
        if seen == self._expected:
            return
        raise CommandError(
            f"{self._target.name}: expected to match one row when going on from "
            f"{', '.join(self._expected) or 'base'}; somebody else has moved it to {', '.join(seen) or 'base'}"
        )

    def _remember(self, _connection: Connection) -> None:
        if self._driver().in_transaction:
            self._expected = self._read()

    def _read(self) -> list[str]:
        failpoints.hit("guard.before")
        try:
            rows = self._driver().execute(f"SELECT version_num FROM {self._table}").fetchall()  # noqa: S608 - quoted
        except sqlite3.OperationalError:
            rows = []  # env.py keeps its version elsewhere; that is found out at the end
        failpoints.hit("guard.after")
        return sorted(str(version) for (version,) in rows)

    def _driver(self) -> Any:
        return self._connection.connection.driver_connection

"""The seam between the fleet and one kind of database: everything that differs by dialect is behind `Backend`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine

from orchestrator.outcomes import Failure
from orchestrator.plans import Found
from orchestrator.tenants import PasswordCommand, Target


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """The server session that holds a tenant lock."""

    #: process id on PostgreSQL, connection id on MySQL and MariaDB
    pid: int
    #: `orchestrate/<run>/<target>` for one of ours, empty when unknown
    application: str = ""
    user: str = ""

    def __str__(self) -> str:
        details = ", ".join(part for part in (self.application, self.user and f"user {self.user}") if part)
        return f"pid {self.pid}" + (f" ({details})" if details else "")

    @property
    def run(self) -> str | None:
        """The run whose session it is, None for somebody else's."""
        program, _, rest = self.application.partition("/")
        return rest.partition("/")[0] or None if program == "orchestrate" else None


class Journal(Protocol):
    """Keeps, in the target itself, what a revision in flight has done where a crash would not undo it."""

    def revision(self, revision: str, *, source: bytes, direction: str) -> AbstractContextManager[None]:
        """Run one revision under the journal, from before its first statement to after the commit of its version.

        `source` is what its file holds, `direction` `upgrade` or `downgrade`. Raises `JournalMismatch` before
        anything runs when an earlier try of the revision left entries that this file cannot have made.
        """

    def forget(self) -> None:
        """Somebody stamps the target: what an earlier try left no longer matters. Part of the stamp's transaction."""


class Backend(Protocol):
    """One kind of database. Every method is total over targets of that kind; none keeps state between calls."""

    def create_engine(self, target: Target, *, read_only: bool = False, application_name: str = "") -> Engine:
        """An engine for the target's database with at most one pooled connection.

        Its errors hide parameters. A read-only engine writes nothing and creates nothing (no SQLite file either).
        `application_name` is for servers that take it only while connecting; the others get it from `prepare`.
        """

    def keeps_connection(self, target: Target) -> bool:
        """Whether a connection of this target can serve other targets, so that it is worth keeping open."""

    def take_over(self, connection: Connection) -> None:
        """Make the engine of a connection that is not ours handle transactions as our engines do."""

    def prepare(self, connection: Connection, target: Target, application_name: str) -> None:
        """Make a fresh or warm connection the target's own, and leave it in no transaction.

        Role, search path, timeouts and application name are set on this very connection; the dialect's default schema
        is the target's. Raises `TargetAbsent` when the database or schema does not exist, `SchemaMismatch` when the
        server answers with another schema than the target's.
        """

    def reset(self, connection: Connection, target: Target) -> None:
        """Undo `prepare` by name, so that the connection can serve another schema of the same database."""

    def try_lock(self, connection: Connection, target: Target) -> bool:
        """Take the tenant lock on this connection without waiting; True when it is ours. Leaves no transaction."""

    def unlock(self, connection: Connection, target: Target) -> bool:
        """Release the tenant lock; False when it was not ours any more. Leaves no transaction."""

    def lock_holder(self, connection: Connection, target: Target, *, runs: Collection[str] = ()) -> LockHolder | None:
        """Who holds the tenant lock; None when the server does not tell. Leaves no transaction.

        Sessions of `runs` are known as theirs even where the server does not keep what sessions call themselves.
        """

    def session(self, connection: Connection) -> int | None:
        """The server's number for this session, known without asking it; None where there are no sessions."""

    def end_holder(self, connection: Connection, holder: LockHolder) -> bool:
        """End the holder's server session and what it is doing; False when we may not or it is gone."""

    def journal(self, connection: Connection, target: Target, *, found: tuple[str, ...]) -> Journal:
        """What makes a revision that dies half-way continue where it stopped, on this very connection.

        `found` is the version as Alembic has read it.
        """

    def configure_options(self, target: Target) -> dict[str, Any]:
        """Keywords for Alembic's `context.configure` that this kind of database needs."""

    def look(self, targets: Sequence[Target]) -> Iterator[Found]:
        """The current heads of targets that live in one database, in as few round trips as it takes; read-only."""

    def verify(self, connection: Connection, target: Target) -> Failure | None:
        """What a finished migration may have left broken: an invalid index, a wrong schema."""

    def classify(self, error: BaseException) -> Failure:
        """A driver's or SQLAlchemy's exception as a failure: kind, code, first message line, advice; nothing secret."""

    def provision(self, target: Target) -> None:
        """Create the target's database, schema or file where it is missing."""

    def places(
        self, url: URL, connect_args: dict[str, Any], *, schemas: bool, password: PasswordCommand | None = None
    ) -> list[str]:
        """Names of the schemas in one database, or of the databases on one server, the system's own left out."""

    def offline_heading(self, target: Target) -> str:
        """SQL or client commands that make a script of `--sql` land in the target."""

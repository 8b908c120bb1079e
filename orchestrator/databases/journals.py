"""The statement journal: what a revision in flight has done, where a crash would not undo it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from sqlalchemy import Connection

from orchestrator.databases.errors import JournalMismatch
from orchestrator.databases.journal_entries import Entry, EntryKind, State, Strayed
from orchestrator.databases.journal_policies import Policy
from orchestrator.databases.journal_recordings import Recording
from orchestrator.databases.journal_tables import JournalTable, Mark
from orchestrator.databases.revision_files import Traits, traits_of
from orchestrator.databases.statements import Dialect, Statement
from orchestrator.databases.version_guards import VersionGuard
from orchestrator.tenants import Target

logger = logging.getLogger(__name__)


class StatementJournal:
    """`Journal` of one target on one connection."""

    def __init__(
        self, connection: Connection, target: Target, policy: Policy, *, schema: str | None, found: tuple[str, ...]
    ) -> None:
        self._connection = connection
        self._target = target
        self._policy = policy
        self._table = JournalTable(connection, policy.form, schema, target.version_table)
        self._guard = VersionGuard(connection, target, found) if policy.dialect is Dialect.SQLITE else None
        #: nothing was left by an earlier try, as far as this one has seen
        self._is_clean = False

    @contextmanager
    def revision(self, revision: str, *, source: bytes, direction: str) -> Iterator[None]:
        """Run one revision under the journal, where it needs one."""
        watching = self._guard.watching() if self._guard is not None else nullcontext()
        with watching, self._journalled(revision, source, direction):
            yield

    @contextmanager
    def _journalled(self, revision: str, source: bytes, direction: str) -> Iterator[None]:
        traits = traits_of(source)
        self._refuse_traits(traits, revision)
        needed = self._policy.always or traits.may_commit
        mark = Mark(
            version_table=self._target.version_table,
            revision=revision,
            direction=direction,
            file=hashlib.sha256(source).hexdigest(),
        )
        entries = self._left(mark)
        if not (needed or entries):
            # Nobody looks again for what an earlier try left: a step of this one would have left it by now.
            self._is_clean = True
            yield
            return
        recording = Recording(self._connection, self._policy, self._table, mark, entries, self._refusal(mark, entries))
        with recording.listening():
            if traits.goes_around and self._policy.always and not entries:
                # Sent past us, its statements are run once, and not tried again half done.
                self._table.make()
                recording.write_opaque(f"line {traits.goes_around[0]} of its file")
            yield
        self._is_clean = recording.is_closed

    def forget(self) -> None:
        """Somebody says where the target is: what an earlier try left no longer matters. Part of that transaction."""
        self._is_clean = False
        if self._read():
            self._table.clear()

    def _left(self, mark: Mark) -> list[Entry]:
        """What an earlier try of the revision left; raises when it does not fit."""
        if self._is_clean:
            return []
        left = self._read()
        for other, _ in left:
            if (other.revision, other.direction) != (mark.revision, mark.direction):
                raise self._mismatch(
                    other,
                    [each for its, each in left if its == other],
                    f"{_of(other)} is half done, and {_of(mark)} would start from there; finish it first",
                )
            if other.file != mark.file:
                raise self._mismatch(
                    other, [each for _, each in left], f"{_of(other)} was begun by another form of its file"
                )
        entries = [entry for _, entry in left]
        open_ended = [entry for entry in entries if entry.kind is EntryKind.OTHER and entry.state is not State.DONE]
        if open_ended:
            what = f'{_of(mark)}: "{open_ended[0].summary}" may have been done in part, and nobody can tell'
            raise self._mismatch(mark, entries, what)
        if entries:
            logger.warning("%s: %s is continued after statement %d", self._target.name, _of(mark), entries[-1].position)
        return entries

    def _read(self) -> list[tuple[Mark, Entry]]:
        left = self._table.read()
        if not self._connection.in_transaction() and not self._policy.commits_by_itself(
            self._connection.connection.driver_connection
        ):
            # The look must not become part of a transaction that is yet to begin.
            self._connection.connection.rollback()
        return left

    def _refuse_traits(self, traits: Traits, revision: str) -> None:
        if traits.runs_script and self._policy.dialect is Dialect.SQLITE:
            raise JournalMismatch(
                f"{self._target.name}: revision {revision} hands a script to the driver (line {traits.runs_script[0]}: "
                "executescript), which commits what came before and then each statement of the script, so that a crash "
                "could part them; nothing of it was done; give the statements to op.execute, one by one"
            )
        if traits.commits_around:
            raise JournalMismatch(
                f"{self._target.name}: revision {revision} commits past SQLAlchemy (line {traits.commits_around[0]}: "
                "get_bind().connection.commit()), so that nobody could tell after a crash what was done; nothing of it "
                "was done; write op.get_bind().commit()"
            )
        if self._policy.dialect is not Dialect.MYSQL:
            return
        if traits.rebuilds:
            raise JournalMismatch(
                f"{self._target.name}: revision {revision} rebuilds a table (line {traits.rebuilds[0]}: "
                'batch_alter_table with recreate="always"); here that is four statements which a crash can part, and '
                'nothing was done; take recreate="always" out: this server alters tables in place'
            )
        if traits.locks_tables:
            raise JournalMismatch(
                f"{self._target.name}: revision {revision} locks tables by hand (line {traits.locks_tables[0]}: "
                "LOCK TABLES), which shuts the journal out, and nothing was done; take it out"
            )

    def _refusal(self, mark: Mark, entries: list[Entry]) -> Callable[[Statement, Strayed], Exception]:
        def refuse(statement: Statement, strayed: Strayed) -> Exception:
            return self._mismatch(mark, entries, f'{_of(mark)}: "{statement.summary}" {strayed}; it was not run')

        return refuse

    def _mismatch(self, mark: Mark, entries: list[Entry], what: str) -> JournalMismatch:
        """What is wrong, where it stopped, and the ways out."""
        if not entries:
            return JournalMismatch(f"{self._target.name}: {what}; mend the file and run again")
        last = entries[-1]
        verb = "in" if last.state is State.INTENDED else "after"
        stopped = f" It stopped {verb} statement {last.position}, {last.summary or last.kind.value}."
        forget = self._table.statement(mark.revision)
        return JournalMismatch(
            f"{self._target.name}: {what}.{stopped} Either bring its file back as it was and run again; or undo by "
            f"hand what it did, run `{forget}`, and run again; or finish it by hand and stamp the target"
        )


def _of(mark: Mark) -> str:
    return f"the {mark.direction} of revision {mark.revision}"


class NoJournal:
    """For databases without one."""

    @contextmanager
    def revision(self, revision: str, *, source: bytes, direction: str) -> Iterator[None]:
        """Nothing is kept."""
        del revision, source, direction
        yield

    def forget(self) -> None:
        """There is nothing to forget."""

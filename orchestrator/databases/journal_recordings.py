"""One try of one revision: what it sends to the database is written down, and what was done before is left out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, event
from sqlalchemy.engine import cursor as cursors
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.sql.dml import UpdateBase

from orchestrator import failpoints
from orchestrator.databases import journal_answers, statements
from orchestrator.databases.journal_entries import Entry, EntryKind, Replay, State, Strayed
from orchestrator.databases.journal_policies import Policy
from orchestrator.databases.journal_tables import JournalTable, Mark
from orchestrator.databases.statements import Statement, StatementKind

#: sends the statement at hand to the database
Run = Callable[[], None]
#: makes an error of a statement that does not fit the way of the earlier try
Refuse = Callable[[Statement, Strayed], Exception]

_REBUILD = "_alembic_tmp_"


class Recording:
    """Stands between SQLAlchemy and the driver while a revision runs on one connection."""

    def __init__(
        self,
        connection: Connection,
        policy: Policy,
        table: JournalTable,
        mark: Mark,
        entries: Sequence[Entry],
        refuse: Refuse,
    ) -> None:
        self._connection = connection
        self._policy = policy
        self._table = table
        self._mark = mark
        self._refuse = refuse
        self._replay = Replay(entries)
        self._attempt = uuid.uuid4().hex
        self._position = max((entry.position for entry in entries), default=0)
        #: whether the table holds entries of this revision
        self._is_written = bool(entries)
        #: data of the open transaction, to be written with what commits it: until then both are gone after a crash
        self._unwritten: list[Entry] = []
        #: tables that end with the session: they are made and filled again each time
        self._temporary: set[str] = set()
        #: one of them was filled from rows, which are gone once they are changed
        self._has_copied = False
        #: the version was moved: what comes now is committed with it, or not at all
        self.is_closed = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While the body runs, statements of this connection pass here."""
        # On the dialect: there an event may stand in for the execution, and sees the driver's own errors.
        listeners: list[tuple[Any, str, Any]] = [
            (self._connection.engine, "do_execute", self._execute),
            (self._connection.engine, "do_executemany", self._execute_many),
            (self._connection.engine, "do_execute_no_params", self._execute_bare),
            (self._connection, "commit", self._commit),
            (self._connection, "rollback", self._rollback),
        ]
        for listener in listeners:
            event.listen(*listener)
        try:
            yield
        finally:
            for listener in listeners:
                event.remove(*listener)

    def write_opaque(self, summary: str) -> None:
        """Note, before anything runs, that the revision does what nobody here will see."""
        entry = self._entry(EntryKind.OTHER, "", summary, State.INTENDED)
        self._write([entry])
        self._end_transaction()

    def _execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        run = lambda: context.dialect.do_execute(cursor, statement, parameters, context)  # noqa: E731
        return self._handle(cursor, statement, parameters, context, run)

    def _execute_many(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        run = lambda: context.dialect.do_executemany(cursor, statement, parameters, context)  # noqa: E731
        return self._handle(cursor, statement, parameters, context, run)

    def _execute_bare(self, cursor: Any, statement: str, context: Any) -> bool:
        run = lambda: context.dialect.do_execute_no_params(cursor, statement, context)  # noqa: E731
        return self._handle(cursor, statement, (), context, run)

    def _handle(self, cursor: Any, text: str, parameters: Any, context: Any, run: Run) -> bool:
        """True when the statement was taken care of, False when SQLAlchemy is to send it."""
        if self.is_closed or context.root_connection is not self._connection:
            return False
        statement = statements.read(text, self._policy.dialect)
        try:
            if self._moves_version(context):
                return self._close(run)
            return self._dispatch(statement, _Sent(text, parameters), cursor, context, run)
        except Strayed as strayed:
            raise self._refuse(statement, strayed) from None

    def _dispatch(self, statement: Statement, sent: _Sent, cursor: Any, context: Any, run: Run) -> bool:
        if statements.ends_transaction_inside(statement):
            raise Strayed("ends a transaction in the middle of several statements: give them to op.execute one by one")
        kind = self._kind(statement)
        if kind is StatementKind.READ:
            return self._look(statement, sent, cursor, context, run)
        if kind is StatementKind.ROLLBACK:
            self._give_up()
        elif kind is StatementKind.COMMIT:
            self._pass_commit()
        elif kind is not StatementKind.SESSION:
            self._number(kind, statement, sent.digest, cursor, context, run)
            return True
        return False

    def _look(self, statement: Statement, sent: _Sent, cursor: Any, context: Any, run: Run) -> bool:
        """Something is read: a second try gets the answer of the first, up to where that was cut off."""
        if statement.is_for_session or context._is_server_side:
            self._replay.look(at_catalog=statement.looks_at_catalog)
            return False
        met = self._replay.meet_read(sent.digest, sent.likeness)
        kept = journal_answers.read(met.answer) if met is not None and met.answer is not None else None
        if kept is not None:
            context.cursor_fetch_strategy = _buffered(cursor, *kept)
            return True
        run()
        if cursor.description is None:
            self._replay.look(at_catalog=statement.looks_at_catalog)
            return True
        answer = _taken(context)
        if met is not None:
            if met.answer != answer:
                raise Strayed("reads other rows than the first time, which were too many to be kept")
            return True
        self._replay.look(at_catalog=statement.looks_at_catalog)
        entry = self._entry(EntryKind.READ, sent.digest, statement.summary)
        self._unwritten.append(dataclasses.replace(entry, answer=answer, probe=sent.likeness))
        return True

    def _number(
        self, kind: StatementKind, statement: Statement, digest: str, cursor: Any, context: Any, run: Run
    ) -> None:
        """One of the statements that are written down."""
        if not self._policy.form.transactional:
            # Making the table commits: what the transaction holds by then would be committed without an entry.
            self._table.make()
        if kind is StatementKind.DATA:
            done = self._change(statement, digest, context, run)
        elif kind is StatementKind.DEFINITION:
            done = self._define(statement, digest, run)
        else:
            done = self._take_a_chance(statement, digest, run)
        if done is not None:
            _answer(done, cursor, context)

    def _kind(self, statement: Statement) -> StatementKind:
        kind = statement.kind
        if statements.is_temporary(statement) and statement.object:
            self._temporary.add(statements.unquoted(statement.object))
        if statement.object and statements.unquoted(statement.object) in self._temporary:
            self._has_copied = self._has_copied or statements.copies_rows(statement)
            return StatementKind.SESSION
        if kind is StatementKind.DEFINITION and self._policy.is_unjudgeable(statement):
            kind = StatementKind.OTHER
        if self._has_copied and kind is StatementKind.DEFINITION and statements.removes(statement):
            raise Strayed(
                "takes away what a temporary table was filled from, and that table ends with the session: a crash in "
                "between would lose the rows; keep them in a table of its own, and drop it at the end"
            )
        holds = self._policy.form.transactional and not self._commits_by_itself()
        if kind in (StatementKind.DEFINITION, StatementKind.OTHER) and holds:
            return StatementKind.DATA
        if _REBUILD in (statement.object or "") and not holds:
            raise Strayed("rebuilds a table in pieces that a crash would leave lying about")
        return kind

    def _change(self, statement: Statement, digest: str, context: Any, run: Run) -> Entry | None:
        """Rows: written down in the transaction that they are changed in."""
        done = self._replay.meet_data(digest)
        if done is not None:
            return done
        if self._commits_by_itself():
            return self._change_alone(statement, digest, context, run)
        run()
        self._unwritten.append(self._answered(self._entry(EntryKind.DATA, digest, statement.summary), context))
        return None

    def _change_alone(self, statement: Statement, digest: str, context: Any, run: Run) -> Entry | None:
        """Rows, on a connection that commits each statement: in a transaction with their entry, if one will hold it."""
        try:
            with self._transaction():
                run()
                entry = self._answered(self._entry(EntryKind.ALONE, digest, statement.summary), context)
                self._write([entry])
        except Exception as error:
            if not self._policy.wants_no_transaction(error):
                raise
            return self._take_a_chance(statement, digest, run)
        return None

    def _define(self, statement: Statement, digest: str, run: Run) -> Entry | None:
        """A definition: announced before it runs, since by itself it commits the announcement first."""
        found = self._replay.meet_definition(digest)
        if found is None:
            entry = self._entry(EntryKind.DEFINITION, digest, statement.summary, State.INTENDED)
            entry = dataclasses.replace(entry, probe=self._policy.probe(self._table, statement))
            self._write([entry])
            self._try(entry, run)
            return None
        if found.state is State.DONE:
            return found
        return self._define_again(found, statement, run)

    def _define_again(self, found: Entry, statement: Statement, run: Run) -> Entry | None:
        """A definition that an earlier try announced, and may have run."""
        was_begun = found.state is State.INTENDED
        seen = self._policy.probe(self._table, statement) if was_begun else None
        is_unchanged = found.probe is not None and seen == found.probe
        entry = dataclasses.replace(found, state=State.INTENDED, attempt=self._attempt)
        if was_begun and found.probe and not is_unchanged and self._policy.repeats_silently(statement):
            return self._settle(entry)
        self._table.set_state(self._mark, entry)
        try:
            self._try(entry, run, keep=was_begun and not is_unchanged)
        except Exception as error:
            if was_begun and not is_unchanged and self._policy.says_already(statement, error):
                return self._settle(entry)
            if not was_begun or is_unchanged:
                # Else it may have been done before: a lock that is not free says nothing about that.
                self._note_refusal(entry, error)
            raise
        return None

    def _try(self, entry: Entry, run: Run, *, keep: bool = False) -> None:
        """Run a definition that is announced; what the server refuses is noted, unless the caller will (`keep`)."""
        try:
            run()
        except Exception as error:
            if not keep:
                self._note_refusal(entry, error)
            raise

    def _note_refusal(self, entry: Entry, error: Exception) -> None:
        """A clean refusal is no half-done statement. Where nothing is committed that needs an entry, none stays."""
        if self._policy.is_misunderstanding(error):
            self._table.remove(self._mark, entry)
        elif self._policy.is_refusal(error):
            if entry.position == 1:
                self._table.remove(self._mark, entry)
            else:
                self._table.set_state(self._mark, dataclasses.replace(entry, state=State.FAILED))
            self._end_transaction()

    def _settle(self, entry: Entry) -> Entry:
        done = dataclasses.replace(entry, state=State.DONE)
        self._table.set_state(self._mark, done)
        return done

    def _take_a_chance(self, statement: Statement, digest: str, run: Run) -> Entry | None:
        """A statement that nobody can judge: announced and closed; in between, a second try is refused."""
        done = self._replay.meet_other(digest)
        if done is not None:
            return done
        entry = self._entry(EntryKind.OTHER, digest, statement.summary, State.INTENDED)
        self._write([entry])
        self._end_transaction()
        try:
            run()
        except Exception as error:
            if self._was_not_begun(statement, error):
                self._table.remove(self._mark, entry)
                self._end_transaction()
            raise
        self._settle(entry)
        self._end_transaction()
        return None

    def _was_not_begun(self, statement: Statement, error: Exception) -> bool:
        driver = self._connection.connection.driver_connection
        whole = statements.is_parsed_at_once(statement) and self._policy.takes_one(driver)
        return whole and self._policy.is_misunderstanding(error)

    def _close(self, run: Run) -> bool:
        """The version moves: the entries go with it, in one transaction."""
        self._replay.finish()
        self.is_closed = True
        self._unwritten.clear()
        if not self._is_written:
            return False
        if not self._commits_by_itself():
            self._table.clear()
            return False
        with self._transaction():
            self._table.clear()
            run()
        return True

    def _commit(self, _connection: Connection) -> None:
        """SQLAlchemy is about to commit, in the middle of the revision."""
        if not self.is_closed and not self._commits_by_itself():
            self._pass_commit()

    def _rollback(self, _connection: Connection) -> None:
        self._give_up()

    def _give_up(self) -> None:
        # What the revision has read it knows all the same.
        self._unwritten = [entry for entry in self._unwritten if entry.kind is EntryKind.READ]
        self._table.rolled_back()

    def _pass_commit(self) -> None:
        if not self._replay.meet_commit() and any(entry.is_data for entry in self._unwritten):
            self._write([self._entry(EntryKind.COMMIT, "", "COMMIT")])

    def _write(self, entries: list[Entry]) -> None:
        """Write what waits, and these after it."""
        entries = [*self._unwritten, *entries]
        self._table.write(self._mark, entries)
        self._unwritten.clear()
        self._is_written = True

    def _entry(self, kind: EntryKind, digest: str, summary: str, state: State = State.DONE) -> Entry:
        self._position += 1
        return Entry(
            position=self._position, kind=kind, digest=digest, state=state, attempt=self._attempt, summary=summary
        )

    def _answered(self, entry: Entry, context: Any) -> Entry:
        """The entry with what the driver said, and what SQLAlchemy will ask it for."""
        answer = _kept_answer(context)
        # Asked for through SQLAlchemy: some of its dialects know better than their drivers.
        rowcount = context.rowcount
        lastrowid = getattr(context.cursor, "lastrowid", None)
        return dataclasses.replace(
            entry,
            rowcount=rowcount if isinstance(rowcount, int) else -1,
            lastrowid=lastrowid if isinstance(lastrowid, int) else None,
            answer=answer,
        )

    def _commits_by_itself(self) -> bool:
        return self._policy.commits_by_itself(self._connection.connection.driver_connection)

    def _end_transaction(self) -> None:
        """Commit past SQLAlchemy, whose own transaction goes on."""
        if not self._commits_by_itself():
            failpoints.hit("journal.before")
            self._connection.connection.commit()
            failpoints.hit("journal.after")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction of its own on a connection that commits each statement."""
        self._table.run(self._policy.begin)
        try:
            yield
        except BaseException:
            # Whatever the failure was, it is the one to report.
            with contextlib.suppress(Exception):
                self._table.run("ROLLBACK")
            self._give_up()
            raise
        self._table.run("COMMIT")

    def _moves_version(self, context: Any) -> bool:
        """Whether Alembic, rather than the revision, writes the version table."""
        compiled = context.compiled
        changed = getattr(compiled, "statement", None)
        if not isinstance(changed, UpdateBase) or not isinstance(changed.table, Table):
            return False
        table = changed.table
        return table.name == self._table.version_table and table.columns.keys() == ["version_num"]


def _taken(context: Any) -> str:
    """The rows that the statement returned, to be kept; SQLAlchemy gets them all the same."""
    cursor = context.cursor
    description, rows = cursor.description, [tuple(row) for row in cursor.fetchall()]
    context.cursor_fetch_strategy = cursors.FullyBufferedCursorFetchStrategy(cursor, description, rows)
    return journal_answers.written(description, rows)


def _kept_answer(context: Any) -> str | None:
    """The rows that changed data returned; of one that comes in batches SQLAlchemy alone knows what was in each."""
    if context.cursor.description is None or context.execute_style is ExecuteStyle.INSERTMANYVALUES:
        return None
    return _taken(context)


def _answer(entry: Entry, cursor: Any, context: Any) -> None:
    """Let SQLAlchemy, and the revision, see what the first execution gave."""
    kept = journal_answers.read(entry.answer) if entry.answer is not None else None
    if kept is not None and context.execute_style is not ExecuteStyle.INSERTMANYVALUES:
        context.cursor_fetch_strategy = _buffered(cursor, *kept)
    elif entry.answer is not None or bool(getattr(context.compiled, "effective_returning", None)):
        raise Strayed("was done by the earlier try, and the rows that it returned were not kept")
    context._rowcount = entry.rowcount
    if entry.lastrowid is not None:
        context.get_lastrowid = lambda: entry.lastrowid


def _buffered(cursor: Any, columns: Sequence[tuple[str, int | None]], rows: list[tuple[Any, ...]]) -> Any:
    description = tuple((name, code, None, None, None, None, None) for name, code in columns)
    return cursors.FullyBufferedCursorFetchStrategy(cursor, description, rows)


class _Sent:
    """A statement with its parameters, as it goes to the driver."""

    def __init__(self, text: str, parameters: object) -> None:
        self.digest = _sha256(f"{text}\0{parameters!r}")
        self._text = text

    @property
    def likeness(self) -> str:
        """Equal for statements whose parameters alone differ."""
        return _sha256(self._text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

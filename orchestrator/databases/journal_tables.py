"""The table in the tenant's own database that a journal is kept in."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from orchestrator import failpoints
from orchestrator.databases.journal_entries import Entry, EntryKind, State

#: name of the table; hidden from Alembic's comparisons, and no sign of a tenant that was filled without Alembic
JOURNAL = "orchestrate_journal"

_COLUMNS = (
    "position, kind, digest, state, attempt, summary, rows_counted, last_id, answer, probe, direction, file_digest"
)
_DEFINITION = """
version_table VARCHAR(191) NOT NULL,
revision VARCHAR(191) NOT NULL,
position INTEGER NOT NULL,
kind VARCHAR(12) NOT NULL,
digest CHAR(64) NOT NULL,
state VARCHAR(12) NOT NULL,
attempt CHAR(32) NOT NULL,
summary VARCHAR(191) NOT NULL,
rows_counted BIGINT NOT NULL,
last_id BIGINT,
answer {text},
probe CHAR(64),
direction VARCHAR(12) NOT NULL,
file_digest CHAR(64) NOT NULL,
session_id VARCHAR(64) NOT NULL,
noted_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
PRIMARY KEY (version_table, revision, position)
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableForm:
    """What differs by kind of database."""

    quote: Callable[[str], str]
    #: of the driver: `%s` or `?`
    placeholder: str
    #: type of a long text
    text: str
    #: what stands after the columns
    suffix: str = ""
    #: a query with one parameter, the table's name, that gives a row when it is there; None: reading may just fail
    present: str | None = None
    #: whether an error says that there is no such table
    is_missing: Callable[[Exception], bool]
    #: whether making and dropping the table belongs to a transaction
    transactional: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Whose statements entries are: one revision, going one way, out of one file."""

    version_table: str
    revision: str
    direction: str
    file: str


def quoted_standard(name: str) -> str:
    """Quoted as the SQL standard says."""
    return '"' + name.replace('"', '""') + '"'


class JournalTable:
    """Reads and writes entries through the driver, past SQLAlchemy: in the open transaction, if there is one."""

    def __init__(self, connection: Connection, form: TableForm, schema: str | None, version_table: str) -> None:
        self._connection = connection
        self._form = form
        self._schema = schema
        self.version_table = version_table
        quoted = [form.quote(part) for part in (schema, JOURNAL) if part]
        #: qualified and quoted, fit to be shown
        self.name = ".".join(quoted)
        self._sql_name = self.name.replace("%", "%%") if form.placeholder == "%s" else self.name
        self.is_present = False

    def read(self) -> list[tuple[Mark, Entry]]:
        """Everything that an earlier try has left, in order; nothing where there is no table."""
        if self._form.present is not None and not self.run(self._form.present, (self.name,)):
            return []
        sql = (
            f"SELECT revision, {_COLUMNS} FROM {self._sql_name} "  # noqa: S608 - quoted
            f"WHERE version_table = {self._form.placeholder} ORDER BY revision, position"
        )
        try:
            rows = self.run(sql, (self.version_table,))
        except Exception as error:
            if self._form.is_missing(error):
                return []
            raise
        self.is_present = True
        return [self._entry(row) for row in rows]

    def write(self, mark: Mark, entries: Sequence[Entry]) -> None:
        """Add entries; makes the table where it is missing, which must not commit data that has no entry yet."""
        if not entries:
            return
        self.make()
        row = "(" + ", ".join([self._form.placeholder] * 15) + ")"
        sql = (
            f"INSERT INTO {self._sql_name} (version_table, revision, {_COLUMNS}, session_id) "  # noqa: S608 - quoted
            f"VALUES {', '.join([row] * len(entries))}"
        )
        session = self._session()
        self.run(sql, tuple(value for entry in entries for value in (*_values(mark, entry), session)))

    def make(self) -> None:
        """Make the table where it is missing."""
        if not self.is_present:
            columns = _DEFINITION.format(text=self._form.text)
            self.run(f"CREATE TABLE IF NOT EXISTS {self._sql_name} ({columns}){self._form.suffix}")
            self.is_present = True

    def set_state(self, mark: Mark, entry: Entry) -> None:
        """Note that an entry has another state, or is another try's by now."""
        mine = self._form.placeholder
        self.run(
            f"UPDATE {self._sql_name} SET state = {mine}, attempt = {mine} "  # noqa: S608 - quoted
            f"WHERE version_table = {mine} AND revision = {mine} AND position = {mine}",
            (entry.state.value, entry.attempt, self.version_table, mark.revision, entry.position),
        )

    def remove(self, mark: Mark, entry: Entry) -> None:
        """Take one entry out."""
        mine = self._form.placeholder
        self.run(
            f"DELETE FROM {self._sql_name} "  # noqa: S608 - quoted
            f"WHERE version_table = {mine} AND revision = {mine} AND position = {mine}",
            (self.version_table, mark.revision, entry.position),
        )

    def rolled_back(self) -> None:
        """The transaction is gone, and with it the table, if that was made in it."""
        self.is_present = self.is_present and not self._form.transactional

    def clear(self) -> None:
        """Take all of this chain's entries out; where that leaves no trace in a transaction, the table as well."""
        self.make()
        self.run(f"DELETE FROM {self._sql_name} WHERE version_table = {self._form.placeholder}", (self.version_table,))  # noqa: S608
        if self._form.transactional and not self.run(f"SELECT 1 FROM {self._sql_name} LIMIT 1"):  # noqa: S608 - quoted
            self.run(f"DROP TABLE {self._sql_name}")
            self.is_present = False

    def run(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """One statement past SQLAlchemy, and the rows that it gives."""
        failpoints.hit("journal.before")
        with self._cursor() as cursor:
            # Without parameters the driver leaves percent signs as they are.
            cursor.execute(sql, parameters) if parameters else cursor.execute(sql.replace("%%", "%"))
            rows = list(cursor.fetchall()) if cursor.description is not None else []
        failpoints.hit("journal.after")
        return rows

    def statement(self, revision: str, position: int | None = None) -> str:
        """What a person types to make the journal forget a revision, or what comes from a position on."""
        literal = revision.replace("'", "''")
        later = "" if position is None else f" AND position >= {position}"
        return f"DELETE FROM {self.name} WHERE revision = '{literal}'{later}"  # noqa: S608 - quoted

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        with contextlib.closing(self._connection.connection.cursor()) as cursor:
            yield cursor

    def _session(self) -> str:
        driver: Any = self._connection.connection.driver_connection
        number = (
            driver.thread_id()
            if hasattr(driver, "thread_id")
            else getattr(getattr(driver, "info", None), "backend_pid", "")
        )
        return str(number)

    def _entry(self, row: Sequence[Any]) -> tuple[Mark, Entry]:
        (revision, position, kind, digest, state, attempt, summary, rowcount, lastrowid, answer, probe, *rest) = row
        mark = Mark(version_table=self.version_table, revision=revision, direction=rest[0], file=rest[1])
        return mark, Entry(
            position=position,
            kind=EntryKind(kind),
            digest=digest,
            state=State(state),
            attempt=attempt,
            summary=summary,
            rowcount=rowcount,
            lastrowid=lastrowid,
            answer=answer,
            probe=probe,
        )


def _values(mark: Mark, entry: Entry) -> tuple[object, ...]:
    return (
        mark.version_table,
        mark.revision,
        entry.position,
        entry.kind.value,
        entry.digest,
        entry.state.value,
        entry.attempt,
        entry.summary[:191],
        entry.rowcount,
        entry.lastrowid,
        entry.answer,
        entry.probe,
        mark.direction,
        mark.file,
    )

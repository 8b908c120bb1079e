"""The heads of many schemas of one PostgreSQL database, in a handful of statements."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import DBAPIError

from orchestrator.databases import names
from orchestrator.databases.errors import TargetAbsent
from orchestrator.outcomes import Failure
from orchestrator.plans import Condition, Found
from orchestrator.tenants import Target

Classify = Callable[[BaseException], Failure]

#: version tables that one statement reads
_CHUNK = 100
_QUOTE = names.quoting(PGDialect)

_SESSION = text("""
SELECT pg_catalog.set_config('lock_timeout', :lock, true), pg_catalog.set_config('statement_timeout', :statement, true)
""")
_ROLE = text("SELECT pg_catalog.set_config('role', :role, true)")
_PRESENT = text("""
SELECT w.position, (home.oid IS NOT NULL) AS schema_present, (c.oid IS NOT NULL) AS table_present
FROM unnest(CAST(:schemas AS text[]), CAST(:version_schemas AS text[]), CAST(:version_tables AS text[]))
     WITH ORDINALITY AS w (schema, version_schema, version_table, position)
LEFT JOIN pg_catalog.pg_namespace AS home ON home.nspname = w.schema
LEFT JOIN pg_catalog.pg_namespace AS versions ON versions.nspname = w.version_schema
LEFT JOIN pg_catalog.pg_class AS c
       ON c.relnamespace = versions.oid AND c.relname = w.version_table AND c.relkind IN ('r', 'p', 'v', 'f')
ORDER BY w.position
""")
# A table of one column `version_num` is a version table: our own, or that of another chain in the same schema.
_TABLES = text("""
SELECT s.nspname AS schema,
       -- where there is a journal, the tables are what the first revision has made so far
       bool_or(NOT s.of_versions) AND NOT bool_or(s.relname = 'orchestrate_journal') AS filled,
       array_agg(s.relname) FILTER (WHERE s.of_versions) AS version_tables
FROM (SELECT n.nspname, CAST(c.relname AS text) AS relname,
             c.relnatts = 1 AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid
                                        AND a.attnum = 1 AND a.attname = 'version_num') AS of_versions
      FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
      WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND c.relkind IN ('r', 'p', 'f')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                          AND d.deptype = 'e')) AS s
GROUP BY s.nspname
""")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A target, and the schemas that its tables and its version table are in."""

    position: int
    target: Target
    schema: str
    version_schema: str

    @property
    def version_table(self) -> str:
        """Qualified and quoted."""
        return f"{_QUOTE(self.version_schema)}.{_QUOTE(self.target.version_table)}"

    @property
    def own_version_table(self) -> str | None:
        """Name of the version table where it stands among the tenant's tables."""
        return self.target.version_table if self.version_schema == self.schema else None

    def found(
        self, condition: Condition, *, heads: Sequence[str] = (), failure: Failure | None = None
    ) -> tuple[int, Found]:
        """What the look found, with its position among the targets."""
        heads = tuple(sorted(heads))
        return self.position, Found(target=self.target, condition=condition, heads=heads, failure=failure)


def look(engine: Engine, targets: Sequence[Target], classify: Classify) -> Iterator[Found]:
    """What each target's schema holds, in the order of the targets."""
    try:
        with engine.connect() as connection:
            found = dict(_look(connection, targets, classify))
    except TargetAbsent:
        yield from (Found(target=target, condition=Condition.ABSENT) for target in targets)
        return
    yield from (found[position] for position in range(len(targets)))


def _look(connection: Connection, targets: Sequence[Target], classify: Classify) -> Iterator[tuple[int, Found]]:
    with _session(connection, targets[0]):
        here = connection.execute(text("SELECT current_schema()")).scalar() or ""
        places = [_place(position, target, here) for position, target in enumerate(targets)]
        present = list(connection.execute(_PRESENT, _columns(places)))
    versioned: list[_Place] = []
    bare: list[_Place] = []
    for place, row in zip(places, present, strict=True):
        if not row.schema_present:
            yield place.found(Condition.ABSENT)
        else:
            (versioned if row.table_present else bare).append(place)
    for first in range(0, len(versioned), _CHUNK):
        for place, heads in _read_chunk(connection, versioned[first : first + _CHUNK], classify):
            if isinstance(heads, Failure):
                yield place.found(Condition.UNREACHABLE, failure=heads)
            elif heads:
                yield place.found(Condition.VERSIONED, heads=heads)
            else:
                bare.append(place)
    yield from _look_for_tables(connection, bare)


def _place(position: int, target: Target, here: str) -> _Place:
    schema = target.schema or here
    return _Place(position=position, target=target, schema=schema, version_schema=target.version_table_schema or schema)


def _columns(places: Sequence[_Place]) -> dict[str, list[str]]:
    return {
        "schemas": [place.schema for place in places],
        "version_schemas": [place.version_schema for place in places],
        "version_tables": [place.target.version_table for place in places],
    }


def _read_chunk(
    connection: Connection, places: Sequence[_Place], classify: Classify
) -> Iterator[tuple[_Place, list[str] | Failure]]:
    """Rows of some version tables in one statement; one by one when a single one of them cannot be read."""
    try:
        rows = _read(connection, places)
    except DBAPIError as error:
        if len(places) == 1 or error.connection_invalidated:
            failure = classify(error)
            yield from ((place, failure) for place in places)
            return
        for place in places:
            yield from _read_chunk(connection, [place], classify)
        return
    yield from ((place, rows[place.position]) for place in places)


def _read(connection: Connection, places: Sequence[_Place]) -> dict[int, list[str]]:
    selects = (
        f"SELECT {place.position}, CAST(version_num AS text) FROM {place.version_table}"  # noqa: S608 - quoted
        for place in places
    )
    # A percent sign in a name would be read as a placeholder.
    statement = " UNION ALL ".join(selects).replace("%", "%%")
    rows: dict[int, list[str]] = {place.position: [] for place in places}
    with _session(connection, places[0].target):
        for position, version in connection.exec_driver_sql(statement, ()):
            rows[position].append(version)
    return rows


def _look_for_tables(connection: Connection, places: Sequence[_Place]) -> Iterator[tuple[int, Found]]:
    """Empty, or filled with tables that no version row speaks for."""
    if not places:
        return
    with _session(connection, places[0].target):
        schemas = sorted({place.schema for place in places})
        tables = {row.schema: row for row in connection.execute(_TABLES, {"schemas": schemas})}
    for place in places:
        row = tables.get(place.schema)
        others = {name for name in (row.version_tables if row else None) or () if name != place.own_version_table}
        filled = row is not None and row.filled and not others
        yield place.found(Condition.UNVERSIONED if filled else Condition.EMPTY)


@contextlib.contextmanager
def _session(connection: Connection, target: Target) -> Iterator[None]:
    """One read-only transaction under the target's role and timeouts, rolled back at the end."""
    with connection.begin() as transaction:
        settings = {
            "lock": f"{math.ceil(target.timeouts.lock * 1000)}ms",
            "statement": f"{math.ceil(target.timeouts.statement * 1000)}ms",
        }
        connection.execute(_SESSION, settings)
        if target.role:
            connection.execute(_ROLE, {"role": target.role})
        yield
        transaction.rollback()

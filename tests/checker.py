"""Decides whether a fleet is right: raw drivers only, and no code of what it judges.

A tenant is right when its version table (of that name, in that schema) holds exactly the expected heads, every
revision's marker row is there exactly once, and its database holds the expected tables and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from sqlalchemy import URL

from tests.services.servers import connect_mariadb, connect_postgres

Rows = list[tuple[object, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """Where one target should be."""

    url: URL
    #: PostgreSQL only: the tenant's schema
    schema: str | None = None
    heads: Collection[str]
    #: revisions whose marker row must be there, each exactly once
    markers: Collection[str]
    #: all tables of the tenant; the version table is added
    tables: Collection[str]
    version_table: str = "alembic_version"
    #: None for the tenant's own
    version_schema: str | None = None
    marker_table: str = "markers"
    #: others may refer to its tables
    shared: bool = False

    @property
    def name(self) -> str:
        return f"{self.url.get_backend_name()}:{self.url.database}:{self.schema or ''}"


def check(fleet: Iterable[Expected], *, others: Collection[tuple[str, str]] = ()) -> list[str]:
    """Everything that is wrong, as sentences; `others` are tables (schema, name) that may be there as well."""
    by_database: dict[tuple[str, int | None, str | None], list[Expected]] = {}
    for expected in fleet:
        key = (f"{expected.url.get_backend_name()}://{expected.url.host}", expected.url.port, expected.url.database)
        by_database.setdefault(key, []).append(expected)
    assert by_database, "an empty fleet proves nothing"
    return [
        problem for members in by_database.values() for problem in _check_database(members, frozenset(others))
    ]  # fmt: skip


def assert_right(fleet: Iterable[Expected], *, others: Collection[tuple[str, str]] = ()) -> None:
    """Fail with the first twenty problems."""
    problems = check(fleet, others=others)
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:20])


class Driver(Protocol):
    """The few questions asked of each kind of database."""

    def ask(self, sql: str) -> Rows: ...

    def quoted(self, schema: str | None, table: str) -> str: ...

    def tables(self) -> set[tuple[str, str]]: ...

    def own_schema(self, expected: Expected) -> str: ...

    def sees(self, schema: str) -> bool: ...

    def broken(self, tenants: Collection[str]) -> list[str]: ...


def _check_database(members: Sequence[Expected], others: frozenset[tuple[str, str]]) -> Iterator[str]:
    with _driver(members[0].url) as driver:
        wanted = set(others)
        for expected in members:
            schema = driver.own_schema(expected)
            wanted |= {(schema, table) for table in expected.tables}
            # Another MariaDB database is another place altogether; reading the version there is all there is to check.
            if driver.sees(expected.version_schema or schema):
                wanted.add((expected.version_schema or schema, expected.version_table))
            yield from _check_target(driver, expected, schema)
        found = driver.tables()
        yield from (f"{members[0].name}: table {schema}.{table} is missing" for schema, table in wanted - found)
        yield from (f"{members[0].name}: table {schema}.{table} is too many" for schema, table in found - wanted)
        yield from driver.broken({driver.own_schema(expected) for expected in members if not expected.shared})


def _check_target(driver: Driver, expected: Expected, schema: str) -> Iterator[str]:
    try:
        version = driver.quoted(expected.version_schema or schema, expected.version_table)
        heads = sorted(str(row[0]) for row in driver.ask(f"SELECT version_num FROM {version}"))
        if heads != sorted(expected.heads):
            yield f"{expected.name}: at {heads}, expected {sorted(expected.heads)}"
        if not expected.marker_table:
            return
        marker = driver.quoted(schema, expected.marker_table)
        found = {str(row[0]) for row in driver.ask(f"SELECT DISTINCT revision FROM {marker}")}
        if found != set(expected.markers):
            missing, extra = sorted(set(expected.markers) - found), sorted(found - set(expected.markers))
            yield f"{expected.name}: marker rows missing {missing}, too many {extra}"
        twice = driver.ask(f"SELECT revision, count(*) FROM {marker} GROUP BY revision HAVING count(*) <> 1")
        yield from (f"{expected.name}: revision {row[0]} ran {row[1]} times" for row in twice)
    except Exception as error:  # noqa: BLE001 - an unreadable tenant is one more problem, not the end of the check
        yield f"{expected.name}: cannot be read: {type(error).__name__}: {error}"


class _Postgres:
    def __init__(self, url: URL) -> None:
        self.connection = connect_postgres(url)

    def ask(self, sql: str) -> Rows:
        return self.connection.execute(sql.encode()).fetchall()

    def quoted(self, schema: str | None, table: str) -> str:
        return f'"{schema}"."{table}"'

    def tables(self) -> set[tuple[str, str]]:
        rows = self.ask(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p', 'v', 'm') "
            "AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'"
        )
        return {(str(schema), str(table)) for schema, table in rows}

    def own_schema(self, expected: Expected) -> str:
        return expected.schema or "public"

    def sees(self, schema: str) -> bool:
        return True

    def broken(self, tenants: Collection[str]) -> list[str]:
        across = self.ask(
            "SELECT c.conname, f.nspname, t.nspname FROM pg_constraint c "
            "JOIN pg_class a ON a.oid = c.conrelid JOIN pg_namespace f ON f.oid = a.relnamespace "
            "JOIN pg_class b ON b.oid = c.confrelid JOIN pg_namespace t ON t.oid = b.relnamespace "
            "WHERE c.contype = 'f' AND f.nspname <> t.nspname"
        )
        invalid = self.ask("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
        return [
            *(f"foreign key {name} leads from {a} into {b}" for name, a, b in across if {a, b} <= set(tenants)),
            *(f"index {name} is invalid" for (name,) in invalid),
        ]

    def close(self) -> None:
        self.connection.close()


class _MariaDB:
    def __init__(self, url: URL) -> None:
        self.connection = connect_mariadb(url)
        self.database = url.database or ""

    def ask(self, sql: str) -> Rows:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def quoted(self, schema: str | None, table: str) -> str:
        return f"`{schema}`.`{table}`"

    def tables(self) -> set[tuple[str, str]]:
        rows = self.ask(
            "SELECT table_schema, table_name FROM information_schema.tables "
            f"WHERE table_schema = '{self.database}' AND table_type <> 'SEQUENCE'"
        )
        found = {(str(schema), str(table)) for schema, table in rows}
        # The journal stays, empty: dropping it each time would cost as much as a revision.
        journal = (self.database, "orchestrate_journal")
        return found - {journal} if journal in found and not self.ask("SELECT * FROM orchestrate_journal") else found

    def own_schema(self, expected: Expected) -> str:
        return self.database

    def sees(self, schema: str) -> bool:
        return schema == self.database

    def broken(self, tenants: Collection[str]) -> list[str]:
        rows = self.ask(
            "SELECT constraint_name, referenced_table_schema FROM information_schema.key_column_usage WHERE "
            f"table_schema = '{self.database}' AND referenced_table_schema <> '{self.database}'"
        )
        return [f"foreign key {name} leads from {self.database} into {other}" for name, other in rows]

    def close(self) -> None:
        self.connection.close()


class _SQLite:
    def __init__(self, url: URL) -> None:
        self.connection = sqlite3.connect(f"file:{url.database}?mode=ro", uri=True)

    def ask(self, sql: str) -> Rows:
        return self.connection.execute(sql).fetchall()

    def quoted(self, schema: str | None, table: str) -> str:
        return f'"{schema}"."{table}"'

    def tables(self) -> set[tuple[str, str]]:
        rows = self.ask(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        return {("main", str(row[0])) for row in rows}

    def own_schema(self, expected: Expected) -> str:
        return "main"

    def sees(self, schema: str) -> bool:
        return schema == "main"

    def broken(self, tenants: Collection[str]) -> list[str]:
        sick = [str(row[0]) for row in self.ask("PRAGMA integrity_check") if row[0] != "ok"]
        return sick + [
            f"row {row[1]} of {row[0]} has no parent in {row[2]}" for row in self.ask("PRAGMA foreign_key_check")
        ]

    def close(self) -> None:
        self.connection.close()


_DRIVERS: Mapping[str, type[_Postgres | _MariaDB | _SQLite]] = {
    "postgresql": _Postgres,
    "mysql": _MariaDB,
    "mariadb": _MariaDB,
    "sqlite": _SQLite,
}


@contextlib.contextmanager
def _driver(url: URL) -> Iterator[Driver]:
    driver = _DRIVERS[url.get_backend_name()](url)
    try:
        yield driver
    finally:
        driver.close()

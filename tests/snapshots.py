"""All that a database holds, as plain values: two snapshots are equal when nothing differs, down to the rows."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL

from tests.services.servers import connect_mariadb, connect_postgres

Snapshot = dict[str, Any]

_POSTGRES = {
    "columns": (
        "SELECT table_name, column_name, data_type, udt_name, is_nullable, column_default, character_maximum_length "
        "FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, ordinal_position"
    ),
    "constraints": (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = %s::regnamespace ORDER BY 1, 2"
    ),
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1, 2",
    "types": (
        "SELECT typname, string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_type JOIN pg_enum "
        "ON enumtypid = pg_type.oid WHERE typnamespace = %s::regnamespace GROUP BY 1 ORDER BY 1"
    ),
}


def take(url: URL, schema: str | None = None) -> Snapshot:
    """Definitions and rows of one target."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    return _postgres(url, schema or "public") if url.get_backend_name() == "postgresql" else _mariadb(url)


def _sqlite(url: URL) -> Snapshot:
    with contextlib.closing(sqlite3.connect(f"file:{url.database}?mode=ro", uri=True)) as connection:
        definitions = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
        names = [name for kind, name, _ in definitions if kind == "table"]
        rows = {name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"'))) for name in names}
    return {"definitions": [(kind, name, _lines(sql)) for kind, name, sql in definitions], "rows": rows}


def _lines(sql: str | None) -> list[str]:
    """A definition without its order: Alembic's batch mode writes a table's constraints in the order of a set."""
    return sorted(line.strip().rstrip(", ") for line in (sql or "").splitlines())


def _postgres(url: URL, schema: str) -> Snapshot:
    with contextlib.closing(connect_postgres(url)) as connection:
        connection.execute(f'SET search_path TO "{schema}"'.encode())
        found: Snapshot = {
            # A schema's own name stands in what its indexes and references say.
            key: [
                tuple(_without(schema, value) for value in row) for row in connection.execute(sql.encode(), (schema,))
            ]
            for key, sql in _POSTGRES.items()
        }
        names = sorted({row[0] for row in found["columns"]})
        found["rows"] = {
            name: sorted(map(repr, connection.execute(f'SELECT * FROM "{schema}"."{name}"'.encode()))) for name in names
        }
    return found


def _without(schema: str, value: object) -> object:
    return value.replace(f"{schema}.", "").replace(f'"{schema}".', "") if isinstance(value, str) else value


def _mariadb(url: URL) -> Snapshot:
    with contextlib.closing(connect_mariadb(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        names = sorted(row[0] for row in cursor.fetchall())
        taken = {name: list(_table(cursor, name)) for name in names}
    # The journal of revisions in flight is none of the tenant's own; empty, it says nothing.
    if len(taken.get("orchestrate_journal", ())) == 1:
        del taken["orchestrate_journal"]
    return taken


def _table(cursor: Any, name: str) -> Iterator[str]:
    cursor.execute(f"SHOW CREATE TABLE `{name}`")
    yield from (row[1] for row in cursor.fetchall())
    cursor.execute(f"SELECT * FROM `{name}`")
    yield from sorted(map(repr, cursor.fetchall()))

"""A concurrent index build that was cut off leaves an index that nobody uses, in the way of the next try."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.base import PGDialect

from orchestrator import failpoints
from orchestrator.databases import names, statements
from orchestrator.databases.statements import Dialect

logger = logging.getLogger(__name__)

_QUOTE = names.quoting(PGDialect)
_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_BUILDS = re.compile(
    rf"^CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<index>{_NAME})\s+ON\s+(?:ONLY\s+)?"
    rf"(?P<table>{_NAME}(?:\s*\.\s*{_NAME})?)",
    re.IGNORECASE,
)
_REBUILDS = re.compile(
    rf"^REINDEX\s+(?:\([^)]*\)\s*)?(?P<kind>INDEX|TABLE)\s+CONCURRENTLY\s+(?P<what>{_NAME}(?:\s*\.\s*{_NAME})?)",
    re.IGNORECASE,
)
#: an invalid index of a table that nobody is building just now
_LEFT = """
SELECT n.nspname, c.relname
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND {which}
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid)
"""
_OF_THAT_NAME = _LEFT.format(which="i.indrelid = pg_catalog.to_regclass(%s) AND c.relname = %s")
_OF_REINDEX = _LEFT.format(
    which="i.indrelid IN (SELECT pg_catalog.to_regclass(%s)::pg_catalog.oid UNION SELECT indrelid "
    "FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass(%s)) AND c.relname ~ '_cc(new|old)[0-9]*$'"
)


def clear_the_way(engine: Engine) -> None:
    """Before each concurrent build of this engine, drop what a build of that index left behind, and say so."""
    event.listen(engine, "before_cursor_execute", _before)


def _before(connection: Connection, _cursor: object, text: str, *_details: object) -> None:
    if "concurrently" not in text.lower() or not _commits_by_itself(connection):
        return
    bare = statements.read(text, Dialect.POSTGRESQL).bare
    build, rebuild = _BUILDS.match(bare), _REBUILDS.match(bare)
    if build:
        table = "".join(build["table"].split())
        left = _run(connection, _OF_THAT_NAME, (table, statements.unquoted(build["index"])))
    elif rebuild:
        left = _run(connection, _OF_REINDEX, (rebuild["what"], rebuild["what"]))
    else:
        return
    for schema, index in left:
        _run(connection, f"DROP INDEX CONCURRENTLY IF EXISTS {_QUOTE(schema)}.{_QUOTE(index)}")
        logger.warning("dropped index %s, which an earlier build left invalid, to build it again", index)


def _commits_by_itself(connection: Connection) -> bool:
    """Inside a transaction the statement fails by itself."""
    driver: Any = connection.connection.driver_connection
    return bool(driver.autocommit)


def _run(connection: Connection, sql: str, parameters: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    failpoints.hit("index.before")
    with contextlib.closing(connection.connection.cursor()) as cursor:
        cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        rows = [(str(row[0]), str(row[1])) for row in cursor.fetchall()] if cursor.description is not None else []
    failpoints.hit("index.after")
    return rows

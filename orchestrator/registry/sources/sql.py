"""Tenants as rows of a query."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, TextClause
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.databases import backend_for
from orchestrator.registry.models import SqlSource
from orchestrator.registry.problems import Mistake
from orchestrator.registry.sources.places import failure_of, filled_arguments, place_of, settled
from orchestrator.registry.sources.rows import without_nulls
from orchestrator.registry.targets import Surroundings

#: what SQLAlchemy would take for a bound parameter
_PARAMETER = re.compile(r"(?<!:):(?=\w)")


def read(source: SqlSource, surroundings: Surroundings) -> list[Any]:
    """Run the query on a connection that cannot write; its columns are keys of a tenant."""
    url = settled(source.url, surroundings)
    target = place_of(url, filled_arguments(source.connect_args, surroundings), source.timeout)
    query = sqlalchemy.text(_PARAMETER.sub(r"\\:", surroundings.variables.text(source.query)))
    try:
        engine = backend_for(url).create_engine(target, read_only=True)
        try:
            with engine.connect() as connection:
                rows = _rows(connection, query, url)
        finally:
            engine.dispose()
    except Mistake:
        raise
    except Exception as error:  # noqa: BLE001 - a driver may raise anything, and says too much when it does
        raise failure_of(error, url) from None
    return [without_nulls(row) for row in rows]


def _rows(connection: Connection, query: TextClause, url: URL) -> list[dict[str, Any]]:
    try:
        return [dict(row) for row in connection.execute(query).mappings()]
    except SQLAlchemyError as error:
        raise failure_of(error, url, query=True) from None

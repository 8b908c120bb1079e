"""Tenants as the schemas of one PostgreSQL database, or as the databases of one server."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.databases import backend_for
from orchestrator.registry.models import SchemasSource
from orchestrator.registry.problems import Mistake
from orchestrator.registry.sources.places import failure_of, filled_arguments, settled
from orchestrator.registry.targets import Surroundings


def read(source: SchemasSource, surroundings: Surroundings) -> list[Any]:
    """A row for each name that matches; the tenant's name is what `*` matched."""
    match = surroundings.variables.text(source.match)
    if match.count("*") != 1:
        raise Mistake("`match` needs exactly one `*`", "write it like tenant_*")
    before, _, after = match.partition("*")
    pattern = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    url = settled(source.url, surroundings, needs_database=False)
    backend = url.get_backend_name()
    if backend == "sqlite":
        raise Mistake("SQLite has neither schemas nor a server", "use a source of another type")
    arguments = filled_arguments(source.connect_args, surroundings)
    by_schema = backend == "postgresql" and bool(url.database)
    asked = url if by_schema or backend != "postgresql" else url.set(database="postgres")
    try:
        places = backend_for(url).places(asked, dict(arguments), schemas=by_schema)
    except Exception as error:  # noqa: BLE001 - a driver may raise anything, and says too much when it does
        raise failure_of(error, url) from None
    common: dict[str, Any] = {"connect_args": dict(arguments)} if arguments else {}
    rows = []
    for place in places:
        if found := pattern.fullmatch(place):
            here = url if by_schema else url.set(database=place)
            row = common | {"name": found[1], "url": here.render_as_string(hide_password=False)}
            rows.append(row | ({"schema": place} if by_schema else {}))
    return rows

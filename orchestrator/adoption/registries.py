"""A tenants.yaml to begin with, made of what is known about the project."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.adoption.rewriting import Rewritten

_PASSWORD, _DATABASE = "PASSWORD-GOES-HERE", "DATABASE-GOES-HERE"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")
_SECRET = re.compile(r"(?i)pass|pwd|secret|token|key")
_EXAMPLE = "example"

_STARTER = """\
# Who is in the fleet. `orchestrate tenants check` proves this file; `orchestrate status` shows where everyone is.
# Runs and logs are kept in .orchestrate/ beside it: leave that folder out of version control.
version: 1
project: {project}
environment: development

defaults:                     # every tenant inherits these
{defaults}
"""
_TENANTS = """
tenants:
  {tenant}: {{labels: {{tier: standard}}}}     # each line is a customer; the labels are yours to choose

# More tenants can be read from elsewhere whenever a command runs:
# sources:
#   - {{type: sql, url: "…", query: "SELECT name FROM tenants WHERE active"}}
#   - {{type: schemas, url: "…", match: "tenant_*"}}
"""
_APPLICATION = """
sources:                      # SQLALCHEMY_DATABASE_URI and SQLALCHEMY_BINDS of the application
  - {{type: flask, app: {app}}}
# For many tenants write {{tenant}} into those URLs and name them, or a function that returns their names:
#   - {{type: flask, app: {app}, tenants: ["package.module:all_names"]}}
"""
_SOME_APPLICATION = """
# Once the application is named, its SQLALCHEMY_DATABASE_URI and SQLALCHEMY_BINDS are read whenever a command runs:
# sources:
#   - {type: flask, app: "package.module:create_app"}
"""


def starter(folder: Path, url: str | None, rewritten: Rewritten | None, app: str | None) -> str:
    """Text of a registry; no password is ever written into it."""
    is_flask = rewritten is not None and rewritten.is_flask
    known = _parsed(url)
    lines = [] if is_flask and app else [_url_line(known)]
    if not is_flask:
        lines.append('  # schema: "tenant_{tenant}"   # for a schema per tenant inside one database')
    text = _STARTER.format(project=_quoted(folder.name), defaults="\n".join([*lines, *_carried(rewritten)]))
    if is_flask and app:
        return text + _APPLICATION.format(app=_quoted(app))
    tenants = _TENANTS.format(tenant=_tenant(known))
    return text + (tenants.partition("\n#")[0] + _SOME_APPLICATION if is_flask else tenants)


def _url_line(url: URL | None) -> str:
    if url is None:
        return '  url: "sqlite:///var/{tenant}.db"   # or postgresql+psycopg://app:${DB_PASSWORD}@host/{tenant}'
    return f"  url: {_quoted(_template(url))}"


def _carried(rewritten: Rewritten | None) -> list[str]:
    """What env.py said to `context.configure` that is now said here."""
    lines = []
    if rewritten is not None and rewritten.version_table:
        lines.append(f"  version_table: {_quoted(rewritten.version_table)}")
    if rewritten is not None and rewritten.version_table_schema:
        lines.append(f"  version_table_schema: {_quoted(rewritten.version_table_schema)}")
    if rewritten is not None and rewritten.per_revision:
        lines.append("  transaction: revision      # as env.py had it with transaction_per_migration")
    return [*lines, "  labels: {tier: standard}"]


def _parsed(url: str | None) -> URL | None:
    try:
        parsed = make_url(url) if url else None
    except (ArgumentError, ValueError):
        return None
    return parsed if parsed is not None and parsed.database not in (None, "", ":memory:") else None


def _template(url: URL) -> str:
    """The URL with the tenant's name for its database and a variable for its password."""
    database = _DATABASE
    if url.get_backend_name() == "sqlite":
        database = Path(url.database or "").with_name(f"{_DATABASE}.db").as_posix()
    query = {key: value for key, value in url.query.items() if not _SECRET.search(key)}
    plain = url.set(database=database, query=query, password=_PASSWORD if url.password else None)
    text = plain.render_as_string(hide_password=False)
    return text.replace(_PASSWORD, "${DB_PASSWORD}").replace(_DATABASE, "{tenant}")


def _tenant(url: URL | None) -> str:
    """The database that is there already, if its name can be a tenant's."""
    if url is None:
        return _EXAMPLE
    path = Path(url.database or "")
    if url.get_backend_name() == "sqlite" and path.suffix != ".db":
        return _EXAMPLE
    name = path.stem if url.get_backend_name() == "sqlite" else str(path)
    return name if _NAME.match(name) else _EXAMPLE


def _quoted(text: str) -> str:
    """A YAML scalar that is a string whatever it holds."""
    return json.dumps(text, ensure_ascii=False)

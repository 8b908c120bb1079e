"""Tenants of a Flask application: itself, tenants that it names, or its binds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

from orchestrator import applications
from orchestrator.registry.models import FlaskSource
from orchestrator.registry.problems import Mistake
from orchestrator.registry.sources.callables import call
from orchestrator.registry.targets import Surroundings

if TYPE_CHECKING:
    from flask import Flask

#: key of the application's main database beside its binds
MAIN_DATABASE = "default"
_PLACEHOLDER = "{tenant}"


def read(source: FlaskSource, surroundings: Surroundings) -> Iterable[Any]:
    """Rows with the URLs that the application is configured with."""
    applications.importable(surroundings.root)
    name = surroundings.variables.text(source.app)
    application = applications.load(name)
    with application.app_context():
        return list(_rows(source, application, name, surroundings))


def _rows(source: FlaskSource, application: Flask, app: str, surroundings: Surroundings) -> Iterable[dict[str, Any]]:
    databases = {
        bind: _entry(url, bind, app, surroundings) for bind, url in applications.databases(application).items()
    }
    own_name = source.name or application.name
    if source.each == "bind":
        return [_tenant({"name": bind or own_name}, {bind: entry}) for bind, entry in databases.items()]
    if source.tenants is None:
        return [_tenant({"name": own_name}, databases)]
    return [_tenant(_named(row), databases) for row in _tenants(source.tenants, surroundings)]


def _tenants(tenants: list[str], surroundings: Surroundings) -> Iterable[Any]:
    if len(tenants) == 1 and ":" in tenants[0]:
        return call(tenants[0], surroundings.root)
    return tenants


def _named(row: Any) -> dict[str, Any]:
    named = {"name": row} if isinstance(row, str) else row
    if not isinstance(named, Mapping) or "name" not in named:
        raise Mistake("a tenant of the application has no `name`", "give names, or mappings with `name`")
    return dict(named)


def _entry(url: URL, bind: str | None, app: str, surroundings: Surroundings) -> dict[str, Any]:
    """Keys of one database; a bind whose chain has a section of its own in alembic.ini uses that."""
    entry: dict[str, Any] = {"url": url, "app": app}
    if bind is not None:
        entry["bind"] = bind
        if bind in surroundings.sections:
            entry["alembic"] = bind
    return entry


def _tenant(row: dict[str, Any], databases: Mapping[str | None, dict[str, Any]]) -> dict[str, Any]:
    """One row of a tenant: its only database's keys stand in it, those of several under `databases`."""
    filled = {bind: entry | {"url": _url_of(entry["url"], str(row["name"]))} for bind, entry in databases.items()}
    if len(filled) == 1:
        return next(iter(filled.values())) | row
    return {"databases": {bind or MAIN_DATABASE: entry for bind, entry in filled.items()}} | row


def _url_of(url: URL, tenant: str) -> str:
    """The URL with the tenant's name in it, as text that reads back as the same URL."""

    def filled(text: str | None) -> str | None:
        return None if text is None else text.replace(_PLACEHOLDER, tenant)

    query = {
        key: value.replace(_PLACEHOLDER, tenant) if isinstance(value, str) else tuple(map(str, map(filled, value)))
        for key, value in url.query.items()
    }
    own = URL.create(
        url.drivername,
        username=filled(url.username),
        password=filled(None if url.password is None else str(url.password)),
        host=filled(url.host),
        port=url.port,
        database=filled(url.database),
        query=query,
    )
    return own.render_as_string(hide_password=False)

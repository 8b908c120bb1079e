"""The kinds of databases that we can migrate."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import URL

from orchestrator.databases import mysql, postgresql, sqlite
from orchestrator.databases.backend import Backend
from orchestrator.databases.errors import DriverMissing
from orchestrator.tenants import Target

_BACKENDS: Mapping[str, Backend] = {
    "postgresql": postgresql.BACKEND,
    "mysql": mysql.BACKEND,
    "mariadb": mysql.BACKEND,
    "sqlite": sqlite.BACKEND,
}


def backend_of(target: Target) -> Backend:
    """The backend of the target's kind of database."""
    return backend_for(target.url)


def backend_for(url: URL) -> Backend:
    """The backend of a URL's kind of database."""
    kind = url.drivername.partition("+")[0]
    backend = _BACKENDS.get(kind)
    if backend is None:
        known = ", ".join(_BACKENDS)
        raise DriverMissing(f"databases of kind `{kind}` are not supported; these are: {known}")
    return backend

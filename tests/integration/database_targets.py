"""Targets for the tests of the databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, make_url, text

from orchestrator.tenants import Target, Tenant, Timeouts

#: short, so that a test that waits does not wait long
QUICK = Timeouts(connect=5, lock=1, statement=5, tenant_lock=1)


def target(name: str, url: URL | str, **fields: Any) -> Target:
    return Target(tenant=Tenant(name=name), url=make_url(url), **{"timeouts": QUICK, **fields})


def sqlite_target(path: Path, **fields: Any) -> Target:
    return target(path.stem, URL.create("sqlite+pysqlite", database=str(path)), **fields)


def scalar(connection: Connection, statement: str, **parameters: Any) -> Any:
    """One value, and no transaction left open."""
    value = connection.execute(text(statement), parameters).scalar()
    connection.rollback()
    return value


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)
    connection.commit()

"""Which Python driver a URL runs on: synchronous, named, and installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from sqlalchemy import URL

from orchestrator.databases.errors import DriverMissing

#: asynchronous drivers, and the synchronous sibling that speaks to the same servers
_SIBLINGS: Mapping[str, str] = {
    "postgresql+asyncpg": "postgresql+psycopg",
    "postgresql+psycopg_async": "postgresql+psycopg",
    "mysql+aiomysql": "mysql+pymysql",
    "mysql+asyncmy": "mysql+pymysql",
    "mariadb+aiomysql": "mariadb+pymysql",
    "mariadb+asyncmy": "mariadb+pymysql",
    "sqlite+aiosqlite": "sqlite+pysqlite",
}
#: what a URL without a driver means, best first: SQLAlchemy's own default differs by release
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("psycopg", "psycopg2"),
    "postgres": ("psycopg", "psycopg2"),
    "mysql": ("mysqldb", "pymysql"),
    "mariadb": ("mysqldb", "pymysql"),
}
_MODULES: Mapping[str, str] = {"mysqldb": "MySQLdb", "pysqlite": "sqlite3"}
_EXTRAS: Mapping[str, str] = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
#: arguments that only the asynchronous driver knows
_FOREIGN_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "asyncpg": frozenset(
        {
            "async_fallback",
            "command_timeout",
            "prepared_statement_cache_size",
            "prepared_statement_name_func",
            "server_settings",
            "statement_cache_size",
            "timeout",
        }
    ),
    "aiosqlite": frozenset({"iter_chunk_size"}),
    "aiomysql": frozenset({"echo", "loop"}),
    "asyncmy": frozenset({"echo", "loop"}),
}


def synchronous(url: URL) -> tuple[URL, str | None]:
    """The URL with a driver that blocks, always named; and the asynchronous one that this replaces, if any."""
    sibling = _SIBLINGS.get(url.drivername)
    if sibling is not None:
        driver = url.drivername.partition("+")[2]
        return _translate_query(url, driver).set(drivername=sibling), driver
    choices = _CHOICES.get(url.drivername)
    if choices is None:
        return url, None
    kind = "postgresql" if url.drivername == "postgres" else url.drivername
    driver = next((choice for choice in choices if is_installed(choice)), _preferred(choices))
    return url.set(drivername=f"{kind}+{driver}"), None


def is_installed(driver: str) -> bool:
    """Whether the driver's module can be imported here."""
    return importlib.util.find_spec(_MODULES.get(driver, driver)) is not None


def require_driver(url: URL) -> None:
    """Raise `DriverMissing` with the command that installs it when the URL's driver is not there."""
    try:
        url.get_dialect().import_dbapi()
    except ImportError as error:
        kind = url.get_backend_name()
        driver = url.drivername.partition("+")[2] or error.name
        extra = _EXTRAS.get(kind)
        remedy = f"pip install 'alembic-orchestrator[{extra}]'" if extra else f"install {driver}"
        raise DriverMissing(f"the driver {driver} for {kind} databases is not installed; {remedy}") from None


def _preferred(choices: tuple[str, ...]) -> str:
    """The driver that our extra installs, to be named when none is installed."""
    return "pymysql" if "pymysql" in choices else choices[0]


def _translate_query(url: URL, driver: str) -> URL:
    foreign = _FOREIGN_ARGUMENTS.get(driver, frozenset())
    query = {key: value for key, value in url.query.items() if key not in foreign}
    if driver == "asyncpg" and "ssl" in query:
        query["sslmode"] = query.pop("ssl")
    return url.set(query=query)

"""PyMySQL's connections, as every other client of MySQL makes them, and without its cost for each one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

#: with one of these the user has a word on TLS, which PyMySQL then follows
_TLS = ("ssl", "read_default")


def connect(dialect: Dialect, *arguments: Any, **keywords: Any) -> DBAPIConnection:
    """Connect, encrypted where the server can, as PyMySQL does by itself since 1.2.

    PyMySQL makes a TLS context for each connection, even to a server without TLS. That reads every certificate of the
    machine, only to verify none: 20 to 80 ms of one processor. One context does for all.
    """
    keywords = dict(_encoded(keywords))
    if any(key.startswith(_TLS) for key in keywords) or not _prefers_tls(dialect):
        return dialect.connect(*arguments, **keywords)
    driver: Any = dialect.loaded_dbapi
    connection: Any = dialect.connect(*arguments, **{**keywords, "ssl_disabled": True, "defer_connect": True})
    connection.ssl, connection.ctx = True, _context(driver)
    connection.connect()
    return connection  # type: ignore[no-any-return]


def _encoded(keywords: Mapping[str, Any]) -> Mapping[str, Any]:
    """PyMySQL writes a password in Latin-1, or fails to; the server, and every other client, means UTF-8."""
    password = keywords.get("password")
    return {**keywords, "password": password.encode()} if isinstance(password, str) else keywords


def _prefers_tls(dialect: Dialect) -> bool:
    """Older releases encrypt on request only."""
    version: tuple[Any, ...] = getattr(dialect.loaded_dbapi, "VERSION", (0,))
    return version >= (1, 2)


@functools.cache
def _context(driver: Any) -> Any:
    """The one that PyMySQL makes for whoever says nothing about TLS; nothing is connected for it."""
    return driver.connect(defer_connect=True).ctx

"""Which names may reach SQL: an allow-list, so that quoting is the second line of defence and not the first."""

from __future__ import annotations

import re

from orchestrator.registry.problems import Mistake

_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_$-]*")
_POSTGRESQL_BYTES = 63
_MYSQL_CHARACTERS = 64
_RULE = "letters, digits, `_`, `$` and `-` only, and no `$` or `-` first"

_SYSTEM_DATABASES = {
    "postgresql": frozenset({"template0", "template1"}),
    "mysql": frozenset({"mysql", "information_schema", "performance_schema", "sys"}),
}


def check_identifier(what: str, name: str, backend: str, shown: str | None) -> None:
    """Refuse a name that is hostile or too long; `shown` is the name as it may be told, None where it may not."""
    if not _ALLOWED.fullmatch(name):
        raise Mistake(f"{what} {_quoted(shown)} is not allowed", _RULE)
    if backend == "postgresql" and len(name.encode()) > _POSTGRESQL_BYTES:
        raise Mistake(
            f"{what} {_quoted(shown)} is {len(name)} bytes long", f"PostgreSQL cuts names at {_POSTGRESQL_BYTES} bytes"
        )
    if backend == "mysql" and len(name) > _MYSQL_CHARACTERS:
        raise Mistake(
            f"{what} {_quoted(shown)} is {len(name)} characters long",
            f"MariaDB and MySQL allow {_MYSQL_CHARACTERS} characters",
        )


def check_schema(what: str, name: str, shown: str | None) -> None:
    """Refuse what PostgreSQL keeps for itself, besides what no identifier may be."""
    check_identifier(what, name, "postgresql", shown)
    if name.lower().startswith("pg_") or name.lower() == "information_schema":
        raise Mistake(f"{what} {_quoted(shown)} belongs to PostgreSQL", "name a schema of your own")


def check_database(name: str, backend: str, shown: str | None) -> None:
    """Refuse the server's own databases, besides what no identifier may be."""
    check_identifier("database", name, backend, shown)
    if name.lower() in _SYSTEM_DATABASES.get(backend, ()):
        raise Mistake(f"database {_quoted(shown)} belongs to the server", "name a database of your own")


def _quoted(name: str | None) -> str:
    """The name in backticks, cut, with everything unprintable spelled out; None is one that may hold a secret."""
    if name is None:
        return "in the URL"
    printable = name.encode("unicode_escape").decode().replace("`", "'")
    return f"`{printable[:80]}…`" if len(printable) > 80 else f"`{printable}`"

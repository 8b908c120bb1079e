"""Names of databases and schemas in SQL, whatever the kind of server."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.engine.default import DefaultDialect


def quoting(dialect: type[DefaultDialect]) -> Callable[[str], str]:
    """A function that always quotes, as the dialect does; percent signs stay single."""
    preparer = dialect(paramstyle="named").identifier_preparer
    return preparer.quote_identifier

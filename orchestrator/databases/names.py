"""Names of databases and schemas, whatever the kind of server."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from sqlalchemy.engine.default import DefaultDialect


def character_problem(name: str) -> str | None:
    """What no server and no script should have to carry in a name, None when the name is fine."""
    if not name:
        return "is empty"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name):
        return "holds a control character or a line break"
    return None


def quoting(dialect: type[DefaultDialect]) -> Callable[[str], str]:
    """A function that always quotes, as the dialect does; percent signs stay single."""
    preparer = dialect(paramstyle="named").identifier_preparer
    return preparer.quote_identifier

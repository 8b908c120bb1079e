"""Passwords that stand in tenants.yaml itself, where everybody on the machine can read them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from orchestrator.redaction import is_secretive
from orchestrator.registry import documents
from orchestrator.registry.documents import Document, Items, Mapping

_PASSWORD_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s:/@]*:(?P<password>[^@]+)@", re.IGNORECASE)
_VARIABLE = re.compile(r"(?<!\$)\$\{")
_HEADERS_WITH_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})


def exposed(document: Document, file: Path) -> str | None:
    """What to say of a file with a password in it that every user of the machine can read; None for any other."""
    place = next(_literal_secrets(document.data, ()), None)
    if place is None or os.name != "posix" or not file.stat().st_mode & stat.S_IROTH:
        return None
    line, column = document.position(place)
    return (
        f"{document.name}:{line}:{column}: a password stands here, and everybody on this machine can read the file; "
        f"write ${{VAR}} for it, or `chmod o-r {document.name}`"
    )


def _literal_secrets(data: object, path: documents.Path) -> Iterator[documents.Path]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _literal_secrets(value, (*path, key))
    elif isinstance(data, Items):
        for number, value in enumerate(data):
            yield from _literal_secrets(value, (*path, number))
    elif isinstance(data, str) and _is_literal_secret(data, path):
        yield path


def _is_literal_secret(text: str, path: documents.Path) -> bool:
    key = str(path[-1]) if path else ""
    if is_secretive(key) or (key.lower() in _HEADERS_WITH_SECRETS and "headers" in path):
        return "command" not in path and not _VARIABLE.search(text)
    found = _PASSWORD_IN_URL.match(text)
    return found is not None and not _VARIABLE.search(found["password"])

"""One short name for failures with one cause, whatever the target is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import PurePath

from orchestrator.outcomes import Failure
from orchestrator.tenants import Target, server_of

_VARYING = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|0x[0-9a-f]+|\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b|\d+(?:\.\d+)*",
    re.IGNORECASE,
)
#: shorter names are replaced as whole words only: a tenant called `a` must not blot out every `a`
_DISTINCTIVE = 4


def fingerprint(failure: Failure, target: Target | None = None) -> str:
    """Twelve hex digits over type, code, revision and message, with names, ids and numbers taken out of the message."""
    message = failure.message if target is None else _without_names(failure.message, known_names(target))
    message = _VARYING.sub("#", message)
    text = "|".join((failure.type, failure.code or "", failure.revision or "", message))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]


def known_names(target: Target) -> tuple[str, ...]:
    """Names of the target that its errors may mention, longest first."""
    host, _port = server_of(target.url)
    database = target.url.database or ""
    names = {target.name, target.tenant.name, target.schema, database, target.url.username, host}
    if target.backend == "sqlite":
        names |= {PurePath(database).name, PurePath(database).stem}
    return tuple(sorted((name for name in names if name), key=lambda name: (-len(name), name)))


def _without_names(text: str, names: Iterable[str]) -> str:
    for name in names:
        if len(name) >= _DISTINCTIVE:
            text = text.replace(name, "?")
        else:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "?", text)
    return text

"""HTTP addresses: which are ones, and which lead to the same host."""

from __future__ import annotations

import urllib.parse

from orchestrator.registry.problems import Mistake


def check_address(address: str) -> None:
    """Raise `Mistake` for what is no HTTP URL; the error does not echo it."""
    try:
        parts = urllib.parse.urlsplit(address)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_fine = False
    if not is_fine:
        raise Mistake("the address is no HTTP URL", "write it like https://host/path")


def origin_of(address: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; raises `Mistake` for what is no HTTP URL."""
    try:
        parts = urllib.parse.urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        raise Mistake("the address is no HTTP URL", "write it like https://host/path") from None


def has_user(address: str) -> bool:
    """Whether a user, and perhaps a password, stands before its host."""
    return urllib.parse.urlsplit(address).username is not None

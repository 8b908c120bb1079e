"""Texts that may be shown: no password, no customer data."""

from __future__ import annotations

import re

_SQL_SECRET = re.compile(
    # Alembic's "Can't locate revision identified by 'x'" holds no secret.
    r"(?i)(\b(?:PASSWORD|(?<!revision )IDENTIFIED\s+(?:WITH\s+\S+\s+)?(?:BY|AS))\s*(?:=\s*)?(?:\(\s*)?)"
    r"(E?'(?:[^'\\]|''|\\.)*'|\"[^\"]*\"|\$\w*\$.*?\$\w*\$)",
    re.DOTALL,
)
_URL_SECRET = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)(\S*)@")
_QUERY_SECRET = re.compile(r"(?i)\b((?:ssl)?password|pwd|passwd|secret|token)=([^\s&;]+)")


def scrub(text: str) -> str:
    """The text with every password that SQL, a URL or a key=value pair could carry replaced by `***`."""
    text = _SQL_SECRET.sub(r"\1'***'", text)
    text = _URL_SECRET.sub(r"\1***@", text)
    return _QUERY_SECRET.sub(r"\1=***", text)


def first_line(text: str) -> str:
    """The first line that says something; the lines after it (DETAIL, HINT, SQL) may hold customer data."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")

"""Customer data taken out of texts that are shown: values go, names of tables and columns stay."""

from __future__ import annotations

import re

from orchestrator.redaction import scrub
from orchestrator.tracebacks import hide_quoted

#: characters of a statement that a report shows
STATEMENT_LIMIT = 500
#: characters of a message that a report shows
MESSAGE_LIMIT = 500

#: characters of a statement that are looked at: a large one takes long to go through
_READ = 20 * STATEMENT_LIMIT

_BLANK = r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*"
_DEFINES = re.compile(
    _BLANK + r"(?:CREATE|ALTER|DROP|RENAME|TRUNCATE|COMMENT|GRANT|REVOKE|SET(?!\s+@(?!@))|RESET|LOCK|VACUUM|ANALYZE"
    r"|REINDEX|CLUSTER|REFRESH|PRAGMA|BEGIN(?!\s+NOT\b)|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|USE|DISCARD)\b"
    # Whatever such a statement holds besides: another one behind it, or the query that it is made from.
    r"(?!.*\b(?:SELECT|INSERT|UPDATE|DELETE|VALUES|WITH|MERGE|CALL|COPY|EXECUTE|DO)\b)",
    re.IGNORECASE | re.DOTALL,
)
_FIRST_WORDS = re.compile(_BLANK + r"((?:[A-Za-z_][\w.]*\s*){0,3})", re.DOTALL)
#: literals in SQL: quoted and dollar-quoted texts, and numbers that are no part of a name or a placeholder
_LITERAL = re.compile(
    r"\$(\w*)\$.*?(?:\$\1\$|\Z)|[EXBN]?'(?:[^'\\]|''|\\.)*(?:'|$)|(?<![\w.$:\"`])\d+(?:\.\d+)?\b",
    re.IGNORECASE | re.DOTALL,
)
_LITERAL_OR_DOUBLE_QUOTED = re.compile(
    rf"\"(?:[^\"\\]|\"\"|\\.)*(?:\"|$)|{_LITERAL.pattern}", re.IGNORECASE | re.DOTALL
)


def reads_rows(statement: str) -> bool:
    """Whether a statement may hold, or meet, what rows hold."""
    return not _DEFINES.match(statement.strip()[:_READ])


def mask_statement(statement: str | None, *, double_quotes_hold_text: bool = False) -> str | None:
    """The statement without secrets, shortened; one that reads or writes rows also without its literals."""
    if statement is None:
        return None
    text = statement.strip()[:_READ]
    if reads_rows(text):
        pattern = _LITERAL_OR_DOUBLE_QUOTED if double_quotes_hold_text else _LITERAL
        text = pattern.sub("?", text)
    return shorten(scrub(text), STATEMENT_LIMIT)


def mask_broken_statement(statement: str | None) -> str | None:
    """A statement that no server could read: a quote in a value may have ended the literal that it stood in."""
    if statement is None or (_DEFINES.match(statement[:_READ]) and not re.search("['\"$]", statement)):
        return mask_statement(statement)
    words = _FIRST_WORDS.match(statement)
    assert words is not None
    return f"{shorten(scrub(words[1].strip()), STATEMENT_LIMIT - 2)} …".strip()


def mask_message(message: str, *, keep: re.Pattern[str] | None = None) -> str:
    """A message whose quoted parts are values: they become `'…'`, but for what `keep` matches at its end."""
    message = scrub(message)  # before a secret with a quote in it is cut
    kept = keep.search(message) if keep is not None else None
    if kept is None:
        return hide_quoted(message)
    return hide_quoted(message[: kept.start()], "'") + message[kept.start() :]


def shorten(text: str, limit: int) -> str:
    """The text, cut with an ellipsis where it is too long."""
    return text if len(text) <= limit else text[: limit - 1] + "…"

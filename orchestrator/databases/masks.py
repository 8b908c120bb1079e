"""Customer data taken out of texts that are shown: values go, names of tables and columns stay."""

from __future__ import annotations

import re

from orchestrator.redaction import scrub

#: characters of a statement that a report shows
STATEMENT_LIMIT = 500
#: characters of a message that a report shows
MESSAGE_LIMIT = 500

#: characters of a statement that are looked at: a large one takes long to go through
_READ = 20 * STATEMENT_LIMIT

_DEFINES = re.compile(
    r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(?:CREATE(?!\s+TABLE\b.*\bAS\b)|ALTER|DROP|RENAME|TRUNCATE|COMMENT|GRANT|REVOKE|SET|RESET|LOCK|VACUUM|ANALYZE"
    r"|REINDEX|CLUSTER|REFRESH|PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|USE|DISCARD)\b",
    re.IGNORECASE | re.DOTALL,
)
#: literals in SQL: quoted and dollar-quoted texts, and numbers that are no part of a name or a placeholder
_LITERAL = re.compile(
    r"\$(\w*)\$.*?(?:\$\1\$|\Z)|[EXBN]?'(?:[^'\\]|''|\\.)*(?:'|$)|(?<![\w.$:\"`])\d+(?:\.\d+)?\b",
    re.IGNORECASE | re.DOTALL,
)
_LITERAL_OR_DOUBLE_QUOTED = re.compile(
    rf"\"(?:[^\"\\]|\"\"|\\.)*(?:\"|$)|{_LITERAL.pattern}", re.IGNORECASE | re.DOTALL
)


def mask_statement(statement: str | None, *, double_quotes_hold_text: bool = False) -> str | None:
    """The statement without secrets, shortened; one that reads or writes rows also without its literals."""
    if statement is None:
        return None
    text = statement.strip()[:_READ]
    if not _DEFINES.match(text):
        pattern = _LITERAL_OR_DOUBLE_QUOTED if double_quotes_hold_text else _LITERAL
        text = pattern.sub("?", text)
    return shorten(scrub(text), STATEMENT_LIMIT)


def mask_message(message: str, *, keep: re.Pattern[str] | None = None) -> str:
    """A message whose quoted parts are values: they become `'…'`, but for what `keep` matches at its end."""
    message = scrub(message)  # before a secret with a quote in it is cut
    kept = keep.search(message) if keep is not None else None
    if kept is None:
        return _hide_between_quotes(message, "'\"")
    return _hide_between_quotes(message[: kept.start()], "'") + message[kept.start() :]


def shorten(text: str, limit: int) -> str:
    """The text, cut with an ellipsis where it is too long."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _hide_between_quotes(text: str, quotes: str) -> str:
    """Hide from the first quote to the last, or to the end: no server escapes the quotes that a value holds."""
    places = [place for place, character in enumerate(text) if character in quotes]
    if not places:
        return text
    return f"{text[: places[0]]}'…'{text[places[-1] + 1 :] if len(places) > 1 else ''}"

"""Words that every form of a report is made of: numbers, names, revisions, times, and text from elsewhere."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence

FIRST_NAMES = 3
STATEMENT_LENGTH = 160


def some(names: Sequence[str], limit: int = FIRST_NAMES) -> str:
    """`acme, globex, initech and 37 more`."""
    rest = len(names) - limit
    shown = ", ".join(names[:limit])
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def counted(number: int, noun: str) -> str:
    """`1 target`, `9,800 targets`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def heads_text(heads: Sequence[str] | None) -> str:
    """Revision ids side by side; `base` where there is none."""
    return ", ".join(heads) if heads else "base"


def goal_text(command: str, revision: Sequence[str]) -> str:
    """`upgrade to r010`; the goal is left out where nobody has one."""
    goalless = not revision and command in ("upgrade", "reconcile")
    return command if goalless else f"{command} to {heads_text(revision)}"


def shortened(text: str, limit: int = STATEMENT_LENGTH) -> str:
    """One line of at most so many characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3m30s`, `2h05m`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def visible(text: str) -> str:
    """The text with control and direction-changing characters as escapes, so that a name cannot drive its reader."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _is_hostile(character) else character for character in text)


def typed(name: str) -> str:
    """The name as it is typed to a shell."""
    return shlex.quote(visible(name))


def _is_hostile(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

"""Pieces of text that every rendering is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.cli.terminals import Line, Mood
from orchestrator.reports.words import FIRST_NAMES, STATEMENT_LENGTH, counted, goal_text, heads_text, shortened, some

__all__ = [
    "FIRST_NAMES",
    "INDENT",
    "STATEMENT_LENGTH",
    "blocks",
    "counted",
    "goal_text",
    "headed_table",
    "heads_text",
    "path_text",
    "shortened",
    "some",
    "table",
    "wrapped",
]

INDENT = "  "


def path_text(path: Sequence[str], limit: int = 4) -> str:
    """Revision ids of a path, the middle of a long one left out."""
    if len(path) <= limit:
        return " ".join(path)
    return f"{path[0]} {path[1]} ... {path[-1]} ({len(path)} in all)"


def wrapped(text: str, width: int, *, indent: str = INDENT, mood: Mood | None = None) -> Iterator[Line]:
    """Lines no longer than `width`; words stay whole."""
    pieces = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (Line(piece, mood) for piece in pieces)


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), indent: str = INDENT) -> Iterator[str]:
    """Rows in columns; those numbered in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield (indent + INDENT.join(cells)).rstrip()


def headed_table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> Iterator[Line]:
    """A table whose first row names the columns."""
    for number, text in enumerate(table(rows, right=right)):
        yield Line(text, Mood.FAINT if number == 0 else None)


def blocks(parts: Iterable[Sequence[Line]]) -> Iterator[Line]:
    """The parts that have lines, an empty line between them."""
    for number, part in enumerate(part for part in parts if part):
        if number:
            yield Line()
        yield from part

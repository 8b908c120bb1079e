"""Reads the project's Markdown: links, headings, and the code blocks that CI runs.

A block of `console` runs its `$ ` lines, a block of `bash` all of it. A comment before a block changes what is done
with it: `<!-- file: tenants.yaml -->` writes it to that file, `<!-- not run: why -->` leaves it alone. A command that
should end with another exit status than 0 says so at its end: `$ orchestrate status --check  # exit 5`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?:[ \t]*<!--\s*(?P<directive>file|not run):\s*(?P<argument>.*?)\s*-->[ \t]*\n\s*)?"
    r"^(?P<indent>[ \t]*)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_EXIT = re.compile(r"\s+#\s*exit (\d+)\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)[^)]*\)")
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block, and what its comment asks for."""

    language: str
    text: str
    directive: str | None
    argument: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shell:
    """A piece of shell, and the exit status that it should end with."""

    text: str
    exit_status: int = 0


def paths() -> list[Path]:
    """Every document for users."""
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*(path for path in named if path.exists()), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a document."""
    for found in _BLOCK.finditer(text):
        indent = found["indent"]
        lines = [line.removeprefix(indent) for line in found["text"].splitlines(keepends=True)]
        yield Block(
            language=found["language"],
            text="".join(lines),
            directive=found["directive"],
            argument=found["argument"] or "",
        )


def shells(block: Block) -> list[Shell]:
    """What a block of shell runs, in order."""
    if block.directive == "not run":
        return []
    if block.language == "console":
        commands = re.findall(r"^\$ (.*(?:\\\n.*)*)", block.text, re.MULTILINE)
        return [_shell(command) for command in commands]
    return [_shell(block.text)] if block.language in ("bash", "sh", "shell") else []


def links(text: str) -> list[str]:
    """Targets of links, code left out."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", text)))


def anchors(text: str) -> set[str]:
    """What `#…` can name in a document."""
    headings = _HEADING.findall(_BLOCK.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _shell(command: str) -> Shell:
    found = _EXIT.search(command)
    status = int(found.group(1)) if found else 0
    return Shell(text=_EXIT.sub("", command), exit_status=status)

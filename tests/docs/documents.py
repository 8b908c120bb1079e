"""Reads the project's Markdown: links, headings, and the code blocks that CI runs.

A block of `console` runs its `$ ` lines, a block of `bash` all of it. A comment before a block changes what is done
with it: `<!-- file: tenants.yaml -->` writes it to that file, `<!-- not run: why -->` leaves it alone. A command that
should end with another exit status than 0 says so at its end: `$ orchestrate status --check  # exit 5`. The lines below
a command are lines that it must print, in this order; it may print others between them, and `…` stands for any text.
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
_COMMAND = re.compile(r"^\$ (?P<command>(?:.*\\\n)*.*)\n?(?P<output>(?:(?!\$ ).*\n?)*)", re.MULTILINE)
#: stand for lines that the document leaves out; within a line, `…` stands for any text
_LEFT_OUT = frozenset({"", "…"})
#: what differs from one run to the next
_VARYING = (
    (re.compile(r"\br-\d{8}-\d{6}-[0-9a-f]{4}\b"), "<run>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<time>"),
    (re.compile(r"\bin (?:\d+\.\d+ s|\d+ s|\d+m\d\ds)"), "in <duration>"),
    (re.compile(r"\b\d+ at once\b"), "<number> at once"),
)
#: how documents write the folder that they run in
FOLDER = "/srv/shop"


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
    #: lines that it must print
    shown: tuple[str, ...] = ()

    def missing(self, output: str, folder: Path) -> str | None:
        """The first line that the document shows and the output does not hold, None when it holds all in order."""
        printed = iter([_settled(line) for line in output.replace(str(folder), FOLDER).splitlines()])
        for line in self.shown:
            pattern = re.compile(".*".join(map(re.escape, _settled(line).split("…"))))
            if line.strip() not in _LEFT_OUT and not any(pattern.fullmatch(other) for other in printed):
                return line
        return None


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
        return [_shell(found["command"], found["output"]) for found in _COMMAND.finditer(block.text)]
    return [_shell(block.text)] if block.language in ("bash", "sh", "shell") else []


def links(text: str) -> list[str]:
    """Targets of links, code left out."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", _BLOCK.sub("", text)))


def anchors(text: str) -> set[str]:
    """What `#…` can name in a document."""
    headings = _HEADING.findall(_BLOCK.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _shell(command: str, output: str = "") -> Shell:
    found = _EXIT.search(command)
    status = int(found.group(1)) if found else 0
    return Shell(text=_EXIT.sub("", command), exit_status=status, shown=tuple(output.splitlines()))


def _settled(line: str) -> str:
    """The line without what differs from one run to the next."""
    for varying, name in _VARYING:
        line = varying.sub(name, line)
    return line.rstrip()

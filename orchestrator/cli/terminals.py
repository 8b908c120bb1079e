"""What reaches a terminal: lines of text with a mood, colour where it is wanted, control characters made visible."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import click

from orchestrator.errors import SettingsError
from orchestrator.reports import words, workflow

#: width of text that goes to a file or a pipe
PLAIN_WIDTH = 80
PLAIN_HEIGHT = 24
MAX_WIDTH = 120


class Mood(enum.Enum):
    """What a line means to its reader; decides its colour."""

    STRONG = "strong"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    FAINT = "faint"


_STYLES: dict[Mood, dict[str, Any]] = {
    Mood.STRONG: {"bold": True},
    Mood.GOOD: {"fg": "green"},
    Mood.WARNING: {"fg": "yellow"},
    Mood.BAD: {"fg": "red"},
    Mood.FAINT: {"dim": True},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of text, without colour and not yet fit for a terminal."""

    text: str = ""
    mood: Mood | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Where a command writes: data to standard output, everything else to standard error."""

    quiet: bool = False
    no_color: bool = False

    def data(self, lines: Iterable[Line]) -> None:
        """Write what the command was asked for."""
        self._write(lines, sys.stdout)

    def raw(self, text: str) -> None:
        """Write text that is meant for another program, as it is."""
        _echo(text, sys.stdout)

    def say(self, text: str, mood: Mood | None = None) -> None:
        """Write a message, unless the user asked for silence."""
        if not self.quiet:
            self.complain(text, mood)

    def complain(self, text: str, mood: Mood | None = None) -> None:
        """Write a message that must not be lost."""
        self._write((Line(line, mood) for line in text.split("\n")), sys.stderr)

    def instruct(self, text: str) -> None:
        """Write a command for whatever program reads standard error, as it is."""
        _echo(text, sys.stderr)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Say what takes a while; on a terminal only while it does."""
        if self.quiet or not can_redraw():
            yield
            return
        _write_over(f"{visible(text)} ...")
        try:
            yield
        finally:
            _write_over("")

    @property
    def width(self) -> int:
        """Columns that text on standard output may fill."""
        if not sys.stdout.isatty():
            return PLAIN_WIDTH
        return min(shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns, MAX_WIDTH)

    def _write(self, lines: Iterable[Line], stream: TextIO) -> None:
        color = wants_color(stream, no_color=self.no_color)
        written = "\n".join(_rendered(line, stream, color=color) for line in lines)
        if written:
            _echo(written, stream, color=color)


def _echo(text: str, stream: TextIO, *, color: bool | None = None) -> None:
    try:
        click.echo(text, file=stream, color=color)
    except OSError as error:
        if stream is sys.stderr:
            return  # there is nobody left to tell
        if isinstance(error, BrokenPipeError):
            raise  # as a program ends in a pipe whose other end has gone
        silence_stdout()
        raise SettingsError(f"standard output cannot be written: {error.strerror}; send it somewhere else") from error


def silence_stdout() -> None:
    """Point standard output at nothing, or Python complains once more when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_closed_streams() -> None:
    """Point standard streams that the caller closed at nothing.

    The next file opened would get the number of a closed one: a tenant's database, and with it whatever a child
    process writes to its standard error.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        os.set_inheritable(number, True)  # noqa: FBT003 - its own signature
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    for closed, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        if getattr(sys, name) is None:
            setattr(sys, name, open(closed, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


def _write_over(text: str) -> None:
    """Replace the line that the cursor is on."""
    sys.stderr.write(f"\r\x1b[2K{text}")
    sys.stderr.flush()


def wants_color(stream: TextIO, *, no_color: bool = False) -> bool:
    """Whether colour may go there: `--no-color` and NO_COLOR say no, FORCE_COLOR yes, else the terminal decides."""
    if no_color or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def is_interactive() -> bool:
    """Whether somebody can be asked: standard input is a terminal, and so is where the question would appear."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def visible(text: str, encoding: str = "utf-8") -> str:
    """The text as it may reach a terminal, or the log of a workflow: it is never taken for a command.

    What the encoding does not have is escaped.
    """
    shown = words.visible(text).encode(encoding, "backslashreplace").decode(encoding)
    return workflow.inert(shown) if workflow.is_watching() else shown


def encoding_of(stream: TextIO) -> str:
    """How text becomes bytes there."""
    return getattr(stream, "encoding", None) or "utf-8"


def _rendered(line: Line, stream: TextIO, *, color: bool) -> str:
    return styled(line.text, line.mood, stream, color=color)


def styled(text: str, mood: Mood | None, stream: TextIO, *, color: bool) -> str:
    """The text as that stream can show it, harmless, and in the colour of its mood where colour is wanted."""
    text = visible(text, encoding_of(stream))
    return click.style(text, **_STYLES[mood]) if color and mood else text


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of the terminal behind a stream, now; 80 and 24 where it does not say."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns, lines = 0, 0
    return columns or PLAIN_WIDTH, lines or PLAIN_HEIGHT


def can_redraw() -> bool:
    """Whether standard error is a terminal that can draw over what it showed."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def end_line() -> None:
    """Leave the line on which the terminal has echoed a `^C`, or on which a question stands."""
    if sys.stderr.isatty():
        click.echo(file=sys.stderr)

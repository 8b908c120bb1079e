"""The progress of a run on a terminal: a few lines that are drawn again and again, and go away at the end."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TextIO

import click
from rich.cells import cell_len

from orchestrator.cli import frames, terminals
from orchestrator.cli.frames import Part, Row
from orchestrator.cli.progress import DRAINS, TOLD_ELSEWHERE, halted, told
from orchestrator.cli.tallies import Tally
from orchestrator.cli.terminals import Mood
from orchestrator.events import Event, RunHalted, RunStarted

SECONDS_BETWEEN_FRAMES = 0.25
#: lines of the screen that one message may take: the report has the whole text
MOST_LINES = 3
_UP, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[{}A", "\x1b[K", "\x1b[J"


class TerminalProgress:
    """Counters, waves and what takes long, at most four times a second; failures scroll by above.

    Whatever else is written to standard error meanwhile appears above as well, line by line.
    """

    def __init__(
        self,
        *,
        no_color: bool = False,
        hint: str = DRAINS,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tally = Tally(clock)
        self._hint = hint
        self._stream = stream or sys.stderr
        self._encoding = terminals.encoding_of(self._stream)
        self._canvas = Canvas(self._stream, color=terminals.wants_color(self._stream, no_color=no_color))
        # SimpleQueue, because a signal handler may put into it while this thread does.
        self._messages: SimpleQueue[Part] = SimpleQueue()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        """Count it, and say what deserves a line of its own."""
        self.tally.take(event)
        for text, mood in told(event, self.tally):
            self._messages.put(Part(text, mood))
        match event:
            case RunStarted():
                self.begin("begins")
            case RunHalted(cause=cause) if cause not in TOLD_ELSEWHERE:
                self._messages.put(Part(halted(event), Mood.WARNING))
            case _:
                pass

    def begin(self, verb: str) -> None:  # noqa: ARG002 - the picture needs no verb
        """Draw from now on; nothing where nothing is due."""
        if self._thread is not None or not self.tally.jobs:
            return
        if self._stream is sys.stderr:
            sys.stderr = _Above(self._stream, self.announce)
        self._thread = threading.Thread(target=self._redraw, name="orchestrate-display", daemon=True)
        self._thread.start()

    def announce(self, text: str) -> None:
        """Say something above the picture; a signal handler may call it."""
        self._messages.put(Part(text))

    def close(self) -> None:
        """Take the picture away; what was said stays."""
        if self._thread is not None:
            self._closed.set()
            self._thread.join()
            self._thread = None
            if isinstance(sys.stderr, _Above):
                sys.stderr.close()
                sys.stderr = sys.stderr.stream
        self.draw(last=True)

    def draw(self, *, last: bool = False) -> None:
        """Draw one frame, with what was said since the one before above it."""
        picture = None if last else self.tally.picture()
        width, height = terminals.size(self._stream)
        # The cursor stands below the picture, and a letter in the last column makes some terminals wrap.
        width, height = width - 1, height - 1
        rows = []
        if picture is not None:
            rows = frames.frame(picture, width=width, height=height, hint=self._hint, encoding=self._encoding)
        self._canvas.draw(list(self._said(width)), rows, width=width, height=height)

    def _said(self, width: int) -> Iterator[Part]:
        try:
            while True:
                part = self._messages.get_nowait()
                yield Part(frames.cut(part.text, width * MOST_LINES, self._encoding), part.mood)
        except Empty:
            return

    def _redraw(self) -> None:
        while True:
            self.draw()
            if self._closed.wait(SECONDS_BETWEEN_FRAMES):
                return


class Canvas:
    """Some lines of a terminal that are replaced as one; each frame is one write, and clears below itself once."""

    def __init__(self, stream: TextIO, *, color: bool) -> None:
        self._stream = stream
        self._color = color
        self._drawn: list[Row] = []
        self._gone = False

    def draw(self, above: Sequence[Part], rows: list[Row], *, width: int, height: int) -> None:
        """Replace what was drawn by these rows, with lines above that stay; without news nothing is written."""
        if not above and rows == self._drawn:
            return
        back = min(self._height(width), height)
        up = _UP.format(back) if back else ""
        lines = [*((part,) for part in above), *rows]
        # Each line clears only what is left of the one that it replaces: a cleared screen would flicker, and some
        # terminals keep what was cleared from the first line on for scrolling back.
        less = max(0, back - len(lines))
        text = "".join(f"{self._rendered(row)}{_CLEAR_LINE}\r\n" for row in [*lines, *((),) * less])
        self._write(f"\r{up}{text}{_CLEAR_BELOW}{_UP.format(less) if less else ''}")
        self._drawn = rows

    def _height(self, width: int) -> int:
        """Lines that the picture takes on the screen now: a narrower terminal has wrapped it."""
        cells = (sum(cell_len(part.text) for part in row) for row in self._drawn)
        return sum(max(1, -(-length // (width + 1))) for length in cells)

    def _rendered(self, row: Row) -> str:
        return "".join(terminals.styled(part.text, part.mood, self._stream, color=self._color) for part in row)

    def _write(self, text: str) -> None:
        if self._gone:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal went away. The run goes on, and there is nobody left to tell.
            self._gone = True


class _Above(io.TextIOBase):
    """Stands for standard error while a picture is on it: whole lines go above, the rest waits for its end."""

    def __init__(self, stream: TextIO, say: Callable[[str], None]) -> None:
        super().__init__()
        self.stream = stream
        self._say = say
        self._rest = ""
        self._over = False

    def write(self, text: str) -> int:
        if self._over:
            return self.stream.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(click.unstyle(line))
        return len(text)

    def close(self) -> None:
        """Say what is left; the stream itself stays open, and whoever kept this one writes to that from now on."""
        self._over = True
        if self._rest:
            self._say(click.unstyle(self._rest))
            self._rest = ""

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there
        return self.stream.encoding

"""Where revisions print to while ours is the only answer that may stand on standard output."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from orchestrator.redaction import scrub


@contextlib.contextmanager
def printed_aside() -> Iterator[None]:
    """Send what is printed to standard error, without secrets: it must not get into somebody's JSON."""
    aside = _Scrubbed(sys.stderr)
    with contextlib.redirect_stdout(aside), contextlib.redirect_stderr(aside):
        try:
            yield
        finally:
            aside.finish()


class _Scrubbed(io.TextIOBase):
    """A text stream that hands on whole lines, as a secret may be written in pieces."""

    def __init__(self, original: TextIO) -> None:
        self._original = original
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream behind it."""
        return self._original.encoding

    def writable(self) -> bool:
        """As a stream must say."""
        return True

    def isatty(self) -> bool:
        """Whether somebody watches, and a debugger may ask."""
        return self._original.isatty()

    def fileno(self) -> int:
        """For libraries that ask, and for child processes, which inherit it."""
        return self._original.fileno()

    def write(self, text: str) -> int:
        """Hand on the lines that are complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self._original.write("".join(f"{scrub(line)}\n" for line in lines))
        return len(text)

    def finish(self) -> None:
        """End a last line that was not ended: what follows is somebody else's."""
        self.write("\n" if self._rest else "")
        self.flush()

    def flush(self) -> None:
        """Hand on the rest as well: a prompt of a debugger ends no line."""
        rest, self._rest = self._rest, ""
        self._original.write(scrub(rest))
        self._original.flush()

"""A real terminal of a given size, played by tmux: what it shows, what is typed, and every byte that it was sent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.acceptance.fleets import Project, inherited
from tests.services import binaries

#: copies what a program writes, with the moment at which each piece came
_STAMP = """
import json, os, sys, time
with open(sys.argv[1], "a") as file:
    while piece := os.read(0, 65536):
        file.write(json.dumps([time.monotonic(), piece.decode("latin-1")]) + chr(10))
        file.flush()
"""
PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class Stream:
    """Every byte that a terminal was sent, and when."""

    text: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terminal:
    """One terminal in which one command runs."""

    folder: Path
    tmux: Path
    socket: str

    def tell(self, *words: str) -> str:
        command = [str(self.tmux), "-L", self.socket, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout

    def lines(self) -> list[str]:
        """What it shows now."""
        return self.tell("capture-pane", "-p", "-t", "pane").splitlines()

    def history(self) -> str:
        """What it shows and what has scrolled away."""
        return self.tell("capture-pane", "-p", "-S", "-", "-J", "-t", "pane")

    def type(self, *keys: str) -> None:
        self.tell("send-keys", "-t", "pane", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self.tell("resize-window", "-t", "pane", "-x", str(columns), "-y", str(rows))

    def wait_for(self, text: str) -> list[str]:
        """The screen, once the text is on it."""
        deadline = time.monotonic() + PATIENCE
        while text not in "\n".join(lines := self.lines()):
            assert time.monotonic() < deadline, f"{text!r} never came:\n" + "\n".join(lines)
            time.sleep(0.05)
        return lines

    def wait_for_end(self) -> int:
        """The exit status of the command."""
        deadline = time.monotonic() + PATIENCE * 10
        while not (self.folder / "status").exists():
            assert time.monotonic() < deadline, self.history()
            time.sleep(0.05)
        return int((self.folder / "status").read_text())

    @property
    def has_ended(self) -> bool:
        return (self.folder / "status").exists()

    def stream(self) -> Stream:
        """What the command has sent."""
        pieces = [json.loads(line) for line in (self.folder / "stream").read_text().splitlines()]
        return Stream(text="".join(piece for _, piece in pieces), seconds=pieces[-1][0] - pieces[0][0])


@contextlib.contextmanager
def opened(folder: Path, project: Project, *arguments: str, columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    """`orchestrate` with these arguments in a terminal; nothing of it is left afterwards."""
    folder.mkdir()
    terminal = Terminal(folder=folder, tmux=binaries.tmux(), socket=f"orchestrate-{uuid.uuid4().hex[:8]}")
    program = Path(sys.executable).parent / "orchestrate"
    # It starts once every byte is copied; its status is written whole, or not at all, also after a Ctrl-C.
    script = (
        f"trap : INT; cd {_quoted(project.folder)}; while [ ! -e {_quoted(folder / 'go')} ]; do sleep 0.05; done; "
        f"{_quoted(program, *arguments)}; "
        f"echo $? > {_quoted(folder / 'ended')}; mv {_quoted(folder / 'ended', folder / 'status')}; exec sleep 3600"
    )
    environment = {**inherited(), **project.environment}
    variables = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    size = ("-x", str(columns), "-y", str(rows))
    terminal.tell("new-session", "-d", "-s", "pane", *size, *variables, "sh", "-c", script)
    try:
        copy = _quoted(sys.executable, "-c", _STAMP, folder / "stream")
        terminal.tell("pipe-pane", "-t", "pane", copy)
        (folder / "go").touch()
        yield terminal
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            terminal.tell("kill-server")


def _quoted(*words: object) -> str:
    return shlex.join(str(word) for word in words)


def counters(lines: Sequence[str]) -> dict[str, int]:
    """The numbers of the picture by their words, with `targets` for their sum as the picture says it."""
    first = next(number for number, line in enumerate(lines) if " targets:" in line)
    text = lines[first]
    if lines[first + 1].startswith("  ") and lines[first + 1].lstrip()[:1].isdigit() and "/" not in lines[first + 1]:
        text += lines[first + 1]
    total, rest = text.split(" targets:")
    found = {"targets": int(total.replace(",", ""))}
    for part in rest.strip().split("  "):
        number, word = part.strip().split(" ", 1)
        found[word] = int(number.replace(",", ""))
    return found

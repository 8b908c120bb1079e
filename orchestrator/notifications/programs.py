"""Notifications to a command, as JSON on its standard input."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from orchestrator.notifications.rules import Message, Undelivered
from orchestrator.redaction import scrub

#: bytes of what it printed that are looked at for its last line
TAIL = 2000
LONGEST_WORDS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A command of the user's own, started without a shell in the folder of tenants.yaml."""

    name: str
    arguments: tuple[str, ...] = dataclasses.field(repr=False)
    folder: Path
    _running: set[int] = dataclasses.field(default_factory=set, repr=False)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def flaw(self) -> str | None:
        """That there is no such program, or that it may not be run."""
        name = self.arguments[0]
        if shutil.which(self.folder / name if "/" in name else name) is None:
            return "there is no such program, or it may not be run; mend its path, which starts at tenants.yaml"
        return None

    def send(self, message: Message, seconds: float) -> None:
        """Run it to its end; it and its children end with its time."""
        # Files, where pipes would wait for a child that it left behind.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
            given.write(message.data)
            given.seek(0)
            process = self._start(message, given, printed)
            try:
                status = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.stop()
                process.wait()
                raise Undelivered(f"it took longer than {seconds:.3g} s and was ended") from None
            finally:
                with self._lock:
                    self._running.discard(process.pid)
            if status != 0:
                raise Undelivered(f"it ended with status {status}{_last_words(printed)}")

    def stop(self) -> None:
        """End it with its children."""
        with self._lock:
            for group in self._running:
                try:
                    os.killpg(group, signal.SIGKILL)
                except OSError:
                    pass  # it has just ended, or is another user's by now, as with sudo

    def _start(self, message: Message, given: IO[bytes], printed: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._lock:
            try:
                process = subprocess.Popen(
                    self.arguments,
                    cwd=self.folder,
                    env={**os.environ, **_variables(message)},
                    stdin=given,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
                raise Undelivered(f"it cannot be started: {reason}") from None
            self._running.add(process.pid)
            return process


def _variables(message: Message) -> dict[str, str]:
    names = ("run", "event", "project", "environment", "status")
    return {f"ORCHESTRATE_{name.upper()}": _plain(message.body.get(name)) for name in names}


def _plain(value: Any) -> str:
    """No null byte: the system takes none."""
    return str(value or "").replace("\0", "")


def _last_words(printed: IO[bytes]) -> str:
    """What it printed last usually says why."""
    size = printed.seek(0, os.SEEK_END)
    printed.seek(max(0, size - TAIL))
    # Hidden in the whole text first: a secret may begin in a line before. A line that was cut may begin within one.
    lines = scrub(printed.read().decode(errors="replace")).splitlines()[size > TAIL :]
    lines = [line.strip() for line in lines if line.strip()]
    return f": {lines[-1][:LONGEST_WORDS]}" if lines else ""

"""A gate that is a command: its exit status is the verdict."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO

from orchestrator.gates.questions import Finding, Patience, Question
from orchestrator.outcomes import Verdict, count
from orchestrator.redaction import scrub

#: EX_TEMPFAIL of sysexits.h: the command cannot tell
TEMPORARY_FAILURE = 75
#: from here on shells say that it could not be run, or was killed
_NOT_ITS_OWN = 126
#: bytes that are kept of the beginning and of the end of what a command prints
_KEPT = 4096
#: characters of a line that are told
_LONGEST_LINE = 120


def ask(question: Question) -> Finding:
    """Run the command in the folder of tenants.yaml, with the targets on its standard input, one name a line."""
    arguments = [question.text(argument) for argument in question.rule.command or ()]
    with tempfile.TemporaryFile() as names:
        names.write("".join(f"{outcome.target}\n" for outcome in question.done).encode())
        names.seek(0)
        try:
            process = subprocess.Popen(
                arguments,
                cwd=question.surroundings.root,
                env=_environment(question),
                stdin=names,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError for a null byte
            said = getattr(error, "strerror", None) or "its arguments hold a null byte"
            return Finding(Verdict.INCONCLUSIVE, f"`{(question.rule.command or ('',))[0]}` cannot be started: {said}")
    output = _Output()
    try:
        with _not_outliving_us(process):
            ended = _follow(process, output, question.patience)
    finally:
        _kill(process)
    return _found(process.returncode, output) if ended else question.patience.over()


def _environment(question: Question) -> dict[str, str]:
    counts = {status: number for status, number in count(question.done).items() if number}
    own = {"ORCHESTRATE_WAVE": question.wave, "ORCHESTRATE_COUNTS": json.dumps(counts)}
    return {**os.environ, **own, **question.environment}


def _follow(process: subprocess.Popen[bytes], output: _Output, patience: Patience) -> bool:
    """Read what it prints until it ends; False where the time is over first.

    What it has started and left behind may hold its output open: that is not waited for.
    """
    stream = process.stdout
    assert stream is not None
    os.set_blocking(stream.fileno(), False)
    with stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while process.poll() is None:
            if patience.is_over:
                return False
            if not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience.tick())
            elif selector.select(patience.tick()) and not output.take(stream):
                selector.unregister(stream)
        while not patience.is_over and output.take(stream):
            pass
    return True


@contextlib.contextmanager
def _not_outliving_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the command, with all that it has started, should this process be killed.

    A shell reads from a pipe that nobody writes to: it comes to an end when this process does, whatever has ended it.
    """
    command = ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$0"', str(process.pid)]
    try:
        watch = subprocess.Popen(
            command,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        # Without a shell it is measured all the same.
        yield
        return
    try:
        yield
    finally:
        watch.kill()
        watch.communicate()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command with all that it has started, if it is still there."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Output:
    """The beginning and the end of what a command prints."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._is_cut = False

    def take(self, stream: IO[bytes]) -> bool:
        """Take what is there; False where there is nothing now, or nothing will come any more."""
        try:
            chunk = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return False
        room = _KEPT - len(self._head)
        self._head += chunk[:room]
        rest = self._tail + chunk[room:]
        self._tail = rest[-_KEPT:]
        self._is_cut = self._is_cut or len(rest) > _KEPT
        return bool(chunk)

    def said(self) -> str:
        """The first and the last line that say something, without secrets."""
        if self._is_cut:
            head, tail = (scrub(part.decode(errors="replace")).splitlines() for part in (self._head, self._tail))
            # A line that was cut may end, or begin, within a secret.
            lines = [*head[:-1], *tail[1:]]
        else:
            lines = scrub((self._head + self._tail).decode(errors="replace")).splitlines()
        lines = [line.strip() for line in lines if line.strip()]
        ends = dict.fromkeys(_cut(line) for line in (*lines[:1], *lines[-1:]))
        return (" … " if len(lines) > 2 else " · ").join(ends)


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def _found(status: int, output: _Output) -> Finding:
    verdict, text = Verdict.FAILED, f"ended with status {status}"
    if status == 0:
        verdict = Verdict.PASSED
    elif status < 0:
        verdict, text = Verdict.INCONCLUSIVE, f"was killed by signal {-status}"
    elif status == TEMPORARY_FAILURE or status >= _NOT_ITS_OWN:
        verdict = Verdict.INCONCLUSIVE
    return Finding(verdict, ": ".join(filter(None, (text, output.said()))))

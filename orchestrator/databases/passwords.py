"""Passwords that a command prints: short-lived tokens, kept for a while in this process and nowhere else."""

from __future__ import annotations

import collections
import subprocess
import threading
import time

from orchestrator.databases.errors import PasswordUnavailable
from orchestrator.redaction import remember
from orchestrator.tenants import PasswordCommand

#: seconds that the command may take
_PATIENCE = 60.0

_answers: dict[tuple[str, ...], tuple[str, float]] = {}
#: one lock per command: asking twice at once is a waste, but one slow command must not hold up the others
_locks: collections.defaultdict[tuple[str, ...], threading.Lock] = collections.defaultdict(threading.Lock)


def current_password(source: PasswordCommand) -> str:
    """The command's answer, asked for again when the last one is older than its `ttl`."""
    with _locks[source.command]:
        known = _answers.get(source.command)
        if known is not None and time.monotonic() - known[1] < source.ttl:
            return known[0]
        password = _ask(source)
        remember(password)
        _answers[source.command] = (password, time.monotonic())
        return password


def forget_password(source: PasswordCommand) -> bool:
    """Drop a remembered answer that a server refused; False when there was none."""
    with _locks[source.command]:
        return _answers.pop(source.command, None) is not None


def _ask(source: PasswordCommand) -> str:
    """Run the command; neither its arguments nor its output may show in an error, both may hold the secret."""
    program = source.command[0]
    try:
        done = subprocess.run(
            list(source.command), capture_output=True, timeout=_PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise PasswordUnavailable(f"password command `{program}` cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise PasswordUnavailable(f"password command `{program}` gave no answer in {_PATIENCE:g} s") from None
    if done.returncode != 0:
        raise PasswordUnavailable(
            f"password command `{program}` ended with status {done.returncode}; run it by hand to see why"
        )
    password = done.stdout.decode(errors="replace").strip()
    if not password:
        raise PasswordUnavailable(f"password command `{program}` printed nothing; run it by hand to see why")
    return password

"""Places where a test may kill, break or stop this process: before and after each round trip and each ledger write.

Off, and free, unless `ORCHESTRATE_FAILPOINT` says otherwise when this module is first imported.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable

#: `N:ACTION`: at the N-th place, counted from 1 in each process, `kill`, `raise` or `hang`; `0:count` says at the
#: process's end how many places it passed; `N@BEGINNING:ACTION` counts only places whose names begin so
VARIABLE = "ORCHESTRATE_FAILPOINT"


class FailpointReached(Exception):  # noqa: N818 - named for what it says
    """Raised by the action `raise`."""


class _Counter:
    def __init__(self) -> None:
        self._number = 0
        self._beginning = ""
        self._action = ""
        self.passed = 0

    def arm(self, text: str) -> None:
        place, _, self._action = text.rpartition(":")
        number, _, self._beginning = place.partition("@")
        self._number, self.passed = int(number), 0

    def hit(self, place: str) -> None:
        if not place.startswith(self._beginning):
            return
        self.passed += 1
        if self.passed != self._number:
            return
        _say(f"failpoint {self.passed}: {place}")
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._action == "hang":
            time.sleep(3600)
        raise FailpointReached(place)

    def report(self) -> None:
        if self._action == "count":
            _say(f"failpoints: {self.passed}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _nothing(place: str) -> None:
    """Pass the place."""


_counter = _Counter()
#: whether any place does anything in this process
ARMED = VARIABLE in os.environ
#: called at each place with its name, `sql.before` or `ledger.after`
hit: Callable[[str], None] = _counter.hit if ARMED else _nothing


def arm(text: str) -> None:
    """Count from 1 again, towards another place; for a process forked from one that was armed when it started."""
    assert ARMED, f"set {VARIABLE} before the first import"
    _counter.arm(text)


if ARMED:
    arm(os.environ[VARIABLE])
    atexit.register(_counter.report)

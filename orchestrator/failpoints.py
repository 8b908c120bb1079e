"""Places where a test may kill, break or stop this process: before and after each round trip and each ledger write.

Off, and free, unless `ORCHESTRATE_FAILPOINT` says otherwise when this module is first imported.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

#: `N:ACTION`: at the N-th place, counted from 1 in each process, `kill`, `raise` or `hang`; `0:count` only counts
VARIABLE = "ORCHESTRATE_FAILPOINT"


class FailpointReached(Exception):  # noqa: N818 - named for what it says
    """Raised by the action `raise`."""


class _Counter:
    def __init__(self, number: int, action: str) -> None:
        self._number = number
        self._action = action
        self.passed = 0

    def hit(self, place: str) -> None:
        self.passed += 1
        if self.passed != self._number:
            return
        sys.stderr.write(f"failpoint {self.passed}: {place}\n")
        sys.stderr.flush()
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._action == "hang":
            time.sleep(3600)
        raise FailpointReached(place)


def _nothing(place: str) -> None:
    """Pass the place."""


def _armed(text: str) -> Callable[[str], None]:
    number, _, action = text.partition(":")
    return _Counter(int(number), action).hit


#: whether any place does anything in this process
ARMED = VARIABLE in os.environ
#: called at each place with its name, `sql.before` or `ledger.after`
hit: Callable[[str], None] = _armed(os.environ[VARIABLE]) if ARMED else _nothing

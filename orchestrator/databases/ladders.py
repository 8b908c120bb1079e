"""How often, and after what pause, a job is tried again at once: decisions only, nobody sleeps here."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable

from orchestrator.databases import faults
from orchestrator.outcomes import Failure, FailureKind

#: of `timeouts.lock`, what the first, second … try may wait for each lock: an application that queues behind a
#: waiting ALTER stands still for one such wait, so there are many short ones
LOCK_SHARES = (0.2, 0.5, 1.0, 1.0, 1.0, 1.0)

#: seconds before each further try
Pauses = tuple[float, ...]
_BUSY: Pauses = (0.2, 0.5, 1.0, 2.0, 3.0)
#: the other transaction is done when we are told that we lost
_CONFLICT: Pauses = (0.2, 0.5, 1.0, 2.0)
_LOST: Pauses = (0.2, 0.5)
_ONCE: Pauses = (0.2,)
_NEVER: Pauses = ()
#: every pause is made up to so much shorter or longer, so that jobs which failed together do not come back together
_JITTER = 0.25

#: codes of ours that have had their wait, or that a further try would not change
_WAITED = frozenset({"tenant_locked", "lock_lost"})


class Ladder:
    """The tries of one job. Each kind of failure has its own rungs, so one job cannot go on for ever."""

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._jitter = jitter
        self._taken: collections.Counter[Pauses] = collections.Counter()
        #: with the one that is going on
        self.tries = 1

    @property
    def lock_share(self) -> float:
        """Of `timeouts.lock`, what the present try may wait."""
        return LOCK_SHARES[min(self.tries, len(LOCK_SHARES)) - 1]

    def pause_after(self, failure: Failure, *, settled: bool) -> float | None:
        """Seconds until the next try, None when there is none; `settled`: the version was read after the failure."""
        pauses = _pauses(failure, settled=settled)
        taken = self._taken[pauses]
        if taken >= len(pauses):
            return None
        self._taken[pauses] += 1
        self.tries += 1
        return pauses[taken] * self._jitter(1 - _JITTER, 1 + _JITTER)


def _pauses(failure: Failure, *, settled: bool) -> Pauses:
    if failure.crowded or failure.code in _WAITED:
        return _NEVER
    if failure.kind is FailureKind.AMBIGUOUS:
        # Our own pause was too long: it would be so again.
        return _LOST if settled and failure.code not in faults.IDLE_CODES else _NEVER
    if failure.kind is FailureKind.PERMANENT:
        # A fail-over leaves the name with a new address; a resolver that is restarted knows nobody for a moment.
        return _ONCE if failure.code in faults.MOVED_CODES else _NEVER
    if failure.kind is not FailureKind.TRANSIENT:
        return _NEVER
    if failure.code is None:
        return _ONCE
    return _CONFLICT if failure.code in faults.CONFLICT_CODES else _BUSY

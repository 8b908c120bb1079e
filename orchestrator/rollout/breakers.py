"""A server that is down: keep jobs away from it, and try it with one job now and then."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from orchestrator.outcomes import Outcome
from orchestrator.plans import Job
from orchestrator.rollout.delays import Clock


class _State(enum.Enum):
    CLOSED = enum.auto()
    #: one job at a time, each after the next delay
    OPEN = enum.auto()
    #: the delays are used up, but other servers have work: no verdict before the run waits for nothing else
    SPENT = enum.auto()
    #: for the rest of the run
    GIVEN_UP = enum.auto()


class Breaker:
    """Whether one server takes jobs. Closed it takes all; once open, a probe at a time."""

    def __init__(self, delays: Sequence[float], clock: Clock) -> None:
        self._delays = tuple(delays)
        self._clock = clock
        self._state = _State.CLOSED
        #: delays that were begun since it opened
        self._begun = 0
        self._probe_at = 0.0
        self._failed_at = 0.0
        #: target that is trying the server now
        self._probe: str | None = None
        self._had_last_probe = False
        #: the job that opened it, and what came of it
        self.opener: tuple[Job, Outcome] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether all is well."""
        return self._state is _State.CLOSED

    @property
    def is_spent(self) -> bool:
        """Whether the delays are used up, and the verdict is still to come."""
        return self._state is _State.SPENT

    @property
    def wakes_at(self) -> float | None:
        """When the next probe may start, None when no moment changes anything."""
        return self._probe_at if self._state is _State.OPEN and self._probe is None else None

    def admits(self) -> bool:
        """Whether a job may start now."""
        if self._state is _State.OPEN:
            return self._probe is None and self._clock.now() >= self._probe_at
        return self._state is _State.CLOSED

    def start(self, job: Job) -> None:
        """A job starts: while this is open it is the probe."""
        if self._state is _State.OPEN:
            self._probe = job.target

    def succeed(self) -> None:
        """The server answered a job."""
        if self._state is not _State.GIVEN_UP:
            self._state, self._probe, self.opener = _State.CLOSED, None, None
            self._had_last_probe = False

    def fail(self, job: Job, outcome: Outcome) -> None:
        """The server failed a job: open, or wait for the next delay if that was the probe."""
        if self._state is _State.CLOSED:
            self.opener = (job, outcome)
            self._begun = 0
            self._wait_for_next()
        elif self._probe == job.target:
            self._wait_for_next()

    def probe_last(self) -> bool:
        """Try once more before the verdict, if the last probe is long ago; whether a probe may start now."""
        now = self._clock.now()
        long_ago = bool(self._delays) and now >= self._failed_at + self._delays[-1]
        if not self.is_spent or self._had_last_probe or not long_ago:
            return False
        self._had_last_probe = True
        self._state, self._probe_at = _State.OPEN, now
        return True

    def give_up(self) -> None:
        """Take no more jobs in this run."""
        self._state = _State.GIVEN_UP

    def _wait_for_next(self) -> None:
        self._probe, self._failed_at = None, self._clock.now()
        if self._begun == len(self._delays):
            self._state = _State.SPENT
            return
        self._state = _State.OPEN
        self._probe_at = self._failed_at + self._clock.spread(self._delays[self._begun])
        self._begun += 1

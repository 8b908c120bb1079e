"""A server without room for more connections: fewer jobs at once, then slowly more again."""

from __future__ import annotations

from orchestrator.rollout.delays import Clock

#: seconds without new jobs after a server was found crowded, doubled while it stays so
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0


class Throttle:
    """How many jobs one server takes at once: half as many when it is crowded, one more after that many answers."""

    def __init__(self, limit: int, patience: float, clock: Clock) -> None:
        # A cap below one could never be waited out.
        self._limit = self.cap = max(1, limit)
        self._patience = patience
        self._clock = clock
        #: number of halvings so far
        self._halved = 0
        #: halvings so far when a target's job started
        self._started: dict[str, int] = {}
        self._answers = 0
        self._crowded_in_a_row = 0
        self._pauses_until = 0.0
        #: since when it has been crowded with one job at a time
        self._choked_at: float | None = None

    @property
    def wakes_at(self) -> float:
        """When the pause ends."""
        return self._pauses_until

    def admits(self, running: int) -> bool:
        """Whether one more job may start now."""
        return running < self.cap and self._clock.now() >= self._pauses_until

    def start(self, target: str) -> None:
        """A job starts."""
        self._started[target] = self._halved

    def succeed(self) -> None:
        """The server answered a job."""
        self._crowded_in_a_row, self._choked_at = 0, None
        self._answers += 1
        if self._answers >= self.cap:
            self.cap, self._answers = min(self._limit, self.cap + 1), 0

    def crowd(self, target: str) -> None:
        """The server had no room for this target's job."""
        # Jobs that started together come back together: they are one sign that there were too many, not many signs.
        if self._started.get(target, 0) < self._halved:
            return
        if self.cap == 1 and self._choked_at is None:
            self._choked_at = self._clock.now()
        self._halved += 1
        self.cap, self._answers = max(1, self.cap // 2), 0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._crowded_in_a_row)
        self._crowded_in_a_row = min(10, self._crowded_in_a_row + 1)
        self._pauses_until = self._clock.now() + self._clock.spread(pause)

    @property
    def is_choked(self) -> bool:
        """Whether it has had no room for a single job for too long."""
        return self._choked_at is not None and self._clock.now() - self._choked_at >= self._patience

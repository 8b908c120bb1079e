"""What a run knows about each server: whether it is up, and how many jobs it takes."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.outcomes import Reason
from orchestrator.plans import Plan
from orchestrator.rollout.breakers import Breaker
from orchestrator.rollout.delays import Clock
from orchestrator.rollout.throttles import Throttle
from orchestrator.strategy import AUTO_SERVER_CAP

#: what targets in files have for a server; a file is none, so its faults are no other target's
FILES = "sqlite"


class Server:
    """One server as this run sees it."""

    def __init__(self, breaker: Breaker, throttle: Throttle) -> None:
        self.breaker = breaker
        self.throttle = throttle
        #: why its jobs are put off to another run, None while it takes some
        self.given_up: Reason | None = None

    @property
    def wakes_at(self) -> float | None:
        """From when a job may start, None when no moment changes anything."""
        if self.given_up or (not self.breaker.is_closed and self.breaker.wakes_at is None):
            return None
        return max(self.throttle.wakes_at, self.breaker.wakes_at or 0.0)

    def admits(self, running: int) -> bool:
        """Whether one more job may start now."""
        return self.given_up is None and self.breaker.admits() and self.throttle.admits(running)

    def give_up(self, reason: Reason) -> None:
        """Take no more jobs in this run."""
        self.breaker.give_up()
        self.given_up = reason


class Servers:
    """The servers of a plan, by name."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._caps = plan.server_caps
        self._delays = plan.retries.server
        self._clock = clock
        self._known: dict[str, Server] = {}

    def __getitem__(self, name: str) -> Server:
        if name not in self._known:
            limit = self._caps.get(name, self._caps.get("*", AUTO_SERVER_CAP))
            self._known[name] = Server(
                Breaker(self._delays, self._clock), Throttle(limit, sum(self._delays), self._clock)
            )
        return self._known[name]

    @property
    def given_up(self) -> Iterator[tuple[str, Reason]]:
        """Servers that take no more jobs, and why."""
        return ((name, server.given_up) for name, server in list(self._known.items()) if server.given_up)

    @property
    def spent(self) -> list[tuple[str, Server]]:
        """Servers that failed every probe."""
        return [(name, server) for name, server in self._known.items() if server.breaker.is_spent]

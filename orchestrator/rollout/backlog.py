"""Which job may run next, and how many failures are too many."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

from orchestrator.outcomes import FAILING, FailureKind, Outcome, some_names
from orchestrator.plans import Job, Plan
from orchestrator.strategy import AUTO_SERVER_CAP


class Budget:
    """Failures so far against how many are tolerated; a server that is down counts once."""

    def __init__(self, place: str, limit: int | None) -> None:
        self._place = place
        self._limit = limit
        self._counted: dict[str, Outcome] = {}

    def add(self, outcome: Outcome) -> None:
        """Count the outcome if it is a failure."""
        if outcome.status not in FAILING:
            return
        down = outcome.failure is not None and outcome.failure.kind is FailureKind.SERVER
        self._counted.setdefault(f"server {outcome.server}" if down else f"target {outcome.target}", outcome)

    def overdraft(self) -> str | None:
        """What to say when the failures exceed the limit, None while they do not."""
        if self._limit is None or len(self._counted) <= self._limit:
            return None
        failed = list(self._counted.values())
        noun = "failure exceeds" if len(failed) == 1 else "failures exceed"
        return f"{len(failed)} {noun} max_failures {self._limit} of {self._place}: {some_names(failed)}"


class Backlog:
    """Jobs whose turn has not come: by server and in plan order, or behind the targets that must be done first."""

    def __init__(self, plan: Plan) -> None:
        self._caps = plan.server_caps
        self._order = {job.target: index for index, job in enumerate(plan.jobs)}
        self._ready: dict[str, list[tuple[int, Job]]] = {}
        self._running: Counter[str] = Counter()
        #: names that a blocked job still waits for, by its target
        self._needs: dict[str, set[str]] = {}
        self._behind: dict[str, list[Job]] = {}

    def add(self, job: Job, unmet: Iterable[str] = ()) -> None:
        """Take in a job that may start once the targets named in `unmet` are done."""
        needs = set(unmet)
        if not needs:
            heapq.heappush(self._ready.setdefault(job.server, []), (self._order[job.target], job))
            return
        self._needs[job.target] = needs
        for name in needs:
            self._behind.setdefault(name, []).append(job)

    def take(self) -> Job | None:
        """The next job that may run now: from the server with the fewest in flight, then in plan order."""
        free = [server for server, queue in self._ready.items() if queue and self._running[server] < self._cap(server)]
        if not free:
            return None
        server = min(free, key=lambda name: (self._running[name], self._ready[name][0][0]))
        self._running[server] += 1
        return heapq.heappop(self._ready[server])[1]

    def leave(self, job: Job) -> None:
        """The job is no longer in flight."""
        self._running[job.server] -= 1

    def unblock(self, target: str) -> None:
        """The target is done: jobs that waited for nothing else become ready."""
        for job in self._blocked_by(target):
            self._needs[job.target].discard(target)
            if not self._needs[job.target]:
                del self._needs[job.target]
                self.add(job)

    def drop(self, target: str) -> list[Job]:
        """The target will not be done: take out the jobs that waited for it."""
        dropped = self._blocked_by(target)
        for job in dropped:
            del self._needs[job.target]
        return dropped

    def take_stuck(self) -> list[Job]:
        """Take out the jobs that still wait for another one."""
        blocked = {job.target: job for jobs in self._behind.values() for job in jobs if job.target in self._needs}
        self._needs.clear()
        return sorted(blocked.values(), key=lambda job: self._order[job.target])

    def _blocked_by(self, target: str) -> list[Job]:
        return [job for job in self._behind.pop(target, ()) if job.target in self._needs]

    def _cap(self, server: str) -> int:
        # A cap below one could never be waited out.
        return max(1, self._caps.get(server, self._caps.get("*", AUTO_SERVER_CAP)))

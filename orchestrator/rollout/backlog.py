"""Which job may run next."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from orchestrator.plans import Job, Plan
from orchestrator.rollout.delays import Delays
from orchestrator.rollout.servers import Servers


class Backlog:
    """Jobs whose turn has not come: by server and in plan order, behind other targets, or until some moment."""

    def __init__(self, plan: Plan, servers: Servers) -> None:
        self._servers = servers
        self._order = {job.target: index for index, job in enumerate(plan.jobs)}
        self._ready: dict[str, list[tuple[int, int, Job]]] = {}
        self._delays = Delays()
        self._running: Counter[str] = Counter()
        #: names that a blocked job still waits for, by its target
        self._needs: dict[str, set[str]] = {}
        self._behind: dict[str, list[Job]] = {}

    def add(self, job: Job, unmet: Iterable[str] = (), *, rank: int = 0) -> None:
        """Take in a job that may start once the targets named in `unmet` are done, after those of a lower rank."""
        needs = set(unmet)
        if not needs:
            entry = (rank, self._order[job.target], job)
            heapq.heappush(self._ready.setdefault(job.server, []), entry)
            return
        self._needs[job.target] = needs
        for name in needs:
            self._behind.setdefault(name, []).append(job)

    def delay(self, job: Job, due: float) -> None:
        """Take in a job that may not start before that moment."""
        self._delays.add(job, due)

    def wake(self, now: float) -> None:
        """Make the jobs ready whose moment has come."""
        for job in self._delays.take(now):
            # Fresh jobs first: whoever was in this one's way may still be.
            self.add(job, rank=1)

    def next_turn(self, now: float) -> float | None:
        """The next moment that may make a job ready, None when there is none to come."""
        return min((moment for moment in self._turns() if moment > now), default=None)

    def has_turns(self) -> bool:
        """Whether a job is ready, or will be by itself."""
        return any(True for _ in self._turns())

    def _turns(self) -> Iterator[float]:
        moments = [self._servers[name].wakes_at for name, queue in self._ready.items() if queue]
        moments.append(self._delays.next_due)
        return (moment for moment in moments if moment is not None)

    def take(self) -> Job | None:
        """The next job that may run now: from the server with the fewest in flight, then in plan order."""
        waiting = [name for name, queue in self._ready.items() if queue]
        free = [name for name in waiting if self._servers[name].admits(self._running[name])]
        if not free:
            return None
        server = min(free, key=lambda name: (self._running[name], self._ready[name][0][:2]))
        self._running[server] += 1
        return heapq.heappop(self._ready[server])[2]

    def take_out(self, server: str) -> list[Job]:
        """Take out the jobs of a server that wait for nothing but their turn."""
        jobs = [job for _, _, job in self._ready.pop(server, ())] + self._delays.take_out(server)
        return sorted(jobs, key=lambda job: self._order[job.target])

    def withdraw(self, target: str) -> Job | None:
        """Take out the job of one target, whatever it waits for; None when it waits for nothing here."""
        for queue in self._ready.values():
            for entry in queue:
                if entry[2].target == target:
                    queue.remove(entry)
                    heapq.heapify(queue)
                    return entry[2]
        if target in self._needs:
            del self._needs[target]
            return next(job for jobs in self._behind.values() for job in jobs if job.target == target)
        return self._delays.withdraw(target)

    def extend(self, jobs: Iterable[Job]) -> None:
        """Give places behind all others to jobs that were not in the plan."""
        for job in jobs:
            self._order.setdefault(job.target, len(self._order))

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

"""Time as a run sees it, and the jobs that wait for theirs."""

from __future__ import annotations

import datetime
import heapq
import itertools
import random
import time
from queue import SimpleQueue
from typing import TypeVar

from orchestrator.plans import Job

#: how far a delay may be from what was asked for, so that many jobs do not come back at once
JITTER = 0.25

Item = TypeVar("Item")


class Clock:
    """Time as a run sees it, and waits for it; through this only, so that a test can let it pass."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def utc(self) -> datetime.datetime:
        """What a clock on the wall says, for windows and for what a later runner has to know."""
        return datetime.datetime.now(datetime.UTC)

    def receive(self, inbox: SimpleQueue[Item], seconds: float) -> Item:
        """The next item; raises `queue.Empty` when none comes in so many seconds."""
        return inbox.get(timeout=seconds)

    def spread(self, seconds: float) -> float:
        """About so many seconds."""
        return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter, not a secret


class Delays:
    """Jobs by the moment from which they may run again."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        # Jobs cannot be compared, so no two entries may be equal before them.
        self._numbers = itertools.count()

    def add(self, job: Job, due: float) -> None:
        """Keep the job until then."""
        heapq.heappush(self._heap, (due, next(self._numbers), job))

    def take(self, now: float) -> list[Job]:
        """Take out the jobs whose moment has come."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def take_out(self, server: str) -> list[Job]:
        """Take out the jobs of a server, whatever their moment."""
        found = [job for _, _, job in self._heap if job.server == server]
        if found:
            self._heap = [entry for entry in self._heap if entry[2].server != server]
            heapq.heapify(self._heap)
        return found

    def withdraw(self, target: str) -> Job | None:
        """Take out the job of one target; None when there is none."""
        found = next((entry for entry in self._heap if entry[2].target == target), None)
        if found is None:
            return None
        self._heap.remove(found)
        heapq.heapify(self._heap)
        return found[2]

    @property
    def next_due(self) -> float | None:
        """When the first one may run again."""
        return self._heap[0][0] if self._heap else None

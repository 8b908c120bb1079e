"""How to roll out: how many jobs at once, and how many failures are too many."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from orchestrator.plans import Retries

#: jobs in flight on one server unless `servers:` says otherwise (DESIGN: "at most 8 per server")
AUTO_SERVER_CAP = 8
AUTO_JOBS_PER_CORE = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many failures are tolerated: a count, or a percent of the jobs due, rounded down."""

    count: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str | int) -> Budget:
        """`3` or `2%`; raises ValueError for anything else."""
        raw = str(text).strip()
        if raw.endswith("%"):
            percent = float(raw[:-1])
            if not 0 <= percent <= 100:
                raise ValueError(f"{raw} is not between 0% and 100%")
            return cls(percent=percent)
        count = int(raw)
        if count < 0:
            raise ValueError(f"{raw} is negative")
        return cls(count=count)

    def of(self, due: int) -> int:
        """Failures tolerated among so many jobs."""
        if self.percent is not None:
            return int(due * self.percent / 100)
        return self.count or 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaveRule:
    """One wave of a strategy as written; sizing and gates act in rollouts by waves."""

    name: str
    size: str | None = None
    selector: str | None = None
    concurrency: int | None = None
    max_failures: Budget | None = None
    #: keys that are checked now and act with waves: pause, gate, order_by, growth, strict, window
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A named way to roll out; the built-in `default` runs everything in one wave and tolerates no failure."""

    name: str = "default"
    #: None for `auto`
    concurrency: int | None = None
    max_failures: Budget = Budget(count=0)
    waves: tuple[WaveRule, ...] = ()
    retries: Retries = dataclasses.field(default_factory=Retries)
    #: keys that are checked now and act with rollouts by waves: strict, order_by, transaction, window, freeze, deadline
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def jobs_at_once(self) -> int:
        """Jobs in flight at once; `auto` is four times the cores of this process."""
        return self.concurrency or AUTO_JOBS_PER_CORE * len(os.sched_getaffinity(0))

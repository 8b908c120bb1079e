"""How to roll out: how many jobs at once, and how many failures are too many."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping

from orchestrator.plans import Gate, Retries
from orchestrator.redaction import scrub
from orchestrator.tenants import Transaction

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

    def __str__(self) -> str:
        # All digits: who reads it again must come to the same number of failures.
        return str(self.count or 0) if self.percent is None else f"{self.percent!r}".removesuffix(".0") + "%"

    def of(self, due: int) -> int:
        """Failures tolerated among so many jobs."""
        if self.percent is not None:
            return int(due * self.percent / 100)
        return self.count or 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many tenants a wave takes: a count, or those whose stable hash lies within a percentage."""

    count: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str | int) -> Size:
        """`10` or `10%`; raises ValueError for anything else."""
        raw = str(text).strip()
        if raw.endswith("%"):
            percent = float(raw[:-1])
            if not 0 < percent <= 100:
                raise ValueError(f"{raw} is not above 0% and at most 100%")
            return cls(percent=percent)
        count = int(raw)
        if count < 1:
            raise ValueError(f"{raw} is less than one")
        return cls(count=count)


class Growth(enum.StrEnum):
    """How the waves that one rule stands for grow."""

    #: each takes ten times as many as the one before
    EXPONENTIAL = "exponential"
    #: each takes as many as the one before
    LINEAR = "linear"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """What must hold after a wave, as written: variables such as `${TOKEN}` are not filled in."""

    command: tuple[str, ...] | None = None
    sql: str | None = None
    http: str | None = None
    #: of a query: `each` upgraded target, or None for `url`
    on: str | None = None
    #: database that a query is sent to
    url: str | None = None
    #: expected of an HTTP answer; None for any from 200 to 299
    status: int | None = None
    #: path to a true value in the JSON of an HTTP answer, `checks.0.ok`
    path: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: seconds that one measurement may take
    timeout: float = 30.0
    #: seconds between two measurements
    interval: float = 10.0
    #: measurements that must all pass
    count: int = 1

    @property
    def kind(self) -> str:
        """`command`, `sql` or `http`."""
        if self.command is not None:
            return "command"
        return "sql" if self.sql is not None else "http"

    def described(self) -> Gate:
        """What of it may be shown and kept: no header's value, no URL's password."""
        written = json.dumps(dataclasses.asdict(self), sort_keys=True, default=list)
        text = shlex.join(self.command) if self.command is not None else self.sql or self._address()
        return Gate(
            kind=self.kind,
            text=scrub(text),
            on=self.on,
            timeout=self.timeout,
            interval=self.interval,
            count=self.count,
            digest=hashlib.sha256(written.encode()).hexdigest()[:16],
        )

    def _address(self) -> str:
        """The URL without user, password, query and fragment."""
        scheme, _, rest = (self.http or "").partition("://")
        place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
        return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaveRule:
    """One wave of a strategy as written; several where it grows."""

    name: str
    size: Size | None = None
    selector: str | None = None
    growth: Growth | None = None
    #: label by whose value the jobs of the wave are ordered
    order_by: str | None = None
    concurrency: int | None = None
    #: None: 0, or no limit of its own for the last wave
    max_failures: Budget | None = None
    #: never more jobs in flight than failures left plus one; None: as the strategy says
    strict: bool | None = None
    #: seconds, or `UNTIL_CONTINUED`
    pause: float | str | None = None
    gate: GateRule | None = None
    #: as `windows.Window.parse` reads them; any of them admits, an empty one always; None: as the strategy says
    window: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A named way to roll out; the built-in `default` runs everything in one wave and tolerates no failure."""

    name: str = "default"
    #: None for `auto`
    concurrency: int | None = None
    max_failures: Budget = Budget(count=0)
    waves: tuple[WaveRule, ...] = ()
    retries: Retries = dataclasses.field(default_factory=Retries)
    strict: bool = False
    #: how much one transaction holds, instead of what the targets say
    transaction: Transaction | None = None
    #: label by whose value jobs are ordered, in waves that do not say otherwise
    order_by: str | None = None
    #: for waves that have none
    window: tuple[str, ...] = ()
    #: days, and spans of days, on which nothing is started; as `windows.Freeze.parse` reads them
    freeze: tuple[str, ...] = ()
    #: seconds after which a run starts nothing more
    deadline: float | None = None
    #: look at the end for tenants that have joined meanwhile
    sweep: bool = False

    def jobs_at_once(self) -> int:
        """Jobs in flight at once; `auto` is four times the cores of this process."""
        return self.concurrency or AUTO_JOBS_PER_CORE * len(os.sched_getaffinity(0))

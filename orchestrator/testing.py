"""Builders, fakes and contract suites for tests of code that uses, or extends, the orchestrator.

```python
from orchestrator import rollout, testing

def test_my_listener():
    plan = testing.a_plan("acme", "globex")
    executor = testing.ScriptedExecutor({"globex": Status.FAILED})
    ledger = testing.MemoryLedger()
    run = ledger.open_run(plan, operator="me", fleet=2)
    conclusion = rollout.execute(run.id, plan, executor.submit, ledger, [my_listener])
```

`ExecutorContract`, `IsolatingExecutorContract` and `LedgerContract` are test classes to inherit from.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import URL, make_url

from orchestrator.events import Event
from orchestrator.executors.contract import SCRIPTED, ExecutorContract, IsolatingExecutorContract, act
from orchestrator.ledger import MemoryLedger, MemoryStore
from orchestrator.ledger.contract import LedgerContract
from orchestrator.outcomes import Failure, FailureKind, Outcome, Status
from orchestrator.plans import Command, Job, Plan, Retries, Wave
from orchestrator.rollout import Clock
from orchestrator.tenants import Target, Tenant

__all__ = [
    "NO_RETRIES",
    "SCRIPTED",
    "ExecutorContract",
    "FakeClock",
    "IsolatingExecutorContract",
    "LedgerContract",
    "MemoryLedger",
    "MemoryStore",
    "RecordingListener",
    "ScriptedExecutor",
    "a_failure",
    "a_job",
    "a_plan",
    "a_target",
    "a_wave",
    "act",
    "an_outcome",
]

Script: TypeAlias = Status | Outcome | Exception
Item = TypeVar("Item")

#: every job is tried once
NO_RETRIES = Retries(busy=(), server=(), lost=0)


def a_target(name: str = "acme", url: str | URL = "sqlite:///acme.db", **fields: Any) -> Target:
    """A target; `name` may be `tenant/database`, `labels` goes to its tenant."""
    tenant, _, database = name.partition("/")
    labels = fields.pop("labels", {})
    return Target(tenant=Tenant(name=tenant, labels=labels), database=database or None, url=make_url(url), **fields)


def a_job(target: str = "acme", **fields: Any) -> Job:
    """An upgrade of that target by one revision."""
    tenant, _, database = target.partition("/")
    defaults = {
        "tenant": tenant,
        "database": database or None,
        "server": "db.internal:5432",
        "command": Command.UPGRADE,
        "found": ("r001",),
        "wanted": ("r002",),
        "path": ("r002",),
        "wave": "all",
    }
    return Job(target=target, **{**defaults, **fields})


def a_failure(kind: FailureKind = FailureKind.PERMANENT, **fields: Any) -> Failure:
    """A violated unique constraint."""
    defaults = {
        "code": "23505",
        "type": "UniqueViolation",
        "message": "could not create unique index",
        "revision": "r002",
        "fingerprint": "23505:r002",
    }
    return Failure(kind=kind, **{**defaults, **fields})


def an_outcome(target: str | Job = "acme", status: Status = Status.UPGRADED, **fields: Any) -> Outcome:
    """What happened to `a_job(target)`: at its revision when upgraded, with a failure when failed or lost."""
    job = a_job(target) if isinstance(target, str) else target
    known: dict[str, Any] = {}
    if status is Status.UPGRADED:
        known = {"at": job.wanted, "applied": job.path}
    elif status is Status.UNCHANGED:
        known = {"at": job.wanted}
    elif status is Status.FAILED:
        known = {"at": job.found, "failure": a_failure()}
    elif status is Status.LOST:
        known = {"failure": a_failure(FailureKind.AMBIGUOUS, code="worker_lost", type="WorkerLost")}
    return job.outcome(status, **{**known, **fields})


def a_wave(*jobs: str | Job, name: str = "all", concurrency: int = 4, **fields: Any) -> Wave:
    """A wave of those jobs."""
    named = tuple(a_job(job, wave=name) if isinstance(job, str) else job for job in jobs)
    return Wave(name=name, jobs=named, concurrency=concurrency, **fields)


def a_plan(*parts: str | Job | Wave, settled: Sequence[Outcome] = (), **fields: Any) -> Plan:
    """A plan of those waves; targets and jobs beside them stand together in one wave that comes first.

    Each job is tried once, unless `retries` says otherwise: pass a `FakeClock` to `rollout.execute` then.
    """
    waves = [part for part in parts if isinstance(part, Wave)]
    jobs = [part for part in parts if not isinstance(part, Wave)]
    if jobs:
        waves.insert(0, a_wave(*jobs))
    defaults = {
        "project": "billing",
        "environment": "test",
        "command": Command.UPGRADE,
        "asked": "head",
        "revision": ("r002",),
        "strategy": "default",
        "retries": NO_RETRIES,
    }
    return Plan(waves=tuple(waves), settled=tuple(settled), **{**defaults, **fields})


class ScriptedExecutor:
    """An executor that runs nothing and answers at once, as told for each target; `upgraded` where nothing is told.

    A list tells one answer for each try, and its last one holds for all further tries. With `hold=True` futures stay
    open until `finish` is called for their target.
    """

    def __init__(self, script: Mapping[str, Script | list[Script]] | None = None, *, hold: bool = False) -> None:
        self._script = {
            target: [*told] if isinstance(told, list) else [told] for target, told in (script or {}).items()
        }
        self._hold = hold
        self._open: dict[str, tuple[Job, Future[Outcome]]] = {}
        #: every job that was submitted, in order
        self.submitted: list[Job] = []
        #: whether `close` was called, and whether by force
        self.closed = False
        self.cancelled = False

    @property
    def in_flight(self) -> tuple[str, ...]:
        """Targets whose futures are open, in the order of submission."""
        return tuple(self._open)

    def submit(self, job: Job) -> Future[Outcome]:
        """Answer as told."""
        future: Future[Outcome] = Future()
        self.submitted.append(job)
        self._open[job.target] = (job, future)
        if not self._hold:
            self.finish(job.target)
        return future

    def finish(self, target: str, script: Script | None = None) -> None:
        """End the job of that target, as told here or else at the beginning."""
        job, future = self._open.pop(target)
        answer = script or self._next_answer(target)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(an_outcome(job, answer) if isinstance(answer, Status) else answer)

    def _next_answer(self, target: str) -> Script:
        told = self._script.get(target, [Status.UPGRADED])
        return told.pop(0) if len(told) > 1 else told[0]

    def close(self, *, cancel: bool = False) -> None:
        """End what is open: as told, or as lost with `cancel`."""
        self.closed, self.cancelled = True, self.cancelled or cancel
        for target in self.in_flight:
            self.finish(target, Status.LOST if cancel else None)


#: when a fake clock begins, unless it is told
_SUNDAY_MORNING = datetime.datetime(2026, 11, 22, 7, 31, tzinfo=datetime.UTC)


class FakeClock(Clock):
    """Time that passes at once, and only while a run waits; delays are exactly as long as they were meant."""

    def __init__(self, began: datetime.datetime = _SUNDAY_MORNING) -> None:
        #: seconds that have passed
        self.seconds = 0.0
        self.began = began

    def now(self) -> float:
        """Seconds that have passed."""
        return self.seconds

    def utc(self) -> datetime.datetime:
        """When it began, and the seconds that have passed since."""
        return self.began + datetime.timedelta(seconds=self.seconds)

    def receive(self, inbox: SimpleQueue[Item], seconds: float) -> Item:
        """What is there already; otherwise the time passes."""
        try:
            return inbox.get_nowait()
        except Empty:
            self.seconds += seconds
            raise

    def spread(self, seconds: float) -> float:
        """Just so many seconds."""
        return seconds


class RecordingListener:
    """Remembers every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Remember the event."""
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        """Names of the events, in order."""
        return [type(event).__name__ for event in self.events]

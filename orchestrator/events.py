"""What a run tells its listeners as it goes: typed, frozen, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

from orchestrator.outcomes import Outcome, Report
from orchestrator.plans import Job, Plan

EVENT_FORMAT = "orchestrate.event/1"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The ledger holds the run; nothing has been touched yet."""

    run: str
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {
            "run": self.run,
            "plan_digest": self.plan.digest,
            "jobs": sum(1 for _ in self.plan.jobs),
            "settled": len(self.plan.settled),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaveStarted:
    """A wave begins to submit its jobs."""

    wave: str
    jobs: int

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {"wave": self.wave, "jobs": self.jobs}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """The ledger holds the intent; the job has been handed to the executor."""

    job: Job

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {"target": self.job.target, "wave": self.job.wave, "to": list(self.job.wanted)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobDeferred:
    """A try ended without a result, and the job went back to the queue; the ledger holds the try."""

    outcome: Outcome
    #: seconds until it may be tried again
    delay_s: float

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {"outcome": self.outcome.to_json(), "delay_s": self.delay_s}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished:
    """A job has an outcome, and the ledger holds it."""

    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {"outcome": self.outcome.to_json()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunHalted:
    """Nothing new starts; what is in flight ends."""

    #: `budget`, `interrupted`, `run_level` or `ledger`
    cause: str
    text: str
    in_flight: int
    not_started: int

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run is closed in the ledger."""

    report: Report

    def to_json(self) -> dict[str, Any]:
        """Fields of the event: the report without its outcomes, which were events of their own."""
        return {"report": {**self.report.to_json(), "outcomes": []}}


Event: TypeAlias = RunStarted | WaveStarted | JobStarted | JobDeferred | JobFinished | RunHalted | RunFinished
Listener: TypeAlias = Callable[[Event], None]


def event_json(event: Event) -> dict[str, Any]:
    """One line of `-o jsonl`."""
    return {"format": EVENT_FORMAT, "type": type(event).__name__, **event.to_json()}

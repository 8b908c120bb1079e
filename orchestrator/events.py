"""What a run tells its listeners as it goes: typed, frozen, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

from orchestrator.outcomes import GateResult, Outcome, Report
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
class WaveFinished:
    """All jobs of a wave have an outcome; its pause and its gate are to come."""

    wave: str

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {"wave": self.wave}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GateAnswered:
    """The gate of a wave has been asked."""

    wave: str
    result: GateResult

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {"wave": self.wave, "gate": self.result.to_json()}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunPaused:
    """Nothing new starts for now; what is in flight ends."""

    #: `bake` (a pause of some seconds), `person` (until somebody continues it) or `gate` (one that is inconclusive)
    cause: str
    text: str
    #: behind which wave, None in the middle of one
    wave: str | None = None
    #: how long, None until somebody says that it goes on
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunContinued:
    """The pause is over."""

    text: str

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChanged:
    """Somebody has changed how many failures are tolerated, of the run or of one wave."""

    wave: str | None
    max_failures: int | None

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobsAdded:
    """Tenants have joined since the plan was made; they follow as a wave of their own."""

    wave: str
    jobs: tuple[Job, ...]

    def to_json(self) -> dict[str, Any]:
        """Fields of the event."""
        return {"wave": self.wave, "targets": [job.target for job in self.jobs]}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunHalted:
    """Nothing new starts; what is in flight ends."""

    #: `budget`, `gate`, `paused`, `deferred`, `sweep`, `interrupted`, `run_level` or `ledger`
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


Event: TypeAlias = (
    RunStarted
    | WaveStarted
    | JobStarted
    | JobDeferred
    | JobFinished
    | WaveFinished
    | GateAnswered
    | RunPaused
    | RunContinued
    | BudgetChanged
    | JobsAdded
    | RunHalted
    | RunFinished
)
Listener: TypeAlias = Callable[[Event], None]


def event_json(event: Event) -> dict[str, Any]:
    """One line of `-o jsonl`."""
    return {"format": EVENT_FORMAT, "type": type(event).__name__, **event.to_json()}

"""What a run needs of the world outside its jobs: people, gates, and tenants that join."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias

from orchestrator.outcomes import GateResult, Outcome
from orchestrator.plans import Gate, Job
from orchestrator.rollout.controls import Mailbox


class Measurer(Protocol):
    """Asks gates; never raises."""

    def measure(self, wave: str, gate: Gate, done: Sequence[Outcome]) -> GateResult:
        """One measurement behind a wave that has brought these targets where they were wanted; blocks."""

    def close(self) -> None:
        """End what is being measured, from another thread."""


#: starts one measurement; cancelling the future need not end it
Ask: TypeAlias = Callable[[str, Gate, Sequence[Outcome]], Future[GateResult]]
#: jobs of tenants that have joined since, and outcomes of those that need none; given the targets that the run knows
Sweep: TypeAlias = Callable[[Collection[str]], Sequence[Job | Outcome]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The world outside the jobs, as a run meets it."""

    mailbox: Mailbox = dataclasses.field(default_factory=Mailbox)
    #: None where no gate can be asked: each is inconclusive then
    ask: Ask | None = None
    sweep: Sweep | None = None
    #: whether a run that waits for a person waits here; otherwise it ends, to be gone on with
    waits: bool = True

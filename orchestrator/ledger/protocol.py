"""The durable history of runs, jobs and outcomes: the story, never the truth (that is each target's version table)."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.errors import ExitCode
from orchestrator.outcomes import Outcome, RunStatus
from orchestrator.plans import Command, Job, Plan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a plan, as the ledger records it."""

    #: `r-20261122-073100-4f2a`: sorts by time
    id: str
    parent: str | None = None
    project: str
    environment: str
    command: Command
    revision: tuple[str, ...]
    strategy: str
    plan_digest: str
    operator: str
    status: RunStatus
    exit_code: ExitCode | None = None
    started_at: datetime.datetime
    finished_at: datetime.datetime | None = None
    #: targets in the selection
    size: int
    #: targets in the whole registry at that time, for the shrink guard
    fleet: int
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of one job."""

    number: int
    started_at: datetime.datetime
    finished_at: datetime.datetime | None = None
    #: None while it runs, or when its runner died
    outcome: Outcome | None = None


class Ledger(Protocol):
    """Where runs are written down. Every write is durable when the method returns; `LedgerError` when it cannot be."""

    def open_run(self, plan: Plan, *, operator: str, fleet: int, parent: str | None = None) -> Run:
        """Write the run, its jobs and the outcomes that are settled already, before any work."""

    def start(self, run: str, job: Job) -> int:
        """Write the intent to run a job; returns the number of this attempt, from 1."""

    def record(self, run: str, outcome: Outcome) -> None:
        """Write what happened to a job."""

    def close_run(self, run: str, status: RunStatus, exit_code: ExitCode, outcomes: Sequence[Outcome] = ()) -> Run:
        """Write how the run ended, with the outcomes of jobs that never started."""

    def runs(self, limit: int = 20) -> Sequence[Run]:
        """Runs of this project and environment, latest first."""

    def run(self, run: str | None = None) -> Run:
        """One run by its id or a unique beginning of it, the latest without one; `UsageError` when there is none."""

    def outcomes(self, run: str) -> Sequence[Outcome]:
        """The latest outcome of each target of a run, in the plan's order; targets without one are left out."""

    def attempts(self, run: str, target: str) -> Sequence[Attempt]:
        """All tries of one target in one run, first to last."""

    def fleet(self) -> int | None:
        """Size of the whole registry at the latest run, None before the first."""

    def close(self) -> None:
        """Release the connection."""

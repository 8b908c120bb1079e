"""The durable history of runs, jobs and outcomes: the story, never the truth (that is each target's version table)."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from orchestrator.errors import ExitCode
from orchestrator.outcomes import GateResult, Outcome, RunStatus, Verdict
from orchestrator.plans import Command, Job, Plan

#: a holder says so often that it lives, and is taken for dead after so long without
HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 20.0


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds, or wants, the lease."""

    #: `ann@build7`
    operator: str
    host: str
    pid: int
    #: names the process beyond doubt, also when its pid is used again; empty where the system does not tell
    birth: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run, for one project and environment; held by one process at a time, and kept by heartbeats."""

    #: fencing number: each holder has a higher one, and writes under a lower one are refused
    token: int
    holder: Holder
    #: the run that is live under it, None before there is one
    run: str | None = None


class StopRequest(enum.StrEnum):
    """What somebody else asked a live run to do."""

    #: start nothing more, let what is in flight finish
    DRAIN = "drain"
    #: cancel what is in flight as well
    NOW = "now"


class RequestKind(enum.StrEnum):
    """What a person may ask of a run, beside that it stops."""

    PAUSE = "pause"
    CONTINUE = "continue"
    #: leave one target alone: `target`, `reason`
    SKIP = "skip"
    #: tolerate so many failures: `max_failures`, and `wave` when it is of one wave
    BUDGET = "budget"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asked of a run: kept, so that it outlives a runner that dies before, or after, it has heard."""

    #: grows with each request
    id: int
    at: datetime.datetime
    operator: str
    kind: RequestKind
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaveMark:
    """How far a run is with one wave: what a later runner has to know that no outcome tells."""

    wave: str
    started_at: datetime.datetime | None = None
    #: when all of its jobs had ended; its pause counts from here
    finished_at: datetime.datetime | None = None
    #: id of the latest request when the run began to wait behind it: a later `continue` ends the waiting
    heard: int = 0
    gate: GateResult | None = None
    #: its pause is over, and its gate has passed or was overruled: the next wave may start
    passed: bool = False

    @property
    def has_answer(self) -> bool:
        """Whether its gate has passed by its own word, and not by that of a person."""
        return self.gate is not None and self.gate.verdict is Verdict.PASSED and not self.gate.is_overruled

    @property
    def holds(self) -> bool:
        """Whether what follows waits behind the wave; one without pause and gate passes with its last job."""
        return self.finished_at is not None and not self.passed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What has come to a run since somebody looked."""

    #: the next look goes on behind this
    last: int
    #: in the order of writing, also the tries that were put off; a target may have several
    outcomes: Sequence[Outcome]
    #: each target with an intent that no outcome followed, and since when; the longest first
    at_work: Mapping[str, datetime.datetime]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, and when; never changed and never removed."""

    at: datetime.datetime
    operator: str
    host: str
    #: the command: `upgrade`, `resume`, `abort`, `runs prune`
    action: str
    run: str | None = None
    #: plain values, nothing secret
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Ledger(Protocol):
    """Where runs are written down. Every write is durable when the method returns; `LedgerError` when it cannot be.

    Once a process has the lease, its writes to runs carry its fencing number: `LeaseLost` when another one has a
    higher one. A run that is `running` in the tables without a live lease on it is told as `interrupted`.
    """

    def acquire(self, holder: Holder, *, pause: Callable[[float], None] | None = None) -> Lease:
        """Take the lease of this project and environment; raises `LeaseHeld` with who holds it while that one lives.

        A holder that is dead for certain (its process on this machine is gone), or has not renewed for `LEASE_SECONDS`,
        loses it. Where that cannot be known yet this waits until it is, by `pause` between two looks; what that raises
        ends the waiting.
        """

    def renew(self, lease: Lease) -> StopRequest | None:
        """Say that the holder lives; returns what was asked of it. Raises `LeaseLost`. May be called from a thread."""

    def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens when it is another's already."""

    def live(self) -> Lease | None:
        """The lease as somebody alive holds it now, None when nobody does."""

    def request_stop(self, run: str, request: StopRequest) -> bool:
        """Ask the live runner of that run to stop; False when there is none."""

    def request(self, run: str, holder: Holder, kind: RequestKind, detail: Mapping[str, Any] = ...) -> Request:
        """Ask something of a run, whether a runner is live or comes later; it is kept with the run."""

    def requests(self, run: str) -> Sequence[Request]:
        """What was asked of a run, first to last. May be called from a thread."""

    def mark_wave(self, run: str, mark: WaveMark) -> None:
        """Write how far the run is with a wave, instead of what was written of that wave before."""

    def wave_marks(self, run: str) -> Sequence[WaveMark]:
        """How far a run is with each wave that it has reached, in the order in which they were reached."""

    def set_status(self, run: str, status: RunStatus) -> None:
        """Say that a live run is `paused`, for as long as it takes, or `running` again."""

    def note(self, holder: Holder, action: str, *, run: str | None = None, detail: Mapping[str, Any] = ...) -> None:
        """Add one row to the audit table."""

    def audit(self, limit: int = 50) -> Sequence[AuditEntry]:
        """Rows of the audit table, latest first."""

    def open_run(
        self, plan: Plan, *, operator: str, fleet: int, parent: str | None = None, lease: Lease | None = None
    ) -> Run:
        """Write the run, its jobs and the outcomes that are settled already, before any work; live under the lease."""

    def adopt_run(self, run: str, lease: Lease, *, reopen: bool = False) -> Run:
        """Let later writes to a run of before stand under this lease; with `reopen` it is `running`, live, unended."""

    def add_jobs(self, run: str, jobs: Sequence[Job]) -> None:
        """Add jobs to a run of before and to its plan, behind its own; those that it has already are left alone."""

    def plan(self, run: str) -> Plan:
        """The plan of a run as it was frozen, and the jobs that were added."""

    def open_runs(self) -> Sequence[Run]:
        """Runs that are running, paused, interrupted or halted, latest first."""

    def unsettled(self, run: str) -> Sequence[str]:
        """Targets with an intent that no outcome followed, in the plan's order."""

    def prune(self, *, keep: int = 0, before: datetime.datetime | None = None) -> Sequence[str]:
        """Delete closed runs but the `keep` latest runs, those of before that moment only; returns their ids.

        The latest run of all stays, as do runs that another run, which stays, has for its parent.
        """

    def start(self, run: str, job: Job) -> int:
        """Write the intent to run a job; returns the number of this attempt, from 1."""

    def record(self, run: str, outcome: Outcome) -> None:
        """Write what happened to a job."""

    def close_run(self, run: str, status: RunStatus, exit_code: ExitCode, outcomes: Sequence[Outcome] = ()) -> Run:
        """Write how the run ended, with those of the outcomes that it does not have yet."""

    def runs(self, limit: int = 20) -> Sequence[Run]:
        """Runs of this project and environment, latest first."""

    def run(self, run: str | None = None) -> Run:
        """One run by its id or a unique beginning of it, the latest without one; `UsageError` when there is none."""

    def outcomes(self, run: str) -> Sequence[Outcome]:
        """The latest outcome of each target of a run, in the plan's order; targets without one are left out."""

    def news(self, run: str, *, after: int = 0) -> News:
        """What was written of a run behind `after`, which is the `last` of an earlier look, and what is at work now."""

    def attempts(self, run: str, target: str) -> Sequence[Attempt]:
        """All tries of one target in one run, first to last."""

    def fleet(self) -> int | None:
        """Size of the whole registry at the latest run, or reconciliation where nothing was run; None before."""

    def close(self) -> None:
        """Release the connection."""

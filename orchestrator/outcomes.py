"""What happened to each job, and the report over a whole run."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.errors import ExitCode, TargetsFailed

REPORT_FORMAT = "orchestrate.report/1"


class Status(enum.StrEnum):
    """What happened to a job; every report counts every one of them."""

    UPGRADED = "upgraded"
    DOWNGRADED = "downgraded"
    STAMPED = "stamped"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    #: the worker died: settle it by reading the version table
    LOST = "lost"
    #: left alone on purpose; the reason says why
    SKIPPED = "skipped"
    #: to be picked up by a later run
    DEFERRED = "deferred"
    #: registered, but its database or schema does not exist
    NOT_PROVISIONED = "not_provisioned"
    NOT_STARTED = "not_started"


#: statuses that make a run fail
FAILING = frozenset({Status.FAILED, Status.LOST})
#: statuses in which the target is where it was wanted
DONE = frozenset({Status.UPGRADED, Status.DOWNGRADED, Status.STAMPED, Status.UNCHANGED})
#: code of a target that is at a revision which these scripts do not have
AHEAD = "unknown_revision"
#: reasons for leaving a target alone that mean that it has all that was wanted
_SATISFIED = frozenset({"at_head", "past"})


class FailureKind(enum.StrEnum):
    """What a failure asks for."""

    #: try again
    TRANSIENT = "transient"
    #: fail this target, go on with the others
    PERMANENT = "permanent"
    #: the whole server is affected
    SERVER = "server"
    #: nobody knows whether it happened: read the version, then decide
    AMBIGUOUS = "ambiguous"
    #: every target would fail alike: stop the run
    RUN = "run"


class RunStatus(enum.StrEnum):
    """State of a run; the first four are open."""

    RUNNING = "running"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    HALTED = "halted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a target was left as it is: a code for tools, a sentence for people."""

    #: `at_head`, `past`, `unknown_revision`, `unversioned`, `quarantined`, `suspended`, `dependency_failed`,
    #: `absent`, `server_down`, `crowded`, `retrying`, `halted`, `interrupted`, `concurrent`, `verified`, `moved`,
    #: `unregistered`, `superseded`, `aborted`, `observed`, `window`, `freeze`, `deadline`, `paused`, `skipped`
    code: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Two strings."""
        return {"code": self.code, "text": self.text}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job failed, without secrets and without the customer's data."""

    kind: FailureKind
    #: SQLSTATE, errno, SQLite's extended code, or a word of ours such as `tenant_locked`; None when there is none
    code: str | None = None
    #: class name of the driver's or Alembic's exception
    type: str
    message: str
    revision: str | None = None
    statement: str | None = None
    #: what to do next
    advice: str = ""
    #: equal for failures with one cause, whatever the target is called
    fingerprint: str = ""
    #: the server has no room for another connection: fewer jobs at once would do; known to the run only
    crowded: bool = False

    def to_json(self) -> dict[str, Any]:
        """As in the report."""
        return {
            "kind": self.kind.value,
            "code": self.code,
            "type": self.type,
            "message": self.message,
            "revision": self.revision,
            "statement": self.statement,
            "advice": self.advice,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        """Undo `to_json`."""
        return cls(**{**data, "kind": FailureKind(data["kind"])})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened to one target; made of plain values, so that it crosses processes."""

    target: str
    tenant: str
    database: str | None = None
    schema: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    server: str = ""
    wave: str | None = None
    status: Status
    #: heads found before the job
    found: tuple[str, ...] | None = None
    #: heads that were wanted
    wanted: tuple[str, ...] | None = None
    #: heads verified afterwards, None when unknown
    at: tuple[str, ...] | None = None
    #: revisions that this job applied or removed, in order
    applied: tuple[str, ...] = ()
    attempts: int = 0
    started_at: datetime.datetime | None = None
    duration_ms: float | None = None
    mode: str = "online"
    reason: Reason | None = None
    failure: Failure | None = None

    def satisfies(self, *, allow_ahead: bool) -> bool:
        """Whether targets that come after this one may start."""
        code = self.reason.code if self.reason else None
        has_all = code in _SATISFIED or (allow_ahead and code == AHEAD)
        return self.status in DONE or (self.status is Status.SKIPPED and has_all)

    @property
    def is_unread(self) -> bool:
        """Whether nobody could look at the target when the run was planned."""
        return self.at is None and self.reason is not None and self.reason.code in ("unreachable", "server_down")

    def to_json(self) -> dict[str, Any]:
        """As in the report: `found`, `wanted` and `at` are called `from`, `to` and `at` there."""
        return {
            "target": self.target,
            "tenant": self.tenant,
            "database": self.database,
            "schema": self.schema,
            "labels": dict(self.labels),
            "server": self.server,
            "wave": self.wave,
            "status": self.status.value,
            "from": _listed(self.found),
            "to": _listed(self.wanted),
            "at": _listed(self.at),
            "applied": list(self.applied),
            "attempts": self.attempts,
            "started_at": format_time(self.started_at),
            "duration_ms": None if self.duration_ms is None else round(self.duration_ms),
            "mode": self.mode,
            "reason": self.reason.to_json() if self.reason else None,
            "failure": self.failure.to_json() if self.failure else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Undo `to_json`."""
        same = ("target", "tenant", "database", "schema", "labels", "server", "wave", "attempts", "duration_ms", "mode")
        return cls(
            **{key: data[key] for key in same},
            status=Status(data["status"]),
            found=_tupled(data["from"]),
            wanted=_tupled(data["to"]),
            at=_tupled(data["at"]),
            applied=tuple(data["applied"]),
            started_at=parse_time(data["started_at"]),
            reason=Reason(**data["reason"]) if data["reason"] else None,
            failure=Failure.from_json(data["failure"]) if data["failure"] else None,
        )


class Verdict(enum.StrEnum):
    """What a gate came to."""

    PASSED = "passed"
    #: what it measures is not well: the run halts
    FAILED = "failed"
    #: it could not be measured: the run waits for a person
    INCONCLUSIVE = "inconclusive"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate came to, and why."""

    #: `command`, `sql` or `http`; `person` where somebody has overruled it
    kind: str
    verdict: Verdict
    #: what was measured, without secrets and customers' data
    text: str
    measurements: int = 1
    at: datetime.datetime | None = None

    @property
    def is_overruled(self) -> bool:
        """Whether a person has the word instead of what was measured."""
        return self.kind == "person"

    def to_json(self) -> dict[str, Any]:
        """As in the report."""
        return {
            "kind": self.kind,
            "verdict": self.verdict.value,
            "text": self.text,
            "measurements": self.measurements,
            "at": format_time(self.at),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GateResult:
        """Undo `to_json`."""
        return cls(**{**data, "verdict": Verdict(data["verdict"]), "at": parse_time(data["at"])})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WaveSummary:
    """How one wave ended."""

    name: str
    #: `succeeded`, `failed`, `deferred`, `halted`, `interrupted`, `paused` or `not_started`
    status: str
    counts: Mapping[str, int]
    gate: GateResult | None = None
    #: when its first job was submitted, and when its last one ended
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """As in the report."""
        return {
            "name": self.name,
            "status": self.status,
            "counts": dict(self.counts),
            "gate": None if self.gate is None else self.gate.to_json(),
            "started_at": format_time(self.started_at),
            "finished_at": format_time(self.finished_at),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All outcomes of a run, with counts and an exit code; written on every exit path."""

    run: str
    parent: str | None = None
    command: str
    #: concrete revision ids, of all chains
    revision: tuple[str, ...]
    project: str
    environment: str
    operator: str
    strategy: str
    plan_digest: str
    status: RunStatus
    exit_code: ExitCode
    started_at: datetime.datetime
    duration_s: float
    waves: tuple[WaveSummary, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of outcomes per status, zero where there are none."""
        return count(self.outcomes)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """Outcomes that failed or were lost."""
        return tuple(outcome for outcome in self.outcomes if outcome.status in FAILING)

    def raise_for_failures(self) -> None:
        """Raise `TargetsFailed` with the first few names unless the run ended with exit code 0."""
        if self.exit_code is ExitCode.OK:
            return
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.items() if number)
        raise TargetsFailed(f"run {self.run} {self.status}: {counts}; failed: {some_names(self.failures)}")

    def to_json(self) -> dict[str, Any]:
        """The report format `orchestrate.report/1`."""
        return {
            "format": REPORT_FORMAT,
            "run": self.run,
            "parent": self.parent,
            "command": self.command,
            "revision": list(self.revision),
            "project": self.project,
            "environment": self.environment,
            "operator": self.operator,
            "strategy": self.strategy,
            "plan_digest": self.plan_digest,
            "status": self.status.value,
            "exit_code": int(self.exit_code),
            "started_at": format_time(self.started_at),
            "duration_s": round(self.duration_s, 3),
            "counts": self.counts,
            "waves": [wave.to_json() for wave in self.waves],
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
        }


def count(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Number of outcomes per status, with every status in the order of `Status`."""
    counts = dict.fromkeys((status.value for status in Status), 0)
    for outcome in outcomes:
        counts[outcome.status.value] += 1
    return counts


def some_names(outcomes: Sequence[Outcome], limit: int = 5) -> str:
    """`acme, globex, initech and 37 more`."""
    names = ", ".join(outcome.target for outcome in outcomes[:limit])
    rest = len(outcomes) - limit
    return f"{names} and {rest} more" if rest > 0 else names or "none"


def format_time(moment: datetime.datetime | None) -> str | None:
    """ISO 8601 in UTC with a `Z`."""
    return None if moment is None else moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def parse_time(text: str | None) -> datetime.datetime | None:
    """Undo `format_time`."""
    return None if text is None else datetime.datetime.fromisoformat(text)


def _listed(heads: tuple[str, ...] | None) -> list[str] | None:
    return None if heads is None else list(heads)


def _tupled(heads: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if heads is None else tuple(heads)

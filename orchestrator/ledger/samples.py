"""Records to try a ledger out with: values in every field, awkward text where text may be."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from orchestrator.outcomes import Failure, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Command, Job, Plan, Wave

SERVER = "db.internal:5432"


def job(target: str, *, wave: str = "all") -> Job:
    """A job of a tenant that is two revisions behind."""
    return Job(
        target=target,
        tenant=target,
        schema=f"tenant_{target}",
        labels={"region": "eu"},
        server=SERVER,
        command=Command.UPGRADE,
        found=("r001",),
        wanted=("r003",),
        path=("r002", "r003"),
        wave=wave,
    )


def outcome(target: str, status: Status = Status.UPGRADED, *, failure: Failure | None = None) -> Outcome:
    """What happened to `job(target)`, with a value in every field that survives being written down."""
    return Outcome(
        target=target,
        tenant=target,
        schema=f"tenant_{target}",
        labels={"region": "eu"},
        server=SERVER,
        wave="all",
        status=status,
        found=("r001",),
        wanted=("r003",),
        at=None if failure else ("r003",),
        applied=("r002",) if failure else ("r002", "r003"),
        attempts=1,
        started_at=datetime.datetime(2026, 11, 22, 7, 31, 0, 250_000, tzinfo=datetime.UTC),
        duration_ms=31,
        failure=failure,
    )


def failure(fingerprint: str = "f1") -> Failure:
    """A failure with awkward text in it."""
    return Failure(
        kind=FailureKind.PERMANENT,
        code="23505",
        type="UniqueViolation",
        message='could not create unique index "größe" \N{SNOWMAN} \x00',
        revision="r003",
        statement="CREATE UNIQUE INDEX …",
        advice="remove the duplicates",
        fingerprint=fingerprint,
    )


def settled(target: str) -> Outcome:
    """An outcome that the plan already knows."""
    return Outcome(
        target=target,
        tenant=target,
        server=SERVER,
        status=Status.UNCHANGED,
        found=("r003",),
        wanted=("r003",),
        at=("r003",),
        reason=Reason(code="at_head", text="already there"),
    )


def plan(waves: Sequence[Wave], *known: Outcome) -> Plan:
    """A plan of those waves, and those outcomes that are settled already."""
    return Plan(
        project="billing",
        environment="test",
        command=Command.UPGRADE,
        asked="head",
        revision=("r003",),
        strategy="careful",
        waves=tuple(waves),
        settled=known,
    )


def wave(*targets: str, name: str = "all") -> Wave:
    """A wave with a job for each target."""
    return Wave(name=name, jobs=tuple(job(target, wave=name) for target in targets), concurrency=2)

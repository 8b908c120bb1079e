"""Records of the ledger to rows of its tables, and back."""

from __future__ import annotations

import datetime
import json
import socket
import zlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from orchestrator.errors import ExitCode
from orchestrator.ledger.protocol import Run
from orchestrator.outcomes import Outcome, RunStatus
from orchestrator.plans import Command, Job, Plan


def pack(plan: Plan) -> bytes:
    """A plan as a run's row holds it."""
    text = json.dumps(plan.to_json(), separators=(",", ":"))
    # The fastest level: ten thousand jobs shrink to a fiftieth of their size in a blink.
    return zlib.compress(text.encode(), level=1)


def unpack(packed: bytes) -> Plan:
    """Undo `pack`."""
    return Plan.from_json(json.loads(zlib.decompress(packed)))


def plan_columns(plan: Plan) -> dict[str, Any]:
    """What a run's row holds of its plan."""
    return {
        "command": plan.command.value,
        "revision": list(plan.revision),
        "strategy": plan.strategy,
        "plan_digest": plan.digest,
        "plan": pack(plan),
        "host": socket.gethostname(),
    }


def job_columns(run: str, job: Job, position: int) -> dict[str, Any]:
    """A row of the jobs."""
    return {
        "run": run,
        "target": job.target,
        "position": position,
        "wave": job.wave,
        "tenant": job.tenant,
        "database": job.database,
        "schema": job.schema,
        "server": job.server,
        "section": job.section,
    }


def outcome_columns(run: str, outcome: Outcome, moment: datetime.datetime) -> dict[str, Any]:
    """A row of the outcomes, without its attempt."""
    return {
        "run": run,
        "target": outcome.target,
        "recorded_at": moment,
        "tenant": outcome.tenant,
        "server": outcome.server,
        "wave": outcome.wave,
        "status": outcome.status.value,
        "duration_ms": outcome.duration_ms,
        "data": outcome.to_json(),
    }


def failure_columns(run: str, outcome: Outcome, number: int) -> dict[str, Any]:
    """A row of the failures, for the outcome of that number."""
    failure = outcome.failure
    assert failure is not None
    return {
        "outcome": number,
        "run": run,
        "target": outcome.target,
        "kind": failure.kind.value,
        "code": failure.code,
        "type": failure.type,
        "revision": failure.revision,
        "fingerprint": failure.fingerprint,
    }


def run_of(row: Row[Any], counts: Mapping[str, int]) -> Run:
    """A run from its row."""
    return Run(
        id=row.id,
        parent=row.parent,
        project=row.project,
        environment=row.environment,
        command=Command(row.command),
        revision=tuple(row.revision),
        strategy=row.strategy,
        plan_digest=row.plan_digest,
        operator=row.operator,
        status=RunStatus(row.status),
        exit_code=None if row.exit_code is None else ExitCode(row.exit_code),
        started_at=row.started_at,
        finished_at=row.finished_at,
        size=row.size,
        fleet=row.fleet,
        counts=counts,
    )

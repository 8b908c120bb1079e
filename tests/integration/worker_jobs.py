"""Jobs over the histories of the tests, and what a worker makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator import worker
from orchestrator.outcomes import Outcome
from orchestrator.plans import Command, Job
from orchestrator.tenants import Target
from tests import histories


def job(target: Target, wanted: str = "r004", found: tuple[str, ...] = (), **fields: Any) -> Job:
    ids = histories.revision_ids(4)
    start = ids.index(found[0]) + 1 if found else 0
    defaults = {
        "target": target.name,
        "tenant": target.tenant.name,
        "schema": target.schema,
        "server": target.server,
        "command": Command.UPGRADE,
        "found": found,
        "wanted": (wanted,),
        "path": tuple(ids[start : ids.index(wanted) + 1]) if wanted in ids else (wanted,),
        "wave": "all",
    }
    return Job(**{**defaults, **fields})


def run(folder: Path, target: Target, given: Job, **settings: Any) -> Outcome:
    """Run the job in this process."""
    all_settings = worker.WorkerSettings(
        config=folder / "alembic.ini", run="r-test", log=folder / "log.jsonl", **settings
    )
    worker.prepare(all_settings)
    return worker.run_job(given, target, all_settings)

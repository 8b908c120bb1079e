"""Which old runs may be forgotten."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from orchestrator.outcomes import RunStatus

#: runs that somebody may still go on with
OPEN = frozenset({RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.HALTED})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What has to be known of a run before it may go."""

    id: str
    parent: str | None
    status: RunStatus
    #: when it ended, or began where that is not known
    at: datetime.datetime


def prunable(runs: Sequence[Candidate], *, keep: int, before: datetime.datetime | None) -> list[str]:
    """Ids of the runs to delete, oldest first, out of all runs, latest first."""
    old = runs[max(keep, 1) :]
    going = {run.id for run in old if run.status not in OPEN and (before is None or run.at < before)}
    # Children are younger than their parents, so that one pass keeps grandparents too.
    for run in runs:
        if run.id not in going and run.parent is not None:
            going.discard(run.parent)
    return [run.id for run in reversed(runs) if run.id in going]

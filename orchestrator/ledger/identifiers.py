"""Names of runs: made, and found again by their beginning."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence

from orchestrator.errors import UsageError

#: runs that an error message names
NAMED = 5


def new_run_id(moment: datetime.datetime) -> str:
    """`r-20261122-073100-4f2a`: sorts by time, and is short enough to be typed."""
    return f"r-{moment.astimezone(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def no_such_run(wanted: str | None, latest: Sequence[str], scope: str) -> UsageError:
    """No run begins with what was asked for."""
    if not latest:
        return UsageError(f"the ledger holds no run of {scope} yet; `orchestrate upgrade` writes the first")
    return UsageError(f"no run {wanted} of {scope} in the ledger; the latest are {', '.join(latest[:NAMED])}")


def several_runs(wanted: str, matching: Sequence[str]) -> UsageError:
    """More than one run begins with what was asked for."""
    return UsageError(f"several runs begin with {wanted!r}: {', '.join(matching[:NAMED])}; type more of the one meant")

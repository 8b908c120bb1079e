"""What a ledger file says, read with the bare driver and none of the code that wrote it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: statuses of a run that nobody needs to go on with
CLOSED = frozenset({"succeeded", "failed", "aborted", "superseded"})
#: outcomes that claim where the target is
CLAIMS = frozenset({"upgraded", "downgraded", "stamped", "unchanged"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """The latest outcome of a target over all runs."""

    target: str
    status: str
    at: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Book:
    """All that is checked of a ledger."""

    #: status by run id, latest first
    runs: Mapping[str, str]
    claims: Mapping[str, Claim]
    #: (run, target) with an intent that no outcome followed
    unsettled: tuple[tuple[str, str], ...]

    def problems(self, versions: Mapping[str, tuple[str, ...]], *, closed: bool = True) -> list[str]:
        """Where it disagrees with the versions in the databases; with `closed` no run may be left open."""
        found = [
            f"ledger: {claim.target} is {claim.status} at {claim.at}, the database says {versions.get(claim.target)}"
            for claim in self.claims.values()
            if claim.status in CLAIMS and claim.at != versions.get(claim.target)
        ]
        if closed:
            left = {run: status for run, status in self.runs.items() if status not in CLOSED}
            found += [f"ledger: run {run} is left {status}" for run, status in left.items()]
        return found


def read(project: Path) -> Book | None:
    """The ledger of a project; None before its tables were made."""
    path = project / ".orchestrate" / "ledger.db"
    if not path.exists():
        return None
    with _connected(path) as connection:
        try:
            return _read(connection)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise


def claims(project: Path) -> Mapping[str, Claim]:
    """The latest outcomes only: what a reader in a hurry asks for."""
    path = project / ".orchestrate" / "ledger.db"
    if not path.exists():
        return {}
    with _connected(path) as connection, contextlib.suppress(sqlite3.OperationalError):
        return _claims(connection)
    return {}


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    # For writing, since a journal that a killed writer left behind has to be rolled back before anybody can read.
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=30)) as connection:
        yield connection


def _read(connection: sqlite3.Connection) -> Book:
    runs = connection.execute("SELECT id, status FROM orchestrate_runs ORDER BY number DESC").fetchall()
    open_attempts = connection.execute(
        "SELECT a.run, a.target FROM orchestrate_attempts a JOIN orchestrate_runs r ON r.id = a.run "
        "WHERE r.status NOT IN ('succeeded', 'failed', 'aborted', 'superseded') AND NOT EXISTS ("
        "SELECT 1 FROM orchestrate_outcomes o WHERE o.run = a.run AND o.target = a.target AND o.attempt >= a.number)"
    ).fetchall()
    return Book(runs=dict(runs), claims=_claims(connection), unsettled=tuple(open_attempts))


def _claims(connection: sqlite3.Connection) -> dict[str, Claim]:
    rows = connection.execute(
        "SELECT target, status, data FROM orchestrate_outcomes WHERE id IN "
        "(SELECT max(id) FROM orchestrate_outcomes GROUP BY target)"
    )
    return {target: Claim(target=target, status=status, at=_at(json.loads(data))) for target, status, data in rows}


def _at(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    return None if data["at"] is None else tuple(data["at"])

"""Who is where: what was found at each target, held against the heads of its scripts. Pure."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestrator.plans import Condition, Found
from orchestrator.tenants import State, Target


class Standing(enum.StrEnum):
    """Where a target is, seen from the scripts."""

    AT_HEAD = "at_head"
    BEHIND = "behind"
    #: at a revision that the scripts do not have
    AHEAD = "ahead"
    EMPTY = "empty"
    UNVERSIONED = "unversioned"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"


_ODD = {
    Condition.UNVERSIONED: Standing.UNVERSIONED,
    Condition.ABSENT: Standing.ABSENT,
    Condition.UNREACHABLE: Standing.UNREACHABLE,
}


class Heads(Protocol):
    """What the scripts of one section know."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads of all branches."""

    def knows(self, heads: Sequence[str]) -> bool:
        """Whether each of these ids has a file."""

    def reached(self, heads: Sequence[str]) -> frozenset[str]:
        """Every revision behind these."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """One target and where it stands."""

    found: Found
    standing: Standing
    #: heads of its scripts
    wanted: tuple[str, ...]
    #: revisions that an upgrade would run, None when that cannot be known
    behind_by: int | None
    #: `active`, or a state that keeps the tenant out of runs
    state: State = State.ACTIVE

    @property
    def due(self) -> bool:
        """Whether the target takes part in runs and is not where it should be."""
        return self.state is State.ACTIVE and self.standing is not Standing.AT_HEAD

    def to_json(self) -> dict[str, Any]:
        """One row of `status -o json`."""
        target = self.found.target
        return {
            "target": target.name,
            "tenant": target.tenant.name,
            "database": target.database,
            "schema": target.schema,
            "labels": dict(target.labels),
            "server": target.server,
            "section": target.section,
            "state": self.state.value,
            "standing": self.standing.value,
            "at": None if self.found.condition in (Condition.ABSENT, Condition.UNREACHABLE) else list(self.found.heads),
            "head": list(self.wanted),
            "behind_by": self.behind_by,
            "due": self.due,
            "failure": self.found.failure.to_json() if self.found.failure else None,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Where every selected target stands."""

    project: str
    environment: str
    rows: tuple[StatusRow, ...]
    #: heads of each section of alembic.ini
    wanted: Mapping[str, tuple[str, ...]]

    @property
    def due(self) -> tuple[StatusRow, ...]:
        """Rows that are not at head and should be."""
        return tuple(row for row in self.rows if row.due)

    def to_json(self) -> dict[str, Any]:
        """The status format `orchestrate.status/1`."""
        counts = dict.fromkeys((standing.value for standing in Standing), 0)
        for row in self.rows:
            counts[row.standing.value] += 1
        return {
            "format": "orchestrate.status/1",
            "project": self.project,
            "environment": self.environment,
            "heads": {section: list(heads) for section, heads in self.wanted.items()},
            "counts": counts,
            "due": len(self.due),
            "targets": [row.to_json() for row in self.rows],
        }


def stand(found: Found, scripts: Heads, today: datetime.date) -> StatusRow:
    """Hold what was found against the scripts."""
    standing, behind_by = _standing(found, scripts)
    return StatusRow(
        found=found,
        standing=standing,
        wanted=scripts.heads,
        behind_by=behind_by,
        state=_state(found.target, today),
    )


def _standing(found: Found, scripts: Heads) -> tuple[Standing, int | None]:
    if found.condition in _ODD:
        return _ODD[found.condition], None
    if not scripts.knows(found.heads):
        return Standing.AHEAD, None
    missing = len(scripts.reached(scripts.heads) - scripts.reached(found.heads))
    if not missing:
        return Standing.AT_HEAD, 0
    return (Standing.BEHIND if found.heads else Standing.EMPTY), missing


def _state(target: Target, today: datetime.date) -> State:
    return State.ACTIVE if target.tenant.takes_part(today) else target.tenant.state

"""Outcomes grouped by what they have in common: failures by fingerprint, what was left alone by reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from orchestrator.errors import ExitCode
from orchestrator.outcomes import DONE, FAILING, Failure, Outcome, Report, Status

Item = TypeVar("Item")

#: said of a lost target that nothing more is known of
LOST = "the worker died; the next run reads the version first"
#: a run that ended so blames nobody
_GOOD_ENDS = frozenset({ExitCode.OK, ExitCode.PAUSED})


def grouped(items: Iterable[Item], key: Callable[[Item], object]) -> list[list[Item]]:
    """Items of one key together, the largest group first."""
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return sorted(groups.values(), key=len, reverse=True)


def failure_groups(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """What failed or was lost, by fingerprint."""
    return grouped((outcome for outcome in outcomes if outcome.status in FAILING), _failure_key)


def left_alone_groups(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """What was skipped, deferred or not provisioned, by reason; what a halt kept from starting has only a number.

    What makes a run end badly comes first: there may be room for a few groups only.
    """
    quiet = DONE | FAILING | {Status.NOT_STARTED}
    groups = grouped((outcome for outcome in outcomes if outcome.status not in quiet), _reason_key)
    return sorted(groups, key=lambda group: not _blames(group[0]))


def is_blamed(outcome: Outcome, report: Report) -> bool:
    """Whether the run ended badly because of a target that it left alone."""
    waits = outcome.status in FAILING | {Status.NOT_STARTED, Status.DEFERRED}
    return not waits and report.exit_code not in _GOOD_ENDS and _blames(outcome)


def cause_text(failure: Failure) -> str:
    """`23505 UniqueViolation in revision r007`."""
    cause = " ".join(part for part in (failure.code, failure.type) if part)
    return cause + (f" in revision {failure.revision}" if failure.revision else "")


def _failure_key(outcome: Outcome) -> tuple[str | None, ...]:
    failure = outcome.failure
    if failure is None:
        return (outcome.status.value,)
    if failure.fingerprint:
        return (outcome.status.value, failure.fingerprint)
    return (outcome.status.value, failure.code, failure.type, failure.message)


def _reason_key(outcome: Outcome) -> tuple[str | None, ...]:
    return (outcome.status.value, outcome.reason.code if outcome.reason else None)


def _blames(outcome: Outcome) -> bool:
    """Whether this outcome alone makes a run end badly."""
    from orchestrator.rollout import blames  # noqa: PLC0415 - `--help` must stay fast

    return blames(outcome)

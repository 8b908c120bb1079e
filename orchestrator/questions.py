"""What a plan was made from, so that the same can be asked again."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import Refused, StalePlan, UsageError
from orchestrator.ledger import Ledger
from orchestrator.outcomes import RunStatus
from orchestrator.plan_files import is_approved
from orchestrator.plans import Plan, Question
from orchestrator.selectors import Selection

#: runs that are looked through for one of a plan
_LOOK_BACK = 200
#: how to go on with a run that has not ended
_VERBS = {
    RunStatus.RUNNING: "resume",
    RunStatus.INTERRUPTED: "resume",
    RunStatus.PAUSED: "resume",
    RunStatus.HALTED: "retry",
}
_ANEW = "make a new one with `orchestrate plan --out FILE`, and have that one approved"


def asked_by(plan: Plan) -> dict[str, Any]:
    """Keywords of `Project.plan` that ask for the plan again.

    Raises `UsageError` for a plan that does not say what was asked, or not in words that can be understood.
    """
    question = plan.question
    if question is None:
        raise UsageError(f"the plan does not say what it was made from, so it cannot be held against now; {_ANEW}")
    try:
        selection = Selection.from_json(question.selection)
    except TypeError:
        raise UsageError(f"key `question`: its `selection` is none; {_ANEW}") from None
    return {
        "revision": plan.asked,
        "command": plan.command,
        "selection": selection,
        **{name: getattr(question, name) for name in Question.__slots__ if name != "selection"},
    }


def stale(plan: Plan, changes: list[str], book: Ledger | None) -> StalePlan:
    """Say what has changed, and how to go on: with a run of this very plan, where one has begun."""
    runs = [] if book is None else book.runs(limit=_LOOK_BACK)
    run = next((run for run in runs if run.plan_digest == plan.digest), None)
    remedies = [_ANEW]
    if run is not None and run.status in _VERBS:
        verb = _VERBS[run.status]
        remedies.insert(0, f"run {run.id} began it and is {run.status}: `orchestrate {verb} {run.id}` goes on with it")
    elif run is not None:
        remedies.insert(0, f"run {run.id} was of this plan, and has ended: {run.status}")
    return StalePlan(changes, *remedies)


def refuse_unapproved(plan: Plan, approved: str | None) -> None:
    """Raise `Refused` unless the plan is the one that was approved; `UsageError` for what is no digest."""
    try:
        fits = approved is None or is_approved(plan, approved)
    except ValueError as error:
        raise UsageError(f"approved: {error}") from None
    if not fits:
        raise Refused(
            f"approved was the plan {approved}, and the one made now is {plan.digest}: what it rests on has changed, "
            "or it was asked for otherwise; `orchestrate plan --diff FILE` says what has changed since a saved plan"
        )

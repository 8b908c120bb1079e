"""Targets, their heads and a strategy in; a frozen plan out. Pure: no Alembic, no SQL, no clock."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestrator.errors import UsageError
from orchestrator.outcomes import Outcome, Reason, Status
from orchestrator.plans import Command, Condition, Found, Job, Plan, Route, Wave
from orchestrator.selectors import limited
from orchestrator.strategy import AUTO_SERVER_CAP, Budget, Strategy
from orchestrator.tenants import Target
from orchestrator.waves import ONLY_WAVE, Limits, rule_of, spread


class Guide(Protocol):
    """Knows the revision scripts of every target."""

    def knows(self, target: Target, heads: tuple[str, ...]) -> bool:
        """Whether the scripts have a file for each of these ids."""

    def is_relative(self, target: Target, asked: str) -> bool:
        """Whether the revision is counted from where a target is."""

    def route(self, target: Target, command: Command, found: tuple[str, ...], asked: str) -> Route:
        """The way from the heads that were found to what was asked for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the operator asked for."""

    project: str
    environment: str
    command: Command
    asked: str
    today: datetime.date
    strategy: Strategy
    server_caps: Mapping[str, int] = dataclasses.field(default_factory=dict)
    concurrency: int | None = None
    max_failures: Budget | None = None
    keep_going: bool = False
    limit: str | None = None
    #: create what is registered but absent
    provision: bool = False
    allow_ahead: bool = False
    #: a relative revision may start from different places
    each: bool = False
    #: maintenance windows and freezes do not count
    outside_windows: bool = False
    #: seconds after which a runner starts nothing more, instead of what the strategy says
    deadline: float | None = None
    #: the selection that is asked again at the end, if the strategy sweeps
    sweep: Mapping[str, Any] | None = None


def build(request: Request, found: Sequence[Found], guide: Guide) -> Plan:
    """Decide for each target whether there is a job, and settle it where there is none.

    Raises `UsageError` for a relative revision over different starting points without `each`, and for a concurrency
    that is none.
    """
    if request.concurrency is not None and request.concurrency < 1:
        raise UsageError(f"concurrency {request.concurrency} would run nothing; it is a number from 1 on")
    decided = [_decide(request, look, guide) for look in found]
    jobs = [item for item in decided if isinstance(item, Job)]
    _refuse_mixed_starts(request, found, jobs, guide)
    if request.limit is not None:
        due = {job.target for job in jobs}
        chosen = limited([look.target for look in found if look.target.name in due], request.limit)
        names = {target.name for target in chosen}
        jobs = [job for job in jobs if job.target in names]
    wanted = {head for item in decided for head in item.wanted or ()}
    settled = tuple(item for item in decided if isinstance(item, Outcome))
    strategy = request.strategy
    budget = request.max_failures or strategy.max_failures
    limits = Limits(
        concurrency=request.concurrency, keep_going=request.keep_going, outside_windows=request.outside_windows
    )
    waves = spread(strategy, jobs, limits)
    # Without jobs as well where some may come, so many at once: `retry` takes up who can be read by then, a sweep who
    # has joined.
    sweeps = strategy.sweep and request.sweep is not None
    if not waves and (sweeps or any(item.is_unread for item in settled)):
        at_once = request.concurrency or strategy.concurrency
        waves = (Wave(name=ONLY_WAVE, jobs=(), concurrency=at_once or strategy.jobs_at_once(), auto=at_once is None),)
    return Plan(
        project=request.project,
        environment=request.environment,
        command=request.command,
        asked=request.asked,
        revision=tuple(sorted(wanted)),
        strategy=strategy.name,
        waves=waves,
        settled=settled,
        max_failures=None if request.keep_going else budget.of(len(jobs)),
        server_caps={"*": AUTO_SERVER_CAP, **request.server_caps},
        retries=strategy.retries,
        allow_ahead=request.allow_ahead,
        freeze=() if request.outside_windows else strategy.freeze,
        deadline=request.deadline or strategy.deadline,
        sweep=request.sweep if strategy.sweep else None,
        notes=(*_notes(strategy, waves), *_notes_of_order(request, jobs, settled)),
    )


def _notes(strategy: Strategy, waves: Sequence[Wave]) -> tuple[str, ...]:
    """A strategy must not be thought to protect more than it does."""
    taken = {wave.name for wave in waves}
    empty = [rule.name for rule in strategy.waves if not any(rule_of(name, [rule]) for name in taken)]
    if not empty or not waves:
        return ()
    noun = f"wave {empty[0]} has" if len(empty) == 1 else f"waves {', '.join(empty)} have"
    return (f"strategy {strategy.name}: {noun} nothing to do, so neither pause nor gate of it acts",)


def _notes_of_order(request: Request, jobs: Sequence[Job], settled: Sequence[Outcome]) -> tuple[str, ...]:
    """Who comes after a target that is left alone has a job, and will not be done."""
    behind: dict[str, list[str]] = {}
    for job in jobs:
        for name in job.after:
            behind.setdefault(name, []).append(job.target)
    left = [one for one in settled if one.target in behind and not one.satisfies(allow_ahead=request.allow_ahead)]
    barred, reached = set[str](), [one.target for one in left]
    while reached:
        new = set(behind.get(reached.pop(), ())) - barred
        barred |= new
        reached += new
    if not barred:
        return ()
    noun = "target that is to be done comes" if len(barred) == 1 else "targets that are to be done come"
    first = ", ".join(f"{one.target} ({one.status.value.replace('_', ' ')})" for one in left[:3])
    more = f" and {len(left) - 3:,} more" if len(left) > 3 else ""
    return (f"{len(barred):,} {noun} after {first}{more}, and will be left alone as well",)


def _decide(request: Request, look: Found, guide: Guide) -> Job | Outcome:
    """A job for a target that is due, an outcome for one that is not."""
    settled = _settle_odd(request, look, guide)
    if settled is not None:
        return settled
    route = guide.route(look.target, request.command, look.heads, request.asked)
    restamped = request.command is Command.STAMP and look.heads != route.wanted
    # An absent target is created even for an empty chain: its first revision is made by comparing with it.
    if restamped or look.condition is Condition.ABSENT:
        return _job(request, look, route)
    if not route.path:
        code, text = ("past", "is further than what was asked for") if route.past else ("at_head", "is there already")
        return _outcome(look, Status.UNCHANGED, Reason(code=code, text=text), route)
    return _job(request, look, route)


def _settle_odd(request: Request, look: Found, guide: Guide) -> Outcome | None:
    """The outcome of a target that cannot, or must not, have a job; None for an ordinary one."""
    if not look.target.tenant.takes_part(request.today):
        return _outcome(look, Status.SKIPPED, _state_reason(look.target))
    if look.condition is Condition.UNREACHABLE:
        return _unreachable(look, _goal(request, look, guide))
    if look.condition is Condition.ABSENT and not (request.provision and request.command is Command.UPGRADE):
        return _outcome(look, Status.NOT_PROVISIONED, _absent_reason(look.target))
    if request.command is Command.STAMP:
        return None
    if look.condition is Condition.UNVERSIONED:
        text = "has tables but no version; `orchestrate stamp REVISION` says where it is"
        return _outcome(look, Status.SKIPPED, Reason(code="unversioned", text=text))
    if not guide.knows(look.target, look.heads):
        text = f"is at {', '.join(look.heads)}, which these scripts do not have: it is ahead of this code, or not ours"
        return _outcome(look, Status.SKIPPED, Reason(code="unknown_revision", text=text))
    return None


def _goal(request: Request, look: Found, guide: Guide) -> Route | None:
    """What an upgrade wants of a target of which nothing is known: it is gone on with once the target can be read."""
    if request.command is not Command.UPGRADE or guide.is_relative(look.target, request.asked):
        return None
    return guide.route(look.target, request.command, (), request.asked)


def _unreachable(look: Found, goal: Route | None) -> Outcome:
    """The first target of a server that is down counts as failed; the others wait for the server."""
    if look.failure is not None and look.failure.code == "server_down":
        return _outcome(look, Status.DEFERRED, Reason(code="server_down", text=look.failure.message), goal)
    reason = Reason(code="unreachable", text="could not be read; nothing was done")
    outcome = _outcome(look, Status.FAILED, reason, goal)
    return dataclasses.replace(outcome, failure=look.failure)


def _state_reason(target: Target) -> Reason:
    tenant = target.tenant
    words = [tenant.reason or "no reason given"]
    if tenant.owner:
        words.append(f"owner {tenant.owner}")
    if tenant.until:
        words.append(f"until {tenant.until.isoformat()}")
    return Reason(code=tenant.state.value, text=", ".join(words))


def _absent_reason(target: Target) -> Reason:
    what = "schema" if target.schema else "database"
    return Reason(code="absent", text=f"{target.location}: the {what} does not exist; `upgrade --provision` creates it")


def _outcome(look: Found, status: Status, reason: Reason, route: Route | None = None) -> Outcome:
    target = look.target
    known = look.condition in (Condition.VERSIONED, Condition.EMPTY, Condition.UNVERSIONED)
    return Outcome(
        target=target.name,
        tenant=target.tenant.name,
        database=target.database,
        schema=target.schema,
        labels=dict(target.labels),
        server=target.server,
        status=status,
        found=look.heads if known else None,
        wanted=route.wanted if route else None,
        at=look.heads if known else None,
        reason=reason,
    )


def _job(request: Request, look: Found, route: Route) -> Job:
    return Job.of(
        look,
        route,
        command=request.command,
        wave=ONLY_WAVE,
        window=() if request.outside_windows else look.target.tenant.window,
        transaction=request.strategy.transaction,
        provision=look.condition is Condition.ABSENT,
    )


def _refuse_mixed_starts(request: Request, found: Sequence[Found], jobs: Sequence[Job], guide: Guide) -> None:
    """A relative step over targets that stand at different revisions would spread the fleet further."""
    relative = {look.target.name for look in found if guide.is_relative(look.target, request.asked)}
    starts: dict[str, set[tuple[str, ...]]] = {}
    for job in jobs:
        if job.target in relative:
            starts.setdefault(job.section, set()).add(job.found)
    mixed = max((len(heads) for heads in starts.values()), default=0)
    if mixed > 1 and not request.each:
        raise UsageError(
            f"`{request.asked}` counts from where each target is, and these stand at {mixed} different revisions; "
            "name a revision, narrow the selection, or pass --each to move each one from its own place"
        )

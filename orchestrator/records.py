"""Recorded runs as they stand: read, reported, reconciled with the fleet, pruned."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from orchestrator import planner, recoveries, registry, rollout
from orchestrator.errors import ExitCode, UsageError
from orchestrator.ledger import AuditEntry, Lease, Ledger, Run
from orchestrator.outcomes import Outcome, Reason, Report, RunStatus, Status
from orchestrator.plans import Command, Found, Job, Plan, Route
from orchestrator.recoveries import Past
from orchestrator.registry import Registry
from orchestrator.revisions import Scripts
from orchestrator.running import Manner, Place, leased, report_of
from orchestrator.selectors import Selection, select
from orchestrator.settings import Settings
from orchestrator.strategy import Strategy
from orchestrator.tenants import Target

#: runs that are looked through for the latest one that a verb applies to
LOOK_BACK = 200
#: runs of which a session may hold a tenant lock still: whoever waits for one asks MariaDB for each of them
_MOST_ORPHANS = 20
NEVER_BEGUN = Reason(code="interrupted", text="its runner died before its turn")
_DAY = datetime.timedelta(days=1)


class Host(Protocol):
    """What of a project is needed here."""

    settings: Settings

    @property
    def registry(self) -> Registry:
        """All tenants."""

    @property
    def ledger(self) -> Ledger:
        """The ledger, made where there is none."""

    def ledger_if_any(self) -> Ledger | None:
        """The ledger, None where there is none."""

    def scripts(self, section: str) -> Scripts:
        """Revisions of a section."""

    def look(self, targets: Sequence[Target]) -> list[Found]:
        """Current heads, read in bulk."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """A target that is elsewhere than the ledger said."""

    target: str
    recorded: tuple[str, ...] | None
    found: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What reading every target told the ledger."""

    #: under which the ledger keeps what was read
    run: Run
    differing: tuple[Differing, ...]
    #: runs without a live runner whose unsettled targets were settled
    settled: tuple[str, ...]
    unreadable: tuple[str, ...]


class Records:
    """The recorded runs of a project. Not safe to be used from several threads at once."""

    def __init__(self, host: Host) -> None:
        self._host = host

    # -- looking after the ledger -------------------------------------------------------------------------------

    def reconcile(self, *, operator: str | None = None) -> Reconciliation:
        """Read every target and write down where it is; open runs without a runner are settled, done ones closed."""
        manner = Manner.of(operator=operator)
        book, fleet = self._host.ledger, self._host.registry
        with leased(book, manner) as lease:
            looks = self._host.look(fleet.targets)
            recorded = self._recorded(book, (look.target.name for look in looks))
            settled = [run.id for run in book.open_runs() if self._settle_open(book, run, lease)]
            plan = Plan(
                project=fleet.project,
                environment=fleet.environment,
                command=Command.RECONCILE,
                asked="",
                revision=(),
                strategy="",
                waves=(),
                settled=tuple(recoveries.observed(looks)),
            )
            run = book.open_run(plan, operator=manner.operator, fleet=len(fleet.targets), lease=lease)
            unreadable = tuple(outcome.target for outcome in plan.settled if outcome.status is Status.FAILED)
            code = ExitCode.FAILURES if unreadable else ExitCode.OK
            closed = book.close_run(run.id, RunStatus.FAILED if unreadable else RunStatus.SUCCEEDED, code)
            book.note(manner.holder, "runs reconcile", run=run.id)
        differing = tuple(_differing(plan.settled, recorded))
        return Reconciliation(run=closed, differing=differing, settled=tuple(settled), unreadable=unreadable)

    def _settle_open(self, book: Ledger, run: Run, lease: Lease) -> bool:
        """Whether a run could be closed or told more of than it knew."""
        book.adopt_run(run.id, lease)
        past = self._past(book, run)
        outcomes = recoveries.settle(past, NEVER_BEGUN)
        latest = {**past.outcomes, **{outcome.target: outcome for outcome in outcomes}}
        told = dataclasses.replace(past, outcomes=latest, unsettled=frozenset())
        # Left is also what was undone again, by a backup that was restored.
        left = any(told.is_left(job) for job in past.plan.jobs)
        put_off = any(outcome.status is Status.DEFERRED for outcome in latest.values())
        fine = all(not rollout.blames(outcome, allow_ahead=past.plan.allow_ahead) for outcome in latest.values())
        # A gate behind the last wave has the last word, and after it whoever has joined.
        done = fine and not put_off and not left and not past.awaits_gate and past.plan.sweep is None
        if done:
            book.close_run(run.id, RunStatus.SUCCEEDED, ExitCode.OK, outcomes)
        elif outcomes:
            holder = held_by(book, run)
            halted = RunStatus.HALTED if holder and run.status is RunStatus.HALTED else RunStatus.INTERRUPTED
            status = RunStatus.PAUSED if holder == PAUSED else halted
            book.close_run(run.id, status, run.exit_code or ExitCode.FAILURES, outcomes)
        return done or bool(outcomes)

    @staticmethod
    def _recorded(book: Ledger, targets: Iterable[str]) -> dict[str, tuple[str, ...] | None]:
        """Where the ledger says that each target is, by the latest run that knows."""
        recorded: dict[str, tuple[str, ...] | None] = {}
        missing = set(targets)
        for run in book.runs(limit=LOOK_BACK):
            if not missing:
                break
            known = {outcome.target: outcome.at for outcome in book.outcomes(run.id) if outcome.at is not None}
            recorded |= {target: at for target, at in known.items() if target in missing}
            missing -= known.keys()
        return recorded

    def prune(
        self, *, keep: int = 20, older_than: datetime.timedelta | None = None, operator: str | None = None
    ) -> tuple[str, ...]:
        """Forget closed runs, the latest `keep` left out, and those not `older_than` that; the audit table stays."""
        manner = Manner.of(operator=operator)
        book = self._host.ledger_if_any()
        if book is None:
            return ()
        before = None if older_than is None else datetime.datetime.now(datetime.UTC) - older_than
        with leased(book, manner):
            deleted = tuple(book.prune(keep=keep, before=before))
            days = None if older_than is None else older_than / _DAY
            book.note(manner.holder, "runs prune", detail={"deleted": len(deleted), "keep": keep, "days": days})
        return deleted

    def audit(self, limit: int = 50) -> Sequence[AuditEntry]:
        """Who did what, latest first."""
        book = self._host.ledger_if_any()
        return [] if book is None else book.audit(limit)

    def report(self, run: str | None = None) -> Report:
        """The report of a recorded run, as far as it got; the latest without an id."""
        book = self._host.ledger_if_any()
        if book is None:
            raise UsageError("no run has been recorded yet")
        found, plan = book.run(run), None
        outcomes = tuple(book.outcomes(found.id))
        if found.status in {RunStatus.INTERRUPTED, RunStatus.PAUSED}:
            plan = book.plan(found.id)
            waiting = NEVER_BEGUN if found.status is RunStatus.INTERRUPTED else self._waiting(book, found)
            outcomes = recoveries.with_unended(plan, outcomes, book.unsettled(found.id), waiting)
        marks = book.wave_marks(found.id)
        order = [wave.name for wave in (plan or book.plan(found.id)).waves] if marks else []
        # One that waits for a person takes its time while it does.
        waits = found.status is RunStatus.PAUSED
        ended = found.finished_at or (datetime.datetime.now(datetime.UTC) if waits else found.started_at)
        interrupted = found.status is RunStatus.INTERRUPTED
        waves = rollout.summarise_waves(outcomes, interrupted=interrupted, marks=marks, order=order)
        return report_of(found, outcomes, waves, (ended - found.started_at).total_seconds())

    @staticmethod
    def _waiting(book: Ledger, run: Run) -> Reason:
        """What the targets of a paused run wait for that it has not begun."""
        paused = rollout.Controls(book.requests(run.id)).paused
        behind = next((mark.wave for mark in book.wave_marks(run.id) if mark.holds), None)
        if paused is not None:
            return Reason(code="paused", text=f"paused by {paused.operator}")
        text = "waits for somebody to continue" if behind is None else f"wave {behind} is done, and what follows waits"
        return Reason(code="paused", text=text)

    def place(self, book: Ledger, run: str, plan: Plan, *, again: bool = False) -> Place:
        """Where the jobs of a run find what they need, under the lease; `again` says that a runner began it before."""
        fleet = self._host.registry
        targets = {target.name: target for target in fleet.targets}
        # Nobody else is live, so what sessions other runs have left are orphans. A run that succeeded left none.
        others = (one for one in book.runs(limit=LOOK_BACK) if one.status is not RunStatus.SUCCEEDED and one.id != run)
        orphans = {one.id for one in itertools.islice(others, _MOST_ORPHANS)} | ({run} if again else set())
        strategy = fleet.strategies.get(plan.strategy)
        return Place(
            settings=self._host.settings,
            targets=targets,
            ledger=book,
            orphans=frozenset(orphans),
            rules=() if strategy is None else strategy.waves,
            sweep=functools.partial(self._joined, plan, targets),
        )

    def _joined(self, plan: Plan, targets: dict[str, Target], known: Collection[str]) -> list[Job | Outcome]:
        """What is to be done with tenants that have joined since, as the plan's selection means them."""
        fleet = registry.load(self._host.settings)
        chosen = select(fleet.targets, Selection.from_json(plan.sweep or {}))
        new = [target for target in chosen if target.name not in known]
        if not new:
            return []
        targets |= {target.name: target for target in new}
        strategy = fleet.strategies.get(plan.strategy, Strategy())
        asked = plan.question
        request = planner.Request(
            project=plan.project,
            environment=plan.environment,
            command=plan.command,
            asked=plan.asked,
            today=datetime.datetime.now(datetime.UTC).date(),
            strategy=dataclasses.replace(strategy, waves=()),
            provision=asked is not None and asked.provision,
            allow_ahead=plan.allow_ahead,
            outside_windows=asked is not None and asked.outside_windows,
        )
        guide = _Pinned(scripts=self._host.scripts, plan=plan)
        joined = planner.build(request, self._host.look(new), guide)
        return [*joined.jobs, *joined.settled]

    def _route(self, plan: Plan, look: Found, planned: Outcome) -> Route | None:
        """The way to what the run wanted, for a target that could not be read when it was planned."""
        scripts = self._host.scripts(look.target.section)
        wanted = planned.wanted or _wanted_by(plan, look.target.section, scripts)
        relative = scripts.is_relative(plan.asked)
        if plan.command is not Command.UPGRADE or relative or not wanted or not scripts.knows(look.heads):
            return None
        return _way(scripts, look.heads, wanted)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _past(self, book: Ledger, run: Run) -> Past:
        plan = book.plan(run.id)
        outcomes = {outcome.target: outcome for outcome in book.outcomes(run.id)}
        names = {job.target for job in plan.jobs} | {outcome.target for outcome in plan.settled}
        targets = [target for target in self._host.registry.targets if target.name in names]
        return Past(
            plan=plan,
            outcomes=outcomes,
            unsettled=frozenset(book.unsettled(run.id)),
            found={look.target.name: look for look in self._host.look(targets)},
            is_there=self._is_there,
            passed=frozenset(mark.wave for mark in book.wave_marks(run.id) if mark.passed),
        )

    def _is_there(self, job: Job, heads: tuple[str, ...]) -> bool:
        if tuple(sorted(heads)) == job.wanted:
            return True
        # A chain that nobody has any more cannot say what lies beyond; that must keep no run from being ended.
        is_used = any(target.section == job.section for target in self._host.registry.targets)
        upgrade = job.command is Command.UPGRADE
        return upgrade and is_used and self._host.scripts(job.section).has_reached(heads, job.wanted)

    def confirm(self, manner: Manner) -> None:
        """Raise `Refused` in a protected environment that the manner does not name."""
        fleet = self._host.registry
        registry.refuse_unconfirmed(fleet.environment, manner.confirm, protected=fleet.protected, flag="confirm=")


def _differing(observed: Sequence[Outcome], recorded: dict[str, tuple[str, ...] | None]) -> Iterable[Differing]:
    for outcome in observed:
        before = recorded.get(outcome.target)
        if before is not None and outcome.at is not None and before != outcome.at:
            yield Differing(target=outcome.target, recorded=before, found=outcome.at)


#: said of a run that a person has to continue
PAUSED = "is paused"


def held_by(book: Ledger, run: Run) -> str | None:
    """What holds an open run back; None for one that only put some off, or stopped in the middle of a wave.

    A person, although its runner may have died between being asked to pause and doing so; or the pause and the gate
    behind a wave, whatever has stopped the run there: where a new run began, that wave would have nothing left to do,
    so nobody would ask its gate.
    """
    told = sum(number for status, number in run.counts.items() if status != Status.NOT_STARTED.value)
    is_paused = rollout.Controls(book.requests(run.id)).paused is not None
    if is_paused or (run.status is RunStatus.PAUSED and told < run.size):
        return PAUSED
    mark = next((mark for mark in book.wave_marks(run.id) if mark.holds), None)
    return None if mark is None else f"was {run.status} behind wave {mark.wave}, which nothing has passed yet"


@dataclasses.dataclass(frozen=True, slots=True)
class _Pinned:
    """Guides tenants that join to where the others were brought, though the scripts may go further by now."""

    scripts: Callable[[str], Scripts]
    plan: Plan

    def knows(self, target: Target, heads: tuple[str, ...]) -> bool:
        return self.scripts(target.section).knows(heads)

    def is_relative(self, target: Target, asked: str) -> bool:
        return self.scripts(target.section).is_relative(asked)

    def route(self, target: Target, command: Command, found: tuple[str, ...], asked: str) -> Route:
        scripts = self.scripts(target.section)
        wanted = _wanted_by(self.plan, target.section, scripts)
        return _way(scripts, found, wanted) if wanted else scripts.route(command, found, asked)


def _wanted_by(plan: Plan, section: str, scripts: Scripts) -> tuple[str, ...]:
    """Where a run brings the targets of one chain."""
    wanted = next((job.wanted for job in plan.jobs if job.section == section), None)
    # A plan whose targets of this chain were there already says it nowhere else.
    return wanted or tuple(head for head in plan.revision if scripts.knows([head]))


def _way(scripts: Scripts, found: tuple[str, ...], wanted: tuple[str, ...]) -> Route:
    return Route(path=(), wanted=wanted) if scripts.has_reached(found, wanted) else scripts.route_to(found, wanted)

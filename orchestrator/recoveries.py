"""What is left of a recorded run: what to do again, what to take back, what became of the rest. Pure."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orchestrator.outcomes import DONE, FAILING, Failure, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Command, Condition, Found, Job, Plan, Route, Wave
from orchestrator.rollout.budgets import Budget, is_server_down
from orchestrator.tenants import Target

#: statuses that a later `resume` of the same run takes up
LEFT = frozenset({Status.NOT_STARTED, Status.DEFERRED, Status.LOST})
_READABLE = frozenset({Condition.VERSIONED, Condition.EMPTY, Condition.UNVERSIONED})
_DONE_BY = {
    Command.UPGRADE: Status.UPGRADED,
    Command.DOWNGRADE: Status.DOWNGRADED,
    Command.STAMP: Status.STAMPED,
}
_CHANGED = frozenset(_DONE_BY.values())
_BACK = {Command.UPGRADE: Command.DOWNGRADE, Command.DOWNGRADE: Command.UPGRADE, Command.STAMP: Command.STAMP}
_BY_OTHERS = Reason(code="concurrent", text="something that this run does not know of brought it there")
_BACK_ALREADY = Reason(code="at_head", text="is back already where the run found it")
_OPEN_ENDS = (
    "{:,} of them stood where the run found them, and nobody knows whether its worker is at work there still: each is "
    "looked at again under its lock"
)
_FOR_RESUME = Reason(
    code="halted", text="only what had failed was done again; the rest is left for `orchestrate resume`"
)
_NEVER = Reason(code="halted", text="the run ended before its turn")
#: codes of what stopped an earlier runner; one that waits for a person waits on
_OVER = frozenset({"halted", "interrupted"})
_VERIFIED = Reason(code="verified", text="its runner died after the commit; the version was read again")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A run as the ledger has it, and its targets as they are now."""

    plan: Plan
    #: the latest of each target
    outcomes: Mapping[str, Outcome]
    #: targets with an intent that no outcome followed
    unsettled: Collection[str]
    #: a look at each target that is still registered
    found: Mapping[str, Found]
    #: whether a target with these heads is where a job should bring it
    is_there: Callable[[Job, tuple[str, ...]], bool]
    #: waves whose pause is over and whose gate has passed
    passed: Collection[str] = frozenset()

    @property
    def awaits_gate(self) -> bool:
        """Whether the gate behind the last wave has still to pass."""
        last = self.plan.waves[-1] if self.plan.waves else None
        return last is not None and last.gate is not None and last.name not in self.passed

    def heads(self, target: str) -> tuple[str, ...] | None:
        """The version rows as they are now, None when they cannot be read."""
        look = self.found.get(target)
        return look.heads if look is not None and look.condition in _READABLE else None

    def is_waiting(self, job: Job) -> bool:
        """Whether a job never ended."""
        outcome = self.outcomes.get(job.target)
        return outcome is None or job.target in self.unsettled or waits(outcome)

    def is_left(self, job: Job) -> bool:
        """Whether a job never ended, or is undone again: an upgrade, by a backup that was restored.

        Whoever went up again after a downgrade, or after a stamp, has done so on purpose.
        """
        if self.is_waiting(job) or job.command is not Command.UPGRADE:
            return self.is_waiting(job)
        heads = self.heads(job.target)
        done = self.outcomes[job.target].status in DONE
        return done and heads is not None and not self.is_there(job, heads)

    def is_unknown(self, job: Job) -> bool:
        """Whether nothing final was written down about a job."""
        outcome = self.outcomes.get(job.target)
        return job.target in self.unsettled or outcome is None or is_open(outcome)

    def is_failed(self, job: Job) -> bool:
        """Whether a job failed, or nobody knows."""
        outcome = self.outcomes.get(job.target)
        return job.target in self.unsettled or (outcome is not None and outcome.status in FAILING)

    def may_have_run(self, job: Job) -> bool:
        """Whether an earlier try may have done the job, wholly or in part."""
        outcome = self.outcomes.get(job.target)
        tried = {Status.LOST, Status.DEFERRED, Status.FAILED}
        # A try of which nothing was to be seen when its runner died may have committed since.
        return job.target in self.unsettled or (
            outcome is not None and (outcome.status in tried or (outcome.status in LEFT and outcome.attempts > 0))
        )


def is_open(outcome: Outcome) -> bool:
    """Whether a try may have committed, or may commit yet, for all that is known."""
    if outcome.status is Status.SKIPPED:
        # Left out by a later runner, since the target had left the registry or was quarantined by then.
        return outcome.attempts > 0 and outcome.at is None
    return outcome.status is Status.LOST or (outcome.status is Status.NOT_STARTED and outcome.attempts > 0)


def reason_against(job: Job | None, target: Target | None, today: datetime.date) -> Reason | None:
    """Why a job of an earlier plan, or a target that it had no job for, cannot be gone on with any more."""
    if target is None:
        return Reason(code="unregistered", text="has left the registry since the run was planned")
    if not target.tenant.takes_part(today):
        text = target.tenant.reason or "no reason given"
        return Reason(code=target.tenant.state.value, text=text)
    if job is not None and _has_moved(job, target):
        return Reason(code="moved", text="has moved to another server, database, schema or chain since; plan again")
    return None


def _has_moved(job: Job, target: Target) -> bool:
    """Whether a target is elsewhere than its job says; a job of an earlier version does not say in which database."""
    here = (target.server, target.schema, target.section)
    return (job.server, job.schema, job.section) != here or job.location not in (None, target.place)


def excused(
    past: Past, settled: Iterable[Outcome], targets: Mapping[str, Target], today: datetime.date
) -> Iterator[Outcome]:
    """The outcomes, without the failures of targets that cannot be gone on with: nobody can mend those in this run."""
    jobs = {job.target: job for job in past.plan.jobs}
    for outcome in settled:
        name, reason = outcome.target, None
        if outcome.status in FAILING:
            reason = reason_against(jobs.get(name), targets.get(name), today)
        yield dataclasses.replace(outcome, status=Status.SKIPPED, reason=reason, failure=None) if reason else outcome


def left_out(past: Past, job: Job, reason: Reason) -> Outcome:
    """The outcome of a job that cannot be done any more; what is known of earlier tries is kept."""
    before = past.outcomes.get(job.target)
    if before is None or job.target in past.unsettled:
        return job.outcome(Status.SKIPPED, reason=reason, attempts=int(job.target in past.unsettled))
    return dataclasses.replace(before, status=Status.SKIPPED, reason=reason, failure=None)


def without_skipped(past: Past, plan: Plan, skips: Mapping[str, Reason]) -> Plan:
    """The plan without the targets that somebody wants to be left alone; what they failed of does not count."""
    if not skips:
        return plan
    waves, left = [], []
    for wave in plan.waves:
        left += [left_out(past, job, skips[job.target]) for job in wave.jobs if job.target in skips]
        kept = tuple(job for job in wave.jobs if job.target not in skips)
        waves.append(dataclasses.replace(wave, jobs=kept))
    settled = (
        dataclasses.replace(outcome, status=Status.SKIPPED, reason=skips[outcome.target], failure=None)
        if outcome.target in skips and outcome.status in LEFT | FAILING
        else outcome
        for outcome in plan.settled
    )
    return dataclasses.replace(plan, waves=tuple(waves), settled=(*settled, *left))


def may_have_changed(outcome: Outcome) -> bool:
    """Whether the run of this outcome has moved the target, wholly or in part, or may have."""
    if is_open(outcome):
        return True
    if outcome.at is None:
        return outcome.failure is not None and outcome.failure.kind is FailureKind.AMBIGUOUS
    tried = outcome.attempts > 0 or outcome.status in _CHANGED
    return tried and outcome.found is not None and outcome.at != outcome.found


def has_failed(past: Past) -> bool:
    """Whether a target failed, or nobody knows."""
    return bool(past.unsettled) or any(outcome.status in FAILING for outcome in past.outcomes.values())


def tells_of_skips(past: Past, plan: Plan) -> bool:
    """Whether targets are left out now that were not when the run ended."""
    skipped = [outcome for outcome in plan.settled if outcome.status is Status.SKIPPED]
    return any(past.outcomes.get(outcome.target) != outcome for outcome in skipped)


def waits(outcome: Outcome) -> bool:
    """Whether `resume` takes up a target with this outcome: nothing is known to be wrong with the target itself."""
    down = outcome.failure is not None and outcome.failure.kind is FailureKind.SERVER
    return outcome.status in LEFT or (outcome.status is Status.FAILED and down)


def remaining(past: Past, is_due: Callable[[Job], bool], late: Sequence[Job] = ()) -> Plan:
    """The rest of the plan: due jobs in their waves, all else settled as it is.

    Jobs that were skipped because of a job that is due are due as well. `late` are jobs of targets that had none,
    since they could not be read; they join the last wave.
    """
    due = _with_dependents(past, {job.target for job in past.plan.jobs if is_due(job)} | {job.target for job in late})
    waves = [_rest(wave, past, due) for wave in past.plan.with_jobs(late).waves]
    settled = [_left(past, job) for job in past.plan.jobs if job.target not in due]
    names = {job.target for job in late}
    settled += [past.outcomes.get(one.target, one) for one in past.plan.settled if one.target not in names]
    return dataclasses.replace(past.plan, waves=tuple(waves), settled=tuple(settled))


class Barrier(NamedTuple):
    """Why a run would halt before it starts anything."""

    text: str
    #: options of `runs budget` that tolerate it, None where no budget does
    tolerated_by: str | None


def barrier(plan: Plan) -> Barrier | None:
    """What of an earlier failure would halt a run before it starts anything; None when nothing would."""
    settled = [outcome for outcome in plan.settled if not is_server_down(outcome)]
    for outcome in settled:
        failure = outcome.failure if outcome.status in FAILING else None
        if failure is not None and failure.kind is FailureKind.RUN and plan.max_failures is not None:
            return Barrier(f"every target would fail like {outcome.target}: {failure.message}", None)
    budgets = {"--max-failures N": Budget("the run", plan.max_failures)}
    for outcome in settled:
        budgets["--max-failures N"].add(outcome)
    for wave in plan.waves:
        own = budgets[f"--wave {wave.name} --max-failures N"] = Budget(f"wave {wave.name}", wave.max_failures)
        for outcome in settled:
            if outcome.wave == wave.name:
                own.add(outcome)
    overdrafts = ((budget.overdraft(), words) for words, budget in budgets.items())
    return next((Barrier(text, words) for text, words in overdrafts if text), None)


def settle(past: Past, reason: Reason) -> list[Outcome]:
    """What became of targets whose try has no outcome, or an unknown one, and of jobs that never started.

    `reason` is for those that never started. Where nothing of a try is to be seen, its worker may still be at work:
    that stays unknown.
    """
    settled = [_settled(past, job, reason) for job in past.plan.jobs if past.is_unknown(job)]
    by_others = [_done_by_others(past, job) for job in past.plan.jobs if _is_done_by_others(past, job)]
    return [outcome for outcome in settled if not _is_known_to_be_lost(past, outcome)] + by_others


def _is_known_to_be_lost(past: Past, outcome: Outcome) -> bool:
    before = past.outcomes.get(outcome.target)
    known = before is not None and before.status is Status.LOST and outcome.target not in past.unsettled
    return known and outcome.status is Status.LOST


def late_jobs(
    past: Past, route: Callable[[Found, Outcome], Route | None], is_due: Callable[[Outcome], bool]
) -> list[Job]:
    """Jobs for targets that could not be read when the run was planned, and can be now; `route` None leaves one out.

    It is given what was found now, and what the plan says of the target.
    """
    jobs = []
    for outcome in past.plan.settled:
        latest = past.outcomes.get(outcome.target, outcome)
        look = past.found.get(outcome.target)
        if look is None or look.condition not in {Condition.VERSIONED, Condition.EMPTY} or not is_due(latest):
            continue
        way = route(look, outcome)
        if way is not None:
            jobs.append(_late(past.plan, look, way))
    return jobs


def take_back(
    past: Past,
    run: str,
    path: Callable[[Job], tuple[str, ...]],
    moved_since: Collection[tuple[str, tuple[str, ...]]] = frozenset(),
) -> Plan:
    """A plan that brings every target that a run changed back to where it was found, in reverse order.

    `path` gives the revisions that a job back has to run, in order; jobs with one way ask once. `moved_since` has each
    target that later runs have changed, with the heads from which or to which they brought it.
    """
    back, path = _BACK[past.plan.command], _once_for_each_way(path)
    behind = _reversed_order(past.plan)
    settled: list[Outcome] = []
    waves: list[Wave] = []
    for wave in reversed(past.plan.waves):
        jobs: list[Job] = []
        for job in reversed(wave.jobs):
            outcome = past.outcomes.get(job.target)
            if outcome is None or not may_have_changed(outcome):
                continue
            item = _taken_back(past, job, outcome, moved_since)
            if isinstance(item, Job):
                after = behind.get(job.target, ())
                reversal = dataclasses.replace(item, command=back, after=after, provision=False, window=())
                jobs.append(dataclasses.replace(reversal, path=path(reversal)))
            elif item is not None:
                settled.append(dataclasses.replace(item, wave=None))
        if jobs:
            # Whoever takes back what went wrong waits neither for a gate nor for a night.
            waves.append(dataclasses.replace(wave, jobs=tuple(jobs), pause=None, gate=None, window=()))
    jobs_back = [job for wave in waves for job in wave.jobs]
    wanted = {head for job in jobs_back for head in job.wanted}
    open_ends = sum(1 for job in jobs_back if past.heads(job.target) == job.wanted)
    return dataclasses.replace(
        past.plan,
        command=back,
        asked=f"rollback of {run}",
        revision=tuple(sorted(wanted)),
        waves=tuple(waves),
        settled=tuple(settled),
        files={},
        question=None,
        freeze=(),
        deadline=None,
        sweep=None,
        notes=(_OPEN_ENDS.format(open_ends),) if open_ends else (),
    )


def with_unended(
    plan: Plan, outcomes: Sequence[Outcome], unsettled: Collection[str], waiting: Reason
) -> tuple[Outcome, ...]:
    """The outcomes of a run that nobody has closed, with what can be said of its other jobs before a target is read.

    `waiting` is for those that were not begun.
    """
    at_work = Reason(code="interrupted", text="was at work when its runner died; `resume` reads its version first")
    known = {outcome.target: outcome for outcome in outcomes}
    for job in plan.jobs:
        if job.target in unsettled:
            known[job.target] = job.outcome(Status.LOST, reason=at_work)
        elif job.target not in known:
            known[job.target] = job.outcome(Status.NOT_STARTED, reason=waiting)
    return tuple(known.values())


def observed(looks: Iterable[Found]) -> list[Outcome]:
    """What a look at the fleet found, as outcomes: for a ledger that knows nothing, or too little."""
    return [_observed(look) for look in looks]


def _with_dependents(past: Past, due: set[str]) -> set[str]:
    """Those behind a due job that were skipped because of it; in plan order one pass may not do."""
    grown = True
    while grown:
        grown = False
        for job in past.plan.jobs:
            outcome = past.outcomes.get(job.target)
            barred = outcome is not None and outcome.reason is not None and outcome.reason.code == "dependency_failed"
            if job.target not in due and barred and any(name in due for name in job.after):
                due.add(job.target)
                grown = True
    return due


def _rest(wave: Wave, past: Past, due: Collection[str]) -> Wave:
    jobs = (dataclasses.replace(job, resumed=past.may_have_run(job)) for job in wave.jobs if job.target in due)
    return dataclasses.replace(wave, jobs=tuple(jobs))


def _left(past: Past, job: Job) -> Outcome:
    """A job that is not due now. What had stopped it, a failure perhaps that is mended now, may hold no more."""
    outcome = past.outcomes.get(job.target) or job.outcome(Status.NOT_STARTED, reason=_NEVER)
    was_stopped = outcome.reason is not None and outcome.reason.code in _OVER
    is_left = outcome.status is Status.NOT_STARTED and was_stopped
    return dataclasses.replace(outcome, reason=_FOR_RESUME) if is_left else outcome


def _is_done_by_others(past: Past, job: Job) -> bool:
    """Whether a job was put off or never started, and its target is where it was wanted all the same."""
    heads = past.heads(job.target)
    waits_only = past.is_waiting(job) and not past.is_unknown(job)
    return waits_only and heads is not None and past.is_there(job, heads)


def _done_by_others(past: Past, job: Job) -> Outcome:
    before = past.outcomes[job.target]
    attempts = before.attempts if may_have_changed(before) else 0
    return job.outcome(Status.UNCHANGED, at=job.wanted, reason=_BY_OTHERS, attempts=attempts)


def _settled(past: Past, job: Job, reason: Reason) -> Outcome:
    heads = past.heads(job.target)
    if job.target not in past.unsettled and job.target not in past.outcomes:
        return job.outcome(Status.NOT_STARTED, at=heads, reason=reason)
    if heads is None:
        return job.outcome(Status.LOST, attempts=1, failure=_runner_died("where it stands could not be read"))
    if past.is_there(job, heads):
        return job.outcome(_DONE_BY[job.command], at=heads, applied=job.path, attempts=1, reason=_VERIFIED)
    where = f"stands at {', '.join(heads) or 'base'}"
    if heads == job.found:
        return job.outcome(Status.LOST, attempts=1, failure=_runner_died(f"it {where}, and may be at work still"))
    return job.outcome(Status.FAILED, at=heads, attempts=1, failure=_runner_died(f"it {where}"))


def _runner_died(where: str) -> Failure:
    return Failure(
        kind=FailureKind.AMBIGUOUS,
        code="runner_lost",
        type="RunnerLost",
        message=f"its runner died while it worked on this target; {where}",
        advice="Run `orchestrate upgrade` on it: the version is read first.",
        fingerprint="runner_lost",
    )


def _late(plan: Plan, look: Found, way: Route) -> Job:
    return Job.of(
        look,
        way,
        command=plan.command,
        wave=plan.waves[-1].name if plan.waves else "all",
        window=() if plan.question is not None and plan.question.outside_windows else look.target.tenant.window,
        transaction=next((job.transaction for job in plan.jobs), None),
    )


def _reversed_order(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Who must be taken back before a target: those that came after it."""
    behind: dict[str, list[str]] = {}
    for job in plan.jobs:
        for name in job.after:
            behind.setdefault(name, []).append(job.target)
    return {name: tuple(names) for name, names in behind.items()}


def _once_for_each_way(path: Callable[[Job], tuple[str, ...]]) -> Callable[[Job], tuple[str, ...]]:
    """The same question comes up for each target of a fleet."""
    known: dict[tuple[object, ...], tuple[str, ...]] = {}

    def ask(job: Job) -> tuple[str, ...]:
        way = (job.section, job.command, job.found, job.wanted)
        if way not in known:
            known[way] = path(job)
        return known[way]

    return ask


def _taken_back(
    past: Past, job: Job, outcome: Outcome, moved_since: Collection[tuple[str, tuple[str, ...]]]
) -> Job | Outcome | None:
    """From where to where a target goes back, or the outcome of one that is left alone; None: it is not this run's."""
    heads = past.heads(job.target)
    lost = outcome.at is None or outcome.found is None or is_open(outcome)
    left_at = job.wanted if lost or outcome.at is None else outcome.at
    came_from = job.found if outcome.found is None else outcome.found
    reversal = dataclasses.replace(job, found=left_at, wanted=came_from, path=())
    if heads is None:
        return _left_alone(reversal, heads, "cannot be read now, so it is left as it is")
    if heads == came_from:
        # A worker that has outlived its runner may commit any moment: whoever has the tenant lock knows more.
        return reversal if lost else reversal.outcome(Status.UNCHANGED, at=heads, reason=_BACK_ALREADY)
    place = ", ".join(heads) or "base"
    strays = not set(heads) <= {*job.path, *outcome.applied, *job.found, *job.wanted}
    if heads != left_at or strays:
        return _left_alone(reversal, heads, f"is at {place} now, not where the run left it; it is left as it is")
    if (job.target, came_from) not in moved_since:
        return reversal
    if outcome.reason == _VERIFIED:
        # Nobody saw this run do it, and somebody saw the other one.
        return None
    return _left_alone(reversal, heads, f"is at {place}, where another run has brought it; it is left as it is")


def _left_alone(reversal: Job, heads: tuple[str, ...] | None, text: str) -> Outcome:
    return reversal.outcome(Status.SKIPPED, at=heads, reason=Reason(code="moved", text=text))


def _observed(look: Found) -> Outcome:
    target = look.target
    known = look.condition in _READABLE
    status = Status.UNCHANGED if known else Status.FAILED
    if look.condition is Condition.ABSENT:
        status = Status.NOT_PROVISIONED
    text = "read from its version table" if known else "could not be read"
    return Outcome(
        target=target.name,
        tenant=target.tenant.name,
        database=target.database,
        schema=target.schema,
        labels=dict(target.labels),
        server=target.server,
        status=status,
        found=look.heads if known else None,
        at=look.heads if known else None,
        reason=Reason(code="observed" if known else look.condition.value, text=text),
        failure=look.failure,
    )

"""What can be done with recorded runs: resume, retry, roll back, abort, reconcile, prune.

The ledger says what was meant; each of these reads the targets first and believes them.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable
from typing import Unpack

from orchestrator import recoveries
from orchestrator.errors import ExitCode, Refused, ScriptsError, UsageError
from orchestrator.ledger import Lease, Ledger, Run, StopRequest
from orchestrator.outcomes import DONE, Outcome, Reason, Report, RunStatus, Status
from orchestrator.plans import Command, Job, Plan
from orchestrator.records import LOOK_BACK, NEVER_BEGUN, PAUSED, Records, held_by
from orchestrator.recoveries import Past, reason_against
from orchestrator.rollout import Controls
from orchestrator.running import Manner, Options, drive, leased

#: a run may be retried after its end when it failed
_RETRIABLE = frozenset({RunStatus.INTERRUPTED, RunStatus.HALTED, RunStatus.PAUSED, RunStatus.FAILED})
_OPEN = frozenset({RunStatus.RUNNING, RunStatus.INTERRUPTED, RunStatus.HALTED, RunStatus.PAUSED})
#: a run that failed on some targets may have put others off
_RESUMABLE = _OPEN | {RunStatus.FAILED}
#: what there may be to take back of
_MOVING = frozenset({Command.UPGRADE, Command.DOWNGRADE, Command.STAMP})
_CHANGED = (Status.UPGRADED, Status.DOWNGRADED, Status.STAMPED)
#: behind which there may be a change that was never told
_UNDECIDED = (Status.FAILED, Status.LOST, Status.NOT_STARTED, Status.DEFERRED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """A run that was told to end."""

    run: Run
    #: its runner lives and ends it; else it is ended
    live: bool


class Runs(Records):
    """What can be done with the recorded runs of a project. Not safe to be used from several threads at once."""

    # -- going on -----------------------------------------------------------------------------------------------

    def resume(self, run: str | None = None, **options: Unpack[Options]) -> Report | None:
        """Go on with a run and its frozen plan: what never started, was put off, or has no outcome.

        None when nothing is left. Raises `Refused` for a run that halted and would halt again.
        """
        return self._continue(run, Manner.of(**options), _RESUME)

    def retry(self, run: str | None = None, **options: Unpack[Options]) -> Report | None:
        """Do again, in the same run, what failed or was lost; success gives its budget back. None when nothing did.

        A target that failed and cannot be tried, since it still cannot be read, keeps the run from being done.
        """
        return self._continue(run, Manner.of(**options), _RETRY)

    def _continue(self, named: str | None, manner: Manner, verb: _Verb) -> Report | None:
        self.confirm(manner)
        book = self._host.ledger_if_any()
        if book is None:
            return None
        with leased(book, manner) as lease:
            run = self._find(book, named, verb)
            if run is None:
                return None
            past = self._past(book, run)
            late = recoveries.late_jobs(past, functools.partial(self._route, past.plan), verb.is_due_late)
            controls = Controls(book.requests(run.id))
            plan = self._registered(recoveries.remaining(past, verb.is_due(run, past), late), past)
            plan = controls.budgeted(recoveries.without_skipped(past, plan, controls.skips))
            if not any(plan.jobs) and verb.is_idle(run, past, plan):
                return None
            barrier = recoveries.barrier(plan) if any(plan.jobs) else None
            if barrier is not None:
                raise _would_halt(run, barrier)
            book.note(manner.holder, verb.name, run=run.id, detail={"jobs": sum(1 for _ in plan.jobs)})
            reopened = book.adopt_run(run.id, lease, reopen=True)
            book.add_jobs(run.id, late)
            self.supersede(lease, book, run.id)
            place = self.place(book, run.id, plan, again=True)
            return drive(reopened, plan, place, manner)

    def _find(self, book: Ledger, named: str | None, verb: _Verb) -> Run | None:
        """The run that is meant, or the latest that the verb applies to; under the lease nobody else drives it."""
        if named is not None:
            run = book.run(named)
            if run.status in {RunStatus.ABORTED, RunStatus.SUPERSEDED}:
                raise UsageError(f"run {run.id} was {run.status}, so there is nothing to {verb.name}; start a new one")
            return run if run.status in verb.statuses else None
        opened = next((run for run in book.open_runs() if verb.open_first), None)
        # A paused run stays open while others have come and gone on other targets.
        latest = opened or next((run for run in book.runs(limit=LOOK_BACK) if run.command in _MOVING), None)
        return latest if latest is not None and latest.status in verb.statuses else None

    def _registered(self, plan: Plan, past: Past | None = None) -> Plan:
        """The plan without jobs for targets that have left the registry, moved, or may not be touched now.

        With the past of a run, what failed in it no longer counts for such targets.
        """
        targets = {target.name: target for target in self._host.registry.targets}
        today = datetime.datetime.now(datetime.UTC).date()
        left: list[Outcome] = []
        waves = []
        for wave in plan.waves:
            reasons = {job.target: reason_against(job, targets.get(job.target), today) for job in wave.jobs}
            for job in wave.jobs:
                reason = reasons[job.target]
                if reason is not None:
                    out = recoveries.left_out(past, job, reason) if past else job.outcome(Status.SKIPPED, reason=reason)
                    left.append(out)
            jobs = tuple(job for job in wave.jobs if reasons[job.target] is None)
            waves.append(dataclasses.replace(wave, jobs=jobs))
        settled = plan.settled if past is None else tuple(recoveries.excused(past, plan.settled, targets, today))
        return dataclasses.replace(plan, waves=tuple(waves), settled=(*settled, *left))

    # -- going back ---------------------------------------------------------------------------------------------

    def rollback_plan(self, run: str | None = None) -> tuple[Run, Plan]:
        """The run that is meant, and a plan that takes back what it did; run it with that run as its parent.

        Raises `ScriptsError` when one of its revisions cannot go down, `UsageError` when there is no such run.
        """
        book = self._host.ledger_if_any()
        if book is None:
            raise UsageError("no run has been recorded yet, so there is nothing to roll back")
        chosen = book.run(run) if run is not None else self._latest_changing(book)
        if chosen.command not in _MOVING:
            raise UsageError(f"run {chosen.id} only read, so there is nothing to roll back")
        past = self._past(book, chosen)
        # What its runner left behind without a word counts as well.
        settled = {outcome.target: outcome for outcome in recoveries.settle(past, NEVER_BEGUN)}
        past = dataclasses.replace(past, outcomes={**past.outcomes, **settled})
        plan = recoveries.take_back(past, chosen.id, self._way_back, _moved_since(book, chosen))
        plan = self._registered(plan)
        if plan.command is Command.DOWNGRADE:
            self.refuse_irreversible(plan)
        return chosen, plan

    def refuse_irreversible(self, plan: Plan) -> None:
        """Raise `ScriptsError` naming every revision of the plan that has no way down, and how many targets need it."""
        wanted: dict[tuple[str, str], int] = {}
        for job in plan.jobs:
            for revision in job.path:
                wanted[job.section, revision] = wanted.get((job.section, revision), 0) + 1
        stuck = [
            f"{revision} ({number:,} targets): {reason}"
            for (section, revision), number in wanted.items()
            if (reason := self._host.scripts(section).irreversible(revision)) is not None
        ]
        if stuck:
            raise ScriptsError("these revisions cannot be taken back; nothing was done:\n  " + "\n  ".join(stuck))

    def _latest_changing(self, book: Ledger) -> Run:
        for run in book.runs(limit=LOOK_BACK):
            if run.command in _MOVING and _may_have_changed(book, run):
                if run.parent is None:
                    return run
                # Typed twice, a rollback would undo itself.
                raise UsageError(
                    f"the latest run that changed targets, {run.id}, has taken back {run.parent} already; "
                    "name the run that is meant: `orchestrate rollback RUN`"
                )
        raise UsageError("no recorded run has changed a target; name one with `orchestrate rollback RUN`")

    def _way_back(self, job: Job) -> tuple[str, ...]:
        if job.command is Command.STAMP:
            return ()
        scripts = self._host.scripts(job.section)
        missing = [head for head in (*job.found, *job.wanted) if not scripts.knows([head])]
        if missing:
            # Whoever has gone to older code already would be taken down the wrong revisions.
            raise ScriptsError(
                f"[{job.section}]: {job.target} cannot be taken back to {', '.join(job.wanted) or 'base'}: there is "
                f"no file of revision {missing[0]} here; nothing was done: bring back the revision files that run was "
                "made with, roll back, and go to older code after that"
            )
        return scripts.between(job.found, job.wanted)

    # -- ending -------------------------------------------------------------------------------------------------

    def abort(self, run: str | None = None, *, now: bool = False, **options: Unpack[Options]) -> Aborted:
        """End a run for good: a live one is asked to (`now` cancels its statements), a dead one is settled here."""
        manner = Manner.of(**options)
        self.confirm(manner)
        book = self._host.ledger_if_any()
        found = None if book is None else self._abortable(book, run)
        if book is None or found is None:
            raise UsageError("no open run to abort; see `orchestrate runs list`")
        live = book.live()
        if live is not None and live.run == found.id:
            book.note(manner.holder, "abort", run=found.id, detail={"now": now})
            if book.request_stop(found.id, StopRequest.NOW if now else StopRequest.DRAIN):
                return Aborted(run=book.run(found.id), live=True)
        with leased(book, manner) as lease:
            # Its own runner, or somebody's `resume`, may have ended it until now.
            found = book.run(found.id)
            _refuse_closed(found)
            book.note(manner.holder, "abort", run=found.id)
            reason = Reason(code="aborted", text=f"the run was aborted by {manner.operator}")
            return Aborted(run=self._end(book, found, lease, RunStatus.ABORTED, reason), live=False)

    def supersede(self, lease: Lease, book: Ledger, by: str) -> None:
        """Settle and close the open runs that are older than the one which takes their place."""
        reason = Reason(code="superseded", text="its runner died before it was done; a later run took its place")
        parent = book.run(by).parent
        runs = list(book.open_runs())
        newest = [run.id for run in runs].index(by)
        for run in runs[newest + 1 :]:
            # Whoever has paused a run decides what becomes of it; whoever takes it back has decided.
            if held_by(book, run) is None or run.id == parent:
                self._end(book, book.run(run.id), lease, RunStatus.SUPERSEDED, reason)

    def refuse_held(self, book: Ledger, plan: Plan, parent: str | None) -> None:
        """Raise `Refused` for a plan that touches targets of a run which waits for a person, or behind a wave."""
        for run in book.open_runs():
            holder = held_by(book, run) if run.id != parent else None
            waiting = [] if holder is None else _waiting_in(book, run, plan)
            if waiting:
                names = ", ".join(waiting[:5]) + (" …" if len(waiting) > 5 else "")
                verb = "continue" if run.status is RunStatus.PAUSED or holder == PAUSED else "resume"
                raise Refused(
                    f"run {run.id} {holder}, and {len(waiting):,} of these targets wait in it: {names}; go on with it "
                    f"by `orchestrate {verb} {run.id}`, or end it by `orchestrate abort {run.id}`"
                )

    @staticmethod
    def _abortable(book: Ledger, named: str | None) -> Run | None:
        if named is None:
            return next(iter(book.open_runs()), None)
        run = book.run(named)
        _refuse_closed(run)
        return run

    def _end(self, book: Ledger, run: Run, lease: Lease, status: RunStatus, reason: Reason) -> Run:
        book.adopt_run(run.id, lease)
        outcomes = recoveries.settle(self._past(book, run), reason)
        return book.close_run(run.id, status, run.exit_code or ExitCode.FAILURES, outcomes)


def _would_halt(run: Run, barrier: recoveries.Barrier) -> Refused:
    words = barrier.tolerated_by
    more = f", or tolerate more with `orchestrate runs budget {run.id} {words}`" if words else ""
    return Refused(
        f"run {run.id} would halt again at once: {barrier.text}; mend the cause and run "
        f"`orchestrate retry {run.id}`{more}"
    )


def _waiting_in(book: Ledger, run: Run, plan: Plan) -> list[str]:
    """Targets of a plan that wait in a run which something holds back: for their turn, or for its last gate."""
    own = [job.target for job in book.plan(run.id).jobs]
    done = {outcome.target for outcome in book.outcomes(run.id) if outcome.status in DONE}
    wanted = {job.target for job in plan.jobs}
    if all(target in done for target in own):
        # Nothing would be done to them by a new run either, so it would end well, and the gate with it.
        wanted |= {outcome.target for outcome in plan.settled}
        return [target for target in own if target in wanted]
    return [target for target in own if target in wanted and target not in done]


def _has_changed(run: Run) -> bool:
    return any(run.counts.get(status.value, 0) > 0 for status in _CHANGED)


def _may_have_changed(book: Ledger, run: Run) -> bool:
    """Whether a run has moved a target, or may have: its runner may have died before it could say so."""
    if _has_changed(run):
        return True
    told = sum(run.counts.get(status.value, 0) for status in _UNDECIDED)
    return bool(book.unsettled(run.id)) or (
        told > 0 and any(recoveries.may_have_changed(outcome) for outcome in book.outcomes(run.id))
    )


def _moved_since(book: Ledger, chosen: Run) -> frozenset[tuple[str, tuple[str, ...]]]:
    """Each target that later runs have changed, with the heads from which and to which they brought it."""
    moved: set[tuple[str, tuple[str, ...]]] = set()
    for run in book.runs(limit=LOOK_BACK):
        if run.id == chosen.id:
            break
        if run.command in _MOVING and _has_changed(run):
            outcomes = [outcome for outcome in book.outcomes(run.id) if outcome.status in _CHANGED]
            moved |= {(one.target, heads) for one in outcomes for heads in (one.found, one.at) if heads is not None}
    return frozenset(moved)


def _refuse_closed(run: Run) -> None:
    if run.status not in _OPEN:
        raise UsageError(f"run {run.id} has ended already: {run.status}")


def _left(run: Run, past: Past) -> Callable[[Job], bool]:
    # What a closed run did is done: others may have undone it on purpose.
    return past.is_left if run.status in _OPEN else past.is_waiting


def _nothing_left(run: Run, past: Past, plan: Plan) -> bool:
    """Whether a run without jobs has ended as far as `resume` can bring it."""
    if run.status in {RunStatus.INTERRUPTED, RunStatus.RUNNING}:
        return False
    # A run that only a gate or a sweep has held up has no jobs left, and is not done.
    more = recoveries.tells_of_skips(past, plan) or past.awaits_gate or plan.sweep is not None
    return not (run.status in _OPEN and more)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Verb:
    """A way to go on with a run."""

    name: str
    statuses: frozenset[RunStatus]
    is_due: Callable[[Run, Past], Callable[[Job], bool]]
    #: for targets that had no job
    is_due_late: Callable[[Outcome], bool]
    #: whether there is nothing to do, given that there are no jobs
    is_idle: Callable[[Run, Past, Plan], bool]
    #: whether it looks for an open run before the latest one
    open_first: bool = False


_RESUME = _Verb(
    name="resume",
    statuses=_RESUMABLE,
    is_due=_left,
    is_due_late=recoveries.waits,
    is_idle=_nothing_left,
    open_first=True,
)
_RETRY = _Verb(
    name="retry",
    statuses=_RETRIABLE,
    is_due=lambda _, past: past.is_failed,
    is_due_late=lambda outcome: outcome.status is Status.FAILED,
    is_idle=lambda _run, past, _plan: not recoveries.has_failed(past),
)

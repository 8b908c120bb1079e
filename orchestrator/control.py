"""What people say to a run while it is on, from any terminal: pause, continue, skip a target, tolerate more failures.

All of it is kept in the ledger with the run, so that it holds for whoever goes on with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

from orchestrator.errors import UsageError
from orchestrator.ledger import Holder, Ledger, Request, RequestKind, Run, WaveMark
from orchestrator.outcomes import DONE, Outcome, Report, RunStatus, Status, Verdict
from orchestrator.plans import Plan, Wave
from orchestrator.records import Host
from orchestrator.rollout import Controls
from orchestrator.running import Manner, Options
from orchestrator.runs import Runs
from orchestrator.strategy import Budget

_OPEN = frozenset({RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.HALTED})
#: what `skip` still changes: a failed target is left alone by the next `resume`
_SKIPPABLE = frozenset({Status.FAILED, Status.LOST, Status.NOT_STARTED, Status.DEFERRED})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Something that was asked of a run."""

    run: Run
    #: a runner is alive, and hears it within two heartbeats
    live: bool
    #: what it means, for people
    text: str
    #: the target that it is about, None for the whole run
    target: str | None = None


class Control:
    """The steering of a project's runs. Not safe to be used from several threads at once."""

    def __init__(self, host: Host, runs: Runs) -> None:
        self._host = host
        self._runs = runs

    def pause(self, run: str | None = None, *, operator: str | None = None) -> Asked:
        """Ask the live run to start nothing more until somebody continues it; raises `UsageError` where none is live.

        What is at work ends properly. It stays paused when its runner dies.
        """
        book, found = self._open_run(run, "pause")
        if not _is_live(book, found):
            raise UsageError(f"run {found.id} has no live runner, so there is nothing to pause; it is {found.status}")
        if Controls(book.requests(found.id)).paused is not None:
            return Asked(run=found, live=True, text="is paused already")
        self._ask(book, found, RequestKind.PAUSE, Manner.of(operator=operator).holder)
        return Asked(run=found, live=True, text="starts nothing more; what is at work ends properly")

    def continue_(self, run: str | None = None, **options: Unpack[Options]) -> Report | Asked | None:
        """End the waiting of a run: a live one is told, one without a runner is gone on with here.

        It overrules a gate that was inconclusive, and cuts a pause short. None when nothing is left to do.
        """
        manner = Manner.of(**options)
        asked = self.release(run, operator=manner.operator, confirm=manner.confirm)
        return asked if asked.live else self._runs.resume(asked.run.id, **options)

    def release(self, run: str | None = None, *, operator: str | None = None, confirm: str | None = None) -> Asked:
        """Say that a run need not wait any more; where it has no live runner, whoever resumes it goes on."""
        manner = Manner.of(operator=operator, confirm=confirm)
        self._runs.confirm(manner)
        book, found = self._open_run(run, "continue")
        is_live = _is_live(book, found)
        if not self._waits(book, found):
            hint = "it is at work" if is_live else f"it is {found.status}: see `orchestrate resume {found.id}`"
            raise UsageError(f"run {found.id} waits for nobody, so there is nothing to continue; {hint}")
        controls, behind = Controls(book.requests(found.id)), _behind(book, found)
        if controls.paused is None and behind is not None and controls.lets_pass(*behind):
            # Twice is once: a second word would cut short what the run waits for next.
            return Asked(run=found, live=is_live, text="has been told so already")
        asked = self._ask(book, found, RequestKind.CONTINUE, manner.holder)
        controls.heed([asked])
        return Asked(run=found, live=is_live, text=_what_follows(controls, behind) if is_live else "is gone on with")

    def skip(
        self,
        target: str,
        reason: str,
        run: str | None = None,
        *,
        operator: str | None = None,
        confirm: str | None = None,
    ) -> Asked:
        """Leave one target alone for the rest of a run; a failure of it does not count any more once it is resumed."""
        if not reason.strip():
            raise UsageError("say why it is skipped: the reason stands in every report")
        manner = Manner.of(operator=operator, confirm=confirm)
        self._runs.confirm(manner)
        book, found = self._open_run(run, "skip in")
        is_live = _is_live(book, found)
        text = self._skippable(book, found, target, is_live=is_live)
        self._ask(book, found, RequestKind.SKIP, manner.holder, target=target, reason=reason.strip())
        return Asked(run=found, live=is_live, text=text, target=target)

    def budget(
        self,
        max_failures: Budget | int | str,
        run: str | None = None,
        *,
        wave: str | None = None,
        operator: str | None = None,
        confirm: str | None = None,
    ) -> Asked:
        """Tolerate so many failures from now on, in a run or in one wave of it; a percent is of its jobs."""
        try:
            budget = max_failures if isinstance(max_failures, Budget) else Budget.parse(max_failures)
        except ValueError:
            text = f"max_failures: `{max_failures}` is neither a number such as 3 nor a percent such as 2%"
            raise UsageError(text) from None
        manner = Manner.of(operator=operator, confirm=confirm)
        self._runs.confirm(manner)
        book, found = self._open_run(run, "give a budget to")
        limit = budget.of(_due(book.plan(found.id), wave))
        self._ask(book, found, RequestKind.BUDGET, manner.holder, max_failures=limit, wave=wave)
        is_live = _is_live(book, found)
        where = "in all" if wave is None else f"in wave {wave}"
        noun = "failure" if limit == 1 else "failures"
        return Asked(run=found, live=is_live, text=f"tolerates {limit:,} {noun} {where} from now on")

    # -- parts --------------------------------------------------------------------------------------------------

    def _open_run(self, named: str | None, verb: str) -> tuple[Ledger, Run]:
        book = self._host.ledger_if_any()
        runs = [] if book is None else list(book.open_runs())
        if book is None or (named is None and not runs):
            ended = "; `orchestrate resume RUN` takes up what one that has ended put off" if verb == "continue" else ""
            raise UsageError(f"no open run to {verb}{ended}; see `orchestrate runs list`")
        if named is None:
            live = book.live()
            return book, next((run for run in runs if live is not None and run.id == live.run), runs[0])
        found = book.run(named)
        if found.status not in _OPEN:
            raise UsageError(f"run {found.id} has ended already: {found.status}")
        return book, found

    def _ask(self, book: Ledger, run: Run, kind: RequestKind, holder: Holder, **detail: Any) -> Request:
        book.note(holder, "runs budget" if kind is RequestKind.BUDGET else kind.value, run=run.id, detail=detail)
        return book.request(run.id, holder, kind, detail)

    @staticmethod
    def _waits(book: Ledger, run: Run) -> bool:
        """Whether a run is paused, or waits behind a wave."""
        if run.status is RunStatus.PAUSED or Controls(book.requests(run.id)).paused is not None:
            return True
        return any(mark.holds for mark in book.wave_marks(run.id))

    @staticmethod
    def _skippable(book: Ledger, run: Run, target: str, *, is_live: bool) -> str:
        """What skipping a target will do; raises `UsageError` where it can do nothing any more."""
        planned = {job.target for job in book.plan(run.id).jobs}
        known: dict[str, Outcome] = {outcome.target: outcome for outcome in book.outcomes(run.id)}
        before = known.get(target)
        if target not in planned and before is None:
            raise UsageError(f"run {run.id} has no target `{target}`; see `orchestrate runs show {run.id} -v`")
        if before is not None and (before.status in DONE or before.status not in _SKIPPABLE):
            raise UsageError(f"{target} is {before.status} already in run {run.id}, so there is nothing to skip")
        if is_live and target in book.unsettled(run.id):
            return "is at work now: it is skipped only if this try has to be made again"
        if before is not None and before.status in {Status.FAILED, Status.LOST}:
            return f"{before.status} before, and is left alone once the run is resumed"
        return "will be left alone"


def _is_live(book: Ledger, run: Run) -> bool:
    live = book.live()
    return live is not None and live.run == run.id


def _behind(book: Ledger, run: Run) -> tuple[Wave, WaveMark] | None:
    """The wave behind which a run waits, and how far it is with it."""
    waiting = [mark for mark in book.wave_marks(run.id) if mark.holds]
    waves = {wave.name: wave for wave in book.plan(run.id).waves} if waiting else {}
    return (waves[waiting[-1].wave], waiting[-1]) if waiting else None


def _what_follows(controls: Controls, behind: tuple[Wave, WaveMark] | None) -> str:
    """What a live run does that has just been told to go on."""
    if behind is None:
        return "goes on"
    wave, mark = behind
    if not controls.lets_pass(wave, mark):
        return f"goes on once the pause behind wave {wave.name} is over"
    if mark.gate is not None and mark.gate.verdict is Verdict.INCONCLUSIVE:
        return f"goes on past the gate of wave {wave.name}, which was inconclusive"
    return "goes on" if wave.gate is None else f"goes on to the gate of wave {wave.name}"


def _due(plan: Plan, wave: str | None) -> int:
    """Jobs that a percent is of."""
    if wave is None:
        return sum(1 for _ in plan.jobs)
    jobs = next((each.jobs for each in plan.waves if each.name == wave), None)
    if jobs is None:
        names = ", ".join(each.name for each in plan.waves)
        raise UsageError(f"the run has no wave `{wave}`; it has {names or 'none'}")
    return len(jobs)

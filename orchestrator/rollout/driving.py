"""The engine: wave after wave, in one thread, and what lies between them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future

from orchestrator.errors import LedgerError, OrchestratorError
from orchestrator.events import (
    JobsAdded,
    Listener,
    WaveFinished,
    WaveStarted,
)
from orchestrator.ledger.protocol import Ledger
from orchestrator.outcomes import DONE, GateResult, Outcome, Reason, RunStatus, Status
from orchestrator.plans import Job, Plan, Wave
from orchestrator.rollout.budgets import Budget, is_server_down
from orchestrator.rollout.conclusions import Conclusion, Halt, HaltCause, Left, conclude
from orchestrator.rollout.delays import Clock
from orchestrator.rollout.gates import Outside
from orchestrator.rollout.intermissions import Intermissions
from orchestrator.rollout.jobs import JobDrive, Submit
from orchestrator.rollout.signals import StopCause, StopSignal, draining_on_interrupt

logger = logging.getLogger(__name__)

#: the wave of tenants that have joined while the run was on
SWEEP = "sweep"
#: how often a run looks for such tenants, as long as there are new ones each time
MOST_SWEEPS = 5
#: statuses of targets to which nothing was done
_UNTOUCHED = frozenset({Status.DEFERRED, Status.SKIPPED, Status.NOT_STARTED})


def execute(
    run: str,
    plan: Plan,
    submit: Submit,
    ledger: Ledger,
    listeners: Sequence[Listener] = (),
    stop: StopSignal | None = None,
    *,
    cancel: Callable[[], None] | None = None,
    clock: Clock | None = None,
    outside: Outside | None = None,
) -> Conclusion:
    """Run the plan's jobs and conclude; no exception leaves it for a job's failure.

    Each try of a job is written to the ledger before it is submitted. A job whose fault may pass goes back to the
    queue as the plan's `retries` say; only its last try counts. `cancel` is called once, when `stop` says that jobs in
    flight shall not finish; their futures must end soon afterwards (`executor.close(cancel=True)` does).
    `max_failures=None` on the plan lifts the budget, and the halt at a failure that every target would share too.
    """
    stop = stop or StopSignal()
    with draining_on_interrupt(stop):
        return Rollout(
            run, plan, submit, ledger, listeners, stop, cancel, clock or Clock(), outside or Outside()
        ).drive()


class Rollout(JobDrive):
    """One drive through one plan."""

    @functools.cached_property
    def _intermissions(self) -> Intermissions:
        return Intermissions(self, self._outside.ask, waits=self._outside.waits)

    def drive(self) -> Conclusion:
        """Do it all."""
        self._stop.subscribe(self._call)
        self._outside.mailbox.subscribe(self._call)
        self._recall()
        for outcome in self._plan.settled:
            if not is_server_down(outcome):
                self._judge(outcome)
        for place, wave in enumerate(self._plan.waves):
            self._receive_all()
            if self._halted:
                break
            later = self._plan.waves[place + 1 :]
            self._reopen_gate(wave, later)
            self._run_wave(wave)
            self._pass_on(wave, later)
        unfinished = self._sweep() or (self._awaits_gate() and self._is_over(self._plan.waves[-1]))
        self._drop_stuck()
        return self._conclude(unfinished=unfinished)

    def _recall(self) -> None:
        """What earlier runners of this run have written, and what people have asked of it."""
        try:
            self.marks.recall()
            self.controls.heed(self._ledger.requests(self._run))
        except LedgerError as error:
            self._lose_ledger(error)
        self._tell_pause(None)
        self._plan = self.controls.budgeted(self._plan)
        self._budget = Budget("the run", self._plan.max_failures)

    # -- waves --------------------------------------------------------------------------------------------------

    def _run_wave(self, wave: Wave) -> None:
        self._begun.add(wave.name)
        self._open_budget(wave)
        if self._halted or not wave.jobs:
            return
        # Who has said to go on need not say so again because of a target that was put off before.
        heard = self.marks[wave.name].heard if self._intermissions.is_released(wave) else None
        self.marks.begin(wave.name)
        self.notify(WaveStarted(wave=wave.name, jobs=len(wave.jobs)))
        for job in wave.jobs:
            self._enqueue(job)
        while self._has_work(wave):
            self.wait()
        if not self._halted:
            ended = (known.status for known in map(self._finished.get, (job.target for job in wave.jobs)) if known)
            changed = any(status not in _UNTOUCHED for status in ended)
            self.listen()
            heard = self.controls.heard if heard is None else heard
            holds = bool(wave.gate) or (bool(wave.pause) and wave.name != self._plan.waves[-1].name)
            self.marks.finish(wave.name, heard, changed=changed, holds=holds)
            self.notify(WaveFinished(wave=wave.name))

    def _reopen_gate(self, wave: Wave, later: Sequence[Wave]) -> None:
        """Targets that are done only now were no part of what a gate has measured; a person's word holds for all."""
        mark = self.marks[wave.name]
        decides = not later or any(other.jobs for other in later)
        if wave.jobs and decides and mark.passed and mark.has_answer:
            self.marks.reopen(wave.name)

    def _has_work(self, wave: Wave) -> bool:
        """Start what may start; whether there is anything to wait for after that."""
        self._drop_given_up()
        self._fill(wave)
        # An executor that runs jobs at once may just have shown that there is no room: that comes before the end.
        self._drop_given_up()
        if self._in_flight:
            return True
        if self._halted or self._is_drained():
            return False
        self._intermissions.hold_for_person()
        return True

    def _open_budget(self, wave: Wave) -> None:
        """Failures of the wave that an earlier runner of this run has seen count as well."""
        limit = self.controls.budgets.get(wave.name, wave.max_failures)
        self._wave, self._wave_budget = wave.name, Budget(f"wave {wave.name}", limit)
        for outcome in self._plan.settled:
            if outcome.wave == wave.name:
                self._wave_budget.add(outcome)
        self._heed_budgets()

    def _pass_on(self, wave: Wave, later: Sequence[Wave]) -> None:
        """Wait behind a wave, if something follows, or its gate is the last word."""
        outcomes = [known for known in self._known_of(wave) if known is not None]
        followed = any(other.jobs for other in later)
        if self._halted or not outcomes:
            return
        put_off = [outcome for outcome in outcomes if outcome.status is Status.DEFERRED]
        if followed and len(put_off) == len(outcomes):
            reason = put_off[0].reason
            text = f"nothing could be done in wave {wave.name}: {reason.text if reason else 'all was put off'}"
            self.halt(HaltCause.DEFERRED, text, code=reason.code if reason else "deferred")
            return
        last_word = not later and wave.gate is not None and self._is_over(wave)
        if self.marks[wave.name].passed or not (wave.pause or wave.gate) or not (followed or last_word):
            return
        if self.marks[wave.name].finished_at is None:
            self.listen()
            self.marks.finish(wave.name, self.controls.heard)
        self._intermissions.behind(wave, [outcome for outcome in outcomes if outcome.status in DONE])

    def _awaits_gate(self) -> bool:
        """Whether the gate of the last wave has still to pass."""
        last = self._plan.waves[-1] if self._plan.waves else None
        return last is not None and last.gate is not None and not self.marks[last.name].passed

    def _is_over(self, wave: Wave) -> bool:
        """Whether all that is in a wave has ended; what was put off has not."""
        known = {outcome.status for outcome in self._known_of(wave) if outcome is not None}
        return bool(known) and not known & {Status.NOT_STARTED, Status.DEFERRED}

    def _known_of(self, wave: Wave) -> Iterator[Outcome | None]:
        yield from (self._finished.get(job.target) for job in wave.jobs)
        yield from (outcome for outcome in self._plan.settled if outcome.wave == wave.name)

    def _sweep(self) -> bool:
        """Take in tenants that have joined since the plan was made, until there is none; whether that was cut short."""
        # A retry is over before the run is: those who were in it from the beginning come first.
        early = any(outcome.status is Status.NOT_STARTED for outcome in self._plan.settled)
        if self._outside.sweep is None or self._plan.sweep is None or early or self._awaits_gate():
            return False
        for _ in range(MOST_SWEEPS):
            self._receive_all()
            if self._halted:
                return True
            try:
                joined = self._outside.sweep(frozenset(self._jobs) | frozenset(self._settled))
                self._settle(outcome for outcome in joined if isinstance(outcome, Outcome))
                jobs = [job for job in joined if isinstance(job, Job)]
                if not jobs:
                    return False
                wave = self._add(jobs)
            except LedgerError as error:
                self._lose_ledger(error)
                return True
            except OrchestratorError as error:
                self.halt(HaltCause.SWEEP, f"nobody can say which tenants have joined meanwhile: {error}")
                return True
            except Exception as error:
                logger.exception("looking for tenants that have joined failed")
                text = f"nobody can say which tenants have joined meanwhile: {type(error).__name__}, see the log"
                self.halt(HaltCause.SWEEP, text)
                return True
            self._run_wave(wave)
        return False

    def _settle(self, outcomes: Iterable[Outcome]) -> None:
        """Outcomes of tenants that have joined, and for which there is nothing to be done, or nothing can be."""
        new = tuple(outcomes)
        self._plan = dataclasses.replace(self._plan, settled=(*self._plan.settled, *new))
        self._settled |= {outcome.target: outcome for outcome in new}

    def _add(self, jobs: Sequence[Job]) -> Wave:
        """A wave of jobs that were not in the plan; raises `LedgerError` before anything else is done."""
        taken = {wave.name for wave in self._plan.waves}
        names = itertools.chain([SWEEP], (f"{SWEEP}-{number}" for number in itertools.count(2)))
        name = next(free for free in names if free not in taken)
        added = tuple(dataclasses.replace(job, wave=name) for job in jobs)
        self._ledger.add_jobs(self._run, added)
        self._plan = self._plan.with_jobs(added)
        self._jobs |= {job.target: job for job in added}
        self._backlog.extend(added)
        self.notify(JobsAdded(wave=name, jobs=added))
        return self._plan.waves[-1]

    # -- what waiting behind a wave needs -----------------------------------------------------------------------

    @property
    def is_halted(self) -> bool:
        """Whether nothing more is started."""
        return self._halted is not None

    def wake(self, future: Future[GateResult]) -> None:
        """Come back from `wait` when that is done."""
        future.add_done_callback(self._call)

    def show(self, *, paused: bool) -> None:
        """Say in the ledger whether the run waits for a person."""
        try:
            self._ledger.set_status(self._run, RunStatus.PAUSED if paused else RunStatus.RUNNING)
        except LedgerError as error:
            self._lose_ledger(error)

    def _call(self, _: object = None) -> None:
        """Let `wait` come back, from any thread or signal handler: somebody has asked for something."""
        self._inbox.put(None)

    # -- conclusion ---------------------------------------------------------------------------------------------

    def _drop_stuck(self) -> None:
        """Skip jobs that wait for each other in a circle, which no wave could ever start."""
        if self._halted:
            return
        for job in self._backlog.take_stuck():
            text = f"waits for {', '.join(job.after)} in a circle; mend `after` in the registry"
            self._keep(job, job.outcome(Status.SKIPPED, reason=Reason(code="dependency_failed", text=text)))

    def _note_pause(self) -> None:
        """A run that is stopped while it waits for a person stays paused, unless it was to end by that."""
        halt, person = self._halted, self.controls.paused
        awaited = self._intermissions.awaited if person is None else f"paused by {person.operator}"
        aborted = self._stop.cause is StopCause.ABORTED
        if awaited and halt and halt.cause is HaltCause.INTERRUPTED and not aborted:
            self._halted = dataclasses.replace(halt, paused=True, text=f"{awaited}; {halt.text}")

    def _conclude(self, *, unfinished: bool) -> Conclusion:
        self._note_pause()
        halt = self._halted or Halt(cause=HaltCause.LEDGER, text="the run ended before its turn")
        known = self._finished | self._put_off
        not_started = [job for job in self._jobs.values() if job.target not in known]
        # What an earlier runner began stays begun: it may have been committed.
        known |= {
            job.target: job.outcome(halt.status, reason=halt.reason, attempts=int(job.resumed)) for job in not_started
        }
        left = Left(
            begun=frozenset(self._begun),
            put_off=frozenset(self._put_off),
            recorded=frozenset(self._recorded),
            marks=self.marks.all(),
            unfinished=unfinished,
        )
        return conclude(
            self._plan,
            known,
            left,
            halt=self._halted,
            interrupted=self._stop.cause if halt.cause is HaltCause.INTERRUPTED else None,
            error=self._error,
        )

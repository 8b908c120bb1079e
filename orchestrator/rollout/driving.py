"""The engine: one thread that submits, waits, records and halts."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeAlias

from orchestrator.errors import LedgerError, OrchestratorError
from orchestrator.events import Event, JobFinished, JobStarted, Listener, RunHalted, WaveStarted
from orchestrator.ledger.protocol import Ledger
from orchestrator.outcomes import DONE, FAILING, Failure, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Job, Plan, Wave
from orchestrator.rollout.backlog import Backlog, Budget
from orchestrator.rollout.conclusions import AHEAD, Conclusion, Halt, HaltCause, conclude
from orchestrator.rollout.signals import StopSignal, draining_on_interrupt

logger = logging.getLogger(__name__)

Submit: TypeAlias = Callable[[Job], Future[Outcome]]

#: seconds in which a signal is noticed, at the latest
LONGEST_SLEEP = 0.5

#: reasons for leaving a target alone that mean that it has all that was wanted
SATISFIED = frozenset({"at_head", "past"})


def execute(
    run: str,
    plan: Plan,
    submit: Submit,
    ledger: Ledger,
    listeners: Sequence[Listener] = (),
    stop: StopSignal | None = None,
    *,
    cancel: Callable[[], None] | None = None,
) -> Conclusion:
    """Run the plan's jobs and conclude; no exception leaves it for a job's failure.

    Each job is written to the ledger before it is submitted. `cancel` is called once, when `stop` says that jobs in
    flight shall not finish; their futures must end soon afterwards (`executor.close(cancel=True)` does).
    `max_failures=None` on the plan lifts the budget, and the halt at a failure that every target would share too.
    """
    stop = stop or StopSignal()
    with draining_on_interrupt(stop):
        return Rollout(run, plan, submit, ledger, listeners, stop, cancel).drive()


class Rollout:
    """One drive through one plan. All of it runs in the caller's thread; futures only put themselves into the inbox."""

    def __init__(
        self,
        run: str,
        plan: Plan,
        submit: Submit,
        ledger: Ledger,
        listeners: Sequence[Listener],
        stop: StopSignal,
        cancel: Callable[[], None] | None,
    ) -> None:
        self._run = run
        self._plan = plan
        self._submit = submit
        self._ledger = ledger
        self._listeners = tuple(listeners)
        self._stop = stop
        self._cancel = cancel
        self._jobs = {job.target: job for job in plan.jobs}
        self._settled = {outcome.target: outcome for outcome in plan.settled}
        self._finished: dict[str, Outcome] = {}
        self._backlog = Backlog(plan)
        self._in_flight: dict[Future[Outcome], tuple[Job, int]] = {}
        # Finished futures, and None for "somebody asked to stop". SimpleQueue, because a signal handler may put into
        # it while this thread is inside get().
        self._inbox: SimpleQueue[Future[Outcome] | None] = SimpleQueue()
        self._budget = Budget("the run", plan.max_failures)
        self._wave_budget = Budget("no wave", None)
        self._begun: set[str] = set()
        self._halted: Halt | None = None
        self._error: OrchestratorError | None = None

    def drive(self) -> Conclusion:
        """Do it all."""
        self._stop.subscribe(lambda: self._inbox.put(None))
        for outcome in self._plan.settled:
            self._judge(outcome)
        for wave in self._plan.waves:
            self._receive_all()
            if self._halted:
                break
            self._run_wave(wave)
        self._drop_stuck()
        return self._conclude()

    # -- submission ---------------------------------------------------------------------------------------------

    def _run_wave(self, wave: Wave) -> None:
        self._begun.add(wave.name)
        self._wave_budget = Budget(f"wave {wave.name}", wave.max_failures)
        self._notify(WaveStarted(wave=wave.name, jobs=len(wave.jobs)))
        for job in wave.jobs:
            self._enqueue(job)
        while True:
            self._fill(max(1, wave.concurrency))
            if not self._in_flight:
                return
            self._receive(self._wait())

    def _enqueue(self, job: Job) -> None:
        outcomes = {name: self._known(name) for name in job.after}
        barred = next((found for found in outcomes.values() if found and not self._satisfies(found)), None)
        if barred:
            self._keep(job, _barred(job, barred))
            return
        self._backlog.add(job, (name for name, found in outcomes.items() if found is None and name in self._jobs))

    def _fill(self, concurrency: int) -> None:
        while True:
            # First, because an executor that runs jobs at once has already finished the one that was just submitted.
            self._receive_all()
            if self._halted or len(self._in_flight) >= concurrency:
                return
            job = self._backlog.take()
            if job is None:
                return
            self._start(job)

    def _start(self, job: Job) -> None:
        try:
            attempt = self._ledger.start(self._run, job)
        except LedgerError as error:
            self._lose_ledger(error)
            return
        self._notify(JobStarted(job=job))
        try:
            future = self._submit(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's outcome
            future = Future()
            future.set_exception(error)
        self._in_flight[future] = (job, attempt)
        future.add_done_callback(self._inbox.put)

    # -- completion ---------------------------------------------------------------------------------------------

    def _wait(self) -> Future[Outcome] | None:
        # A signal that arrives just before this thread falls asleep does not wake it: its handler runs when the sleep
        # ends, so no sleep is long.
        while True:
            try:
                return self._inbox.get(timeout=LONGEST_SLEEP)
            except Empty:
                continue

    def _receive_all(self) -> None:
        while True:
            try:
                self._receive(self._inbox.get_nowait())
            except Empty:
                return

    def _receive(self, future: Future[Outcome] | None) -> None:
        if future is None:
            self._heed_stop()
            return
        job, attempt = self._in_flight.pop(future)
        self._backlog.leave(job)
        outcome = self._outcome(job, future)
        self._keep(job, dataclasses.replace(outcome, attempts=max(outcome.attempts, attempt)))
        if self._error:
            self._halt(HaltCause.RUN_LEVEL, str(self._error))

    def _outcome(self, job: Job, future: Future[Outcome]) -> Outcome:
        try:
            return future.result()
        except OrchestratorError as error:
            # The executor itself cannot run jobs: going on would only repeat it.
            self._error = self._error or error
            return job.outcome(Status.FAILED, at=job.found, failure=_executor_failure(error))
        except Exception as error:
            logger.warning("the executor lost %s", job.target, exc_info=True)
            return job.outcome(Status.LOST, failure=_unknown_fate(error))

    def _keep(self, job: Job, outcome: Outcome) -> None:
        """Record the outcome of a job, and of those behind it that can no longer run; then look at the budgets."""
        arrived = deque([(job, outcome)])
        while arrived:
            latest, found = arrived.popleft()
            self._finished[latest.target] = found
            self._record(found)
            self._notify(JobFinished(outcome=found))
            if self._satisfies(found):
                self._backlog.unblock(latest.target)
            else:
                arrived.extend((behind, _barred(behind, found)) for behind in self._backlog.drop(latest.target))
        self._judge(outcome)

    def _record(self, outcome: Outcome) -> None:
        try:
            self._ledger.record(self._run, outcome)
        except LedgerError as error:
            self._lose_ledger(error)

    def _known(self, target: str) -> Outcome | None:
        return self._finished.get(target) or self._settled.get(target)

    def _satisfies(self, outcome: Outcome) -> bool:
        """Whether targets that come after this one may start."""
        code = outcome.reason.code if outcome.reason else None
        ahead = self._plan.allow_ahead and code == AHEAD
        return outcome.status in DONE or (outcome.status is Status.SKIPPED and (ahead or code in SATISFIED))

    # -- halting ------------------------------------------------------------------------------------------------

    def _judge(self, outcome: Outcome) -> None:
        for budget in (self._budget, self._wave_budget):
            budget.add(outcome)
        shared = outcome.failure if outcome.status in FAILING else None
        if shared and shared.kind is FailureKind.RUN and self._plan.max_failures is not None:
            self._halt(HaltCause.RUN_LEVEL, f"every target would fail like {outcome.target}: {shared.message}")
        overdraft = self._budget.overdraft() or self._wave_budget.overdraft()
        if overdraft:
            self._halt(HaltCause.BUDGET, overdraft)

    def _heed_stop(self) -> None:
        self._halt(HaltCause.INTERRUPTED, f"asked to stop ({self._stop.cause})")
        if self._stop.immediate and self._cancel is not None:
            cancel, self._cancel = self._cancel, None
            try:
                cancel()
            except Exception:
                logger.exception("cancelling the jobs in flight failed; waiting for them instead")

    def _lose_ledger(self, error: LedgerError) -> None:
        self._error = self._error or error
        self._halt(HaltCause.LEDGER, f"the ledger cannot be written: {error}")

    def _halt(self, cause: HaltCause, text: str) -> None:
        """Start nothing more. The first cause counts; without anything left to start there is nothing to halt.

        What came from outside the jobs is told all the same: it shows in how the run ends.
        """
        left = len(self._jobs) - len(self._finished) - len(self._in_flight)
        if self._halted or (not left and cause not in {HaltCause.INTERRUPTED, HaltCause.LEDGER}):
            return
        self._halted = Halt(cause=cause, text=text)
        self._notify(RunHalted(cause=cause.value, text=text, in_flight=len(self._in_flight), not_started=left))

    def _notify(self, event: Event) -> None:
        notify(self._listeners, event)

    # -- conclusion ---------------------------------------------------------------------------------------------

    def _drop_stuck(self) -> None:
        """Skip jobs that wait for each other in a circle, which no wave could ever start."""
        if self._halted:
            return
        for job in self._backlog.take_stuck():
            text = f"waits for {', '.join(job.after)} in a circle; mend `after` in the registry"
            self._keep(job, job.outcome(Status.SKIPPED, reason=Reason(code="dependency_failed", text=text)))

    def _conclude(self) -> Conclusion:
        halt = self._halted or Halt(cause=HaltCause.LEDGER, text="the run ended before its turn")
        for job in self._jobs.values():
            if job.target not in self._finished:
                self._finished[job.target] = job.outcome(Status.NOT_STARTED, reason=halt.reason)
        return conclude(
            self._plan,
            self._finished,
            begun=self._begun,
            interrupted=self._stop.cause if halt.cause is HaltCause.INTERRUPTED else None,
            error=self._error,
        )


def notify(listeners: Sequence[Listener], event: Event) -> None:
    """Tell every listener; one that raises is logged, and the run goes on."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            logger.exception("a listener failed on %s", type(event).__name__)


def _barred(job: Job, dependency: Outcome) -> Outcome:
    """What becomes of a job behind a target that is not done: put off with it, or skipped because of it."""
    text = f"{dependency.target} must be done first and is {dependency.status.value.replace('_', ' ')}"
    if dependency.status is Status.DEFERRED:
        code = dependency.reason.code if dependency.reason else "server_down"
        return job.outcome(Status.DEFERRED, reason=Reason(code=code, text=text))
    return job.outcome(Status.SKIPPED, reason=Reason(code="dependency_failed", text=text))


def _executor_failure(error: OrchestratorError) -> Failure:
    return Failure(
        kind=FailureKind.RUN,
        code="executor",
        type=type(error).__name__,
        message=str(error),
        advice="nothing was done to this target; mend the cause and run the command again",
        fingerprint="executor",
    )


def _unknown_fate(error: BaseException) -> Failure:
    return Failure(
        kind=FailureKind.AMBIGUOUS,
        code="internal",
        type=type(error).__name__,
        message=f"the executor gave no outcome but {type(error).__name__}",
        advice="run `orchestrate status` to see where the target is, then run the command again",
        fingerprint=f"executor:{type(error).__name__}",
    )

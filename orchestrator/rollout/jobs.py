"""Jobs of one wave at a time: submitted, waited for, recorded, and halted."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeAlias

from orchestrator.errors import LedgerError, OrchestratorError
from orchestrator.events import (
    BudgetChanged,
    Event,
    JobDeferred,
    JobFinished,
    JobStarted,
    Listener,
    RunContinued,
    RunHalted,
    RunPaused,
)
from orchestrator.ledger.protocol import Ledger, Request, RequestKind
from orchestrator.outcomes import FAILING, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Job, Plan, Wave
from orchestrator.rollout.admissions import Admissions
from orchestrator.rollout.answers import answer_of, bar
from orchestrator.rollout.backlog import Backlog
from orchestrator.rollout.budgets import Budget
from orchestrator.rollout.conclusions import Halt, HaltCause
from orchestrator.rollout.controls import Controls
from orchestrator.rollout.delays import Clock
from orchestrator.rollout.gates import Outside
from orchestrator.rollout.marks import Marks
from orchestrator.rollout.retrials import Again, Retrials
from orchestrator.rollout.servers import Server, Servers
from orchestrator.rollout.signals import StopSignal

logger = logging.getLogger(__name__)

Submit: TypeAlias = Callable[[Job], Future[Outcome]]

#: seconds in which a signal is noticed, at the latest
LONGEST_SLEEP = 0.5

#: what ends a run even though no job is left to start
_ALWAYS_TOLD = frozenset({HaltCause.INTERRUPTED, HaltCause.LEDGER, HaltCause.GATE, HaltCause.PAUSED, HaltCause.SWEEP})


class JobDrive:
    """All of it runs in the caller's thread; futures only put themselves into the inbox."""

    def __init__(
        self,
        run: str,
        plan: Plan,
        submit: Submit,
        ledger: Ledger,
        listeners: Sequence[Listener],
        stop: StopSignal,
        cancel: Callable[[], None] | None,
        clock: Clock,
        outside: Outside,
    ) -> None:
        self._run = run
        self._plan = plan
        self._submit = submit
        self._ledger = ledger
        self._listeners = tuple(listeners)
        self._stop = stop
        self._cancel = cancel
        self.clock = clock
        self._outside = outside
        self.controls = Controls()
        self.marks = Marks(run, ledger, clock, self._lose_ledger)
        self._admissions = Admissions(plan, clock)
        self._jobs = {job.target: job for job in plan.jobs}
        self._settled = {outcome.target: outcome for outcome in plan.settled}
        self._finished: dict[str, Outcome] = {}
        #: what the latest try of a job came to that is to be tried again
        self._put_off: dict[str, Outcome] = {}
        #: targets whose latest outcome the ledger has
        self._recorded: set[str] = set()
        self._servers = Servers(plan, clock)
        self._backlog = Backlog(plan, self._servers)
        self._retrials = Retrials(plan, self._servers, clock)
        self._in_flight: dict[Future[Outcome], tuple[Job, int]] = {}
        # Finished futures, and None for "somebody asked to stop". SimpleQueue, because a signal handler may put into
        # it while this thread is inside get().
        self._inbox: SimpleQueue[Future[Outcome] | None] = SimpleQueue()
        self._budget = Budget("the run", plan.max_failures)
        #: the wave that is on
        self._wave = ""
        self._wave_budget = Budget("no wave", None)
        self._begun: set[str] = set()
        self._halted: Halt | None = None
        self._error: OrchestratorError | None = None

    # -- submission ---------------------------------------------------------------------------------------------

    def _is_drained(self) -> bool:
        """Whether nothing in flight and nothing to wait for means the end of the wave: not before the last verdict."""
        if self._backlog.has_turns():
            return False
        spent = self._servers.spent
        for name, server in spent:
            if not server.breaker.probe_last():
                self._give_up(name, server)
        return not spent

    def _enqueue(self, job: Job) -> None:
        if job.target in self.controls.skips:
            self._keep(job, self._left_alone(job))
            return
        outcomes = {name: self._known(name) for name in job.after}
        barred = next((found for found in outcomes.values() if found and not self._satisfies(found)), None)
        if barred:
            self._keep(job, bar(job, barred), at_once=False)
            return
        self._backlog.add(job, (name for name, found in outcomes.items() if found is None and name in self._jobs))

    def _fill(self, wave: Wave) -> None:
        while True:
            # First, because an executor that runs jobs at once has already finished the one that was just submitted.
            self._receive_all()
            if self._halted or self.controls.paused or len(self._in_flight) >= self._room(wave):
                return
            closed = self._admissions.closed(wave) if self._backlog.has_turns() else None
            if closed:
                self.halt(HaltCause.DEFERRED, closed.text, code=closed.code)
                return
            self._backlog.wake(self.clock.now())
            job = self._backlog.take()
            if job is None:
                return
            reason = self._admissions.against(job)
            if reason is None:
                self._start(job)
            else:
                self._backlog.leave(job)
                put_off = self._put_off_as(job, Status.DEFERRED, reason)
                self._keep(job, put_off, at_once=False)

    def _room(self, wave: Wave) -> int:
        """Jobs that may be in flight at once."""
        lefts = [budget.left for budget in (self._budget, self._wave_budget)] if wave.strict else []
        return min([max(1, wave.concurrency), *(left + 1 for left in lefts if left is not None)])

    def _put_off_as(self, job: Job, status: Status, reason: Reason) -> Outcome:
        """The outcome of a job that is not to be started now, or not any more; what its tries did is kept."""
        tried = self._put_off.get(job.target) or job.outcome(status, attempts=int(job.resumed))
        return dataclasses.replace(tried, status=status, reason=reason)

    def _left_alone(self, job: Job) -> Outcome:
        return self._as_skipped(self._put_off_as(job, Status.SKIPPED, self.controls.skips[job.target]))

    def _as_skipped(self, outcome: Outcome) -> Outcome:
        reason = self.controls.skips[outcome.target]
        return dataclasses.replace(outcome, status=Status.SKIPPED, reason=reason, failure=None)

    def _start(self, job: Job) -> None:
        try:
            attempt = self._ledger.start(self._run, job)
        except LedgerError as error:
            self._lose_ledger(error)
            return
        self._put_off.pop(job.target, None)
        self._retrials.start(job)
        self.notify(JobStarted(job=job))
        try:
            future = self._submit(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's outcome
            future = Future()
            future.set_exception(error)
        self._in_flight[future] = (job, attempt)
        future.add_done_callback(self._inbox.put)

    # -- completion ---------------------------------------------------------------------------------------------

    def wait(self, until: float | None = None) -> None:
        """Take in what comes next, or come back at that moment, or when the turn of a waiting job may have come."""
        # A signal that arrives just before this thread falls asleep does not wake it: its handler runs when the sleep
        # ends, so no sleep is long.
        now = self.clock.now()
        moments = (moment for moment in (self._backlog.next_turn(now), until) if moment is not None)
        try:
            news = self.clock.receive(self._inbox, max(0.0, min([LONGEST_SLEEP, *(each - now for each in moments)])))
        except Empty:
            self._heed_deadline()
            return
        self._receive(news)

    def _heed_deadline(self) -> None:
        late = self._admissions.past_deadline()
        if late is not None:
            self.halt(HaltCause.DEFERRED, late.text, code=late.code)

    def _receive_all(self) -> None:
        while True:
            try:
                self._receive(self._inbox.get_nowait())
            except Empty:
                return

    def _receive(self, future: Future[Outcome] | None) -> None:
        if future is None:
            self._heed_stop()
            self._heed_mail()
            return
        job, attempt = self._in_flight.pop(future)
        self._backlog.leave(job)
        outcome, error = answer_of(job, future)
        # What never reached a worker has had no try, unless an earlier one counts.
        tries = int(job.resumed) if outcome.status is Status.NOT_STARTED else max(outcome.attempts, attempt)
        outcome = dataclasses.replace(outcome, attempts=tries)
        again = self._retrials.judge(job, outcome)
        whole = self._retrials.whole(outcome)
        if again and job.target in self.controls.skips:
            self._keep(job, self._as_skipped(whole))
        elif again:
            self._defer(again, whole)
        else:
            self._keep(job, whole)
        if error:
            # The executor itself cannot run jobs: going on would only repeat it.
            self._error = self._error or error
            self.halt(HaltCause.RUN_LEVEL, str(self._error))

    def _defer(self, again: Again, outcome: Outcome) -> None:
        """Put a job back into the queue; should its turn not come any more, this is its outcome."""
        put_off = dataclasses.replace(outcome, status=Status.DEFERRED, reason=again.reason)
        self._put_off[outcome.target] = put_off
        if again.waits:
            self._backlog.delay(again.job, self.clock.now() + again.delay)
        else:
            self._backlog.add(again.job, rank=again.rank)
        self._record(put_off)
        self.notify(JobDeferred(outcome=put_off, delay_s=again.delay))

    def _keep(self, job: Job, outcome: Outcome, *, at_once: bool = True) -> None:
        """Take in the outcome of a job, and of those behind it that can no longer run; then look at the budgets.

        What nothing was done to need not be recorded at once: the end of the run writes all of those together, and they
        may be thousands.
        """
        arrived = deque([(job, outcome)])
        while arrived:
            latest, found = arrived.popleft()
            self._finished[latest.target] = found
            self._put_off.pop(latest.target, None)
            if found.attempts or (at_once and latest is job):
                self._record(found)
            self.notify(JobFinished(outcome=found))
            if self._satisfies(found):
                self._backlog.unblock(latest.target)
            else:
                arrived.extend((behind, bar(behind, found)) for behind in self._backlog.drop(latest.target))
        self._judge(outcome)

    def _record(self, outcome: Outcome) -> None:
        self._recorded.discard(outcome.target)
        try:
            self._ledger.record(self._run, outcome)
        except LedgerError as error:
            self._lose_ledger(error)
        else:
            self._recorded.add(outcome.target)

    def _known(self, target: str) -> Outcome | None:
        return self._finished.get(target) or self._settled.get(target)

    def _satisfies(self, outcome: Outcome) -> bool:
        return outcome.satisfies(allow_ahead=self._plan.allow_ahead)

    # -- servers that take no jobs ------------------------------------------------------------------------------

    def _give_up(self, name: str, server: Server) -> None:
        """Nothing is left but a server that stays down: its first failed target has failed, the others wait for it."""
        assert server.breaker.opener is not None
        job, outcome = server.breaker.opener
        message = outcome.failure.message if outcome.failure else "no more is known"
        server.give_up(Reason(code="server_down", text=f"{name} is down, it failed for {job.target}: {message}"))
        self._drop_given_up(but=job.target)
        if job.target not in self._finished:
            attempts = self._put_off.get(job.target, outcome).attempts
            self._keep(job, dataclasses.replace(self._retrials.whole(outcome), attempts=attempts))

    def _drop_given_up(self, but: str | None = None) -> None:
        """Put off to another run what waits for a server that takes no more jobs in this one."""
        for name, reason in self._servers.given_up:
            for job in self._backlog.take_out(name):
                if job.target != but:
                    tried = self._put_off.get(job.target) or job.outcome(Status.DEFERRED)
                    self._keep(job, dataclasses.replace(tried, reason=reason), at_once=False)

    # -- halting ------------------------------------------------------------------------------------------------

    def _judge(self, outcome: Outcome) -> None:
        for budget in (self._budget, self._wave_budget):
            budget.add(outcome)
        shared = outcome.failure if outcome.status in FAILING else None
        if shared and shared.kind is FailureKind.RUN and self._plan.max_failures is not None:
            self.halt(HaltCause.RUN_LEVEL, f"every target would fail like {outcome.target}: {shared.message}")
        self._heed_budgets()

    def _heed_budgets(self) -> None:
        overdraft = self._budget.overdraft() or self._wave_budget.overdraft()
        if overdraft:
            self.halt(HaltCause.BUDGET, overdraft)

    def _heed_stop(self) -> None:
        if self._stop.error is not None:
            self._lose_ledger(self._stop.error)
        if self._stop.cause is None:
            return
        self.halt(HaltCause.INTERRUPTED, f"asked to stop ({self._stop.cause})")
        if self._stop.immediate and self._cancel is not None:
            cancel, self._cancel = self._cancel, None
            try:
                cancel()
            except Exception:
                logger.exception("cancelling the jobs in flight failed; waiting for them instead")

    def _heed_mail(self) -> None:
        """Take in what people have asked since; that the run pauses is told at once, though much may be in flight."""
        before = self.controls.paused
        for request in self.controls.heed(self._outside.mailbox.read()):
            self._heed_request(request)
        self._tell_pause(before)

    def listen(self) -> None:
        """Take in what people have asked until now: the heartbeat would bring it some seconds late."""
        try:
            self._outside.mailbox.deliver(self._ledger.requests(self._run))
        except LedgerError:
            logger.warning("what people ask of the run could not be read; the next heartbeat has it", exc_info=True)
        self._heed_mail()

    def _tell_pause(self, before: Request | None) -> None:
        """That a person has paused the run, or continued it, since that was the last word."""
        after = self.controls.paused
        if after is not None and before is None:
            self.notify(RunPaused(cause="person", text=f"paused by {after.operator}"))
        if before is not None and after is None:
            self.notify(RunContinued(text=f"continued by {self.controls.continued_by}"))

    def _heed_request(self, request: Request) -> None:
        """What a person asked while the run was on; pausing and continuing is seen where jobs are started."""
        detail = request.detail
        if request.kind is RequestKind.SKIP:
            job = self._backlog.withdraw(detail["target"])
            if job is not None:
                self._keep(job, self._left_alone(job))
        elif request.kind is RequestKind.BUDGET:
            wave = detail.get("wave")
            if wave is None:
                self._budget.limit(detail["max_failures"])
            elif wave == self._wave:
                self._wave_budget.limit(detail["max_failures"])
            self.notify(BudgetChanged(wave=wave, max_failures=detail["max_failures"]))
            self._heed_budgets()

    def _lose_ledger(self, error: LedgerError) -> None:
        self._error = self._error or error
        self.halt(HaltCause.LEDGER, f"the ledger cannot be written: {error}")

    def halt(self, cause: HaltCause, text: str, *, code: str = "halted") -> None:
        """Start nothing more. The first cause counts; without anything left to start there is nothing to halt.

        What came from outside the jobs is told all the same: it shows in how the run ends.
        """
        left = len(self._jobs) - len(self._finished) - len(self._in_flight)
        if self._halted or (not left and cause not in _ALWAYS_TOLD):
            return
        self._halted = Halt(cause=cause, text=text, code=code)
        fresh = left - len(self._put_off)
        self.notify(RunHalted(cause=cause.value, text=text, in_flight=len(self._in_flight), not_started=fresh))

    def notify(self, event: Event) -> None:
        """Tell the listeners."""
        notify(self._listeners, event)


def notify(listeners: Sequence[Listener], event: Event) -> None:
    """Tell every listener; one that raises is logged, and the run goes on."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            logger.exception("a listener failed on %s", type(event).__name__)

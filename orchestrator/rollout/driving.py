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
from orchestrator.events import Event, JobDeferred, JobFinished, JobStarted, Listener, RunHalted, WaveStarted
from orchestrator.ledger.protocol import Ledger
from orchestrator.outcomes import DONE, FAILING, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Job, Plan, Wave
from orchestrator.rollout.answers import answer_of, bar
from orchestrator.rollout.backlog import Backlog, Budget, is_server_down
from orchestrator.rollout.conclusions import AHEAD, Conclusion, Halt, HaltCause, Left, conclude
from orchestrator.rollout.delays import Clock
from orchestrator.rollout.retrials import Again, Retrials
from orchestrator.rollout.servers import Server, Servers
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
    clock: Clock | None = None,
) -> Conclusion:
    """Run the plan's jobs and conclude; no exception leaves it for a job's failure.

    Each try of a job is written to the ledger before it is submitted. A job whose fault may pass goes back to the
    queue as the plan's `retries` say; only its last try counts. `cancel` is called once, when `stop` says that jobs in
    flight shall not finish; their futures must end soon afterwards (`executor.close(cancel=True)` does).
    `max_failures=None` on the plan lifts the budget, and the halt at a failure that every target would share too.
    """
    stop = stop or StopSignal()
    with draining_on_interrupt(stop):
        return Rollout(run, plan, submit, ledger, listeners, stop, cancel, clock or Clock()).drive()


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
        clock: Clock,
    ) -> None:
        self._run = run
        self._plan = plan
        self._submit = submit
        self._ledger = ledger
        self._listeners = tuple(listeners)
        self._stop = stop
        self._cancel = cancel
        self._clock = clock
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
        self._wave_budget = Budget("no wave", None)
        self._begun: set[str] = set()
        self._halted: Halt | None = None
        self._error: OrchestratorError | None = None

    def drive(self) -> Conclusion:
        """Do it all."""
        self._stop.subscribe(lambda: self._inbox.put(None))
        for outcome in self._plan.settled:
            if not is_server_down(outcome):
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
        self._open_budget(wave)
        if self._halted or not wave.jobs:
            return
        self._notify(WaveStarted(wave=wave.name, jobs=len(wave.jobs)))
        for job in wave.jobs:
            self._enqueue(job)
        while True:
            self._drop_given_up()
            self._fill(max(1, wave.concurrency))
            # An executor that runs jobs at once may just have shown that there is no room: that comes before the end.
            self._drop_given_up()
            if not self._in_flight and (self._halted or self._is_drained()):
                return
            self._wait()

    def _open_budget(self, wave: Wave) -> None:
        """Failures of the wave that an earlier runner of this run has seen count as well."""
        self._wave_budget = Budget(f"wave {wave.name}", wave.max_failures)
        for outcome in self._plan.settled:
            if outcome.wave == wave.name:
                self._wave_budget.add(outcome)
        self._heed_budgets()

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
        outcomes = {name: self._known(name) for name in job.after}
        barred = next((found for found in outcomes.values() if found and not self._satisfies(found)), None)
        if barred:
            self._keep(job, bar(job, barred))
            return
        self._backlog.add(job, (name for name, found in outcomes.items() if found is None and name in self._jobs))

    def _fill(self, concurrency: int) -> None:
        while True:
            # First, because an executor that runs jobs at once has already finished the one that was just submitted.
            self._receive_all()
            if self._halted or len(self._in_flight) >= concurrency:
                return
            self._backlog.wake(self._clock.now())
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
        self._put_off.pop(job.target, None)
        self._retrials.start(job)
        self._notify(JobStarted(job=job))
        try:
            future = self._submit(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's outcome
            future = Future()
            future.set_exception(error)
        self._in_flight[future] = (job, attempt)
        future.add_done_callback(self._inbox.put)

    # -- completion ---------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Take in what comes next, or come back when the turn of a waiting job may have come."""
        # A signal that arrives just before this thread falls asleep does not wake it: its handler runs when the sleep
        # ends, so no sleep is long.
        now = self._clock.now()
        turn = self._backlog.next_turn(now)
        try:
            news = self._clock.receive(self._inbox, LONGEST_SLEEP if turn is None else min(LONGEST_SLEEP, turn - now))
        except Empty:
            return
        self._receive(news)

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
        outcome, error = answer_of(job, future)
        # What never reached a worker has had no try, unless an earlier one counts.
        tries = int(job.resumed) if outcome.status is Status.NOT_STARTED else max(outcome.attempts, attempt)
        outcome = dataclasses.replace(outcome, attempts=tries)
        again = self._retrials.judge(job, outcome)
        if again:
            self._defer(again, self._retrials.whole(outcome))
        else:
            self._keep(job, self._retrials.whole(outcome))
        if error:
            # The executor itself cannot run jobs: going on would only repeat it.
            self._error = self._error or error
            self._halt(HaltCause.RUN_LEVEL, str(self._error))

    def _defer(self, again: Again, outcome: Outcome) -> None:
        """Put a job back into the queue; should its turn not come any more, this is its outcome."""
        put_off = dataclasses.replace(outcome, status=Status.DEFERRED, reason=again.reason)
        self._put_off[outcome.target] = put_off
        if again.waits:
            self._backlog.delay(again.job, self._clock.now() + again.delay)
        else:
            self._backlog.add(again.job, rank=again.rank)
        self._record(put_off)
        self._notify(JobDeferred(outcome=put_off, delay_s=again.delay))

    def _keep(self, job: Job, outcome: Outcome) -> None:
        """Record the outcome of a job, and of those behind it that can no longer run; then look at the budgets."""
        arrived = deque([(job, outcome)])
        while arrived:
            latest, found = arrived.popleft()
            self._finished[latest.target] = found
            self._put_off.pop(latest.target, None)
            self._record(found)
            self._notify(JobFinished(outcome=found))
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
        """Whether targets that come after this one may start."""
        code = outcome.reason.code if outcome.reason else None
        ahead = self._plan.allow_ahead and code == AHEAD
        return outcome.status in DONE or (outcome.status is Status.SKIPPED and (ahead or code in SATISFIED))

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
                    self._keep(job, dataclasses.replace(tried, reason=reason))

    # -- halting ------------------------------------------------------------------------------------------------

    def _judge(self, outcome: Outcome) -> None:
        for budget in (self._budget, self._wave_budget):
            budget.add(outcome)
        shared = outcome.failure if outcome.status in FAILING else None
        if shared and shared.kind is FailureKind.RUN and self._plan.max_failures is not None:
            self._halt(HaltCause.RUN_LEVEL, f"every target would fail like {outcome.target}: {shared.message}")
        self._heed_budgets()

    def _heed_budgets(self) -> None:
        overdraft = self._budget.overdraft() or self._wave_budget.overdraft()
        if overdraft:
            self._halt(HaltCause.BUDGET, overdraft)

    def _heed_stop(self) -> None:
        if self._stop.error is not None:
            self._lose_ledger(self._stop.error)
        if self._stop.cause is None:
            return
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
        fresh = left - len(self._put_off)
        self._notify(RunHalted(cause=cause.value, text=text, in_flight=len(self._in_flight), not_started=fresh))

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
        known = self._finished | self._put_off
        not_started = [job for job in self._jobs.values() if job.target not in known]
        # What an earlier runner began stays begun: it may have been committed.
        known |= {
            job.target: job.outcome(Status.NOT_STARTED, reason=halt.reason, attempts=int(job.resumed))
            for job in not_started
        }
        left = Left(begun=frozenset(self._begun), put_off=frozenset(self._put_off), recorded=frozenset(self._recorded))
        return conclude(
            self._plan,
            known,
            left,
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

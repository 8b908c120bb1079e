"""Plans driven under a test's hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from orchestrator import rollout
from orchestrator.errors import LedgerError
from orchestrator.events import Event, JobDeferred, JobFinished, RunHalted
from orchestrator.outcomes import Outcome, Status
from orchestrator.plans import Job, Plan
from orchestrator.rollout import Clock, Conclusion, StopSignal
from orchestrator.testing import (
    FakeClock,
    MemoryLedger,
    RecordingListener,
    Script,
    ScriptedExecutor,
)


class Drive:
    """A plan driven in a thread of its own, with every future in the test's hand."""

    def __init__(
        self, plan: Plan, *, hold: bool = True, clock: Clock | None = None, **script: Script | list[Script]
    ) -> None:
        self.plan = plan
        self.clock = clock
        self.executor = ScriptedExecutor(script, hold=hold)
        self.listener = RecordingListener()
        self.ledger = MemoryLedger()
        self.run = self.ledger.open_run(plan, operator="tester", fleet=10).id
        self.stop = StopSignal()
        self.conclusion: Conclusion | None = None
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._drive, daemon=True)

    def _drive(self) -> None:
        self.conclusion = rollout.execute(
            self.run,
            self.plan,
            self._submit,
            self.ledger,
            [self.listener, self._note],
            self.stop,
            cancel=lambda: self.executor.close(cancel=True),
            clock=self.clock,
        )

    def _submit(self, job: Job) -> Future[Outcome]:
        future = self.executor.submit(job)
        with self.changed:
            self.changed.notify_all()
        return future

    def _note(self, event: Event) -> None:
        with self.changed:
            self.changed.notify_all()

    def start(self) -> Drive:
        self.thread.start()
        return self

    def until(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, 20), (self.executor.in_flight, self.listener.names)

    def in_flight(self, *targets: str) -> None:
        """Wait until just these are in flight."""
        self.until(lambda: self.executor.in_flight == targets)

    def finish(self, target: str, script: Status | Outcome | None = None) -> None:
        """End one job, and wait until the rollout has taken it in."""
        self.executor.finish(target, script)
        self.until(lambda: target in {event.outcome.target for event in self.finished})

    @property
    def finished(self) -> list[JobFinished]:
        return [event for event in self.listener.events if isinstance(event, JobFinished)]

    @property
    def deferred(self) -> list[JobDeferred]:
        return [event for event in self.listener.events if isinstance(event, JobDeferred)]

    @property
    def halts(self) -> list[RunHalted]:
        return [event for event in self.listener.events if isinstance(event, RunHalted)]

    def end(self) -> Conclusion:
        if self.thread.ident is not None:
            self.thread.join(20)
        assert self.conclusion is not None
        return self.conclusion


def drive(plan: Plan, **script: Script | list[Script]) -> Drive:
    """Drive the plan to its end with an executor that answers inside `submit`, as the inline one does."""
    driven = Drive(plan, hold=False, clock=FakeClock(), **script)
    driven._drive()
    return driven


def statuses(conclusion: Conclusion) -> dict[str, str]:
    return {outcome.target: outcome.status.value for outcome in conclusion.outcomes}


def submitted(driven: Drive) -> list[str]:
    return [job.target for job in driven.executor.submitted]


class BrokenLedger(MemoryLedger):
    """Cannot write the intent, or the outcome, of one target."""

    def __init__(
        self, driven: Drive, *, start: str = "", record: str = "", error: type[LedgerError] = LedgerError
    ) -> None:
        super().__init__(store=driven.ledger._store)
        self._broken = (start, record)
        self._error = error

    def start(self, run: str, job: Job) -> int:
        if job.target == self._broken[0]:
            raise self._error("disk full")
        return super().start(run, job)

    def record(self, run: str, outcome: Outcome) -> None:
        if outcome.target == self._broken[1]:
            raise self._error("disk full")
        super().record(run, outcome)

"""A run on a clock that stands still unless the run waits, with people who react to what they see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from orchestrator import rollout
from orchestrator.events import Event
from orchestrator.ledger import RequestKind, WaveMark, this_process
from orchestrator.outcomes import GateResult, Outcome, RunStatus, Status, Verdict
from orchestrator.plans import Gate, Job, Plan, Wave
from orchestrator.rollout import Conclusion, Mailbox, Outside, StopSignal
from orchestrator.testing import FakeClock, MemoryLedger, RecordingListener, ScriptedExecutor, a_wave

GATE = Gate(kind="command", text="./smoke", timeout=30.0, interval=10.0, count=1, digest="d1")
FINE = GateResult(kind="command", verdict=Verdict.PASSED, text="fine")
OPS = this_process("ann@build7")


def wave(*targets: str, name: str, **fields) -> Wave:
    return dataclasses.replace(a_wave(*targets, name=name, concurrency=4), **fields)


def with_jobs(each: Wave, *jobs: Job) -> Wave:
    return dataclasses.replace(each, jobs=jobs)


class World:
    """A run, its ledger and its clock; what people do is a function of the events."""

    def __init__(self, plan: Plan, script: dict | None = None, *, waits: bool = True, sweep=None) -> None:
        self.plan = plan
        self.script = script or {}
        self.ledger = MemoryLedger()
        self.run = self.ledger.open_run(plan, operator="tester", fleet=10).id
        self.waits = waits
        self.sweep = sweep
        self.answers: list[GateResult | Exception] = []
        self.asked: list[tuple[str, tuple[str, ...], float]] = []
        self.reactions: dict[type[Event], Callable[[Event], object]] = {}
        self.statuses_seen: list[RunStatus] = []
        self.begin()

    def begin(self) -> None:
        self.clock = FakeClock() if not hasattr(self, "clock") else self.clock
        self.listener, self.executor = RecordingListener(), ScriptedExecutor(self.script)
        self.mailbox, self.stop = Mailbox(), StopSignal()

    def on(self, kind: type[Event], react: Callable[[Event], object]) -> World:
        self.reactions[kind] = react
        return self

    def request(self, kind: RequestKind, **detail) -> None:
        self.ledger.request(self.run, OPS, kind, detail)
        self.mailbox.deliver(self.ledger.requests(self.run))

    def drive(self, plan: Plan | None = None) -> Conclusion:
        outside = Outside(mailbox=self.mailbox, ask=self._ask, sweep=self.sweep, waits=self.waits)
        self.conclusion = rollout.execute(
            self.run,
            plan or self.plan,
            self.executor.submit,
            self.ledger,
            [self.listener, self._react],
            self.stop,
            clock=self.clock,
            outside=outside,
        )
        return self.conclusion

    def _react(self, event: Event) -> None:
        react = self.reactions.get(type(event))
        if react:
            react(event)

    def _ask(self, name: str, gate: Gate, done: Sequence[Outcome]) -> Future[GateResult]:
        self.asked.append((name, tuple(outcome.target for outcome in done), self.clock.now()))
        future: Future[GateResult] = Future()
        answer = (
            self.answers.pop(0) if self.answers else GateResult(kind="command", verdict=Verdict.PASSED, text="fine")
        )
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    def events(self, kind: type) -> list:
        return [event for event in self.listener.events if isinstance(event, kind)]

    @property
    def marks(self) -> dict[str, WaveMark]:
        return {mark.wave: mark for mark in self.ledger.wave_marks(self.run)}


def answer(verdict: Verdict, text: str = "exit code 1") -> GateResult:
    return GateResult(kind="command", verdict=verdict, text=text)


def resumed(world: World, *targets: str) -> Plan:
    """What is left of the plan after its first drive, as `recoveries.remaining` makes it."""
    known = {outcome.target: outcome for outcome in world.conclusion.outcomes}
    due = set(targets) or {name for name, one in known.items() if one.status in {Status.NOT_STARTED, Status.DEFERRED}}
    waves = tuple(
        dataclasses.replace(each, jobs=tuple(job for job in each.jobs if job.target in due))
        for each in world.plan.waves
    )
    settled = tuple(outcome for name, outcome in known.items() if name not in due)
    return dataclasses.replace(world.plan, waves=waves, settled=settled)

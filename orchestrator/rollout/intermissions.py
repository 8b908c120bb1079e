"""What lies between two waves: the bake time, the word of a person, the gate."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from orchestrator.events import Event, GateAnswered, RunContinued, RunPaused
from orchestrator.outcomes import GateResult, Outcome, Verdict
from orchestrator.plans import UNTIL_CONTINUED, Gate, Wave
from orchestrator.rollout.conclusions import HaltCause
from orchestrator.rollout.controls import Controls
from orchestrator.rollout.delays import Clock
from orchestrator.rollout.gates import Ask
from orchestrator.rollout.marks import Marks

logger = logging.getLogger(__name__)


class Stage(Protocol):
    """The drive that waits here."""

    controls: Controls
    marks: Marks
    clock: Clock

    @property
    def is_halted(self) -> bool:
        """Whether nothing more is started."""

    def wait(self, until: float | None = None) -> None:
        """Take in what comes next, or come back at that moment of the clock."""

    def wake(self, future: Future[GateResult]) -> None:
        """Come back from `wait` when that is done."""

    def notify(self, event: Event) -> None:
        """Tell the listeners."""

    def halt(self, cause: HaltCause, text: str) -> None:
        """Start nothing more."""

    def listen(self) -> None:
        """Take in what was asked until now."""

    def show(self, *, paused: bool) -> None:
        """Say in the ledger whether the run waits for a person."""


class Intermissions:
    """Waits behind waves, in the thread of the drive; a run that is asked to stop comes back at once."""

    def __init__(self, stage: Stage, ask: Ask | None, *, waits: bool) -> None:
        self._stage = stage
        self._ask = ask
        self._waits = waits
        #: what the run waits for a person to say, or waited for when it was halted
        self.awaited: str | None = None

    def behind(self, wave: Wave, done: Sequence[Outcome]) -> None:
        """Wait as long as the wave says, and ask its gate; halts when the next one may not begin."""
        if self._is_overruled(wave):
            return
        if not self._stage.marks[wave.name].has_answer:
            self._bake(wave)
        if self._stage.is_halted:
            return
        if wave.gate is None:
            self._stage.marks.change(wave.name, passed=True)
        else:
            self._pass_gate(wave, wave.gate, done)

    def hold_for_person(self) -> None:
        """Wait in the middle of a wave, because a person has paused the run; that was told when it was heard."""
        request = self._stage.controls.paused
        if request is not None:
            self._wait_for_person(f"paused by {request.operator}", lambda: self._stage.controls.paused is None)

    def is_released(self, wave: Wave) -> bool:
        """Whether a person has said to go on since the run began to wait behind a wave."""
        mark = self._stage.marks[wave.name]
        return mark.holds and self._stage.controls.lets_pass(wave, mark)

    def _is_overruled(self, wave: Wave) -> bool:
        """Whether an earlier runner left a gate that could not be measured, and a person has said to go on since."""
        mark = self._stage.marks[wave.name]
        if mark.gate is None or mark.gate.verdict is not Verdict.INCONCLUSIVE or not self._is_released(wave):
            return False
        self._overrule(wave, mark.gate)
        return True

    # -- pauses -------------------------------------------------------------------------------------------------

    def _bake(self, wave: Wave) -> None:
        mark = self._stage.marks[wave.name]
        if wave.pause is None or self._is_released(wave):
            return
        if wave.pause == UNTIL_CONTINUED:
            text = f"wave {wave.name} is done, and the strategy waits for somebody to continue"
            self._hold("person", text, wave)
            return
        assert mark.finished_at is not None
        ends = mark.finished_at + datetime.timedelta(seconds=float(wave.pause))
        left = (ends - self._stage.clock.utc()).total_seconds()
        if left <= 0:
            return
        self._stage.notify(
            RunPaused(
                cause="bake", text=f"wave {wave.name} is done; the next one follows", wave=wave.name, seconds=left
            )
        )
        self._wait_until(lambda: self._stage.clock.utc() >= ends or self._is_released(wave), seconds=left)
        self._tell_continued("the pause was cut short" if self._is_released(wave) else "the pause is over")

    def _hold(self, cause: str, text: str, wave: Wave) -> None:
        """Wait behind a wave for a person."""
        if self._is_released(wave):
            return
        self._stage.notify(RunPaused(cause=cause, text=text, wave=wave.name))
        self._wait_for_person(text, lambda: self._is_released(wave))
        self._tell_continued(f"continued by {self._stage.controls.continued_by}")

    def _wait_for_person(self, text: str, is_over: Callable[[], bool]) -> None:
        if not self._waits:
            self._stage.halt(HaltCause.PAUSED, text)
            return
        self.awaited = text
        self._stage.show(paused=True)
        self._wait_until(is_over)
        if not self._stage.is_halted:
            self.awaited = None
            self._stage.show(paused=False)

    def _wait_until(self, is_over: Callable[[], bool], seconds: float | None = None) -> None:
        clock = self._stage.clock
        until = None if seconds is None else clock.now() + seconds
        while not self._stage.is_halted and not is_over():
            # That moment may be past and it is not over: when the clock on the wall was set back.
            self._stage.wait(until if until is not None and until > clock.now() else None)

    def _is_released(self, wave: Wave) -> bool:
        return self._stage.controls.lets_pass(wave, self._stage.marks[wave.name])

    def _tell_continued(self, text: str) -> None:
        if not self._stage.is_halted:
            self._stage.notify(RunContinued(text=text))

    # -- gates --------------------------------------------------------------------------------------------------

    def _pass_gate(self, wave: Wave, gate: Gate, done: Sequence[Outcome]) -> None:
        result = self._answer(wave, gate, done)
        if result is None:
            return
        self._stage.notify(GateAnswered(wave=wave.name, result=result))
        # What was asked before the answer was known cannot have been about it. All of it in one write: whoever goes on
        # with the run must not ask again what was answered.
        self._stage.listen()
        passed = result.verdict is Verdict.PASSED
        self._stage.marks.change(wave.name, gate=result, heard=self._stage.controls.heard, passed=passed)
        text = f"the gate of wave {wave.name} {result.verdict}: {result.text}"
        if result.verdict is Verdict.FAILED:
            self._stage.halt(HaltCause.GATE, text)
        elif result.verdict is Verdict.INCONCLUSIVE:
            text = f"the gate of wave {wave.name} is inconclusive: {result.text}"
            self._hold("gate", text, wave)
            if not self._stage.is_halted:
                self._overrule(wave, result)

    def _overrule(self, wave: Wave, result: GateResult) -> None:
        text = f"continued by {self._stage.controls.continued_by}, though it was inconclusive: {result.text}"
        overruled = dataclasses.replace(
            result, kind="person", verdict=Verdict.PASSED, text=text, at=self._stage.clock.utc()
        )
        self._stage.marks.change(wave.name, gate=overruled, passed=True)
        self._stage.notify(GateAnswered(wave=wave.name, result=overruled))

    def _answer(self, wave: Wave, gate: Gate, done: Sequence[Outcome]) -> GateResult | None:
        """All measurements, up to the first that does not pass; None when the run is to stop."""
        result = None
        for number in range(1, gate.count + 1):
            if number > 1:
                self._rest(gate.interval)
            result = self._measure(wave, gate, done)
            if result is None:
                return None
            result = dataclasses.replace(result, measurements=number, at=self._stage.clock.utc())
            if result.verdict is not Verdict.PASSED:
                return result
        return result

    def _rest(self, seconds: float) -> None:
        ends = self._stage.clock.now() + seconds
        self._wait_until(lambda: self._stage.clock.now() >= ends, seconds=seconds)

    def _measure(self, wave: Wave, gate: Gate, done: Sequence[Outcome]) -> GateResult | None:
        if self._stage.is_halted:
            return None
        if self._ask is None:
            return GateResult(kind=gate.kind, verdict=Verdict.INCONCLUSIVE, text="nothing here can ask it")
        future = self._ask(wave.name, gate, done)
        self._stage.wake(future)
        self._wait_until(future.done)
        if not future.done():
            return None
        try:
            return future.result()
        except Exception:
            logger.exception("the gate of wave %s could not be asked", wave.name)
            return GateResult(kind=gate.kind, verdict=Verdict.INCONCLUSIVE, text="it could not be asked; see the log")

"""How far a run is: one tally of its events, shown as plain lines or on a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from orchestrator.cli import deferred, terminals
from orchestrator.cli.render import counted
from orchestrator.cli.terminals import Mood, Screen
from orchestrator.outcomes import FAILING, Outcome
from orchestrator.reports.words import duration

if TYPE_CHECKING:
    from orchestrator.events import Event, RunHalted
    from orchestrator.plans import Plan

SECONDS_BETWEEN_LINES = 10.0
SHARE_BETWEEN_LINES = 0.01
#: CI ends jobs that say nothing for some minutes, and one index can take longer than that
SECONDS_OF_SILENCE = 60.0
#: cause of a halt that the signal handler has announced already
INTERRUPTED = "interrupted"
#: failures told as they happen; the report has them all
FAILURES_TOLD = 5


@dataclasses.dataclass(slots=True)
class Tally:
    """Numbers of the run so far."""

    clock: Callable[[], float] = time.monotonic
    total: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    began: float = 0.0
    #: targets that went back to the queue, and how often any of them did
    waiting: set[str] = dataclasses.field(default_factory=set)
    deferrals: int = 0

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case deferred.events.RunStarted(plan=plan):
                self.total, self.began = sum(1 for _ in plan.jobs), self.clock()
            case deferred.events.JobStarted(job=job):
                self.running += 1
                self.waiting.discard(job.target)
            case deferred.events.JobDeferred(outcome=outcome):
                self.running = max(0, self.running - 1)
                self.waiting.add(outcome.target)
                self.deferrals += 1
            case deferred.events.JobFinished(outcome=outcome):
                self._finish(outcome)
            case _:
                pass

    def _finish(self, outcome: Outcome) -> None:
        self.done += 1
        self.failed += outcome.status in FAILING
        # One that was put off for good while it waited was in no worker's hands.
        if outcome.target in self.waiting:
            self.waiting.discard(outcome.target)
        else:
            self.running = max(0, self.running - 1)

    @property
    def not_started(self) -> int:
        """Jobs that no worker has seen yet."""
        return max(0, self.total - self.done - self.running - len(self.waiting))

    @property
    def rate(self) -> float:
        """Jobs per second since the run began."""
        elapsed = self.clock() - self.began
        return self.done / elapsed if elapsed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """What is left at the rate so far, None before the first job is done."""
        return (self.total - self.done) / self.rate if self.rate else None


class Progress(Protocol):
    """A listener that shows the run; `close` leaves the terminal as it was."""

    tally: Tally

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Take the display away."""


class PlainProgress:
    """A line at the start, every ten seconds or one percent, whichever comes later, and for the first failures."""

    def __init__(self, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally(clock=clock)
        self._screen = screen
        self._clock = clock
        self._said_at = 0.0
        self._said_done = 0
        self._closed = threading.Event()

    def __call__(self, event: Event) -> None:
        """Write what is worth a line."""
        self.tally.take(event)
        match event:
            case deferred.events.RunStarted(run=run, plan=plan):
                self._said_at = self._clock()
                self._say_begin(run, plan)
                threading.Thread(target=self._beat, daemon=True).start()
            case deferred.events.JobFinished(outcome=outcome) if outcome.status in FAILING:
                tell_failure(outcome, self.tally.failed, self._say_failure)
            case deferred.events.JobDeferred(outcome=outcome):
                tell_deferral(outcome, self.tally.deferrals, self._say)
            case deferred.events.RunHalted(cause=cause) if cause != INTERRUPTED:
                self._say(halted(event), Mood.WARNING)
        if self._is_time():
            self._say_progress()

    def close(self) -> None:
        """Lines stay; nothing comes after them."""
        self._closed.set()

    def break_silence(self) -> None:
        """Write a line when none has been written for long."""
        if self._clock() - self._said_at >= SECONDS_OF_SILENCE:
            self._say_progress()

    def _beat(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_LINES):
            self.break_silence()

    def _is_time(self) -> bool:
        enough = max(1, self.tally.total * SHARE_BETWEEN_LINES)
        is_later = self._clock() - self._said_at >= SECONDS_BETWEEN_LINES
        return is_later and self.tally.done - self._said_done >= enough

    def _say_begin(self, run: str, plan: Plan) -> None:
        if self.tally.total:
            self._say(f"run {run} begins: {plan.command} of {counted(self.tally.total, 'target')}")

    def _say_progress(self) -> None:
        self._said_at, self._said_done = self._clock(), self.tally.done
        self._say(progress_line(self.tally))

    def _say_failure(self, text: str) -> None:
        self._say(text, Mood.BAD)

    def _say(self, text: str, mood: Mood | None = None) -> None:
        self._screen.say(f"{datetime.datetime.now():%H:%M:%S} {text}", mood)


class SilentProgress:
    """Counts and shows nothing."""

    def __init__(self) -> None:
        self.tally = Tally()

    def __call__(self, event: Event) -> None:
        """Count."""
        self.tally.take(event)

    def close(self) -> None:
        """Nothing to take away."""


def progress_line(tally: Tally) -> str:
    """`1,204/9,800 done  3 failed  8 running  41/s  eta 3m30s`."""
    parts = [f"{tally.done:,}/{tally.total:,} done", f"{tally.failed:,} failed", f"{tally.running:,} running"]
    if tally.waiting:
        parts.append(waiting_text(tally))
    parts.append(rate_text(tally.rate))
    if tally.seconds_left is not None:
        parts.append(f"eta {duration(tally.seconds_left)}")
    return "  ".join(parts)


def waiting_text(tally: Tally) -> str:
    """`3 waiting to be tried again`."""
    return f"{len(tally.waiting):,} waiting to be tried again"


def rate_text(rate: float) -> str:
    """`41/s`, `12/min`."""
    return f"{rate:.0f}/s" if rate >= 1 else f"{rate * 60:.0f}/min"


def tell_failure(outcome: Outcome, number: int, say: Callable[[str], None]) -> None:
    """Say the first failures one by one, then once that there are more."""
    if number <= FAILURES_TOLD:
        say(f"{outcome.target} {outcome.status}: {_cause(outcome)}")
    elif number == FAILURES_TOLD + 1:
        say("more have failed; the report at the end has them all")


def tell_deferral(outcome: Outcome, number: int, say: Callable[[str], None]) -> None:
    """Say the first times why a target waits; after that the number of those that wait is enough."""
    if number <= FAILURES_TOLD and outcome.reason:
        say(f"{outcome.target} waits: {outcome.reason.text}")


def _cause(outcome: Outcome) -> str:
    if outcome.failure is None:
        return outcome.reason.text if outcome.reason else "no more is known"
    failure = outcome.failure
    where = f" at {failure.revision}" if failure.revision else ""
    return " ".join(part for part in (failure.code, failure.type + where) if part) + f": {failure.message}"


def halted(event: RunHalted) -> str:
    """Why nothing new starts."""
    return f"halted: {event.text}; {event.in_flight:,} running, {event.not_started:,} not started"


@contextlib.contextmanager
def shown(screen: Screen) -> Iterator[Progress]:
    """The progress that fits where standard error goes, taken away at the end."""
    progress = _fitting(screen)
    try:
        yield progress
    finally:
        progress.close()


def _fitting(screen: Screen) -> Progress:
    if screen.quiet:
        return SilentProgress()
    if terminals.can_redraw():
        return deferred.display.TerminalProgress(no_color=screen.no_color)
    return PlainProgress(screen)

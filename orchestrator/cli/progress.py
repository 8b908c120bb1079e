"""How far a run is, shown as plain lines or on a terminal."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from orchestrator.cli import deferred, terminals
from orchestrator.cli.pictures import BEHIND, Phase, Picture, WavePicture, WaveState
from orchestrator.cli.render import counted
from orchestrator.cli.tallies import Tally
from orchestrator.cli.terminals import Mood, Screen
from orchestrator.outcomes import FAILING, Outcome, Verdict
from orchestrator.reports.words import duration

if TYPE_CHECKING:
    from orchestrator.events import BudgetChanged, Event, GateAnswered, RunHalted, RunPaused

SECONDS_BETWEEN_LINES = 10.0
SHARE_BETWEEN_LINES = 0.01
#: CI ends jobs that say nothing for some minutes, and one index can take longer than that
SECONDS_OF_SILENCE = 60.0
#: causes of a halt that the signal handler, or the pause before it, has told
TOLD_ELSEWHERE = frozenset({"interrupted", "paused"})
#: failures told as they happen; the report has them all
FAILURES_TOLD = 5
#: what can be typed while a run is on
DRAINS = "Ctrl-C: nothing new starts, what is running ends"
_VERDICTS = {Verdict.PASSED: Mood.GOOD, Verdict.FAILED: Mood.BAD, Verdict.INCONCLUSIVE: Mood.WARNING}


class Progress(Protocol):
    """A listener that shows the run; `close` leaves the terminal as it was."""

    tally: Tally

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def begin(self, verb: str) -> None:
        """Start to show what the tally has; a run that has just started does so by itself."""

    def announce(self, text: str) -> None:
        """Say what a signal has asked for; called by its handler, in the middle of anything."""

    def close(self) -> None:
        """Take the display away."""


class PlainProgress:
    """A line every ten seconds or one percent, whichever comes later, and one for whatever changes the course.

    That is the start of the run, begin and end of each of several waves, the first failures, and every pause, gate,
    change of a budget and halt.
    """

    def __init__(self, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally(clock)
        self._screen = screen
        self._clock = clock
        self._said_at = 0.0
        self._said_ended = 0
        self._closed = threading.Event()
        self._begun: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write what is worth a line."""
        self.tally.take(event)
        for text, mood in told(event, self.tally):
            self._say(text, mood)
        match event:
            case deferred.events.RunStarted():
                self.begin("begins")
            case deferred.events.WaveStarted(wave=wave, jobs=jobs):
                self._say_wave(wave, jobs)
            case deferred.events.WaveFinished(wave=wave):
                self._say_wave_end(wave)
            case deferred.events.RunPaused():
                self._say(paused(event), Mood.WARNING)
            case deferred.events.RunHalted(cause=cause) if cause not in TOLD_ELSEWHERE:
                self._say(halted(event), Mood.WARNING)
        if self._is_time():
            self._say_progress()

    def begin(self, verb: str) -> None:
        """Say which run it is, so that it can be found; nothing where nothing is due."""
        picture = self.tally.picture()
        self._said_at, self._said_ended = self._clock(), self.tally.ended
        if picture is not None and picture.jobs:
            self._say(f"run {picture.run} {verb}: {picture.command} of {counted(picture.jobs, 'target')}")
        threading.Thread(target=self._beat, daemon=True).start()

    def announce(self, text: str) -> None:
        """Past Python's buffers: the handler may have interrupted a write to them. A `^C` gives way."""
        clear = "\r\x1b[2K" if sys.stderr.isatty() else ""
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), f"{clear}{terminals.visible(text)}\n".encode())

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
        enough = max(1, self.tally.jobs * SHARE_BETWEEN_LINES)
        is_later = self._clock() - self._said_at >= SECONDS_BETWEEN_LINES
        return is_later and self.tally.ended - self._said_ended >= enough

    def _say_wave(self, name: str, jobs: int) -> None:
        self._begun[name] = self._clock()
        place = self._place(name)
        if place:
            self._say(f"{place} begins: {counted(jobs, 'target')}")

    def _say_wave_end(self, name: str) -> None:
        picture = self.tally.picture()
        place = self._place(name)
        if picture is None or not place:
            return
        wave = next(wave for wave in picture.waves if wave.name == name)
        took = duration(self._clock() - self._begun.get(name, self._clock()))
        left = wave.total - wave.done - wave.failed
        rest = f"  {left:,} left alone" if left else ""
        mood = Mood.BAD if wave.failed else None
        self._say(f"{place} ends: {wave.done:,} done  {wave.failed:,} failed{rest}  in {took}", mood)

    def _place(self, name: str) -> str:
        """`wave 2/4 early`; nothing where the run has a single wave."""
        picture = self.tally.picture()
        names = [] if picture is None else [wave.name for wave in picture.waves]
        return f"wave {names.index(name) + 1}/{len(names)} {name}" if len(names) > 1 else ""

    def _say_progress(self) -> None:
        picture = self.tally.picture()
        if picture is not None:
            self._said_at, self._said_ended = self._clock(), picture.ended
            self._say(progress_line(picture))

    def _say(self, text: str, mood: Mood | None = None) -> None:
        self._screen.say(f"{datetime.datetime.now():%H:%M:%S} {text}", mood)


class SilentProgress:
    """Counts and shows nothing."""

    def __init__(self) -> None:
        self.tally = Tally()

    def __call__(self, event: Event) -> None:
        """Count."""
        self.tally.take(event)

    def begin(self, verb: str) -> None:
        """Nothing to show."""

    def announce(self, text: str) -> None:
        """Nobody wants to hear it."""

    def close(self) -> None:
        """Nothing to take away."""


def progress_line(picture: Picture) -> str:
    """`wave 2/4 early  1,204/9,800 done  3 failed  8 running  41/s  eta 3m30s  budget 2 left`."""
    counts, wave = picture.counts, picture.wave
    done, failed = (sum(getattr(one, name) for one in picture.waves) for name in ("done", "failed"))
    parts = [f"{done:,}/{picture.jobs:,} done", f"{failed:,} failed", f"{counts.running:,} running"]
    # Nobody may take a run that waits for one that hangs.
    if picture.phase is Phase.PAUSED:
        parts.insert(0, "paused")
    elif wave is not None and wave[1].state in BEHIND:
        parts.insert(0, state_text(wave[1])[0])
    if wave is not None and len(picture.waves) > 1:
        parts.insert(0, f"wave {wave[0]}/{len(picture.waves)} {wave[1].name}")
    if counts.waiting:
        parts.append(f"{counts.waiting:,} waiting to be tried again")
    if picture.rate is not None:
        parts.append(rate_text(picture.rate))
    if picture.seconds_left is not None:
        parts.append(f"eta {duration(picture.seconds_left)}")
    lefts = (picture.failures_left, wave[1].failures_left if wave is not None else None)
    known = [left for left in lefts if left is not None]
    if known:
        parts.append(f"budget {min(known):,} left")
    return "  ".join(parts)


def state_text(wave: WavePicture) -> tuple[str, Mood | None]:
    """What a wave is at, in words."""
    match wave.state:
        case WaveState.BAKING:
            return f"baking, {duration(wave.seconds_left or 0)} left", Mood.WARNING
        case WaveState.ASKING:
            number = f" {wave.asking[0]}/{wave.asking[1]}" if wave.asking else ""
            return f"gate: asking{number}", Mood.WARNING
        case WaveState.WAITING:
            return "waiting for `orchestrate continue`", Mood.WARNING
        case WaveState.REFUSED:
            return f"gate failed: {wave.text}", Mood.BAD
        case WaveState.RUNNING:
            return "running", Mood.GOOD
        case WaveState.NOT_STARTED:
            return "not started", Mood.FAINT
        case WaveState.DONE:
            return "done", Mood.FAINT


def rate_text(rate: float) -> str:
    """`41/s`, `12/min`."""
    return f"{rate:,.0f}/s" if rate >= 1 else f"{rate * 60:.0f}/min"


def told(event: Event, tally: Tally) -> Iterator[tuple[str, Mood]]:
    """What deserves a line wherever the run is shown."""
    match event:
        case deferred.events.JobFinished(outcome=outcome) if outcome.status in FAILING:
            yield from ((text, Mood.BAD) for text in _failure(outcome, tally.failures))
        case deferred.events.JobDeferred(outcome=outcome):
            yield from ((text, Mood.WARNING) for text in _deferral(outcome, tally.deferrals))
        case deferred.events.GateAnswered(result=result):
            yield answered(event), _VERDICTS[result.verdict]
        case deferred.events.RunContinued(text=text):
            yield f"goes on: {text}", Mood.GOOD
        case deferred.events.BudgetChanged():
            yield rebudgeted(event), Mood.WARNING
        case deferred.events.JobsAdded(wave=wave, jobs=jobs):
            yield f"{counted(len(jobs), 'target')} joined since the plan was made: wave {wave}", Mood.WARNING
        case _:
            pass


def _failure(outcome: Outcome, number: int) -> Iterator[str]:
    """The first failures one by one, then once that there are more."""
    if number <= FAILURES_TOLD:
        yield f"{outcome.target} {outcome.status}: {_cause(outcome)}"
    elif number == FAILURES_TOLD + 1:
        yield "more have failed; the report at the end has them all"


def _deferral(outcome: Outcome, number: int) -> Iterator[str]:
    """The first times why a target waits; after that the number of those that wait is enough."""
    if number <= FAILURES_TOLD and outcome.reason:
        yield f"{outcome.target} waits: {outcome.reason.text}"


def _cause(outcome: Outcome) -> str:
    if outcome.failure is None:
        return outcome.reason.text if outcome.reason else "no more is known"
    failure = outcome.failure
    where = f" at {failure.revision}" if failure.revision else ""
    return " ".join(part for part in (failure.code, failure.type + where) if part) + f": {failure.message}"


def halted(event: RunHalted) -> str:
    """Why nothing new starts."""
    word = "nothing more starts" if event.cause == "deferred" else "halted"
    return f"{word}: {event.text}; {event.in_flight:,} running, {event.not_started:,} not started"


def paused(event: RunPaused) -> str:
    """Why the run waits, and what ends the waiting."""
    ends = "to go on: orchestrate continue" if event.seconds is None else f"for {duration(event.seconds)}"
    return f"{pause_text(event.text)}; {ends}"


def pause_text(text: str) -> str:
    """`paused by ann@build7`, `paused: wave canary is done`."""
    return text if text.startswith("paused") else f"paused: {text}"


def answered(event: GateAnswered) -> str:
    """What a gate came to."""
    return f"gate of wave {event.wave} {event.result.verdict}: {event.result.text}"


def rebudgeted(event: BudgetChanged) -> str:
    """How many failures are tolerated from now on."""
    whose = "the run" if event.wave is None else f"wave {event.wave}"
    number = "any number of failures" if event.max_failures is None else counted(event.max_failures, "failure")
    return f"budget of {whose}: {number} tolerated from now on"


@contextlib.contextmanager
def shown(screen: Screen, *, hint: str = DRAINS, lines: bool = False) -> Iterator[Progress]:
    """The progress that fits where standard error goes, taken away at the end; `lines` demands plain ones.

    `hint` says what can be typed.
    """
    progress = _fitting(screen, hint, lines=lines)
    try:
        yield progress
    finally:
        progress.close()


def _fitting(screen: Screen, hint: str, *, lines: bool) -> Progress:
    if screen.quiet:
        return SilentProgress()
    if terminals.can_redraw() and not lines:
        return deferred.display.TerminalProgress(no_color=screen.no_color, hint=hint)
    return PlainProgress(screen)

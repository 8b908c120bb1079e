"""The progress of a run on a terminal: one bar that is drawn again and again, and goes away at the end."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.progress import Task as Bar
from rich.text import Text

from orchestrator.cli import terminals
from orchestrator.cli.progress import (
    INTERRUPTED,
    Tally,
    halted,
    rate_text,
    tell_deferral,
    tell_failure,
    waiting_text,
)
from orchestrator.events import Event, JobDeferred, JobFinished, RunHalted, RunStarted, WaveStarted
from orchestrator.outcomes import FAILING
from orchestrator.reports.words import duration


class TerminalProgress:
    """Counters, rate and remaining time in one line; failures scroll by above it."""

    def __init__(self, *, no_color: bool = False, console: Console | None = None) -> None:
        self.tally = Tally()
        self._waves = 1
        color = terminals.wants_color(sys.stderr, no_color=no_color)
        self._console = console or Console(stderr=True, no_color=not color, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            _Numbers(self.tally),
            console=self._console,
            transient=True,
        )
        self._bar = self._bars.add_task("", total=None)

    def __call__(self, event: Event) -> None:
        """Move the bar, and say what deserves a line of its own."""
        self.tally.take(event)
        match event:
            case RunStarted(plan=plan):
                self._waves = len(plan.waves)
                self._bars.update(self._bar, description=plan.command.value, total=self.tally.total)
                self._bars.start()
            case WaveStarted(wave=wave) if self._waves > 1:
                self._bars.update(self._bar, description=terminals.visible(wave))
            case JobFinished(outcome=outcome):
                self._bars.update(self._bar, completed=self.tally.done)
                if outcome.status in FAILING:
                    tell_failure(outcome, self.tally.failed, self._say_failure)
            case JobDeferred(outcome=outcome):
                tell_deferral(outcome, self.tally.deferrals, self._say_deferral)
            case RunHalted(cause=cause) if cause != INTERRUPTED:
                self._say(halted(event), "yellow")
            case _:
                pass

    def close(self) -> None:
        """Take the bar away."""
        self._bars.stop()

    def _say_failure(self, text: str) -> None:
        self._say(text, "red")

    def _say_deferral(self, text: str) -> None:
        self._say(text, "yellow")

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(terminals.visible(text), style=style))


class _Numbers(ProgressColumn):
    """What the tally says, computed anew at each refresh."""

    max_refresh = 0.2

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def render(self, task: Bar) -> Text:  # noqa: ARG002 - the tally knows more than the bar
        tally = self._tally
        text = Text(f"{tally.done:,}/{tally.total:,} done")
        if tally.failed:
            text.append(f"  {tally.failed:,} failed", style="red")
        text.append(f"  {tally.running:,} running", style="dim")
        if tally.waiting:
            text.append(f"  {waiting_text(tally)}", style="yellow")
        text.append(f"  {rate_text(tally.rate)}", style="dim")
        if tally.seconds_left is not None:
            text.append(f"  eta {duration(tally.seconds_left)}", style="dim")
        return text

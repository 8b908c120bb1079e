"""The picture on a terminal: it fits, it is drawn seldom, it goes away, and what is said stays above it."""

from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Sequence

import pytest
from rich.cells import cell_len

from orchestrator.cli import display, frames, terminals
from orchestrator.cli.display import TerminalProgress
from orchestrator.cli.tallies import Tally
from orchestrator.events import (
    Event,
    GateAnswered,
    JobDeferred,
    JobFinished,
    JobStarted,
    RunHalted,
    RunPaused,
    RunStarted,
    WaveFinished,
    WaveStarted,
)
from orchestrator.outcomes import GateResult, Reason, Status, Verdict
from orchestrator.plans import Gate, Plan
from orchestrator.testing import a_job, a_plan, a_wave, an_outcome

RUN = "r-20261122-073100-4f2a"
GATE = Gate(kind="command", text="./smoke", timeout=1.0, interval=1.0, count=3, digest="d")
_CODE = re.compile(r"\x1b\[(\d*)([AKJm])|\x1b\[[\d;]*m|\r|\n")


class Terminal(io.StringIO):
    """What a terminal of that size shows, and how often it was written to; knows no other codes than ours."""

    def __init__(self, width: int = 80, height: int = 24) -> None:
        super().__init__()
        self.width, self.height = width, height
        self.screen: list[str] = [""]
        self.row = 0
        self.is_at_start = True
        self.writes = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += 1
        place = 0
        for found in _CODE.finditer(text):
            self._put(text[place : found.start()])
            self._obey(found)
            place = found.end()
        self._put(text[place:])
        return len(text)

    def _put(self, text: str) -> None:
        assert text.isprintable(), text
        assert cell_len(text) < self.width * display.MOST_LINES, text
        if text:
            self.screen[self.row] = text
            self.is_at_start = False

    def _obey(self, found: re.Match[str]) -> None:
        code = found[2] or found[0]
        match code:
            case "\n":
                self.row += 1
                if self.row == len(self.screen):
                    self.screen.append("")
            case "A":
                self.row -= int(found[1])
                assert self.row >= 0
                assert len(self.screen) - self.row <= self.height, "up past the first line of the screen"
            case "K" if self.is_at_start:
                self.screen[self.row] = ""
            case "J":
                self.screen = [*self.screen[: self.row], ""]
        self.is_at_start = self.is_at_start or code in {"\n", "\r"}

    @property
    def lines(self) -> list[str]:
        """What is on it, down to the line of the cursor or the last one with text."""
        last = max((number for number, line in enumerate(self.screen) if line), default=0)
        return self.screen[: max(last, self.row) + 1]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setattr(terminals, "size", lambda _: (made.width, made.height))
    monkeypatch.setenv("NO_COLOR", "1")
    return made


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames come when a test draws them."""
    monkeypatch.setattr(TerminalProgress, "begin", lambda self, verb: None)


def fleet(*, waves: int = 1, size: int = 100, settled: int = 0) -> Plan:
    made = [a_wave(*(f"w{n}-{m:04d}" for m in range(size)), name=f"wave-{n}", max_failures=0) for n in range(waves)]
    there = [an_outcome(f"s{number}", Status.UNCHANGED, wave=None) for number in range(settled)]
    return a_plan(*made, settled=there, max_failures=5, revision=("r010",))


def ended(job_name: str, status: Status = Status.UPGRADED) -> Sequence[Event]:
    return JobStarted(job=a_job(job_name)), JobFinished(outcome=an_outcome(job_name, status))


def rows(tally: Tally, *, width: int = 79, height: int = 23, hint: str = "Ctrl-C") -> list[str]:
    picture = tally.picture()
    assert picture is not None
    drawn = frames.frame(picture, width=width, height=height, hint=hint)
    assert len(drawn) <= height
    lines = ["".join(part.text for part in row) for row in drawn]
    assert max(map(cell_len, lines)) <= width
    return [line.rstrip() for line in lines]


def a_tally(plan: Plan, *events: Event) -> Tally:
    tally = Tally(lambda: 1000.0)
    tally.take(RunStarted(run=RUN, plan=plan))
    for event in events:
        tally.take(event)
    return tally


# -- frames -----------------------------------------------------------------------------------------------------


def test_a_run_of_one_wave_needs_no_table_of_waves() -> None:
    plan = fleet(size=10_000, settled=12)
    lines = rows(
        a_tally(plan, WaveStarted(wave="wave-0", jobs=10_000), *ended("w0-0000"), JobStarted(job=a_job("w0-0001")))
    )

    assert lines == [
        f"run {RUN}  upgrade to r010  billing/test",
        "[.............................] 1 of 10,000 jobs  0%",
        "10,012 targets:  13 done  0 failed  1 running  9,998 not started",
        "budget: 5 failures left",
        "longest at work:  0.0 s  w0-0001",
        "Ctrl-C",
    ]


def test_waves_have_a_line_each_and_those_that_are_done_share_one() -> None:
    tally = a_tally(fleet(waves=4, size=2))
    for number in range(2):
        tally.take(WaveStarted(wave=f"wave-{number}", jobs=2))
        for event in (*ended(f"w{number}-0000"), *ended(f"w{number}-0001", Status.FAILED)):
            tally.take(event)
        tally.take(WaveFinished(wave=f"wave-{number}"))
    tally.take(WaveStarted(wave="wave-2", jobs=2))

    assert rows(tally)[3:7] == [
        "  2 waves done  2/4  2 failed",
        "  wave-2  0/2  running",
        "  wave-3  0/2  not started",
        "budget: 3 failures left, 0 in this wave",
    ]


def test_many_waves_take_no_more_than_eight_lines() -> None:
    tally = a_tally(fleet(waves=30, size=2), WaveStarted(wave="wave-1", jobs=2))
    lines = [line for line in rows(tally) if line.startswith("  ")]

    assert len(lines) == frames.WAVES
    assert lines[0] == "  1 wave done  0/2"
    assert lines[-1] == "  and 23 more waves with 46 targets"


def test_a_wave_says_what_it_waits_for() -> None:
    plan = a_plan(a_wave("a", name="canary", gate=GATE, pause=600.0))
    tally = a_tally(plan, WaveStarted(wave="canary", jobs=1), *ended("a"), WaveFinished(wave="canary"))
    assert "  canary  1/1  gate: asking" in rows(tally)
    tally.take(GateAnswered(wave="canary", result=GateResult(kind="command", verdict=Verdict.PASSED, text="0")))
    assert "  canary  1/1  gate: asking 2/3" in rows(tally)
    tally.take(RunPaused(cause="bake", text="bakes", wave="canary", seconds=432.0))
    assert "  canary  1/1  baking, 7m12s left" in rows(tally)
    tally.take(RunPaused(cause="person", text="until continued", wave="canary"))
    assert "  canary  1/1  waiting for `orchestrate continue`" in rows(tally)
    failed = GateResult(kind="command", verdict=Verdict.FAILED, text="./smoke exited with 1")
    tally.take(GateAnswered(wave="canary", result=failed))
    assert "  canary  1/1  gate failed: ./smoke exited with 1" in rows(tally)


def test_why_nothing_new_starts_is_said() -> None:
    paused = a_tally(fleet(), RunPaused(cause="person", text="paused by ann@build7"))
    assert "paused by ann@build7; to go on: orchestrate continue" in rows(paused)
    halted = a_tally(fleet(), RunHalted(cause="budget", text="6 failures exceed 5", in_flight=1, not_started=2))
    assert "halted: 6 failures exceed 5" in rows(halted)
    drained = a_tally(fleet(), RunHalted(cause="interrupted", text="asked to stop", in_flight=1, not_started=2))
    assert "draining: nothing new starts; Ctrl-C again stops what is running" in rows(drained)
    assert ["Ctrl-C" in rows(shown) for shown in (paused, halted, drained)] == [True, False, False]


@pytest.mark.parametrize("width", [1, 2, 9, 20, 39, 79, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 9, 23])
def test_it_fits_whatever_the_terminal(width: int, height: int) -> None:
    plan = a_plan(*(a_wave(*(f"株式会社{n}-{m}" for m in range(9)), name="波" * 40 + str(n)) for n in range(12)))
    tally = a_tally(plan, WaveStarted(wave=plan.waves[3].name, jobs=9))
    for job in plan.waves[3].jobs[:5]:
        tally.take(JobStarted(job=job))

    assert rows(tally, width=width, height=height)


def test_the_numbers_stay_when_there_is_no_room_for_more() -> None:
    assert (
        rows(a_tally(fleet(waves=12)), height=3)[2] == "1,200 targets:  0 done  0 failed  0 running  1,200 not started"
    )


def test_numbers_that_do_not_fit_go_to_the_next_line() -> None:
    lines = rows(a_tally(fleet(size=1000), *ended("w0-0000")), width=40)

    assert lines[2:4] == ["1,000 targets:  1 done  0 failed", "  0 running  999 not started"]


def test_hostile_names_are_only_ever_text() -> None:
    name = "evil\x1b[2J\x07\u202ename"
    plan = a_plan(a_wave(a_job(name), name="w\x1b]0;owned\x07"), a_wave("b", name="rest"))
    text = "\n".join(rows(a_tally(plan, JobStarted(job=a_job(name)))))

    assert text.replace("\n", "").isprintable()
    assert r"evil\x1b[2J\x07\u202ename" in text
    assert r"w\x1b]0;owned\x07" in text


def test_what_the_encoding_of_the_terminal_lacks_still_fits() -> None:
    picture = a_tally(a_plan("株式会社" * 9), JobStarted(job=a_job("株式会社" * 9))).picture()
    assert picture is not None
    drawn = frames.frame(picture, width=79, height=23, encoding="ascii")

    assert all("".join(part.text for part in row).isascii() for row in drawn)
    assert max(sum(len(part.text) for part in row) for row in drawn) <= 79


# -- on a terminal ----------------------------------------------------------------------------------------------


def test_failures_stay_above_the_picture_and_the_picture_goes_away(terminal: Terminal, still: None) -> None:
    shown = TerminalProgress(stream=terminal)
    shown(RunStarted(run=RUN, plan=fleet(waves=2)))
    shown.draw()
    assert terminal.lines[0].startswith(f"run {RUN}")
    reason = Reason(code="retrying", text="put off for 60 s: lock timeout")
    waits = JobDeferred(outcome=an_outcome("w0-0002", Status.DEFERRED, reason=reason), delay_s=60.0)
    for event in (*ended("w0-0001", Status.FAILED), waits):
        shown(event)
    shown.draw()
    shown.draw()
    assert [line.split(":")[0] for line in terminal.lines[:3]] == [
        "w0-0001 failed",
        "w0-0002 waits",
        "200 targets",
    ] or (terminal.lines[2].startswith(f"run {RUN}"))
    shown.close()

    assert terminal.lines == [
        "w0-0001 failed: 23505 UniqueViolation at r002: could not create unique index",
        "w0-0002 waits: put off for 60 s: lock timeout",
        "",
    ]


def test_nothing_is_written_while_nothing_changes(terminal: Terminal, still: None) -> None:
    shown = TerminalProgress(stream=terminal, clock=lambda: 1000.0)
    shown(RunStarted(run=RUN, plan=fleet()))
    for _ in range(5):
        shown.draw()

    assert terminal.writes == 1


def test_a_picture_that_grows_and_shrinks_leaves_nothing_behind(terminal: Terminal, still: None) -> None:
    shown = TerminalProgress(stream=terminal)
    shown(RunStarted(run=RUN, plan=fleet(waves=9)))
    sizes = []
    for height in (3, 12, 24):
        terminal.height = height
        shown.draw()
        sizes.append(len(terminal.lines) - 1)
    shown(WaveStarted(wave="wave-8", jobs=100))
    shown.draw()
    sizes.append(len(terminal.lines) - 1)
    assert sizes == [2, 11, 13, 7]
    shown.close()
    assert terminal.lines == [""]


def test_a_terminal_that_became_narrower_is_cleared_of_the_lines_that_it_wrapped(
    terminal: Terminal, still: None
) -> None:
    shown = TerminalProgress(stream=terminal, clock=lambda: 1000.0)
    shown(RunStarted(run=RUN, plan=fleet()))
    shown.draw()
    wide = [line for line in terminal.lines if line]
    terminal.width = 20
    wrapped = [line[place : place + 20] for line in wide for place in range(0, len(line), 20)]
    terminal.screen, terminal.row = [*wrapped, ""], len(wrapped)
    shown.draw()

    assert max(map(len, terminal.lines)) < 20
    assert [line for line in terminal.lines if line.startswith("run")] == [terminal.lines[0]]


def test_messages_of_any_length_take_a_few_lines_at_most(terminal: Terminal, still: None) -> None:
    shown = TerminalProgress(stream=terminal)
    shown(RunStarted(run=RUN, plan=fleet()))
    shown.announce("long " * 1000)
    shown.draw()

    assert len(terminal.lines[0]) <= 80 * display.MOST_LINES


def test_a_run_with_nothing_due_shows_nothing(terminal: Terminal) -> None:
    shown = TerminalProgress(stream=terminal)
    shown(RunStarted(run=RUN, plan=a_plan()))
    shown.close()

    assert terminal.writes == 0


def test_a_halt_is_told_but_not_a_drain_that_was_announced(terminal: Terminal, still: None) -> None:
    shown = TerminalProgress(stream=terminal)
    for cause in ("budget", "interrupted"):
        shown(RunHalted(cause=cause, text=f"because of {cause}", in_flight=3, not_started=12))
    shown.close()

    assert terminal.lines == ["halted: because of budget; 3 running, 12 not started", ""]


def test_frames_are_few_though_events_are_many(terminal: Terminal) -> None:
    shown = TerminalProgress(stream=terminal)
    plan = fleet(size=5000)
    shown(RunStarted(run=RUN, plan=plan))
    for job in plan.jobs:
        for event in ended(job.target):
            shown(event)
    shown.close()

    counted = shown.tally.picture()
    assert counted is not None
    assert counted.counts.done == 5000
    # Of the 10,000 events not one drew anything by itself.
    assert terminal.writes < 100
    assert terminal.lines == [""]


def test_what_others_write_to_standard_error_stands_above(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = TerminalProgress()
    shown(RunStarted(run=RUN, plan=fleet()))
    print("a \x1b[31mwarning\x1b[0m", file=sys.stderr)
    print("and its end", end="", file=sys.stderr)
    kept = sys.stderr
    assert kept is not terminal
    assert kept.isatty()
    shown.close()

    assert sys.stderr is terminal
    assert terminal.lines == ["a warning", "and its end", ""]
    kept.write("later\r\n")
    assert terminal.lines[-2:] == ["later", ""]


def test_a_terminal_that_went_away_does_not_stop_a_run(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(text: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(terminal, "write", gone)
    shown = TerminalProgress(stream=terminal)
    for event in (RunStarted(run=RUN, plan=fleet()), *ended("w0-0000", Status.FAILED)):
        shown(event)
    shown.close()

    assert threading.active_count() == 1 or all(t.name != "orchestrate-display" for t in threading.enumerate())

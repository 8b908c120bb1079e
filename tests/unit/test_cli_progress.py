"""Progress: plain lines where nothing can be drawn over, one bar where it can."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from orchestrator.cli import progress, terminals
from orchestrator.cli.display import TerminalProgress
from orchestrator.cli.progress import PlainProgress, SilentProgress, Tally, duration, progress_line
from orchestrator.cli.terminals import Screen
from orchestrator.events import Event, JobDeferred, JobFinished, JobStarted, RunHalted, RunStarted, WaveStarted
from orchestrator.outcomes import Outcome, Reason, Status
from orchestrator.plans import Wave
from tests.unit.cli_fakes import UNIQUE, job, outcome, plan


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def started(jobs: int) -> RunStarted:
    return RunStarted(run="r-1", plan=plan(*(job(f"t{n}") for n in range(jobs))))


def finished(number: int, status: Status = Status.UPGRADED) -> Sequence[Event]:
    failure = UNIQUE if status is Status.FAILED else None
    return JobStarted(job=job(f"t{number}")), JobFinished(outcome=outcome(f"t{number}", status, failure=failure))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_tally_counts_what_the_events_say(clock: Clock) -> None:
    tally = Tally(clock=clock)

    tally.take(started(10))
    for number in range(4):
        for event in finished(number, Status.FAILED if number == 0 else Status.UPGRADED):
            tally.take(event)
    tally.take(JobStarted(job=job("t9")))
    clock.now += 2

    assert (tally.total, tally.done, tally.failed, tally.running, tally.not_started) == (10, 4, 1, 1, 5)
    assert tally.rate == 2
    assert tally.seconds_left == 3


def test_an_outcome_that_never_ran_does_not_make_the_running_negative(clock: Clock) -> None:
    tally = Tally(clock=clock)
    tally.take(started(1))
    tally.take(JobFinished(outcome=outcome("t0", Status.SKIPPED)))

    assert (tally.done, tally.running) == (1, 0)


def put_off(number: int) -> Sequence[Event]:
    reason = Reason(code="retrying", text="put off for 60 s: lock timeout")
    waiting = outcome(f"t{number}", Status.DEFERRED, reason=reason)
    return JobStarted(job=job(f"t{number}")), JobDeferred(outcome=waiting, delay_s=60.0)


def test_targets_that_wait_are_neither_running_nor_done(clock: Clock) -> None:
    tally = Tally(clock=clock)
    for event in (started(10), *put_off(0), *put_off(1), *put_off(2), *finished(3)):
        tally.take(event)
    assert (tally.done, tally.running, len(tally.waiting), tally.not_started) == (1, 0, 3, 6)
    assert "  0 running  3 waiting to be tried again  " in progress_line(tally)

    for event in (*finished(0), *put_off(1), JobFinished(outcome=outcome("t2", Status.DEFERRED))):
        tally.take(event)
    assert (tally.done, tally.running, tally.waiting, tally.not_started) == (3, 0, {"t1"}, 6)


def test_why_targets_wait_is_told_a_few_times(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    plain(started(100))
    lines(capsys)
    for number in range(20):
        for event in put_off(number):
            plain(event)
    assert lines(capsys) == [f"t{number} waits: put off for 60 s: lock timeout" for number in range(5)]


def test_a_line_reads_like_the_contract() -> None:
    tally = Tally(clock=lambda: 29.366, total=9800, done=1204, failed=3, running=8, began=0.0)

    assert progress_line(tally) == "1,204/9,800 done  3 failed  8 running  41/s  eta 3m30s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (42.3, "42 s"),
        (59.6, "1m00s"),
        (210, "3m30s"),
        (3599.7, "1h00m"),
        (7500, "2h05m"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_the_start_is_told_so_that_the_run_can_be_found(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    PlainProgress(Screen(), clock)(started(1000))
    assert lines(capsys) == ["run r-1 begins: upgrade of 1,000 targets"]


def test_a_run_with_nothing_due_has_no_start(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    PlainProgress(Screen(), clock)(started(0))
    assert lines(capsys) == []


def test_a_line_comes_after_ten_seconds_and_one_percent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    said = []
    plain(started(1000))
    lines(capsys)
    for number in range(40):
        clock.now += 1 if number < 20 else 0.1
        for event in finished(number):
            plain(event)
        said += [number] * len(lines(capsys))

    assert said == [9, 19]


def test_a_fast_run_of_many_is_not_a_line_each(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    plain(started(10_000))
    lines(capsys)
    for number in range(500):
        for event in finished(number):
            plain(event)

    assert lines(capsys) == []


def test_a_long_silence_is_broken_though_nothing_has_happened(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    plain(started(3))
    lines(capsys)
    said = []
    for _ in range(13):
        clock.now += 10
        plain.break_silence()
        said.append(len(lines(capsys)))
    plain.close()

    assert said == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]


def test_the_first_failures_are_told_as_they_happen(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    plain(started(100))
    lines(capsys)
    for number in range(20):
        for event in finished(number, Status.FAILED):
            plain(event)

    told = lines(capsys)
    assert told[0] == 't0 failed: 23505 UniqueViolation at r007: could not create unique index "uq_users_email"'
    assert len(told) == 6
    assert told[-1].startswith("more have failed")


def test_a_halt_is_told_but_not_a_drain_that_was_announced(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    plain(RunHalted(cause="budget", text="2 failures exceed 1", in_flight=3, not_started=1200))
    plain(RunHalted(cause="interrupted", text="asked to stop", in_flight=3, not_started=1200))

    assert lines(capsys) == ["halted: 2 failures exceed 1; 3 running, 1,200 not started"]


def test_a_terminal_gets_one_bar_that_goes_away() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=140, color_system=None)
    bar = TerminalProgress(console=console)

    waves = tuple(Wave(name=name, jobs=(job(name),), concurrency=1) for name in ("canary", "b", "c", "d"))
    begun = RunStarted(run="r-1", plan=plan(job("canary"), waves=waves))
    for event in (
        begun,
        WaveStarted(wave="canary\x1b[2J", jobs=1),
        *finished(0),
        *finished(1, Status.FAILED),
        *put_off(2),
    ):
        bar(event)
    bar._bars.refresh()
    drawn = written.getvalue()
    bar.close()

    assert "2/4 done" in drawn
    assert "1 failed" in drawn
    assert "1 waiting to be tried again" in drawn
    assert "t2 waits: put off for 60 s" in drawn
    assert r"canary\x1b[2J" in drawn
    assert "t1 failed: 23505 UniqueViolation" in drawn
    assert written.getvalue().endswith("\x1b[2K")


def test_closing_a_bar_that_was_never_drawn_is_harmless() -> None:
    written = io.StringIO()
    TerminalProgress(console=Console(file=written, force_terminal=True)).close()

    assert "done" not in written.getvalue()


@pytest.mark.parametrize(
    ("quiet", "redraws", "kind"),
    [(True, True, SilentProgress), (False, True, TerminalProgress), (False, False, PlainProgress)],
)
def test_the_display_fits_its_place(monkeypatch: pytest.MonkeyPatch, quiet: bool, redraws: bool, kind: type) -> None:
    monkeypatch.setattr(terminals, "can_redraw", lambda: redraws)

    with progress.shown(Screen(quiet=quiet)) as shown:
        assert isinstance(shown, kind)


def test_a_lost_target_without_a_failure_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    lost: Outcome = outcome("acme", Status.LOST)
    told: list[str] = []

    progress.tell_failure(lost, 1, told.append)

    assert told == ["acme lost: no more is known"]

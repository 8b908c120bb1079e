"""Progress: plain lines where nothing can be drawn over, one bar where it can."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.cli import progress, terminals
from orchestrator.cli.display import TerminalProgress
from orchestrator.cli.pictures import Counts, Phase, Picture, WavePicture, WaveState
from orchestrator.cli.progress import PlainProgress, SilentProgress, progress_line
from orchestrator.cli.terminals import Screen
from orchestrator.events import (
    BudgetChanged,
    Event,
    GateAnswered,
    JobDeferred,
    JobFinished,
    JobsAdded,
    JobStarted,
    RunContinued,
    RunHalted,
    RunPaused,
    RunStarted,
    WaveFinished,
    WaveStarted,
)
from orchestrator.outcomes import GateResult, Reason, Status, Verdict
from orchestrator.plans import Wave
from orchestrator.reports.words import duration
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


def put_off(number: int) -> Sequence[Event]:
    reason = Reason(code="retrying", text="put off for 60 s: lock timeout")
    waiting = outcome(f"t{number}", Status.DEFERRED, reason=reason)
    return JobStarted(job=job(f"t{number}")), JobDeferred(outcome=waiting, delay_s=60.0)


def test_why_targets_wait_is_told_a_few_times(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    plain(started(100))
    lines(capsys)
    for number in range(20):
        for event in put_off(number):
            plain(event)
    assert lines(capsys) == [f"t{number} waits: put off for 60 s: lock timeout" for number in range(5)]


def a_picture(**fields: Any) -> Picture:
    """The second of four waves, with three failures."""
    waves = (
        WavePicture(name="canary", state=WaveState.DONE, total=10, done=9, failed=1, ended=10),
        WavePicture(name="early", state=WaveState.RUNNING, total=2000, done=1195, failed=2, ended=1197),
        *(WavePicture(name=name, state=WaveState.NOT_STARTED, total=3895, done=0, failed=0, ended=0) for name in "ab"),
    )
    given: dict[str, Any] = {
        "run": "r-1",
        "command": "upgrade",
        "revision": ("r007",),
        "project": "billing",
        "environment": "test",
        "phase": Phase.RUNNING,
        "text": "",
        "seconds": 30.0,
        "counts": Counts(done=1204, failed=3, running=8, waiting=0, left_alone=0, not_started=8585),
        "jobs": 9800,
        "ended": 1207,
        "rate": 41.2,
        "seconds_left": 210.0,
        "failures_left": 2,
        "waves": waves,
        "longest": (),
    }
    return Picture(**{**given, **fields})


def test_a_line_reads_like_the_contract() -> None:
    line = progress_line(a_picture())

    assert line == "wave 2/4 early  1,204/9,800 done  3 failed  8 running  41/s  eta 3m30s  budget 2 left"


def test_a_line_tells_of_what_waits_and_of_the_tighter_budget() -> None:
    early = WavePicture(name="all", state=WaveState.RUNNING, total=9, done=1, failed=0, ended=1, failures_left=0)
    counts = Counts(done=1, failed=0, running=3, waiting=5, left_alone=0, not_started=0)
    picture = a_picture(counts=counts, waves=(early,), jobs=9, rate=0.2, seconds_left=None)

    assert progress_line(picture) == (
        "1/9 done  0 failed  3 running  5 waiting to be tried again  12/min  budget 0 left"
    )


def test_a_line_tells_that_a_run_waits_and_does_not_hang() -> None:
    baking = WavePicture(
        name="canary", state=WaveState.BAKING, total=1, done=1, failed=0, ended=1, failures_left=0, seconds_left=540.0
    )
    counts = Counts(done=1, failed=0, running=0, waiting=0, left_alone=0, not_started=8)
    picture = a_picture(counts=counts, waves=(baking,), jobs=9, rate=None, seconds_left=None)

    assert progress_line(picture) == "baking, 9m00s left  1/9 done  0 failed  0 running  budget 0 left"
    paused = dataclasses.replace(picture, phase=Phase.PAUSED)
    assert progress_line(paused) == "paused  1/9 done  0 failed  0 running  budget 0 left"


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


def test_the_course_of_several_waves_is_told(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    waves = tuple(Wave(name=name, jobs=(job(f"{name}-0"),), concurrency=1) for name in ("canary", "rest"))
    plain(RunStarted(run="r-1", plan=plan(waves=waves)))
    plain(WaveStarted(wave="canary", jobs=1))
    clock.now += 72
    result = GateResult(kind="command", verdict=Verdict.PASSED, text="./smoke exited with 0")
    for event in (
        JobStarted(job=job("canary-0")),
        JobFinished(outcome=outcome("canary-0")),
        WaveFinished(wave="canary"),
        RunPaused(cause="bake", text="wave canary bakes", wave="canary", seconds=600.0),
        RunContinued(text="wave canary has baked"),
        GateAnswered(wave="canary", result=result),
        BudgetChanged(wave=None, max_failures=5),
        BudgetChanged(wave="rest", max_failures=None),
        JobsAdded(wave="joined", jobs=(job("new"),)),
        WaveStarted(wave="rest", jobs=1),
        RunPaused(cause="person", text="paused by ann@build7"),
    ):
        plain(event)

    told = lines(capsys)
    assert told == [
        "run r-1 begins: upgrade of 2 targets",
        "wave 1/2 canary begins: 1 target",
        "wave 1/2 canary  1/2 done  0 failed  0 running  budget 0 left",
        "wave 1/2 canary ends: 1 done  0 failed  in 1m12s",
        "paused: wave canary bakes; for 10m00s",
        "goes on: wave canary has baked",
        "gate of wave canary passed: ./smoke exited with 0",
        "budget of the run: 5 failures tolerated from now on",
        "budget of wave rest: any number of failures tolerated from now on",
        "1 target joined since the plan was made: wave joined",
        "wave 2/3 rest begins: 1 target",
        "paused by ann@build7; to go on: orchestrate continue",
    ]


@pytest.mark.parametrize(
    ("quiet", "redraws", "kind"),
    [(True, True, SilentProgress), (False, True, TerminalProgress), (False, False, PlainProgress)],
)
def test_the_display_fits_its_place(monkeypatch: pytest.MonkeyPatch, quiet: bool, redraws: bool, kind: type) -> None:
    monkeypatch.setattr(terminals, "can_redraw", lambda: redraws)

    with progress.shown(Screen(quiet=quiet)) as shown:
        assert isinstance(shown, kind)


def test_a_lost_target_without_a_failure_is_told_too(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress(Screen(), clock)
    plain(started(1))
    plain(JobFinished(outcome=outcome("acme", Status.LOST)))

    assert lines(capsys)[1:] == ["acme lost: no more is known"]

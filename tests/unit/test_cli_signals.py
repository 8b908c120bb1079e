"""Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from orchestrator.cli import signals
from orchestrator.cli.progress import PlainProgress, SilentProgress
from orchestrator.cli.tallies import Tally
from orchestrator.cli.terminals import Screen
from orchestrator.events import JobStarted, RunStarted
from orchestrator.reports import files
from orchestrator.rollout import StopCause, StopSignal
from tests.unit.cli_fakes import FakeProject, job, outcome, plan
from tests.unit.cli_runs import Invoke, interrupted, invoke, project

__all__ = ["interrupted", "invoke", "project"]


def a_tally() -> Tally:
    """Of a run with 12 of 9,500 targets at work."""
    tally = Tally()
    jobs = [job(f"t{number}") for number in range(9443)]
    tally.take(RunStarted(run="r-1", plan=plan(*jobs, settled=[outcome(f"s{number}") for number in range(57)])))
    for one in jobs[:12]:
        tally.take(JobStarted(job=one))
    return tally


TALLY = a_tally()


def test_the_announcements_say_how_much_is_left() -> None:
    first = signals.announcement(TALLY, signal.SIGINT, first=True)

    assert first == "draining: 12 running, 9,431 not started; Ctrl-C again to stop them"
    assert "a second SIGTERM stops them" in signals.announcement(TALLY, signal.SIGTERM, first=True)
    assert signals.announcement(TALLY, signal.SIGINT, first=False) == "stopping 12 running now"


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGINT, StopCause.INTERRUPTED), (signal.SIGTERM, StopCause.TERMINATED)]
)
def test_the_first_signal_drains_and_the_second_stops(
    number: signal.Signals, cause: StopCause, capfd: pytest.CaptureFixture[str]
) -> None:
    stop = StopSignal()

    with signals.draining(stop, TALLY, PlainProgress(Screen()).announce):
        os.kill(os.getpid(), number)
        assert (stop.cause, stop.immediate) == (cause, False)
        os.kill(os.getpid(), number)
        assert (stop.cause, stop.immediate) == (cause, True)

    assert [line.split(":")[0] for line in capfd.readouterr().err.splitlines()] == [
        "draining",
        "stopping 12 running now",
    ]


def test_the_former_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in signals.SIGNALS]

    with signals.draining(StopSignal(), TALLY, SilentProgress().announce):
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before

    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_silence_covers_the_announcement(capfd: pytest.CaptureFixture[str]) -> None:
    with signals.draining(StopSignal(), TALLY, SilentProgress().announce):
        os.kill(os.getpid(), signal.SIGINT)

    assert capfd.readouterr().err == ""


def test_a_thread_runs_without_handlers() -> None:
    seen: list[StopSignal] = []

    def run() -> None:
        with signals.draining(StopSignal(), TALLY, SilentProgress().announce):
            seen.append(StopSignal())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert len(seen) == 1


def test_a_signal_during_a_command_reaches_its_run(invoke: Invoke, project: FakeProject) -> None:
    def interrupts(fake: FakeProject) -> None:
        if fake.ran["stop"].cause is None:
            os.kill(os.getpid(), signal.SIGTERM)

    project.during = interrupts
    invoke("upgrade", "--all")

    assert project.ran["stop"].cause is StopCause.TERMINATED


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_after_the_end_of_a_run_costs_it_no_report(
    invoke: Invoke, project: FakeProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    write = files.write

    def late(path: Path, text: str, *, option: str) -> None:
        os.kill(os.getpid(), number)
        write(path, text, option=option)

    monkeypatch.setattr(files, "write", late)
    result = invoke("upgrade", "--all", "--report", str(tmp_path / "report.json"))

    assert result.exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text())["exit_code"] == 0
    assert "3  upgraded" in result.stdout
    assert {signal.getsignal(each) for each in signals.SIGNALS} == {signal.default_int_handler}


@pytest.mark.usefixtures("interrupted")
def test_a_report_that_hangs_can_be_left() -> None:
    with signals.finishing() as spare:
        spare()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)

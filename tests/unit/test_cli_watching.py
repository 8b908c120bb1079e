"""`runs watch`: the ledger alone tells how far a run is, and how it ended."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.cli import watching
from orchestrator.cli.following import Follower
from orchestrator.cli.options import Common, Format
from orchestrator.cli.pictures import Counts, Phase, Picture, WaveState
from orchestrator.cli.progress import SilentProgress
from orchestrator.errors import ExitCode, LedgerError
from orchestrator.events import Event, JobFinished
from orchestrator.ledger import Lease, MemoryLedger, RequestKind, Run, WaveMark, this_process
from orchestrator.outcomes import GateResult, Outcome, Reason, RunStatus, Status, Verdict
from orchestrator.plans import UNTIL_CONTINUED, Gate, Plan
from orchestrator.testing import a_job, a_plan, a_wave, an_outcome
from tests.unit.cli_fakes import FakeProject
from tests.unit.cli_runs import Invoke, invoke, project

__all__ = ["invoke", "project"]

GATE = Gate(kind="command", text="./smoke", timeout=1.0, interval=1.0, count=1, digest="d")


def now(seconds: float = 0.0) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


class Recorder(SilentProgress):
    """Counts, and keeps what it was told beside."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Event] = []
        self.begun: list[str] = []

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        self.told.append(event)

    def begin(self, verb: str) -> None:
        self.begun.append(verb)


class Runner:
    """Writes to a ledger what a runner writes."""

    def __init__(self, plan: Plan, ledger: MemoryLedger | None = None) -> None:
        self.ledger = ledger or MemoryLedger(project="billing", environment="test")
        self.lease: Lease = self.ledger.acquire(this_process("ann@build7"))
        self.run = self.ledger.open_run(plan, operator="ann@build7", fleet=9, lease=self.lease).id
        self.progress = Recorder()
        self.follower = Follower(self.ledger, self.run, self.progress)

    def start(self, *targets: str) -> None:
        for target in targets:
            self.ledger.start(self.run, a_job(target))

    def end(self, target: str, status: Status = Status.UPGRADED, **fields: Any) -> None:
        self.ledger.record(self.run, self._placed(an_outcome(target, status, **fields)))

    def _placed(self, outcome: Outcome) -> Outcome:
        jobs = {job.target: job for job in self.ledger.plan(self.run).jobs}
        return an_outcome(jobs[outcome.target], outcome.status, reason=outcome.reason, failure=outcome.failure)

    def mark(self, wave: str, **fields: Any) -> None:
        self.ledger.mark_wave(self.run, WaveMark(wave=wave, **fields))

    def picture(self) -> Picture:
        self.follower.look()
        picture = self.progress.tally.picture()
        assert picture is not None
        return picture


def counts(**fields: int) -> Counts:
    return Counts(
        **{**dict.fromkeys(("done", "failed", "running", "waiting", "left_alone", "not_started"), 0), **fields}
    )


def test_the_first_look_has_all_that_was_before() -> None:
    there = an_outcome("there", Status.UNCHANGED, wave=None)
    runner = Runner(a_plan("a", "b", "c", "d", "e", "f", settled=[there]))
    runner.start("a", "b", "c", "d")
    runner.end("a")
    runner.end("b", Status.FAILED)
    runner.end("c", Status.DEFERRED, reason=Reason(code="retrying", text="put off for 60 s"))

    picture = runner.picture()
    assert picture.counts == counts(done=2, failed=1, waiting=1, running=1, not_started=2)
    assert (picture.jobs, picture.ended) == (6, 2)
    assert [target for target, _ in picture.longest] == ["d"]
    # What was before is counted, not told.
    assert (runner.progress.told, runner.progress.begun) == ([], ["is on"])


def test_each_further_look_has_what_is_new() -> None:
    runner = Runner(a_plan("a", "b", "c"))
    runner.start("a")
    assert runner.picture().counts == counts(running=1, not_started=2)
    runner.end("a", Status.DEFERRED, reason=Reason(code="retrying", text="put off for 60 s"))
    runner.start("b")
    assert runner.picture().counts == counts(running=1, waiting=1, not_started=1)
    runner.start("a")
    runner.end("b", Status.FAILED)
    assert runner.picture().counts == counts(running=1, failed=1, not_started=1)
    runner.end("a")
    runner.end("c", Status.DEFERRED, reason=Reason(code="window", text="its window opens at 22:00"))
    assert runner.picture().counts == counts(done=1, failed=1, left_alone=1)
    told = [event.outcome.target for event in runner.progress.told if isinstance(event, JobFinished)]
    assert told == ["b", "a", "c"]


def test_a_target_that_is_done_once_more_is_running_again() -> None:
    runner = Runner(a_plan("a", "b"))
    runner.start("a")
    runner.end("a", Status.FAILED)
    assert runner.picture().counts == counts(failed=1, not_started=1)
    runner.start("a")
    assert runner.picture().counts == counts(running=1, not_started=1)


def test_tenants_that_join_are_found() -> None:
    runner = Runner(a_plan("a"))
    runner.picture()
    runner.ledger.add_jobs(runner.run, [a_job("new", wave="joined")])
    runner.start("new")

    picture = runner.picture()
    assert picture.counts == counts(running=1, not_started=1)
    assert [wave.name for wave in picture.waves] == ["all", "joined"]


@pytest.mark.parametrize("question", ["plan", "news", "requests", "wave_marks"])
def test_a_ledger_that_fails_in_the_middle_of_a_look_costs_nothing_but_time(
    question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner(a_plan("a", "b", "c"))

    def look_in_vain() -> None:
        def fail(*_: object, **__: object) -> None:
            raise LedgerError("the ledger at db.internal cannot be reached")

        with monkeypatch.context() as patch:
            patch.setattr(runner.ledger, question, fail)
            with pytest.raises(LedgerError):
                runner.follower.look()

    runner.start("a")
    look_in_vain()
    assert runner.picture().counts == counts(running=1, not_started=2)
    assert runner.progress.begun == ["is on"]
    runner.ledger.add_jobs(runner.run, [a_job("new", wave="joined")])
    runner.start("new")
    runner.end("new", Status.FAILED)
    runner.end("a")
    look_in_vain()
    assert runner.picture().counts == counts(done=1, failed=1, not_started=2)
    told = [event.outcome.target for event in runner.progress.told if isinstance(event, JobFinished)]
    assert told == ["new", "a"]


def test_waves_are_where_their_marks_say() -> None:
    waves = a_wave("a", name="canary", pause=600.0, gate=GATE), a_wave("b", name="rest")
    runner = Runner(a_plan(*waves))
    began = now(-100)
    runner.mark("canary", started_at=began)
    runner.start("a")
    assert runner.picture().waves[0].state is WaveState.RUNNING
    runner.end("a")
    runner.mark("canary", started_at=began, finished_at=now(-168))
    [canary, _] = runner.picture().waves
    assert canary.state is WaveState.BAKING
    assert canary.seconds_left is not None
    assert 425 < canary.seconds_left <= 432
    runner.mark("canary", started_at=began, finished_at=now(-601))
    assert runner.picture().waves[0].state is WaveState.ASKING
    passed = GateResult(kind="command", verdict=Verdict.PASSED, text="0")
    runner.mark("canary", started_at=began, finished_at=now(-601), gate=passed, passed=True)
    assert runner.picture().waves[0].state is WaveState.DONE
    runner.mark("rest", started_at=now())
    wave = runner.picture().wave
    assert wave is not None
    assert wave[1].name == "rest"


def test_whoever_comes_late_sees_the_wave_that_the_run_is_at() -> None:
    runner = Runner(a_plan(a_wave("a", name="canary"), a_wave("b", "c", name="rest")))
    runner.start("a")
    runner.end("a")
    runner.mark("canary", started_at=now(-20), finished_at=now(-10), passed=True)
    runner.mark("rest", started_at=now(-9))
    runner.start("b")

    picture = runner.picture()
    assert [(wave.state, wave.done) for wave in picture.waves] == [(WaveState.DONE, 1), (WaveState.RUNNING, 0)]
    assert picture.rate == 0
    assert runner.progress.told == []


def test_a_wave_behind_which_a_person_is_waited_for() -> None:
    runner = Runner(a_plan(a_wave("a", name="canary", pause=UNTIL_CONTINUED), a_wave("b", name="rest")))
    runner.start("a")
    runner.end("a")
    runner.mark("canary", started_at=now(), finished_at=now())
    runner.ledger.set_status(runner.run, RunStatus.PAUSED)
    assert runner.picture().waves[0].state is WaveState.WAITING
    runner.ledger.set_status(runner.run, RunStatus.RUNNING)
    runner.mark("canary", started_at=now(), finished_at=now(), passed=True)
    assert runner.picture().waves[0].state is WaveState.DONE


def test_a_pause_in_the_middle_of_a_wave_and_a_budget_that_changes() -> None:
    runner = Runner(a_plan(a_wave("a", "b", name="all", max_failures=0), max_failures=0))
    assert runner.picture().failures_left == 0
    runner.ledger.request(runner.run, this_process("bob@desk"), RequestKind.BUDGET, {"max_failures": 3, "wave": None})
    runner.ledger.request(runner.run, this_process("bob@desk"), RequestKind.BUDGET, {"max_failures": 2, "wave": "all"})
    runner.ledger.set_status(runner.run, RunStatus.PAUSED)
    picture = runner.picture()
    assert (picture.phase, picture.failures_left, picture.waves[0].failures_left) == (Phase.PAUSED, 3, 2)
    runner.ledger.set_status(runner.run, RunStatus.RUNNING)
    assert runner.picture().phase is Phase.RUNNING


# -- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def runner(project: FakeProject) -> Runner:
    """A live run of three targets in the ledger of the project."""
    return Runner(a_plan("acme", "globex", "initech"), project.ledger)


def story(*steps: Callable[[], object]) -> Callable[[float], None]:
    """Something that happens between two looks, each time another thing."""
    left: Iterator[Callable[[], object]] = iter(steps)
    return lambda _: (next(left)(), None)[1]


def test_it_ends_with_the_run_and_with_its_exit_code(
    project: FakeProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    def close() -> Run:
        return runner.ledger.close_run(runner.run, RunStatus.FAILED, ExitCode.FAILURES)

    steps = story(
        lambda: runner.start("acme", "globex"),
        lambda: runner.end("acme"),
        lambda: runner.end("globex", Status.FAILED),
        close,
    )
    code = watching.watch(Common(), project, None, steps)  # type: ignore[arg-type]

    shown = capsys.readouterr()
    assert code == ExitCode.FAILURES
    assert f"run {runner.run} is on: upgrade of 3 targets" in shown.err
    assert "globex failed: 23505 UniqueViolation" in shown.err
    assert shown.out.startswith(f"run {runner.run}: upgrade to r007 failed")


def test_a_runner_that_dies_leaves_an_interrupted_run(
    project: FakeProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    die = story(lambda: runner.start("acme"), lambda: runner.ledger.release(runner.lease))
    code = watching.watch(Common(), project, None, die)  # type: ignore[arg-type]

    shown = capsys.readouterr().out
    assert code == ExitCode.FAILURES
    assert "interrupted" in shown
    assert f"to go on: orchestrate resume {runner.run}" in shown


def test_a_run_that_waits_for_a_person_is_watched_while_its_runner_lives(project: FakeProject, runner: Runner) -> None:
    looks = []
    steps = story(
        lambda: runner.ledger.set_status(runner.run, RunStatus.PAUSED),
        lambda: looks.append("paused"),
        lambda: runner.ledger.release(runner.lease),
    )
    watching.watch(Common(quiet=True), project, None, steps)  # type: ignore[arg-type]

    assert looks == ["paused"]


def test_lines_of_json_are_pictures_and_then_the_report(
    project: FakeProject, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = story(
        lambda: runner.start("acme"),
        lambda: None,
        lambda: runner.end("acme"),
        lambda: runner.ledger.close_run(runner.run, RunStatus.SUCCEEDED, ExitCode.OK),
    )
    watching.watch(Common(output=Format.JSONL), project, None, steps)  # type: ignore[arg-type]

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["format"] for row in rows] == ["orchestrate.progress/1"] * 3 + ["orchestrate.report/1"]
    assert [row["counts"]["running"] for row in rows[:3]] == [0, 1, 0]
    assert rows[2]["counts"]["done"] == 1
    assert rows[3]["outcomes"] == []


def test_ctrl_c_ends_the_watching_only(invoke: Invoke, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(self: Follower) -> Run:
        raise KeyboardInterrupt

    monkeypatch.setattr(Follower, "look", typed)
    result = invoke("runs", "watch")

    assert result.exit_code == ExitCode.INTERRUPTED
    assert result.stderr == f"run {runner.run} goes on; to look again: orchestrate runs watch {runner.run}\n"
    assert runner.ledger.run(runner.run).status is RunStatus.RUNNING


def test_a_run_that_has_ended_is_only_reported(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("upgrade", "--all").exit_code == 0
    result = invoke("runs", "watch")

    assert result.exit_code == 0
    assert "succeeded" in result.stdout
    assert "is on" not in result.stderr


def test_without_any_run_there_is_nothing_to_watch(invoke: Invoke, project: FakeProject) -> None:
    result = invoke("runs", "watch")

    assert result.exit_code == ExitCode.USAGE
    assert "no run has been recorded yet" in result.stderr


def test_a_ledger_that_is_away_for_a_while_is_waited_for(
    project: FakeProject, runner: Runner, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    look, failures = Follower.look, iter([True] * 5)

    def flaky(self: Follower) -> Run:
        if next(failures, False):
            raise LedgerError("the ledger at db.internal cannot be reached")
        return look(self)

    monkeypatch.setattr(Follower, "look", flaky)
    with monkeypatch.context() as impatient:
        impatient.setattr(watching, "MOST_FAILED_LOOKS", 3)
        with pytest.raises(LedgerError):
            watching.watch(Common(), project, None, lambda _: None)  # type: ignore[arg-type]
    capfd.readouterr()

    failures = iter([True] * 5)
    close = [lambda: runner.ledger.close_run(runner.run, RunStatus.SUCCEEDED, ExitCode.OK)]
    code = watching.watch(Common(), project, None, story(*[lambda: None] * 5, *close))  # type: ignore[arg-type]

    assert code == ExitCode.OK
    assert capfd.readouterr().err.count("cannot be reached; trying again") == 1

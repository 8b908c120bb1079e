"""The numbers of a run: every target in one place at any moment, and a rate of late."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.pictures import Counts, Phase, Picture, WaveState
from orchestrator.cli.tallies import Tally
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
from orchestrator.outcomes import FailureKind, GateResult, Status, Verdict
from orchestrator.plans import Gate, Plan
from orchestrator.testing import a_failure, a_job, a_plan, a_wave, an_outcome

GATE = Gate(kind="command", text="./smoke", timeout=1.0, interval=1.0, count=3, digest="d")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_tally(plan: Plan, *events: Event, clock: Clock | None = None) -> Tally:
    tally = Tally(clock or Clock())
    tally.take(RunStarted(run="r-1", plan=plan))
    for event in events:
        tally.take(event)
    return tally


def picture_of(tally: Tally) -> Picture:
    picture = tally.picture()
    assert picture is not None
    return picture


def ended(target: str, status: Status = Status.UPGRADED, **fields: object) -> Sequence[Event]:
    return JobStarted(job=a_job(target)), JobFinished(outcome=an_outcome(target, status, **fields))


def put_off(target: str) -> Sequence[Event]:
    waiting = an_outcome(target, Status.DEFERRED)
    return JobStarted(job=a_job(target)), JobDeferred(outcome=waiting, delay_s=60.0)


def test_there_is_no_picture_before_the_run_has_begun() -> None:
    assert Tally().picture() is None


def test_every_target_is_in_one_of_six_places() -> None:
    settled = [an_outcome("there", Status.UNCHANGED, wave=None), an_outcome("odd", Status.SKIPPED, wave=None)]
    plan = a_plan(*(f"t{number}" for number in range(10)), settled=settled)
    tally = a_tally(plan, *ended("t0"), *ended("t1", Status.FAILED), *put_off("t2"), JobStarted(job=a_job("t3")))
    tally.take(JobFinished(outcome=an_outcome("t4", Status.SKIPPED)))

    picture = picture_of(tally)
    assert picture.counts == Counts(done=2, failed=1, running=1, waiting=1, left_alone=2, not_started=5)
    assert picture.counts.total == 12
    assert (picture.jobs, picture.ended) == (10, 3)


def test_a_target_that_is_tried_again_is_in_its_latest_place_only() -> None:
    tally = a_tally(a_plan("acme", max_failures=0), *ended("acme", Status.FAILED))
    assert picture_of(tally).failures_left == 0

    tally.take(JobStarted(job=a_job("acme")))
    assert picture_of(tally).counts == Counts(done=0, failed=0, running=1, waiting=0, left_alone=0, not_started=0)
    tally.take(JobFinished(outcome=an_outcome("acme")))
    assert (picture_of(tally).counts.done, picture_of(tally).counts.failed) == (1, 0)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["start", "defer", *Status])), max_size=60))
def test_the_places_add_up_whatever_happens(story: list[tuple[int, str]]) -> None:
    tally = a_tally(a_plan(*(f"t{number}" for number in range(8)), settled=[an_outcome("t9", Status.UNCHANGED)]))
    known = {"t9", *(f"t{number}" for number in range(8))}
    for number, what in story:
        name = f"t{number}"
        match what:
            case "start":
                tally.take(JobStarted(job=a_job(name)))
            case "defer":
                tally.take(JobDeferred(outcome=an_outcome(name, Status.DEFERRED), delay_s=1.0))
            case _:
                tally.take(JobFinished(outcome=an_outcome(name, Status(what))))
        picture = picture_of(tally)
        known |= {name}
        assert picture.counts.total == len(known)
        assert min(vars_of(picture.counts)) >= 0
        assert picture.ended == sum(wave.ended for wave in picture.waves)


def vars_of(counts: Counts) -> list[int]:
    return [counts.done, counts.failed, counts.running, counts.waiting, counts.left_alone, counts.not_started]


def test_pictures_taken_by_another_thread_always_add_up() -> None:
    names = [f"t{number}" for number in range(2000)]
    tally = a_tally(a_plan(*names))
    totals: set[int] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            totals.add(picture_of(tally).counts.total)

    thread = threading.Thread(target=look)
    thread.start()
    for name in names:
        for event in ended(name):
            tally.take(event)
    over.set()
    thread.join()

    assert totals == {2000}


def test_the_rate_is_that_of_late() -> None:
    clock = Clock()
    tally = a_tally(a_plan(*(f"t{number}" for number in range(400))), clock=clock)
    for number in range(300):
        clock.now += 0.1 if number < 200 else 1.0
        for event in ended(f"t{number}"):
            tally.take(event)
    tally.take(JobStarted(job=a_job("t399")))

    picture = picture_of(tally)
    assert picture.rate is not None
    assert 0.9 < picture.rate < 1.1
    assert picture.seconds_left is not None
    assert 90 < picture.seconds_left < 110


def test_slow_jobs_have_a_rate_too() -> None:
    clock = Clock()
    tally = a_tally(a_plan(*(f"t{number}" for number in range(30))), clock=clock)
    for number in range(20):
        clock.now += 300
        for event in ended(f"t{number}"):
            tally.take(event)
    tally.take(JobStarted(job=a_job("t25")))

    assert picture_of(tally).rate == 1 / 300


def test_a_pause_is_no_part_of_the_rate() -> None:
    clock = Clock()
    tally = a_tally(a_plan(*(f"t{number}" for number in range(30))), clock=clock)
    tally.take(RunPaused(cause="person", text="paused by ann"))
    clock.now += 3600
    assert picture_of(tally).rate is None
    tally.take(RunContinued(text="ann"))
    for number in range(5):
        clock.now += 1
        for event in ended(f"t{number}"):
            tally.take(event)
    tally.take(JobStarted(job=a_job("t25")))

    assert picture_of(tally).rate == 1


def test_the_longest_at_work_come_first() -> None:
    clock = Clock()
    tally = a_tally(a_plan(*(f"t{number}" for number in range(9))), clock=clock)
    for number in range(5):
        tally.take(JobStarted(job=a_job(f"t{number}")))
        clock.now += 1
    tally.take(JobFinished(outcome=an_outcome("t1")))
    assert picture_of(tally).longest == (("t0", 5.0), ("t2", 3.0), ("t3", 2.0))


def test_whoever_comes_late_is_told_since_when_it_runs() -> None:
    clock = Clock()
    tally = a_tally(a_plan(*(f"t{number}" for number in range(9))), clock=clock)
    for number in range(6):
        for event in ended(f"t{number}"):
            tally.take(event)
    for number in (6, 7, 8):
        tally.take(JobStarted(job=a_job(f"t{number}")))
    clock.now += 1
    tally.come_late(90.0, {"t6": 3.0, "t7": 60.0, "t0": 80.0})

    picture = picture_of(tally)
    assert picture.seconds == 90.0
    assert picture.longest == (("t7", 60.0), ("t6", 3.0), ("t8", 0.0))
    assert picture.rate == 0


def test_a_wave_goes_through_its_states() -> None:
    clock = Clock()
    canary = a_wave("a", name="canary", pause=600.0, gate=GATE)
    tally = a_tally(a_plan(canary, a_wave("b", "c", name="rest")), clock=clock)

    def canary_is(state: WaveState) -> None:
        assert picture_of(tally).waves[0].state is state

    canary_is(WaveState.NOT_STARTED)
    assert picture_of(tally).wave is None
    tally.take(WaveStarted(wave="canary", jobs=1))
    canary_is(WaveState.RUNNING)
    for event in ended("a"):
        tally.take(event)
    tally.take(WaveFinished(wave="canary"))
    tally.take(RunPaused(cause="bake", text="bakes", wave="canary", seconds=600.0))
    clock.now += 168
    canary_is(WaveState.BAKING)
    assert picture_of(tally).waves[0].seconds_left == 432
    tally.take(RunContinued(text="it has baked"))
    canary_is(WaveState.ASKING)
    assert picture_of(tally).waves[0].asking is None
    passed = GateResult(kind="command", verdict=Verdict.PASSED, text="0")
    tally.take(GateAnswered(wave="canary", result=passed))
    assert picture_of(tally).waves[0].asking == (2, 3)
    tally.take(GateAnswered(wave="canary", result=passed))
    tally.take(GateAnswered(wave="canary", result=passed))
    canary_is(WaveState.DONE)
    tally.take(WaveStarted(wave="rest", jobs=2))
    wave = picture_of(tally).wave
    assert wave is not None
    assert (wave[0], wave[1].name) == (2, "rest")


def test_a_gate_that_is_answered_once_for_all_its_measurements_is_over() -> None:
    plan = a_plan(a_wave("a", name="canary", gate=GATE), a_wave("b", name="rest"))
    passed = GateResult(kind="command", verdict=Verdict.PASSED, text="0", measurements=3)
    tally = a_tally(plan, WaveStarted(wave="canary", jobs=1), *ended("a"), WaveFinished(wave="canary"))
    tally.take(GateAnswered(wave="canary", result=passed))

    assert picture_of(tally).waves[0].state is WaveState.DONE


def test_a_person_may_overrule_a_gate_that_was_not_asked_often_enough() -> None:
    unclear = GateResult(kind="command", verdict=Verdict.INCONCLUSIVE, text="exit 75", measurements=2)
    overruled = GateResult(kind="person", verdict=Verdict.PASSED, text="continued by ann", measurements=2)
    tally = a_tally(a_plan(a_wave("a", name="canary", gate=GATE)), *ended("a"), WaveFinished(wave="canary"))
    tally.take(GateAnswered(wave="canary", result=unclear))
    tally.take(RunPaused(cause="gate", text="inconclusive", wave="canary"))
    assert picture_of(tally).waves[0].state is WaveState.WAITING
    tally.take(RunContinued(text="continued by ann"))
    tally.take(GateAnswered(wave="canary", result=overruled))
    assert picture_of(tally).waves[0].state is WaveState.DONE


def test_a_gate_that_fails_or_says_nothing_holds_the_wave() -> None:
    for verdict, state in ((Verdict.FAILED, WaveState.REFUSED), (Verdict.INCONCLUSIVE, WaveState.WAITING)):
        tally = a_tally(a_plan(a_wave("a", name="canary", gate=GATE)), *ended("a"), WaveFinished(wave="canary"))
        tally.take(GateAnswered(wave="canary", result=GateResult(kind="command", verdict=verdict, text="1")))
        assert picture_of(tally).waves[0].state is state


def test_a_person_is_waited_for_before_the_gate_is_asked() -> None:
    tally = a_tally(a_plan(a_wave("a", name="canary", gate=GATE)), *ended("a"), WaveFinished(wave="canary"))
    tally.take(RunPaused(cause="person", text="until continued", wave="canary"))
    assert picture_of(tally).waves[0].state is WaveState.WAITING
    tally.take(RunContinued(text="ann"))
    assert picture_of(tally).waves[0].state is WaveState.ASKING


def test_budgets_are_what_is_left_of_them() -> None:
    down = a_failure(FailureKind.SERVER)
    plan = a_plan(a_wave(*"abcd", name="canary", max_failures=2), a_wave("e", name="rest"), max_failures=5)
    tally = a_tally(plan, WaveStarted(wave="canary", jobs=4), *ended("a", Status.FAILED))
    for target in "bc":
        tally.take(JobFinished(outcome=an_outcome(target, Status.FAILED, failure=down)))

    picture = picture_of(tally)
    assert picture.counts.failed == 3
    assert (picture.failures_left, picture.waves[0].failures_left) == (3, 0)
    assert picture.waves[1].failures_left is None

    tally.take(BudgetChanged(wave=None, max_failures=None))
    tally.take(BudgetChanged(wave="canary", max_failures=9))
    assert (picture_of(tally).failures_left, picture_of(tally).waves[0].failures_left) == (None, 7)


def test_a_run_that_goes_on_counts_what_an_earlier_runner_did() -> None:
    before = [an_outcome(a_job("a", wave="canary")), an_outcome(a_job("b", wave="rest"), Status.FAILED)]
    tally = a_tally(a_plan(a_wave("c", "d", name="rest"), settled=before, max_failures=3))

    picture = picture_of(tally)
    assert [(wave.name, wave.total, wave.ended) for wave in picture.waves] == [("canary", 1, 1), ("rest", 3, 1)]
    assert [wave.state for wave in picture.waves] == [WaveState.DONE, WaveState.NOT_STARTED]
    assert (picture.jobs, picture.ended, picture.failures_left) == (4, 2, 2)


def test_tenants_that_join_are_a_wave_more() -> None:
    tally = a_tally(a_plan("a"), *ended("a"))
    tally.take(JobsAdded(wave="joined", jobs=(a_job("b", wave="joined"), a_job("c", wave="joined"))))

    picture = picture_of(tally)
    assert [(wave.name, wave.total) for wave in picture.waves] == [("all", 1), ("joined", 2)]
    assert picture.counts.not_started == 2


def test_a_halt_and_a_drain_are_told_apart() -> None:
    halt = RunHalted(cause="budget", text="2 failures exceed 1", in_flight=3, not_started=4)
    assert picture_of(a_tally(a_plan("a"), halt)).phase is Phase.HALTED
    drain = RunHalted(cause="interrupted", text="asked to stop", in_flight=3, not_started=4)
    assert picture_of(a_tally(a_plan("a"), drain)).phase is Phase.DRAINING


def test_a_picture_is_plain_json() -> None:
    tally = a_tally(a_plan("a", "b"), WaveStarted(wave="all", jobs=2), *ended("a"), JobStarted(job=a_job("b")))

    shown = picture_of(tally).to_json()
    assert shown["format"] == "orchestrate.progress/1"
    assert shown["counts"] == {
        "done": 1,
        "failed": 0,
        "running": 1,
        "waiting": 0,
        "left_alone": 0,
        "not_started": 0,
    }
    assert shown["waves"][0]["state"] == "running"
    assert shown["longest"] == [{"target": "b", "seconds": 0.0}]

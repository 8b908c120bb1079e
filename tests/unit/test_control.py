"""What may be asked of a run, and when: the asking itself; `test_rollout_people` has what comes of it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.control import Asked, Control
from orchestrator.errors import ExitCode, UsageError
from orchestrator.ledger import MemoryLedger, RequestKind, WaveMark, this_process
from orchestrator.outcomes import GateResult, Reason, RunStatus, Status, Verdict
from orchestrator.plans import UNTIL_CONTINUED
from orchestrator.testing import a_plan, a_wave, an_outcome
from tests.unit.rollout_worlds import GATE

OPS = this_process("ops@here")


class World:
    """A ledger with one run, live or not."""

    def __init__(self, *, live: bool = False, status: RunStatus | None = None, **wave: Any) -> None:

        canary = dataclasses.replace(a_wave("a", "b", name="canary"), **wave)
        self.plan = a_plan(canary, a_wave(*"cdefghijkl", name="rest"), max_failures=0)
        self.ledger = MemoryLedger()
        self.lease = self.ledger.acquire(OPS) if live else None
        self.run = self.ledger.open_run(self.plan, operator="ops", fleet=12, lease=self.lease).id
        if status is not None:
            self.ledger.close_run(self.run, status, ExitCode.FAILURES)
        self.resumed: list[str] = []
        host = SimpleNamespace(ledger_if_any=lambda: self.ledger)
        runs = SimpleNamespace(confirm=lambda manner: None, resume=lambda run, **_: self.resumed.append(run))
        self.control = Control(host, runs)  # type: ignore[arg-type]

    def record(self, target: str, status: Status) -> None:
        self.ledger.record(self.run, an_outcome(target, status, reason=Reason(code="x", text="x")))

    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        return [(request.kind.value, dict(request.detail)) for request in self.ledger.requests(self.run)]


class TestPausing:
    def test_a_live_run(self) -> None:
        world = World(live=True)
        assert world.control.pause().live
        assert world.control.pause(world.run).text == "is paused already"
        assert world.asked() == [("pause", {})]
        assert [entry.action for entry in world.ledger.audit()] == ["pause"]

    @pytest.mark.parametrize("status", [RunStatus.HALTED, RunStatus.INTERRUPTED])
    def test_nobody_runs_it(self, status: RunStatus) -> None:
        with pytest.raises(UsageError, match=f"no live runner, so there is nothing to pause; it is {status}"):
            World(status=status).control.pause()

    def test_it_has_ended(self) -> None:
        world = World(status=RunStatus.SUCCEEDED)
        with pytest.raises(UsageError, match="no open run to pause; see"):
            world.control.pause()
        with pytest.raises(UsageError, match="has ended already: succeeded"):
            world.control.pause(world.run)
        with pytest.raises(UsageError, match="`orchestrate resume RUN` takes up what one that has ended put off"):
            world.control.continue_()


class TestContinuing:
    def test_a_live_run_that_was_paused(self) -> None:
        world = World(live=True)
        world.control.pause()
        answer = world.control.continue_()
        assert isinstance(answer, Asked)
        assert answer.live
        assert [kind for kind, _ in world.asked()] == ["pause", "continue"]
        assert world.resumed == []
        with pytest.raises(UsageError, match="waits for nobody, so there is nothing to continue; it is at work"):
            world.control.continue_()

    def test_a_live_run_that_waits_behind_a_wave(self) -> None:
        world = World(live=True, pause=600.0)
        with pytest.raises(UsageError, match="waits for nobody"):
            world.control.release()
        world.ledger.mark_wave(world.run, WaveMark(wave="canary", finished_at=world.ledger.run().started_at))
        assert world.control.release().live
        world.ledger.mark_wave(
            world.run, WaveMark(wave="canary", finished_at=world.ledger.run().started_at, passed=True)
        )
        with pytest.raises(UsageError, match="waits for nobody"):
            world.control.release()

    def test_twice_is_once(self) -> None:
        world = World(live=True, pause=600.0)
        world.ledger.mark_wave(world.run, WaveMark(wave="canary", finished_at=world.ledger.run().started_at))
        assert [world.control.release().text for _ in range(2)] == ["goes on", "has been told so already"]
        assert [kind for kind, _ in world.asked()] == ["continue"]

    @pytest.mark.parametrize(
        ("wave", "verdict", "paused", "text"),
        [
            ({"pause": 600.0}, None, True, "goes on once the pause behind wave canary is over"),
            ({"pause": 600.0, "gate": GATE}, None, False, "goes on to the gate of wave canary"),
            ({"pause": UNTIL_CONTINUED}, None, True, "goes on"),
            ({"pause": UNTIL_CONTINUED, "gate": GATE}, None, True, "goes on to the gate of wave canary"),
            (
                {"gate": GATE},
                Verdict.INCONCLUSIVE,
                True,
                "goes on past the gate of wave canary, which was inconclusive",
            ),
        ],
    )
    def test_it_is_said_what_comes_next(
        self, wave: dict[str, Any], verdict: Verdict | None, paused: bool, text: str
    ) -> None:
        world = World(live=True, **wave)
        gate = None if verdict is None else GateResult(kind="command", verdict=verdict, text="no answer")
        ended = world.ledger.run().started_at
        world.ledger.mark_wave(world.run, WaveMark(wave="canary", finished_at=ended, gate=gate))
        if paused:
            world.control.pause()
        assert world.control.release().text == text
        if text != "goes on once the pause behind wave canary is over":
            assert world.control.release().text == "has been told so already"

    def test_nobody_runs_it_so_whoever_continues_it_does(self) -> None:
        world = World(status=RunStatus.PAUSED)
        assert world.control.continue_() is None
        assert world.resumed == [world.run]
        assert [kind for kind, _ in world.asked()] == ["continue"]

    def test_a_run_that_waits_for_nobody(self) -> None:
        world = World(status=RunStatus.HALTED)
        with pytest.raises(UsageError, match=f"it is halted: see `orchestrate resume {world.run}`"):
            world.control.continue_()
        assert world.asked() == []


class TestSkipping:
    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (None, "will be left alone"),
            (Status.NOT_STARTED, "will be left alone"),
            (Status.DEFERRED, "will be left alone"),
            (Status.FAILED, "failed before, and is left alone once the run is resumed"),
            (Status.LOST, "lost before, and is left alone once the run is resumed"),
        ],
    )
    def test_what_it_means(self, status: Status | None, text: str) -> None:
        world = World(status=RunStatus.HALTED)
        if status:
            world.record("a", status)
        asked = world.control.skip("a", " the customer asked ")
        assert (asked.text, asked.target) == (text, "a")
        assert world.asked() == [("skip", {"target": "a", "reason": "the customer asked"})]

    @pytest.mark.parametrize("status", [Status.UPGRADED, Status.UNCHANGED, Status.SKIPPED])
    def test_nothing_is_left_to_skip(self, status: Status) -> None:
        world = World(live=True)
        world.record("a", status)
        with pytest.raises(UsageError, match=f"a is {status} already"):
            world.control.skip("a", "asked")
        assert world.asked() == []

    def test_one_that_is_at_work(self) -> None:
        world = World(live=True)
        world.ledger.start(world.run, world.plan.waves[0].jobs[0])
        assert "is at work now" in world.control.skip("a", "asked").text

    @pytest.mark.parametrize(("target", "reason", "said"), [("z", "asked", "no target `z`"), ("a", " ", "say why")])
    def test_mistakes(self, target: str, reason: str, said: str) -> None:
        world = World(live=True)
        with pytest.raises(UsageError, match=said):
            world.control.skip(target, reason)
        assert world.asked() == []


class TestBudgets:
    @pytest.mark.parametrize(
        ("given", "wave", "limit", "text"),
        [
            (3, None, 3, "tolerates 3 failures in all from now on"),
            ("25%", None, 3, "tolerates 3 failures in all from now on"),
            ("50%", "canary", 1, "tolerates 1 failure in wave canary from now on"),
            ("10%", "canary", 0, "tolerates 0 failures in wave canary from now on"),
        ],
    )
    def test_a_count_or_a_percent(self, given: int | str, wave: str | None, limit: int, text: str) -> None:
        world = World(live=True)
        assert world.control.budget(given, wave=wave).text == text
        assert world.asked() == [("budget", {"max_failures": limit, "wave": wave})]
        assert [entry.action for entry in world.ledger.audit()] == ["runs budget"]

    @pytest.mark.parametrize(("given", "wave", "said"), [("many", None, "neither a number"), (1, "x", "no wave `x`")])
    def test_mistakes(self, given: int | str, wave: str | None, said: str) -> None:
        world = World(status=RunStatus.HALTED)
        with pytest.raises(UsageError, match=said):
            world.control.budget(given, wave=wave)
        assert world.asked() == []


def test_the_live_run_is_meant_and_not_a_newer_one_that_waits() -> None:
    world = World(live=True)
    newer = world.ledger.open_run(a_plan("z"), operator="ops", fleet=1)
    world.ledger.close_run(newer.id, RunStatus.PAUSED, ExitCode.PAUSED)
    assert world.control.pause().run.id == world.run
    assert [request.kind for request in world.ledger.requests(newer.id)] == []
    assert RequestKind.PAUSE in {request.kind for request in world.ledger.requests(world.run)}

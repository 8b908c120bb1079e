"""The planner decides, for each target, whether there is a job; it needs no database and no scripts for that."""

from __future__ import annotations

import datetime

import pytest
from sqlalchemy import make_url

from orchestrator import planner
from orchestrator.errors import UsageError
from orchestrator.outcomes import Failure, FailureKind, Outcome, Status
from orchestrator.plans import Command, Condition, Found, Plan, Route
from orchestrator.strategy import Budget, Growth, Strategy, WaveRule
from orchestrator.tenants import State, Target, Tenant

TODAY = datetime.date(2026, 11, 22)
CHAIN = ("r1", "r2", "r3")


class Chain:
    """A guide over r1 <- r2 <- r3."""

    def knows(self, target: Target, heads: tuple[str, ...]) -> bool:
        return set(heads) <= set(CHAIN)

    def is_relative(self, target: Target, asked: str) -> bool:
        return asked[0] in "+-"

    def route(self, target: Target, command: Command, found: tuple[str, ...], asked: str) -> Route:
        here = CHAIN.index(found[0]) + 1 if found and found[0] in CHAIN else 0
        there = {"head": 3, "base": 0}.get(asked)
        if there is None:
            there = here + int(asked) if self.is_relative(target, asked) else CHAIN.index(asked) + 1
        if command is Command.STAMP:
            return Route(path=(), wanted=CHAIN[there - 1 : there])
        if command is Command.UPGRADE:
            return Route(path=CHAIN[here:there], wanted=CHAIN[there - 1 : there], past=here > there)
        return Route(path=CHAIN[there:here][::-1], wanted=CHAIN[there - 1 : there] if there else ())


def look(
    name: str = "acme",
    heads: tuple[str, ...] = ("r1",),
    condition: Condition | None = None,
    after: tuple[str, ...] = (),
    **tenant,
) -> Found:
    target = Target(tenant=Tenant(name=name, **tenant), url=make_url(f"sqlite:////var/{name}.db"), after=after)
    found = condition or (Condition.VERSIONED if heads else Condition.EMPTY)
    return Found(target=target, condition=found, heads=heads)


def build(*found: Found, **request) -> Plan:
    defaults = {
        "project": "billing",
        "environment": "test",
        "command": Command.UPGRADE,
        "asked": "head",
        "today": TODAY,
        "strategy": Strategy(),
    }
    return planner.build(planner.Request(**{**defaults, **request}), found, Chain())


def settled(plan: Plan) -> Outcome:
    assert not list(plan.jobs)
    (outcome,) = plan.settled
    return outcome


def test_a_target_behind_gets_a_job_with_its_whole_path() -> None:
    (job,) = build(look(heads=("r1",))).jobs
    assert (job.found, job.path, job.wanted) == (("r1",), ("r2", "r3"), ("r3",))


def test_an_empty_target_starts_at_base() -> None:
    (job,) = build(look(heads=())).jobs
    assert job.path == CHAIN


@pytest.mark.parametrize(("heads", "asked", "code"), [(("r3",), "head", "at_head"), (("r3",), "r1", "past")])
def test_a_target_that_is_there_is_unchanged(heads: tuple[str, ...], asked: str, code: str) -> None:
    outcome = settled(build(look(heads=heads), asked=asked))
    assert (outcome.status, outcome.reason.code, outcome.at) == (Status.UNCHANGED, code, heads)


@pytest.mark.parametrize(
    ("found", "status", "code"),
    [
        (look(heads=("zz",)), Status.SKIPPED, "unknown_revision"),
        (look(heads=(), condition=Condition.UNVERSIONED), Status.SKIPPED, "unversioned"),
        (look(heads=(), condition=Condition.ABSENT), Status.NOT_PROVISIONED, "absent"),
        (look(state=State.QUARANTINED, reason="restoring"), Status.SKIPPED, "quarantined"),
        (look(state=State.SUSPENDED), Status.SKIPPED, "suspended"),
        (look(heads=(), condition=Condition.UNREACHABLE), Status.FAILED, "unreachable"),
    ],
)
def test_odd_targets_are_settled_without_a_job(found: Found, status: Status, code: str) -> None:
    outcome = settled(build(found))
    assert (outcome.status, outcome.reason.code) == (status, code)


def test_a_quarantine_past_its_day_no_longer_holds() -> None:
    yesterday = TODAY - datetime.timedelta(days=1)
    assert list(build(look(state=State.QUARANTINED, until=yesterday)).jobs)
    assert not list(build(look(state=State.QUARANTINED, until=TODAY)).jobs)


def test_the_targets_behind_a_dead_server_are_deferred() -> None:
    failure = Failure(kind=FailureKind.SERVER, code="server_down", type="ServerDown", message="refused")
    found = Found(target=look().target, condition=Condition.UNREACHABLE, failure=failure)
    assert settled(build(found)).status is Status.DEFERRED


def test_what_was_asked_for_is_kept_for_those_who_could_not_be_read() -> None:
    unread = [look(name, heads=(), condition=Condition.UNREACHABLE) for name in ("a", "b")]
    plan = build(*unread, asked="r2", concurrency=3)
    assert plan.revision == ("r2",)
    assert [outcome.wanted for outcome in plan.settled] == [("r2",), ("r2",)]
    assert [(wave.jobs, wave.concurrency) for wave in plan.waves] == [((), 3)]
    assert [outcome.wanted for outcome in build(*unread, asked="+1").settled] == [None, None]


def test_only_provision_creates_what_is_absent() -> None:
    (job,) = build(look(heads=(), condition=Condition.ABSENT), provision=True).jobs
    assert job.provision
    assert job.path == CHAIN


def test_a_stamp_may_mend_what_an_upgrade_must_not_touch() -> None:
    plan = build(
        look("a", heads=("zz",)),
        look("b", heads=(), condition=Condition.UNVERSIONED),
        look("c", heads=("r2",)),
        command=Command.STAMP,
        asked="r2",
    )
    assert [job.target for job in plan.jobs] == ["a", "b"]
    assert [outcome.status for outcome in plan.settled] == [Status.UNCHANGED]


def test_a_relative_step_over_different_places_needs_each() -> None:
    fleet = (look("a", heads=("r1",)), look("b", heads=("r2",)))
    with pytest.raises(UsageError, match="--each"):
        build(*fleet, asked="+1")
    assert {job.wanted for job in build(*fleet, asked="+1", each=True).jobs} == {("r2",), ("r3",)}
    assert list(build(look("a"), look("b"), asked="+1").jobs)


def test_the_budget_is_a_share_of_the_jobs_due() -> None:
    fleet = [look(f"t{number}") for number in range(50)] + [look("done", heads=("r3",))]
    assert build(*fleet, max_failures=Budget.parse("5%")).max_failures == 2
    for text in ("3", "2%", "12.5%", "66.666666%"):
        # A plan keeps the text, and is asked again by it.
        assert str(Budget.parse(text)) == text
    assert build(*fleet).max_failures == 0
    assert build(*fleet, keep_going=True).max_failures is None


def test_a_limit_counts_only_targets_that_are_due_and_makes_progress() -> None:
    fleet = [look(f"t{number}") for number in range(20)]
    first = {job.target for job in build(*fleet, limit="5").jobs}
    rest = [look(found.target.name, heads=("r3",) if found.target.name in first else ("r1",)) for found in fleet]
    second = {job.target for job in build(*rest, limit="5").jobs}
    assert len(first) == len(second) == 5
    assert not first & second


def test_equal_plans_have_equal_digests_and_others_do_not() -> None:
    assert build(look()).digest == build(look()).digest
    assert build(look()).digest != build(look(heads=("r2",))).digest


def test_who_waits_for_a_target_that_is_left_alone_is_said_so() -> None:
    """They count as to do, and the run skips them."""
    plan = build(
        look("a", state=State.QUARANTINED),
        look("b", after=("a",)),
        look("c", after=("b",)),
        look("d", heads=("r3",)),
        look("e", after=("d",)),
    )
    assert [job.target for job in plan.jobs] == ["b", "c", "e"]
    assert plan.notes == ("2 targets that are to be done come after a (skipped), and will be left alone as well",)


def test_a_wave_without_anybody_is_said_so() -> None:
    """Its pause and its gate do not act, and somebody may count on them."""
    rules = (WaveRule(name="canary", selector="tier=none"), WaveRule(name="ramp", growth=Growth.LINEAR))
    plan = build(look(), strategy=Strategy(name="careful", waves=rules))
    assert [wave.name for wave in plan.waves] == ["ramp-1"]
    assert plan.notes == ("strategy careful: wave canary has nothing to do, so neither pause nor gate of it acts",)
    assert build(look(heads=("r3",)), strategy=Strategy(waves=rules)).notes == ()


def test_what_a_strategy_says_of_the_whole_run() -> None:
    strategy = Strategy(freeze=("2026-12-24",), deadline=60.0, sweep=True, window=("02:00-04:00",))
    plan = build(look(window=("Sat 01:00-02:00",)), strategy=strategy, sweep={"everything": True})
    assert (plan.freeze, plan.deadline, plan.sweep) == (("2026-12-24",), 60.0, {"everything": True})
    assert (plan.waves[0].window, next(plan.jobs).window) == (("02:00-04:00",), ("Sat 01:00-02:00",))
    lifted = build(look(window=("Sat 01:00-02:00",)), strategy=strategy, outside_windows=True, deadline=9.0)
    assert (lifted.freeze, lifted.deadline, lifted.sweep) == ((), 9.0, None)
    assert (lifted.waves[0].window, next(lifted.jobs).window) == ((), ())
    assert build(look(), sweep={"everything": True}).sweep is None

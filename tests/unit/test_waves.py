"""Who is in which wave depends on names, labels and the strategy alone: who else is there does not matter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plans import Command, Job, Wave
from orchestrator.strategy import Budget, GateRule, Growth, Size, Strategy, WaveRule
from orchestrator.waves import Limits, fraction, rule_of, spread

FLEET = [f"tenant{number}" for number in range(300)]


def job(tenant: str, database: str | None = None, *, after: tuple[str, ...] = (), **labels: str) -> Job:
    return Job(
        target=tenant if database is None else f"{tenant}/{database}",
        tenant=tenant,
        database=database,
        labels=labels,
        server="db:5432",
        command=Command.UPGRADE,
        found=(),
        wanted=("r1",),
        path=("r1",),
        wave="",
        after=after,
    )


def named(waves: tuple[Wave, ...]) -> dict[str, list[str]]:
    assert all(each.wave == wave.name for wave in waves for each in wave.jobs)
    return {wave.name: [each.target for each in wave.jobs] for wave in waves}


def rolled(*rules: WaveRule, jobs: list[Job], limits: Limits | None = None, **strategy) -> tuple[Wave, ...]:
    return spread(Strategy(name="careful", waves=rules, **strategy), jobs, limits)


def percent(name: str, number: float, **fields) -> WaveRule:
    return WaveRule(name=name, size=Size(percent=number), **fields)


def count(name: str, number: int, **fields) -> WaveRule:
    return WaveRule(name=name, size=Size(count=number), **fields)


def test_without_waves_all_jobs_are_in_one() -> None:
    (wave,) = rolled(jobs=[job("b"), job("a")], concurrency=3, strict=True, window=("02:00-04:00",))
    assert (wave.name, [each.target for each in wave.jobs]) == ("all", ["b", "a"])
    assert (wave.concurrency, wave.max_failures, wave.strict, wave.window) == (3, None, True, ("02:00-04:00",))
    assert rolled(jobs=[]) == ()


def test_a_wave_may_be_strict_or_not_whatever_the_strategy_says() -> None:
    rules = [WaveRule(name="a", size=Size(count=1), strict=said) for said in (None, True, False)]
    for strategy in (True, False):
        waves = [rolled(rule, jobs=[job("acme")], strict=strategy)[0].strict for rule in rules]
        assert waves == [strategy, True, False]


def test_first_match_wins_and_the_last_wave_takes_the_rest() -> None:
    jobs = [job("acme", tier="internal"), job("bix", tier="free"), job("cyb", tier="internal"), job("dux", tier="paid")]
    waves = rolled(
        WaveRule(name="internal", selector="tier=internal"),
        WaveRule(name="paying", selector="tier in (internal,paid)"),
        WaveRule(name="everybody"),
        jobs=jobs,
    )
    assert named(waves) == {"internal": ["acme", "cyb"], "paying": ["dux"], "everybody": ["bix"]}


def test_whom_no_wave_takes_comes_last() -> None:
    rules = [count("canary", 1), WaveRule(name="rest", selector="tier=paid")]
    waves = rolled(*rules, jobs=[job("a", tier="paid"), job("b"), job("c")])
    assert list(named(waves))[-1] == "rest-of-all"
    assert sorted(target for wave in waves for target in named(waves)[wave.name]) == ["a", "b", "c"]
    assert list(named(rolled(rules[0], jobs=[job("a"), job("b")]))) == ["canary", "rest"]


def test_a_tenant_goes_with_all_its_databases() -> None:
    jobs = [job(name, database) for name in ("a", "b", "c", "d") for database in ("core", "analytics")]
    waves = named(rolled(count("canary", 1), percent("half", 50), WaveRule(name="rest"), jobs=jobs))
    assert [len(targets) % 2 for targets in waves.values()] == [0] * len(waves)
    assert len(waves["canary"]) == 2
    assert len({target.partition("/")[0] for target in waves["canary"]}) == 1


def test_whoever_others_come_after_is_with_the_earliest_of_them() -> None:
    behind = [job(name, after=("base",), role="customer") for name in "pqrst"]
    jobs = [job("shared"), job("base", after=("shared",)), *behind]
    waves = named(rolled(count("canary", 1, selector="role=customer"), WaveRule(name="rest"), jobs=jobs))
    first = min("pqrst", key=fraction)
    assert waves["canary"] == ["shared", "base", first]
    assert waves["rest"] == [name for name in "pqrst" if name != first]
    order = [target for targets in waves.values() for target in targets]
    assert order.index("shared") < order.index("base") < min(order.index(name) for name in "pqrst")


def test_growth_stands_for_as_many_waves_as_it_takes() -> None:
    jobs = [job(name) for name in FLEET]
    waves = rolled(WaveRule(name="ramp", growth=Growth.EXPONENTIAL), jobs=jobs)
    assert [(wave.name, len(wave.jobs)) for wave in waves] == [
        ("ramp-1", 1),
        ("ramp-2", 10),
        ("ramp-3", 100),
        ("ramp-4", 189),
    ]
    assert [wave.max_failures for wave in waves] == [0, 0, 0, None]
    steps = rolled(count("step", 120, growth=Growth.LINEAR), jobs=jobs)
    assert [(wave.name, len(wave.jobs)) for wave in steps] == [("step-1", 120), ("step-2", 120), ("step-3", 60)]


def test_the_rule_of_a_wave() -> None:
    rules = (count("ramp-1", 1), WaveRule(name="ramp", growth=Growth.EXPONENTIAL), WaveRule(name="rest"))
    assert [rule and rule.name for rule in (rule_of(name, rules) for name in ("ramp-1", "ramp-2", "rest", "x-1"))] == [
        "ramp-1",
        "ramp",
        "rest",
        None,
    ]


@pytest.mark.parametrize("share", [0.01, 1, 5, 25, 60])
def test_a_percent_is_about_that_many_and_never_none(share: float) -> None:
    jobs = [job(name) for name in FLEET]
    canary = named(rolled(percent("canary", share), WaveRule(name="rest"), jobs=jobs))["canary"]
    assert len(canary) >= 1
    assert abs(len(canary) - 3 * share) < 30


@settings(deadline=None)
@given(
    fleet=st.sets(st.text(alphabet="abcdefgh0123", min_size=1, max_size=8), min_size=20, max_size=120),
    gone=st.sets(st.integers(min_value=0, max_value=119), max_size=12),
    joined=st.sets(st.text(alphabet="xyz", min_size=1, max_size=5), max_size=12),
    grown=st.floats(min_value=0, max_value=30),
)
def test_a_percent_keeps_its_members(fleet: set[str], gone: set[int], joined: set[str], grown: float) -> None:
    """When the fleet grows or shrinks by a tenth, and when the percent grows: nobody goes back to a later wave."""
    before = _members(sorted(fleet), 20, 30)
    left = [name for number, name in enumerate(sorted(fleet)) if number not in gone]
    others = _members([*left, *(f"new-{name}" for name in joined)], 20, 30)
    # Alone below its threshold nobody is, where the lowest of all has to do: that is the one who may change.
    if all(fraction(name) < 20 for name in before["a"]) and all(fraction(name) < 20 for name in others["a"]):
        assert others["a"] & fleet == before["a"] & set(left)
        if all(fraction(name) < 50 for name in before["b"] | others["b"]):
            assert others["b"] & fleet == before["b"] & set(left)
    wider = _members(sorted(fleet), 20 + grown, 30)
    assert before["a"] <= wider["a"]
    assert before["b"] <= wider["a"] | wider["b"]


def _members(fleet: list[str], first: float, second: float) -> dict[str, set[str]]:
    waves = rolled(percent("a", first), percent("b", second), WaveRule(name="rest"), jobs=[job(name) for name in fleet])
    return {"a": set(), "b": set(), **{name: set(targets) for name, targets in named(waves).items()}}


def test_percents_of_one_selection_add_up() -> None:
    jobs = [job(name, region="eu" if number % 2 else "us") for number, name in enumerate(FLEET)]
    waves = named(
        rolled(
            percent("eu-first", 20, selector="region=eu"),
            percent("eu-second", 30, selector="region=eu"),
            percent("all-first", 20),
            WaveRule(name="rest"),
            jobs=jobs,
        )
    )
    regions = {each.target: each.labels["region"] for each in jobs}
    eu = [name for name in FLEET if regions[name] == "eu"]
    assert waves["eu-first"] == [name for name in eu if fraction(name) < 20]
    assert waves["eu-second"] == [name for name in eu if 20 <= fraction(name) < 50]
    assert waves["all-first"] == [name for name in FLEET if regions[name] == "us" and fraction(name) < 20]


def test_order_within_a_wave() -> None:
    jobs = [job("a", size="10"), job("b", size="9"), job("c"), job("d", size="9a")]
    (wave,) = rolled(WaveRule(name="all", order_by="size"), jobs=jobs, order_by="other")
    assert [each.target for each in wave.jobs] == ["b", "d", "a", "c"]
    (other,) = rolled(WaveRule(name="all"), jobs=jobs, order_by="size")
    assert [each.target for each in other.jobs] == ["b", "d", "a", "c"]


def test_what_a_wave_is_like() -> None:
    gate = GateRule(http="https://user:s3cret-word@app.internal/health?token=s3cret-word", headers={"X": "s3cret-word"})
    rules = (
        count("canary", 1, pause=600.0, gate=gate, max_failures=Budget(percent=50)),
        WaveRule(name="rest", concurrency=20, window=("Sat 02:00-04:00",)),
    )
    jobs = [job(name) for name in FLEET]
    canary, rest = rolled(*rules, jobs=jobs, concurrency=9, window=("01:00-02:00",))
    assert (canary.concurrency, canary.max_failures, canary.pause, canary.window) == (9, 0, 600.0, ("01:00-02:00",))
    assert canary.gate is not None
    assert (canary.gate.kind, canary.gate.text) == ("http", "https://app.internal/health")
    assert "s3cret-word" not in repr(canary)
    assert (rest.concurrency, rest.max_failures, rest.window) == (20, None, ("Sat 02:00-04:00",))
    assert rolled(WaveRule(name="rest", window=()), jobs=jobs, window=("01:00-02:00",))[0].window == ()
    lifted = rolled(
        *rules, jobs=jobs, limits=Limits(concurrency=12, keep_going=True, outside_windows=True), concurrency=9
    )
    assert [(wave.concurrency, wave.max_failures, wave.window) for wave in lifted] == [(9, None, ()), (12, None, ())]
    assert lifted[0].gate == canary.gate

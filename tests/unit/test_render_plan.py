"""The text of a plan: each distinct path once."""

from __future__ import annotations

import dataclasses

from orchestrator.cli.render_causes import View
from orchestrator.cli.render_plan import plan_lines
from orchestrator.outcomes import Reason, Status
from orchestrator.plans import Gate, Plan, Wave
from tests.unit.cli_fakes import UNIQUE, job, outcome, plan, skipped

UNCHANGED = Reason(code="at_head", text="is there already")


def text(plan: Plan, **view: object) -> str:
    return "\n".join(line.text for line in plan_lines(plan, View(**view)))  # type: ignore[arg-type]


def test_targets_of_one_path_are_one_line() -> None:
    jobs = [job(f"t{n}") for n in range(40)]
    # One of forty is odd, and is told behind what most take.
    odd = job("hooli", found=("r001",), path=("r002", "r003", "r004", "r005", "r006", "r007"))
    settled = [outcome(f"done{n}", Status.UNCHANGED, reason=UNCHANGED) for n in range(9)]

    made = plan(odd, *jobs, settled=settled)
    assert text(made).splitlines() == [
        "billing staging: upgrade to r007, 41 of 50 targets to do",
        "",
        "40 targets from r006 to r007: r007",
        "  t0, t1, t2 and 37 more",
        "few come from elsewhere:",
        "1 target from r001 to r007: r002 r003 ... r007 (6 in all)",
        "  hooli",
        "9 targets unchanged, at head",
        "",
        "strategy default: 8 at once, 0 failures allowed",
        f"digest {made.digest}",
    ]


def test_the_odd_ones_are_named_with_their_reason() -> None:
    shown = text(plan(settled=[skipped("acme"), outcome("globex", Status.FAILED, failure=UNIQUE)]))

    assert "1 skipped, quarantined: restoring a backup\n  acme" in shown
    assert "1 failed: 23505 UniqueViolation" in shown
    assert shown.endswith("nothing to do")


def test_a_new_target_starts_at_base_and_is_created() -> None:
    assert "1 target from base to r007: r007; 1 created first" in text(plan(job("acme", found=(), provision=True)))


def test_waves_are_told_with_what_comes_after_them() -> None:
    gate = Gate(kind="command", text="./smoke", timeout=30.0, interval=10.0, count=1, digest="ab")
    waves = (
        Wave(name="canary", jobs=(job("a"),), concurrency=1, max_failures=0, pause=600.0, gate=gate),
        Wave(name="early", jobs=(job("b"),), concurrency=2, max_failures=0, pause="until-continued", strict=True),
        Wave(name="nobody", jobs=(), concurrency=1),
        Wave(name="rest", jobs=tuple(job(f"c{n}") for n in range(1200)), concurrency=8, window=("22:00-04:00",)),
    )
    made = plan(waves=waves, freeze=("2026-12-24",), deadline=7200.0, sweep={}, strategy="careful", max_failures=23)

    shown = text(made).splitlines()
    assert shown[shown.index("strategy careful: 3 waves, 23 failures allowed") :] == [
        "strategy careful: 3 waves, 23 failures allowed",
        "  wave canary       1 target  1 at once  0 failures allowed",
        "    then pause 10m, gate: command ./smoke",
        "  wave early        1 target  2 at once  0 failures allowed",
        "    never more at once than failures left plus one; then pause until-continued",
        "  wave rest    1,200 targets  8 at once  any number of failures allowed",
        "    only 22:00-04:00",
        "starts nothing on 2026-12-24",
        "starts nothing more 2h after it began",
        "takes in tenants that join meanwhile",
        f"digest {made.digest}",
    ]


def test_nobody_waits_behind_the_last_wave_without_a_gate() -> None:
    gate = Gate(kind="command", text="./smoke", timeout=30.0, interval=10.0, count=1, digest="")
    last = Wave(name="rest", jobs=(job("b"),), concurrency=1, pause=600.0)

    assert "pause" not in text(plan(waves=(last,)))
    assert "then pause 10m, gate: command ./smoke" in text(plan(waves=(dataclasses.replace(last, gate=gate),)))


def test_a_fleet_that_is_everywhere_is_told_in_a_page() -> None:
    jobs = [job(f"t{n:05d}", found=(f"r{n % 300:03d}",)) for n in range(9_900)]

    shown = text(plan(*jobs)).splitlines()

    assert len(shown) < 30
    assert max(map(len, shown)) <= 80
    assert "292 other paths for 9,636 targets; -v shows them" in shown
    assert len(text(plan(*jobs), verbose=True).splitlines()) > 600


def test_verbose_names_everyone_and_the_digest() -> None:
    made = plan(*(job(f"t{n}") for n in range(40)))

    assert all(f"t{n}" in text(made, verbose=True) for n in range(40))
    assert made.digest in text(made, verbose=True)

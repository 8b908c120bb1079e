"""The text of a plan: each distinct path once."""

from __future__ import annotations

from orchestrator.cli.render_causes import View
from orchestrator.cli.render_plan import plan_lines
from orchestrator.outcomes import Reason, Status
from orchestrator.plans import Plan, Wave
from tests.unit.cli_fakes import UNIQUE, job, outcome, plan, skipped

UNCHANGED = Reason(code="at_head", text="is there already")


def text(plan: Plan, **view: object) -> str:
    return "\n".join(line.text for line in plan_lines(plan, View(**view)))  # type: ignore[arg-type]


def test_targets_of_one_path_are_one_line() -> None:
    jobs = [job(f"t{n}") for n in range(40)]
    odd = job("hooli", found=("r001",), path=("r002", "r003", "r004", "r005", "r006", "r007"))
    settled = [outcome(f"done{n}", Status.UNCHANGED, reason=UNCHANGED) for n in range(9)]

    assert text(plan(*jobs, odd, settled=settled)).splitlines() == [
        "billing staging: upgrade to r007, 41 of 50 targets to do",
        "",
        "40 targets from r006 to r007: r007",
        "  t0, t1, t2 and 37 more",
        "1 target from r001 to r007: r002 r003 ... r007 (6 in all)",
        "  hooli",
        "9 targets unchanged, at head",
        "",
        "strategy default: 8 at once, 0 failures allowed",
    ]


def test_the_odd_ones_are_named_with_their_reason() -> None:
    shown = text(plan(settled=[skipped("acme"), outcome("globex", Status.FAILED, failure=UNIQUE)]))

    assert "1 skipped, quarantined: restoring a backup\n  acme" in shown
    assert "1 failed: 23505 UniqueViolation" in shown
    assert shown.endswith("nothing to do")


def test_a_new_target_starts_at_base_and_is_created() -> None:
    assert "1 target from base to r007: r007; 1 created first" in text(plan(job("acme", found=(), provision=True)))


def test_several_waves_are_a_table() -> None:
    waves = (
        Wave(name="canary", jobs=(job("a"),), concurrency=1, max_failures=0),
        Wave(name="rest", jobs=(job("b"), job("c")), concurrency=8, max_failures=None),
    )

    assert text(plan(job("a"), waves=waves)).splitlines()[-3:] == [
        "  wave    targets  at once                 allowed",
        "  canary        1        1              0 failures",
        "  rest          2        8  any number of failures",
    ]


def test_verbose_names_everyone_and_the_digest() -> None:
    made = plan(*(job(f"t{n}") for n in range(40)))

    assert all(f"t{n}" in text(made, verbose=True) for n in range(40))
    assert made.digest in text(made, verbose=True)

"""The text report: short at any size, and it says what to type next."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.cli.render_causes import View
from orchestrator.cli.render_report import report_lines
from orchestrator.outcomes import Failure, FailureKind, Outcome, Report, RunStatus, Status
from tests.unit.cli_fakes import UNIQUE, job, outcome, report, skipped


def text(report: Report, **view: object) -> str:
    return "\n".join(line.text for line in report_lines(report, View(**view)))  # type: ignore[arg-type]


def failed(name: str, failure: Failure = UNIQUE) -> Outcome:
    return outcome(name, Status.FAILED, failure=failure)


def test_a_good_run_is_its_counters() -> None:
    shown = text(report(outcome("acme"), outcome("globex"), outcome("initech", Status.UNCHANGED)))

    assert shown.splitlines() == [
        "run r-20261122-120000-4f2a: upgrade to r007 succeeded in 12 s",
        "  2  upgraded",
        "  1  unchanged",
    ]


def test_failures_of_one_cause_are_one_paragraph() -> None:
    names = ["acme", "globex", "initech", "umbrella", "hooli"]
    shown = text(report(*(failed(name) for name in names), status=RunStatus.FAILED))

    assert "5 failed: 23505 UniqueViolation in revision r007" in shown
    assert 'could not create unique index "uq_users_email"' in shown
    assert 'CREATE UNIQUE INDEX "uq_users_email" ON users (email)' in shown
    assert "-> remove the duplicates, then run `orchestrate upgrade --failed`" in shown
    assert "acme, globex, initech and 2 more" in shown
    assert "look closer: orchestrate runs show r-20261122-120000-4f2a --target acme" in shown
    assert "once mended: orchestrate upgrade --failed" in shown


def test_the_largest_cause_comes_first() -> None:
    rare = dataclasses.replace(UNIQUE, code="42501", type="InsufficientPrivilege", fingerprint="privilege")
    shown = text(report(failed("acme", rare), failed("globex"), failed("hooli"), status=RunStatus.FAILED))

    assert shown.index("UniqueViolation") < shown.index("InsufficientPrivilege")


def test_a_long_statement_is_shortened_to_one_line() -> None:
    long = dataclasses.replace(
        UNIQUE, statement="CREATE TABLE t (\n" + ",\n".join(f"c{i} int" for i in range(99)) + ")"
    )
    shown = text(report(failed("acme", long), status=RunStatus.FAILED))

    assert "..." in shown
    assert "c98" not in shown


def test_lost_targets_say_what_happens_to_them() -> None:
    shown = text(report(outcome("acme", Status.LOST), status=RunStatus.FAILED))

    assert "1 lost" in shown
    assert "reads the version first" in shown


def test_what_was_left_alone_is_grouped_by_reason() -> None:
    shown = text(
        report(
            skipped("acme"),
            skipped("globex"),
            skipped("hooli", "unknown_revision", "is at r099"),
            outcome("stark", Status.NOT_PROVISIONED),
        )
    )

    assert "2 skipped, quarantined: restoring a backup\n  acme, globex" in shown
    assert "1 skipped, unknown revision: is at r099\n  hooli" in shown
    assert "1 not provisioned\n  stark" in shown


def test_reasons_that_differ_are_shown_by_name() -> None:
    shown = text(report(*(skipped(f"t{n}", "absent", f"db{n} does not exist") for n in range(5))))

    assert "5 skipped, absent:" in shown
    assert "  t0: db0 does not exist" in shown
    assert "  and 4 more like it" in shown
    assert "t1" not in shown


def test_an_open_run_ends_with_the_command_to_go_on() -> None:
    waiting = job("acme").outcome(Status.NOT_STARTED)

    known = text(report(waiting, status=RunStatus.INTERRUPTED), again="orchestrate upgrade -l region=eu")
    unknown = text(report(waiting, status=RunStatus.HALTED))

    assert known.endswith("to go on: orchestrate upgrade -l region=eu")
    assert unknown.endswith("to go on: orchestrate upgrade r007, for the targets that are left")


def test_what_a_dead_server_put_off_is_not_left_out_of_what_to_type() -> None:
    put_off = job("globex").outcome(Status.DEFERRED)

    known = text(report(failed("acme"), put_off, status=RunStatus.FAILED), again="orchestrate upgrade -l region=eu")
    unknown = text(report(failed("acme"), put_off, status=RunStatus.FAILED))

    assert known.endswith("once mended: orchestrate upgrade -l region=eu")
    assert unknown.endswith("once mended: orchestrate upgrade r007, for the targets that are left")


@pytest.mark.parametrize(
    ("revision", "open_end", "closed_end"),
    [
        (("r006",), "orchestrate downgrade r006, for", "orchestrate downgrade r006 --failed"),
        ((), "orchestrate downgrade base, for", "orchestrate downgrade base --failed"),
        (("r005", "r006"), "the same downgrade, for", "the same downgrade --failed"),
    ],
)
def test_what_to_type_after_a_downgrade_says_to_where(
    revision: tuple[str, ...], open_end: str, closed_end: str
) -> None:
    halted = text(report(failed("acme"), status=RunStatus.HALTED, command="downgrade", revision=revision))
    closed = text(report(failed("acme"), status=RunStatus.FAILED, command="downgrade", revision=revision))

    assert f"to go on: {open_end} the targets that are left" in halted
    assert closed.endswith(f"once mended: {closed_end}")


def test_a_downgrade_is_taken_up_again_to_the_same_revision() -> None:
    shown = text(report(failed("acme"), status=RunStatus.FAILED, command="downgrade", revision=("r003",)))

    assert "orchestrate downgrade r003 --failed" in shown


@pytest.mark.parametrize("causes", [1, 40])
def test_ten_thousand_targets_make_forty_lines(causes: int) -> None:
    failures = [
        dataclasses.replace(UNIQUE, message="a long message " * 9, statement="SELECT " + "x, " * 99, fingerprint=str(n))
        for n in range(causes)
    ]
    outcomes = [failed(f"tenant-{n}", failures[n % causes]) for n in range(4000)]
    outcomes += [skipped(f"skipped-{n}", f"reason_{n % 30}", f"because {n}") for n in range(4000)]
    outcomes += [outcome(f"done-{n}") for n in range(2000)]

    lines = text(report(*outcomes, status=RunStatus.FAILED)).splitlines()

    assert len(lines) <= 42
    assert max(map(len, lines)) <= 80


def test_verbose_leaves_nothing_out() -> None:
    shown = text(
        report(*(failed(f"t{n}", dataclasses.replace(UNIQUE, fingerprint=str(n // 10))) for n in range(100))),
        verbose=True,
    )

    assert all(f"t{n}" in shown for n in range(100))
    assert "more" not in shown


def test_causes_left_out_are_counted() -> None:
    shown = text(report(*(failed(f"t{n}", dataclasses.replace(UNIQUE, fingerprint=str(n))) for n in range(7))))

    assert "4 other causes for 4 targets; -v shows them" in shown


def test_failures_without_a_fingerprint_are_grouped_by_what_they_say() -> None:
    odd = Failure(kind=FailureKind.PERMANENT, type="ValueError", message="no")
    shown = text(report(failed("a", odd), failed("b", odd), failed("c", dataclasses.replace(odd, message="other"))))

    assert "2 failed: ValueError" in shown
    assert "1 failed: ValueError" in shown

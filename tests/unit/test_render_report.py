"""The text report: short at any size, and it says what to type next."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.cli.render_causes import View
from orchestrator.cli.render_report import report_lines
from orchestrator.outcomes import (
    Failure,
    FailureKind,
    GateResult,
    Outcome,
    Reason,
    Report,
    RunStatus,
    Status,
    Verdict,
    WaveSummary,
)
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
    assert "-> remove the duplicates, then run `orchestrate retry`" in shown
    assert "acme, globex, initech and 2 more" in shown
    assert "look closer: orchestrate runs show r-20261122-120000-4f2a --target acme" in shown
    assert "once mended: orchestrate retry r-20261122-120000-4f2a" in shown


def test_a_name_is_quoted_where_it_is_typed_to_a_shell() -> None:
    assert "--target '$(reboot)'" in text(report(failed("$(reboot)"), status=RunStatus.FAILED))


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


def test_what_makes_the_run_fail_is_not_hidden_behind_what_does_not() -> None:
    harmless = [skipped(f"{code}-{number}", code) for code in ("quarantined", "suspended", "past") for number in (1, 2)]

    assert "1 skipped, unversioned" in text(report(*harmless, skipped("acme", "unversioned", "has tables")))


def test_reasons_that_differ_are_shown_by_name() -> None:
    shown = text(report(*(skipped(f"t{n}", "absent", f"db{n} does not exist") for n in range(5))))

    assert "5 skipped, absent:" in shown
    assert "  t0: db0 does not exist" in shown
    assert "  and 4 more like it" in shown
    assert "t1" not in shown


RUN = "r-20261122-120000-4f2a"
LEFT = job("hooli").outcome(Status.NOT_STARTED)
PUT_OFF = job("globex").outcome(Status.DEFERRED)
LOST = job("initech").outcome(Status.LOST)
RESUME, RETRY, ROLLBACK = (f"orchestrate {verb} {RUN}" for verb in ("resume", "retry", "rollback"))


@pytest.mark.parametrize(
    ("status", "outcomes", "says"),
    [
        (RunStatus.INTERRUPTED, [LEFT], [f"to go on: {RESUME}"]),
        (RunStatus.PAUSED, [PUT_OFF], [f"to go on: {RESUME}"]),
        (RunStatus.INTERRUPTED, [LOST, LEFT], [f"to go on: {RESUME}"]),
        (
            RunStatus.INTERRUPTED,
            [failed("acme"), LEFT],
            [f"to go on: {RESUME}", f"for what failed, once mended: {RETRY}"],
        ),
        (RunStatus.HALTED, [failed("acme"), LEFT], [f"once mended: {RETRY}", f"then, for the rest: {RESUME}"]),
        (RunStatus.HALTED, [LEFT], [f"to go on: {RESUME}"]),
        (RunStatus.FAILED, [failed("acme")], [f"once mended: {RETRY}"]),
        (RunStatus.FAILED, [LOST], [f"once mended: {RETRY}"]),
        (RunStatus.FAILED, [failed("acme"), PUT_OFF], [f"once mended: {RETRY}", f"then, for the rest: {RESUME}"]),
        (RunStatus.FAILED, [skipped("acme", "unversioned", "has tables")], []),
        (
            RunStatus.FAILED,
            [failed("acme"), outcome("globex")],
            [f"once mended: {RETRY}", f"to take it back: {ROLLBACK}"],
        ),
        (RunStatus.ABORTED, [LEFT, outcome("globex")], [f"to take it back: {ROLLBACK}"]),
        (RunStatus.SUPERSEDED, [LEFT, outcome("globex")], []),
        (RunStatus.RUNNING, [outcome("globex")], [f"to stop it: orchestrate abort {RUN}"]),
        (RunStatus.SUCCEEDED, [outcome("globex")], []),
    ],
)
def test_a_report_ends_with_what_to_type_next(status: RunStatus, outcomes: list[Outcome], says: list[str]) -> None:
    shown = text(report(*outcomes, status=status)).splitlines()

    assert [line for line in shown if "orchestrate " in line and line.endswith(RUN)] == says


def test_a_reconciliation_that_could_not_read_everything_is_done_again() -> None:
    shown = text(report(failed("acme"), status=RunStatus.FAILED, command="reconcile", revision=()))

    assert "reconcile failed" in shown
    assert shown.endswith("once mended: orchestrate runs reconcile")


def test_a_run_without_an_end_has_no_duration() -> None:
    live = text(report(status=RunStatus.RUNNING, duration_s=0.0))
    dead = text(report(job("acme").outcome(Status.NOT_STARTED), status=RunStatus.INTERRUPTED, duration_s=0.0))

    assert live.splitlines()[0] == f"run {RUN}: upgrade to r007 running since 2026-11-22 12:00:00 UTC"
    assert dead.splitlines()[0] == f"run {RUN}: upgrade to r007 interrupted: its runner died"


def test_a_rollback_says_what_it_takes_back() -> None:
    done = outcome("acme", Status.DOWNGRADED)
    shown = text(report(done, command="downgrade", revision=("r006",), parent="r-20261122-110000-0001"))

    assert shown.splitlines()[1] == "  takes back r-20261122-110000-0001"


@pytest.mark.parametrize("code", ["retrying", "server_down", "crowded"])
def test_what_was_put_off_is_told_with_its_reason(code: str) -> None:
    put_off = [outcome(f"t{n}", Status.DEFERRED, reason=Reason(code=code, text="why it was")) for n in range(5)]
    shown = text(report(*put_off, status=RunStatus.PAUSED))

    assert f"5 deferred, {code.replace('_', ' ')}: why it was\n  t0, t1, t2 and 2 more" in shown


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


def test_a_run_that_waits_for_a_person_says_for_what() -> None:
    waiting = Reason(code="paused", text="wave canary is done, and the strategy waits for somebody to continue")
    outcomes = [outcome("acme"), dataclasses.replace(outcome("globex", Status.NOT_STARTED), reason=waiting)]
    shown = text(report(*outcomes, status=RunStatus.PAUSED))

    assert "  wave canary is done, and the strategy waits for somebody to continue" in shown
    assert shown.endswith("to go on: orchestrate continue r-20261122-120000-4f2a")
    assert "resume" not in shown


def waved(gate: GateResult, status: RunStatus) -> Report:
    canary = WaveSummary(name="canary", status="succeeded", counts={"upgraded": 1}, gate=gate)
    rest = WaveSummary(name="rest", status="not_started", counts={"not_started": 1_200})
    code = "paused" if status is RunStatus.PAUSED else "halted"
    why = Reason(code=code, text=f"the gate of wave canary {gate.verdict}: {gate.text}")
    left = dataclasses.replace(outcome("globex", Status.NOT_STARTED), reason=why)
    return dataclasses.replace(report(outcome("acme"), left, status=status), waves=(canary, rest))


def test_waves_and_their_gates_are_a_table() -> None:
    gate = GateResult(kind="command", verdict=Verdict.FAILED, text="ended with status 2: the smoke test found nothing")
    shown = text(waved(gate, RunStatus.HALTED))

    assert "  the gate of wave canary failed: ended with status 2: the smoke test found" in shown
    assert "  wave    targets  outcome      gate" in shown
    assert "  canary        1  succeeded    failed: ended with status 2: the smok..." in shown
    assert "  rest      1,200  not started" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "to go on: orchestrate resume" in shown


def test_a_gate_that_could_not_be_measured_is_overruled_or_asked_once_more() -> None:
    gate = GateResult(kind="http", verdict=Verdict.INCONCLUSIVE, text="no answer in 30 s")
    shown = text(waved(gate, RunStatus.PAUSED))

    assert "to go on: orchestrate continue" in shown
    assert "to ask the gate once more: orchestrate resume" in shown


def test_a_gate_that_failed_behind_the_last_wave_says_so() -> None:
    gate = GateResult(kind="http", verdict=Verdict.FAILED, text="status 503")
    last = WaveSummary(name="only", status="failed", counts={"upgraded": 1}, gate=gate)
    shown = text(dataclasses.replace(report(outcome("acme"), status=RunStatus.HALTED), waves=(last,)))

    assert "  the gate of wave only failed: status 503" in shown
    assert "to ask the gate once more: orchestrate resume" in shown

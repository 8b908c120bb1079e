"""What is left of a recorded run, decided from the ledger's word and a look at the targets."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping

import pytest

from orchestrator import recoveries
from orchestrator.outcomes import FailureKind, Outcome, Reason, Status
from orchestrator.plans import Command, Condition, Found, Job, Plan, Route
from orchestrator.recoveries import Past
from orchestrator.tenants import Transaction
from orchestrator.testing import a_failure, a_job, a_plan, a_target, a_wave, an_outcome

TODAY = datetime.date(2026, 11, 22)
OLD, NEW = ("r001",), ("r002",)
REASON = Reason(code="aborted", text="somebody said so")


def look(target: str, heads: tuple[str, ...] | None = OLD) -> Found:
    condition = Condition.UNREACHABLE if heads is None else Condition.VERSIONED if heads else Condition.EMPTY
    return Found(target=a_target(target), condition=condition, heads=heads or ())


def past(
    plan: Plan,
    outcomes: Collection[Outcome] = (),
    *,
    unsettled: Collection[str] = (),
    heads: Mapping[str, tuple[str, ...] | None] | None = None,
) -> Past:
    """Every target that nothing is said about stands at `r001`."""
    names = {job.target for job in plan.jobs} | {outcome.target for outcome in plan.settled}
    return Past(
        plan=plan,
        outcomes={outcome.target: outcome for outcome in (*plan.settled, *outcomes)},
        unsettled=unsettled,
        found={name: look(name, (heads or {}).get(name, OLD)) for name in names},
        is_there=lambda job, at: at == job.wanted,
    )


def due(plan: Plan) -> list[str]:
    return [job.target for job in plan.jobs]


def resumed(before: Past) -> Plan:
    return recoveries.remaining(before, before.is_left)


def test_what_never_started_was_put_off_or_has_no_outcome_is_left() -> None:
    plan = a_plan("done", "never", "silent", "later", "lost", "failed", "flying")
    outcomes = [
        an_outcome("done"),
        an_outcome("never", Status.NOT_STARTED),
        an_outcome("later", Status.DEFERRED),
        an_outcome("lost", Status.LOST),
        an_outcome("failed", Status.FAILED),
    ]
    rest = resumed(past(plan, outcomes, unsettled={"flying"}, heads={"done": NEW}))
    assert due(rest) == ["never", "silent", "later", "lost", "flying"]
    assert {outcome.target for outcome in rest.settled} == {"done", "failed"}


def test_a_job_that_may_have_run_is_marked() -> None:
    plan = a_plan("never", "flying", "lost")
    rest = resumed(past(plan, [an_outcome("lost", Status.LOST)], unsettled={"flying"}))
    assert {job.target: job.resumed for job in rest.jobs} == {"never": False, "flying": True, "lost": True}


def test_a_target_that_is_not_where_the_ledger_says_is_left() -> None:
    plan = a_plan("done", "undone", "unread")
    outcomes = [an_outcome(name) for name in ("done", "undone", "unread")]
    rest = resumed(past(plan, outcomes, heads={"done": NEW, "undone": OLD, "unread": None}))
    assert due(rest) == ["undone"]


def test_a_target_whose_server_was_down_is_left_too() -> None:
    down = an_outcome("acme", Status.FAILED, failure=a_failure(FailureKind.SERVER))
    assert due(resumed(past(a_plan("acme"), [down]))) == ["acme"]


def test_those_behind_a_target_that_is_left_are_left_with_it() -> None:
    jobs = [a_job("one"), a_job("two", after=("one",)), a_job("three", after=("two",)), a_job("other")]
    barred = Reason(code="dependency_failed", text="one must be done first")
    outcomes = [
        an_outcome("one", Status.LOST),
        an_outcome("two", Status.SKIPPED, reason=barred),
        an_outcome("three", Status.SKIPPED, reason=barred),
        an_outcome("other", Status.SKIPPED, reason=Reason(code="unversioned", text="has tables")),
    ]
    assert due(resumed(past(a_plan(*jobs), outcomes))) == ["one", "two", "three"]


def test_a_retry_takes_up_failures_only_and_keeps_the_rest_as_never_started() -> None:
    plan = a_plan("failed", "lost", "never", "done")
    outcomes = [an_outcome("failed", Status.FAILED), an_outcome("lost", Status.LOST), an_outcome("done")]
    before = past(plan, outcomes, heads={"done": NEW})
    rest = recoveries.remaining(before, before.is_failed)
    assert due(rest) == ["failed", "lost"]
    assert {outcome.target: outcome.status for outcome in rest.settled} == {
        "never": Status.NOT_STARTED,
        "done": Status.UPGRADED,
    }


@pytest.mark.parametrize(("code", "stays"), [("halted", False), ("interrupted", False), ("paused", True)])
def test_what_stopped_an_earlier_runner_is_not_why_a_retry_stops(code: str, stays: bool) -> None:
    stopped = Reason(code=code, text="why it stopped then")
    outcomes = [an_outcome("failed", Status.FAILED), an_outcome("never", Status.NOT_STARTED, reason=stopped)]
    before = past(a_plan("failed", "never"), outcomes)
    (never,) = recoveries.remaining(before, before.is_failed).settled
    assert (never.reason == stopped) is stays


def test_waves_keep_their_jobs_and_their_order() -> None:
    plan = a_plan(a_wave("one", "two", name="canary"), a_wave("three", name="rest"))
    rest = resumed(past(plan, [an_outcome("one")], heads={"one": NEW}))
    assert [(wave.name, [job.target for job in wave.jobs]) for wave in rest.waves] == [
        ("canary", ["two"]),
        ("rest", ["three"]),
    ]


def test_a_run_that_would_halt_again_says_why() -> None:
    plan = a_plan("bad", "never", max_failures=0)
    before = past(plan, [an_outcome("bad", Status.FAILED)])
    assert "max_failures 0" in str(recoveries.barrier(resumed(before)))
    assert recoveries.barrier(recoveries.remaining(before, before.is_failed)) is None
    assert recoveries.barrier(dataclasses.replace(resumed(before), max_failures=1)) is None


def test_a_failure_that_all_would_share_is_a_barrier_unless_budgets_are_lifted() -> None:
    shared = an_outcome("bad", Status.FAILED, failure=a_failure(FailureKind.RUN, message="syntax error"))
    before = past(a_plan("bad", "never", max_failures=5), [shared])
    assert "syntax error" in str(recoveries.barrier(resumed(before)))
    assert recoveries.barrier(dataclasses.replace(resumed(before), max_failures=None)) is None


def test_settling_believes_the_version_table() -> None:
    longer = a_job("part", wanted=("r003",), path=("r002", "r003"))
    plan = a_plan("committed", "untouched", "unread", "never", longer)
    before = past(
        plan,
        unsettled={"committed", "untouched", "unread", "part"},
        heads={"committed": NEW, "unread": None, "part": NEW},
    )
    settled = {outcome.target: outcome for outcome in recoveries.settle(before, REASON)}
    assert {name: outcome.status for name, outcome in settled.items()} == {
        "committed": Status.UPGRADED,
        "untouched": Status.LOST,
        "unread": Status.LOST,
        "never": Status.NOT_STARTED,
        "part": Status.FAILED,
    }
    assert settled["committed"].reason is not None
    assert settled["committed"].reason.code == "verified"
    assert settled["never"].reason == REASON
    assert settled["untouched"].failure is not None
    assert "may be at work still" in settled["untouched"].failure.message
    assert settled["part"].at == NEW


def test_what_has_an_outcome_is_not_settled_again() -> None:
    assert (
        recoveries.settle(past(a_plan("done", "bad"), [an_outcome("done"), an_outcome("bad", Status.FAILED)]), REASON)
        == []
    )


def test_a_target_that_could_not_be_read_at_first_gets_a_job_once_it_can() -> None:
    unread = an_outcome("late", Status.DEFERRED, reason=Reason(code="server_down", text="down"), wave=None)
    plan = a_plan("early", settled=[unread])
    before = past(plan, [an_outcome("early")], heads={"early": NEW, "late": OLD})
    late = recoveries.late_jobs(before, lambda *_: Route(path=("r002",), wanted=NEW), recoveries.waits)
    assert [(job.target, job.found, job.wanted, job.wave) for job in late] == [("late", OLD, NEW, "all")]
    rest = recoveries.remaining(before, before.is_left, late)
    assert due(rest) == ["late"]
    assert [outcome.target for outcome in rest.settled] == ["early"]


def test_a_late_job_commits_as_often_as_the_others_of_its_plan() -> None:
    unread = an_outcome("late", Status.DEFERRED, reason=Reason(code="server_down", text="down"), wave=None)
    plan = a_plan(a_job("early", transaction=Transaction.REVISION), settled=[unread])
    [late] = recoveries.late_jobs(past(plan), lambda *_: Route(path=("r002",), wanted=NEW), recoveries.waits)
    assert late.transaction is Transaction.REVISION


def test_a_target_that_still_cannot_be_read_stays_as_it_is() -> None:
    unread = an_outcome("late", Status.DEFERRED, reason=Reason(code="server_down", text="down"), wave=None)
    before = past(a_plan("early", settled=[unread]), heads={"late": None})
    assert recoveries.late_jobs(before, lambda *_: Route(path=("r002",), wanted=NEW), recoveries.waits) == []


def back(before: Past) -> Plan:
    return recoveries.take_back(before, "r-1", lambda job: job.found)


def test_a_rollback_takes_back_what_changed_in_reverse() -> None:
    plan = a_plan(a_wave("one", name="canary"), a_wave("two", "three", name="rest"))
    outcomes = [an_outcome("one"), an_outcome("two"), an_outcome("three", Status.UNCHANGED, found=NEW, at=NEW)]
    reverse = back(past(plan, outcomes, heads={"one": NEW, "two": NEW, "three": NEW}))
    assert reverse.command is Command.DOWNGRADE
    assert [(wave.name, [job.target for job in wave.jobs]) for wave in reverse.waves] == [
        ("rest", ["two"]),
        ("canary", ["one"]),
    ]
    job = next(reverse.jobs)
    assert (job.found, job.wanted, job.path) == (NEW, OLD, ("r002",))


def test_a_rollback_leaves_a_target_that_has_moved_since() -> None:
    reverse = back(past(a_plan("acme"), [an_outcome("acme")], heads={"acme": ("r009",)}))
    assert due(reverse) == []
    assert [(outcome.status, outcome.reason and outcome.reason.code) for outcome in reverse.settled] == [
        (Status.SKIPPED, "moved")
    ]


def test_a_rollback_goes_through_dependencies_the_other_way() -> None:
    jobs: list[Job] = [a_job("first"), a_job("second", after=("first",))]
    reverse = back(past(a_plan(*jobs), [an_outcome(job) for job in jobs], heads={"first": NEW, "second": NEW}))
    assert {job.target: job.after for job in reverse.jobs} == {"first": ("second",), "second": ()}


def test_a_rollback_of_a_downgrade_goes_up() -> None:
    job = a_job("acme", command=Command.DOWNGRADE, found=NEW, wanted=OLD)
    outcome = job.outcome(Status.DOWNGRADED, at=OLD, applied=("r002",))
    reverse = back(past(a_plan(job, command=Command.DOWNGRADE), [outcome]))
    assert [(job.command, job.found, job.wanted) for job in reverse.jobs] == [(Command.UPGRADE, OLD, NEW)]


def test_a_way_back_is_looked_for_once() -> None:
    asked: list[str] = []

    def path(job: Job) -> tuple[str, ...]:
        asked.append(job.target)
        return job.found

    names = ("one", "two", "three")
    outcomes = [an_outcome(name) for name in names]
    before = past(a_plan(*names), outcomes, heads=dict.fromkeys(names, NEW))
    assert [job.path for job in recoveries.take_back(before, "r-1", path).jobs] == [NEW] * 3
    assert asked == ["three"]


def test_what_the_run_never_began_is_not_taken_back() -> None:
    before = past(a_plan("never"), [an_outcome("never", Status.NOT_STARTED)], heads={"never": NEW})
    told = recoveries.settle(before, REASON)
    assert [(outcome.status, outcome.reason and outcome.reason.code) for outcome in told] == [
        (Status.UNCHANGED, "concurrent")
    ]
    reverse = back(dataclasses.replace(before, outcomes={"never": told[0]}))
    assert (due(reverse), reverse.settled) == ([], ())


def test_a_try_that_nobody_saw_end_is_taken_back_even_where_nothing_of_it_is_to_be_seen() -> None:
    lost = [an_outcome("lost", Status.LOST), an_outcome("again", Status.NOT_STARTED, attempts=1)]
    reverse = back(past(a_plan("lost", "again"), lost))
    assert [(job.target, job.found, job.wanted) for job in reverse.jobs] == [("again", NEW, OLD), ("lost", NEW, OLD)]
    assert reverse.notes[0].startswith("2 of them stood where the run found them")


def test_a_target_that_is_back_already_is_done() -> None:
    reverse = back(past(a_plan("acme"), [an_outcome("acme")]))
    assert [(outcome.status, outcome.at) for outcome in reverse.settled] == [(Status.UNCHANGED, OLD)]


def test_a_lost_target_that_was_brought_further_has_moved() -> None:
    plan = a_plan("acme")
    before = past(plan, [an_outcome("acme", Status.LOST)], heads={"acme": ("r003",)})
    before = dataclasses.replace(before, is_there=lambda _, at: at >= NEW)
    (settled,) = recoveries.settle(before, REASON)
    reverse = back(dataclasses.replace(before, outcomes={"acme": settled}))
    assert [(outcome.target, outcome.reason and outcome.reason.code) for outcome in reverse.settled] == [
        ("acme", "moved")
    ]


def test_what_another_run_has_done_since_is_left_to_it() -> None:
    verified = Reason(code="verified", text="its runner died after the commit; the version was read again")
    outcomes = [an_outcome("mine"), an_outcome("redone"), an_outcome("theirs", reason=verified)]
    before = past(a_plan("mine", "redone", "theirs"), outcomes, heads=dict.fromkeys(("mine", "redone", "theirs"), NEW))
    moved = {("mine", NEW), ("redone", OLD), ("theirs", OLD)}
    reverse = recoveries.take_back(before, "r-1", lambda job: job.found, moved)
    assert due(reverse) == ["mine"]
    assert [(outcome.target, outcome.reason and outcome.reason.code) for outcome in reverse.settled] == [
        ("redone", "moved")
    ]


def test_what_is_lost_already_is_not_told_twice() -> None:
    assert recoveries.settle(past(a_plan("acme"), [an_outcome("acme", Status.LOST)]), REASON) == []


def test_what_is_observed_says_where_each_target_is() -> None:
    outcomes = recoveries.observed([look("acme", NEW), look("gone", None)])
    assert [(outcome.target, outcome.status, outcome.at) for outcome in outcomes] == [
        ("acme", Status.UNCHANGED, NEW),
        ("gone", Status.FAILED, None),
    ]


def test_a_dead_runs_jobs_without_an_outcome_are_told() -> None:
    plan = a_plan("done", "flying", "again", "never")
    tried = [an_outcome("done"), an_outcome("again", Status.DEFERRED)]
    told = recoveries.with_unended(plan, tried, {"flying", "again"}, Reason(code="interrupted", text="died"))
    assert {outcome.target: outcome.status for outcome in told} == {
        "done": Status.UPGRADED,
        "again": Status.LOST,
        "flying": Status.LOST,
        "never": Status.NOT_STARTED,
    }
    assert all(outcome.reason and outcome.reason.code == "interrupted" for outcome in told if outcome.target != "done")


def test_a_target_in_another_database_of_its_server_has_moved() -> None:
    here = a_target("acme", "postgresql+psycopg://app@db.internal/saas", schema="tenant_acme")
    job = a_job("acme", schema="tenant_acme", location=here.place)
    moved = recoveries.reason_against(job, dataclasses.replace(here, url=here.url.set(database="other")), TODAY)
    assert moved is not None
    assert moved.code == "moved"
    assert recoveries.reason_against(job, here, TODAY) is None
    # A run of before places were kept is gone on with.
    assert recoveries.reason_against(dataclasses.replace(job, location=None), here, TODAY) is None

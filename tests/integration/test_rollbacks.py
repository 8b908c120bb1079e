"""What a rollback takes back, over real SQLite files: all that a run did, however it ended, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator import Project, worker
from orchestrator.errors import ExitCode
from orchestrator.ledger import Run
from orchestrator.outcomes import Outcome, RunStatus, Status
from orchestrator.plans import Plan
from orchestrator.rollout import StopCause, StopSignal
from orchestrator.testing import an_outcome
from tests.integration.test_runs import NAMES, fleet, folder, interrupted, stopping_at, upgrade, version

__all__ = ["folder"]


def killed(project: Project, done: Sequence[str], at_work: str, *, committed: bool = False) -> Run:
    """A run whose runner died: those that it did, and the one that it had begun."""
    plan = project.plan("r002")
    run = project.ledger.open_run(plan, operator="ops", fleet=4)
    for job in plan.jobs:
        if job.target in (*done, at_work):
            project.ledger.start(run.id, job)
        if job.target in done or (committed and job.target == at_work):
            outcome = work(project, run, job.target)
            if job.target in done:
                project.ledger.record(run.id, outcome)
    return project.ledger.run(run.id)


def work(project: Project, run: Run, name: str) -> Outcome:
    """What the worker of a run does to a target, whoever lives to see it."""
    job = next(job for job in project.ledger.plan(run.id).jobs if job.target == name)
    target = next(target for target in project.registry.targets if target.name == name)
    root = project.settings.root
    settings = worker.WorkerSettings(config=root / "alembic.ini", run=run.id, log=root / "log")
    outcome = worker.run_job(job, target, settings)
    assert outcome.status is Status.UPGRADED
    return outcome


def left(plan: Plan) -> list[tuple[str, str | None]]:
    return [(outcome.target, outcome.reason and outcome.reason.code) for outcome in plan.settled]


def test_a_run_that_was_killed_before_it_could_say_anything_is_the_one_that_is_taken_back(folder: Path) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r001"), executor="inline")
        run = killed(project, (), "a", committed=True)
        chosen, plan = project.runs.rollback_plan()
        assert chosen.id == run.id
        assert project.run(plan, parent=chosen.id, executor="inline").status is RunStatus.SUCCEEDED
    assert [version(folder, name) for name in NAMES] == ["r001"] * 4


@pytest.mark.parametrize("ending", ["abort", "reconcile"])
def test_a_worker_that_outlives_its_runner_is_taken_back_whenever_it_commits(folder: Path, ending: str) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r001"), executor="inline")
        run = killed(project, (), "a")
        getattr(project.runs, ending)()
        assert project.runs.report(run.id).counts["lost"] == 1
        chosen, plan = project.runs.rollback_plan()
        assert (chosen.id, [job.target for job in plan.jobs]) == (run.id, ["a"])
        # It commits between the plan and the job.
        work(project, run, "a")
        assert project.run(plan, parent=chosen.id, executor="inline").counts["downgraded"] == 1
    assert version(folder, "a") == "r001"


def test_a_worker_that_never_commits_leaves_nothing_to_take_back(folder: Path) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r001"), executor="inline")
        killed(project, (), "a")
        chosen, plan = project.runs.rollback_plan()
        report = project.run(plan, parent=chosen.id, executor="inline")
        assert (report.exit_code, report.counts["unchanged"]) == (ExitCode.OK, 1)
    assert version(folder, "a") == "r001"


def test_what_the_run_in_its_place_did_is_not_taken_back(folder: Path) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r001"), executor="inline")
        first = killed(project, ("a", "b"), "c")
        assert project.run(project.plan("r002"), executor="inline").counts["upgraded"] == 2
        chosen, plan = project.runs.rollback_plan(first.id)
        report = project.run(plan, parent=chosen.id, executor="inline")
        assert (report.exit_code, report.counts["downgraded"]) == (ExitCode.OK, 2)
    assert [version(folder, name) for name in NAMES] == ["r001", "r001", "r002", "r002"]


def test_what_a_drained_run_never_began_is_not_taken_back(folder: Path) -> None:
    with fleet(folder) as project:
        first = interrupted(project, after=1)
        project.run(project.plan(tenants=["c"]), executor="inline")
        _, plan = project.runs.rollback_plan(first.run)
        assert [job.target for job in plan.jobs] == ["a"]
        assert left(plan) == []


def test_what_another_run_brought_further_than_a_lost_try_has_moved(folder: Path) -> None:
    with fleet(folder, "a") as project:
        project.run(project.plan("r001"), executor="inline")
        plan = project.plan("r002")
        run = project.ledger.open_run(plan, operator="ops", fleet=1)
        project.ledger.start(run.id, next(plan.jobs))
        project.ledger.record(run.id, an_outcome(next(plan.jobs), Status.LOST, attempts=1))
        project.ledger.close_run(run.id, RunStatus.FAILED, ExitCode.FAILURES)
        project.run(project.plan("r003"), executor="inline")
        _, back = project.runs.rollback_plan(run.id)
        assert (list(back.jobs), left(back)) == ([], [("a", "moved")])


def test_a_second_interruption_forgets_nothing(folder: Path) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r001"), executor="inline")
        run = killed(project, ("a",), "b", committed=True)
        stop = StopSignal()
        stop.drain(StopCause.TERMINATED)
        again = project.runs.resume(executor="inline", stop=stop)
        assert again is not None
        assert again.status is RunStatus.INTERRUPTED
        report = project.runs.resume(executor="inline")
        assert report is not None
        told = {outcome.target: outcome for outcome in report.outcomes}
        assert (told["b"].status, told["b"].found) == (Status.UPGRADED, ("r001",))
        _, plan = project.runs.rollback_plan(run.id)
        assert {job.target for job in plan.jobs} == set(NAMES)


def test_a_rollback_that_was_interrupted_is_done_once_more(folder: Path) -> None:
    with fleet(folder) as project:
        first = upgrade(project)
        chosen, plan = project.runs.rollback_plan()
        stop = StopSignal()
        project.run(plan, parent=chosen.id, executor="inline", stop=stop, listeners=[stopping_at(2, stop)])
        _, plan = project.runs.rollback_plan(first.run)
        report = project.run(plan, parent=first.run, executor="inline")
        assert (report.exit_code, report.counts["downgraded"], report.counts["unchanged"]) == (ExitCode.OK, 2, 2)
    assert [version(folder, name) for name in NAMES] == [None] * 4


def test_what_was_redone_after_a_rollback_belongs_to_who_did_it(folder: Path) -> None:
    with fleet(folder, "a") as project:
        first = upgrade(project)
        _, plan = project.runs.rollback_plan()
        project.run(plan, parent=first.run, executor="inline")
        upgrade(project)
        _, plan = project.runs.rollback_plan(first.run)
        assert (list(plan.jobs), left(plan)) == ([], [("a", "moved")])

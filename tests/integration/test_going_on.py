"""Runs over real SQLite files that are gone on with, or ended, while the fleet or the ledger changes around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import Project, running
from orchestrator.errors import ExitCode, Refused, Stopped, UsageError
from orchestrator.events import Event, JobStarted
from orchestrator.ledger import Holder, Lease
from orchestrator.outcomes import RunStatus
from orchestrator.rollout import StopCause, StopSignal
from tests.integration.test_runs import NAMES, broken, fleet, folder, interrupted, upgrade, version

__all__ = ["folder"]


def without(folder: Path, name: str) -> Project:
    """The same project, with that tenant in quarantine."""
    path = folder / "tenants.yaml"
    path.write_text(path.read_text().replace(f"  {name}: {{}}", f"  {name}: {{state: quarantined, reason: x}}"))
    return Project.load(folder / "alembic.ini")


def halted(project: Project, folder: Path, name: str = "a") -> str:
    broken(folder, name)
    report = upgrade(project)
    assert report.status is RunStatus.HALTED
    return report.run


def restored(folder: Path, name: str) -> None:
    """From a backup of before there was anything."""
    (folder / "db" / f"{name}.db").write_bytes(b"")


@pytest.mark.parametrize("verbs", [("resume",), ("retry", "resume")])
def test_a_halted_run_goes_on_without_a_target_in_quarantine(folder: Path, verbs: tuple[str, ...]) -> None:
    with fleet(folder) as project:
        run = halted(project, folder)
    with without(folder, "a") as project:
        for verb in verbs:
            report = getattr(project.runs, verb)(executor="inline")
            assert report is not None
            assert (report.run, report.counts["failed"], report.counts["skipped"]) == (run, 0, 1)
        assert (report.status, report.exit_code) == (RunStatus.SUCCEEDED, ExitCode.OK)
        assert project.runs.retry(executor="inline") is None
        assert project.runs.resume(executor="inline") is None
    assert [version(folder, name) for name in NAMES] == ["r001", "r004", "r004", "r004"]


def test_an_open_run_ends_when_all_that_is_left_of_it_is_in_quarantine(folder: Path) -> None:
    with fleet(folder, "a", "b") as project:
        halted(project, folder)
    with without(folder, "a"), without(folder, "b") as project:
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert (report.status, report.counts["skipped"]) == (RunStatus.SUCCEEDED, 2)


def test_a_retry_says_so_when_a_failed_target_still_cannot_be_read(folder: Path) -> None:
    (folder / "db").mkdir()
    with fleet(folder) as project:
        (folder / "db" / "a.db").write_bytes(b"no database" * 100)
        first = upgrade(project)
        assert first.status is RunStatus.HALTED
        with pytest.raises(Refused, match="orchestrate retry"):
            project.runs.resume(executor="inline")
        again = project.runs.retry(executor="inline")
        assert again is not None
        assert (again.run, again.exit_code, again.counts["failed"]) == (first.run, ExitCode.FAILURES, 1)
        restored(folder, "a")
        for verb in (project.runs.retry, project.runs.resume):
            report = verb(executor="inline")
        assert report is not None
        assert (report.status, report.counts["upgraded"]) == (RunStatus.SUCCEEDED, 4)


def test_nothing_is_retried_in_an_interrupted_run_in_which_nothing_failed(folder: Path) -> None:
    with fleet(folder) as project:
        first = interrupted(project)
        assert project.runs.retry(executor="inline") is None
        assert project.ledger.run(first.run).status is RunStatus.INTERRUPTED


def test_a_target_in_quarantine_on_which_a_dead_runner_was_at_work_is_not_forgotten(folder: Path) -> None:
    with fleet(folder, "a", "b") as project:
        plan = project.plan()
        run = project.ledger.open_run(plan, operator="ops", fleet=2)
        project.ledger.start(run.id, next(plan.jobs))
    with without(folder, "a") as project:
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert report.status is RunStatus.SUCCEEDED
    with fleet(folder, "a", "b") as project:
        _, plan = project.runs.rollback_plan(run.id)
        assert {job.target for job in plan.jobs} == {"a", "b"}


def test_a_run_of_which_something_is_undone_is_not_reconciled_into_a_success(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with fleet(folder) as project:
        monkeypatch.setattr(running, "_close", die)
        with pytest.raises(KeyboardInterrupt):
            upgrade(project)
        monkeypatch.undo()
        restored(folder, "a")
        project.runs.reconcile()
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert (report.status, report.counts["upgraded"]) == (RunStatus.SUCCEEDED, 4)
    assert version(folder, "a") == "r004"


def test_a_reconciliation_agrees_to_no_smaller_fleet(folder: Path) -> None:
    with fleet(folder) as project:
        upgrade(project)
    with fleet(folder, "a", "b") as project:
        project.runs.reconcile()
        with pytest.raises(Refused, match="accept-shrink"):
            project.plan()


def test_a_run_that_another_process_has_ended_meanwhile_is_not_aborted(folder: Path) -> None:
    with fleet(folder) as project, fleet(folder) as other:
        first = interrupted(project)
        look: Callable[[], Lease | None] = project.ledger.live

        def meanwhile() -> Lease | None:
            project.ledger.live = look  # type: ignore[method-assign]
            other.runs.resume(executor="inline")
            return look()

        project.ledger.live = meanwhile  # type: ignore[method-assign]
        with pytest.raises(UsageError, match="has ended already: succeeded"):
            project.runs.abort()
        assert project.ledger.run(first.run).status is RunStatus.SUCCEEDED


def test_sessions_of_a_dead_run_are_orphans_after_another_took_its_place(folder: Path) -> None:
    with fleet(folder) as project:
        succeeded = upgrade(project)
        dead = project.ledger.open_run(project.plan(), operator="ops", fleet=4).id
        upgrade(project)
        latest = upgrade(project)
        plan = project.plan()
        place = project.runs.place(project.ledger, latest.run, plan)
        assert dead in place.orphans
        assert not {latest.run, succeeded.run} & place.orphans
        assert latest.run in project.runs.place(project.ledger, latest.run, plan, again=True).orphans


def test_an_abort_ends_a_run_that_was_asked_to_stop_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "HEARTBEAT_SECONDS", 0.05)
    with fleet(folder) as project, fleet(folder) as other:
        stop = StopSignal()

        def both(event: Event) -> None:
            if isinstance(event, JobStarted):
                stop.request(StopCause.TERMINATED)
                assert other.runs.abort().live
                while stop.cause is not StopCause.ABORTED:
                    pass

        report = upgrade(project, stop=stop, listeners=[both])
        assert (report.status, report.exit_code) == (RunStatus.ABORTED, ExitCode.FAILURES)
        with pytest.raises(UsageError, match="was aborted"):
            project.runs.resume(report.run)


@pytest.mark.parametrize(
    ("cause", "code"), [(StopCause.INTERRUPTED, ExitCode.INTERRUPTED), (StopCause.TERMINATED, ExitCode.TERMINATED)]
)
def test_whoever_waits_for_the_lease_can_be_stopped(folder: Path, cause: StopCause, code: ExitCode) -> None:
    with fleet(folder) as project:
        project.ledger.acquire(Holder(operator="ann@build7", host="build7", pid=4711, birth="elsewhere/1/2"))
        stop = StopSignal()
        stop.request(cause)
        with pytest.raises(Stopped) as caught:
            upgrade(project, stop=stop)
        assert caught.value.exit_code is code

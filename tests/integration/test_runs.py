"""Recorded runs over real SQLite files: gone on with, tried again, taken back, ended, and rebuilt from the files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import Project, ledger, worker
from orchestrator.errors import ExitCode, LeaseHeld, Refused, ScriptsError, UsageError
from orchestrator.events import Event, JobStarted, RunStarted
from orchestrator.ledger import this_process
from orchestrator.outcomes import Report, RunStatus, Status
from orchestrator.plans import Command
from orchestrator.rollout import StopSignal
from tests import histories

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=4)
    return tmp_path


def fleet(folder: Path, *names: str, more: str = "") -> Project:
    """A project of SQLite tenants whose files exist, empty; nothing is tried twice by itself."""
    tenants = "".join(f"  {name}: {{}}\n" for name in names or NAMES)
    (folder / "tenants.yaml").write_text(
        f'version: 1\nproject: shop\ndefaults: {{url: "sqlite:///db/{{tenant}}.db"}}\ntenants:\n{tenants}'
        f"strategies: {{default: {{concurrency: 1, retries: {{busy: [], server: [], lost: 0}}}}}}\n{more}"
    )
    (folder / "db").mkdir(exist_ok=True)
    for name in names or NAMES:
        sqlite3.connect(folder / "db" / f"{name}.db").close()
    return Project.load(folder / "alembic.ini")


def upgrade(project: Project, **options: object) -> Report:
    return project.run(project.plan(), executor="inline", **options)


def version(folder: Path, name: str) -> str | None:
    with sqlite3.connect(folder / "db" / f"{name}.db") as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
    return row[0] if row else None


def markers(folder: Path, name: str) -> list[str]:
    with sqlite3.connect(folder / "db" / f"{name}.db") as connection:
        return [row[0] for row in connection.execute("SELECT revision FROM markers ORDER BY revision")]


def stopping_at(number: int, stop: StopSignal) -> Callable[[Event], None]:
    """Asks the run to stop when so many jobs have started."""
    started = 0

    def listener(event: Event) -> None:
        nonlocal started
        started += isinstance(event, JobStarted)
        if started == number:
            stop.drain()

    return listener


def interrupted(project: Project, after: int = 2) -> Report:
    stop = StopSignal()
    return upgrade(project, stop=stop, listeners=[stopping_at(after, stop)])


def broken(folder: Path, name: str) -> None:
    """Make r002 fail for one tenant."""
    with sqlite3.connect(folder / "db" / f"{name}.db") as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("CREATE TABLE markers (revision VARCHAR(40) NOT NULL)")
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, email VARCHAR(120) NOT NULL)")
        connection.execute("INSERT INTO accounts VALUES (1, 'Ada@Example.com'), (2, 'bob@example.com')")
        connection.execute("INSERT INTO markers VALUES ('r001')")
        connection.execute("INSERT INTO alembic_version VALUES ('r001')")


def mended(folder: Path, name: str) -> None:
    with sqlite3.connect(folder / "db" / f"{name}.db") as connection:
        connection.execute("DROP TABLE invoices")


def test_an_interrupted_run_is_gone_on_with(folder: Path) -> None:
    with fleet(folder) as project:
        first = interrupted(project)
        assert (first.status, first.counts["upgraded"], first.counts["not_started"]) == (RunStatus.INTERRUPTED, 2, 2)
        second = project.runs.resume(executor="inline")
        assert second is not None
        assert (second.run, second.status, second.exit_code) == (first.run, RunStatus.SUCCEEDED, ExitCode.OK)
        assert second.counts["upgraded"] == 4
        assert project.runs.report().counts == second.counts
        assert [run.id for run in project.ledger.runs()] == [first.run]
        assert project.runs.resume(executor="inline") is None
    assert [version(folder, name) for name in NAMES] == ["r004"] * 4


def test_nothing_is_resumed_where_nothing_was_run(folder: Path) -> None:
    with fleet(folder) as project:
        assert project.runs.resume() is None
        assert project.runs.retry() is None
        upgrade(project)
        assert project.runs.resume() is None
        assert project.runs.retry() is None


def test_a_new_run_takes_the_place_of_one_that_was_interrupted(folder: Path) -> None:
    with fleet(folder) as project:
        first = interrupted(project)
        second = upgrade(project)
        assert (second.status, second.counts["upgraded"], second.counts["unchanged"]) == (RunStatus.SUCCEEDED, 2, 2)
        assert project.ledger.run(first.run).status is RunStatus.SUPERSEDED
        with pytest.raises(UsageError, match="was superseded"):
            project.runs.resume(first.run)


def test_a_runner_that_dies_while_it_takes_the_place_of_another_leaves_a_run_to_resume(folder: Path) -> None:
    with fleet(folder) as project:
        first = interrupted(project)
        # What `Project.run` has written by the time it would close the first one.
        second = project.ledger.open_run(project.plan(), operator="me", fleet=4)
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert (report.run, report.status) == (second.id, RunStatus.SUCCEEDED)
        assert project.ledger.run(first.run).status is RunStatus.SUPERSEDED
        assert project.ledger.open_runs() == []


def test_what_failed_is_tried_again_in_the_same_run_and_gives_its_budget_back(folder: Path) -> None:
    with fleet(folder) as project:
        broken(folder, "b")
        first = upgrade(project)
        assert (first.status, first.counts["failed"], first.counts["not_started"]) == (RunStatus.HALTED, 1, 2)
        with pytest.raises(Refused, match=f"would halt again at once.*orchestrate retry {first.run}"):
            project.runs.resume(executor="inline")
        mended(folder, "b")
        second = project.runs.retry(executor="inline")
        assert second is not None
        assert (second.run, second.status, second.counts["upgraded"]) == (first.run, RunStatus.HALTED, 2)
        third = project.runs.resume(executor="inline")
        assert third is not None
        assert (third.status, third.counts["upgraded"]) == (RunStatus.SUCCEEDED, 4)
        attempts = project.ledger.attempts(first.run, "b")
        assert [attempt.outcome and attempt.outcome.status for attempt in attempts] == [Status.FAILED, Status.UPGRADED]


def test_a_run_is_taken_back_to_where_each_target_was(folder: Path) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r001", tenants=["a"]), executor="inline")
        first = upgrade(project)
        chosen, plan = project.runs.rollback_plan()
        assert (chosen.id, plan.command, sum(1 for _ in plan.jobs)) == (first.run, Command.DOWNGRADE, 4)
        report = project.run(plan, parent=chosen.id, action="rollback", executor="inline")
        assert (report.parent, report.status, report.counts["downgraded"]) == (first.run, RunStatus.SUCCEEDED, 4)
    assert [version(folder, name) for name in NAMES] == ["r001", None, None, None]
    assert markers(folder, "a") == ["r001"]


def test_a_rollback_leaves_alone_what_has_moved_since(folder: Path) -> None:
    with fleet(folder, "a", "b") as project:
        first = project.run(project.plan("r003"), executor="inline")
        project.run(project.plan("r004", tenants=["b"]), executor="inline")
        _, plan = project.runs.rollback_plan(first.run)
        assert [job.target for job in plan.jobs] == ["a"]
        assert [(o.target, o.reason and o.reason.code) for o in plan.settled] == [("b", "moved")]


def test_a_revision_that_cannot_go_down_is_refused_before_anything_is_done(folder: Path) -> None:
    path = histories.file_of(folder, "r003")
    head, _ = path.read_text().split("def downgrade():")
    path.write_text(f"{head}def downgrade():\n    raise NotImplementedError\n")
    with fleet(folder) as project:
        upgrade(project)
        for attempt in (project.runs.rollback_plan, lambda: project.plan("r001", command=Command.DOWNGRADE)):
            with pytest.raises(ScriptsError, match=r"r003 \(4 targets\): its `downgrade` raises"):
                attempt()
    assert version(folder, "a") == "r004"


def test_a_worker_that_outlives_its_runner_and_a_reconciliation_is_taken_back_as_well(folder: Path) -> None:
    with fleet(folder, "a", "b") as project:
        plan = project.plan()
        lease = project.ledger.acquire(this_process("ops"))
        run = project.ledger.open_run(plan, operator="ops", fleet=2, lease=lease)
        job = next(plan.jobs)
        project.ledger.start(run.id, job)
        project.ledger.release(lease)
        assert project.runs.reconcile().settled == (run.id,)
        (target,) = [target for target in project.registry.targets if target.name == job.target]
        settings = worker.WorkerSettings(config=folder / "alembic.ini", run=run.id, log=folder / "log")
        assert worker.run_job(job, target, settings).status is Status.UPGRADED
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert report.counts["upgraded"] == 2
        _, back = project.runs.rollback_plan()
        assert {job.target for job in back.jobs} == {"a", "b"}


@pytest.mark.parametrize(("command", "wanted"), [(Command.DOWNGRADE, "r001"), (Command.STAMP, "r002")])
def test_who_went_up_again_after_a_downgrade_or_a_stamp_is_left_alone(
    folder: Path, command: Command, wanted: str
) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r003"), executor="inline")
        stop = StopSignal()
        plan = project.plan(wanted, command=command)
        project.run(plan, executor="inline", stop=stop, listeners=[stopping_at(2, stop)])
        with sqlite3.connect(folder / "db" / "a.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'r004'")
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert report.status is RunStatus.SUCCEEDED
    assert [version(folder, name) for name in NAMES] == ["r004", wanted, wanted, wanted]


def test_a_stamp_is_not_put_on_what_has_moved_since_it_was_planned(folder: Path) -> None:
    with fleet(folder, "a", "b") as project:
        project.run(project.plan("r003"), executor="inline")
        plan = project.plan("r002", command=Command.STAMP)
        project.run(project.plan("r004", tenants=["a"]), executor="inline")
        report = project.run(plan, executor="inline")
        assert {one.target: one.reason and one.reason.code for one in report.outcomes} == {"a": "moved", "b": None}
    assert [version(folder, name) for name in ("a", "b")] == ["r004", "r002"]


def test_what_could_not_be_read_at_first_is_taken_back_as_well(folder: Path) -> None:
    with fleet(folder, "a", "b") as project:
        (folder / "db" / "b.db").write_bytes(b"no database" * 100)
        first = project.run(project.plan(keep_going=True), executor="inline")
        assert (first.counts["upgraded"], first.counts["failed"]) == (1, 1)
        (folder / "db" / "b.db").write_bytes(b"")
        second = project.runs.retry(executor="inline")
        assert second is not None
        assert (second.run, second.counts["upgraded"]) == (first.run, 2)
        _, plan = project.runs.rollback_plan()
        assert {job.target for job in plan.jobs} == {"a", "b"}


@pytest.mark.parametrize("asked", ["head", "r002"])
def test_a_fleet_that_could_not_be_read_at_all_is_done_once_it_can_be(folder: Path, asked: str) -> None:
    with fleet(folder) as project:
        for name in NAMES:
            (folder / "db" / f"{name}.db").write_bytes(b"no database" * 100)
        first = project.run(project.plan(asked, concurrency=2, keep_going=True), executor="inline")
        assert (first.exit_code, first.counts["failed"], first.waves) == (ExitCode.FAILURES, 4, ())
        for name in NAMES:
            (folder / "db" / f"{name}.db").write_bytes(b"")
        again = project.runs.retry(executor="inline")
        assert again is not None
        assert (again.run, again.exit_code, again.counts["upgraded"]) == (first.run, ExitCode.OK, 4)
        assert [wave.concurrency for wave in project.ledger.plan(first.run).waves] == [2]
    assert [version(folder, name) for name in NAMES] == ["r004" if asked == "head" else asked] * 4


def test_older_code_cannot_roll_back_what_it_does_not_know(folder: Path) -> None:
    with fleet(folder) as project:
        project.run(project.plan("r002"), executor="inline")
        first = upgrade(project)
    histories.file_of(folder, "r004").unlink()
    with fleet(folder) as project, pytest.raises(ScriptsError, match="no file of revision r004 here; nothing was done"):
        project.runs.rollback_plan(first.run)


def test_a_history_in_another_order_is_noticed_before_anything_is_run(folder: Path) -> None:
    with fleet(folder) as project:
        interrupted(project)
    for name, before, after in (("r002", "r001", "r003"), ("r003", "r002", "r001"), ("r004", "r003", "r002")):
        histories.edit(folder, name, f"down_revision = {before!r}", f"down_revision = {after!r}")
    with fleet(folder) as project:
        report = project.runs.resume(executor="inline")
    assert report is not None
    (failure,) = [outcome.failure for outcome in report.outcomes if outcome.failure is not None]
    assert "no such way as the plan's: r001, r002, r003, r004, from base" in failure.message
    assert [version(folder, name) for name in NAMES] == ["r004", "r004", None, None]


def test_a_run_ends_though_its_section_is_gone(folder: Path) -> None:
    (folder / "alembic.ini").write_text(f"{histories.INI}\n[old]\nscript_location = %(here)s/alembic\n")
    with fleet(folder):
        file = folder / "tenants.yaml"
    file.write_text(file.read_text().replace("defaults: {", "defaults: {alembic: old, "))
    with Project.load(folder / "alembic.ini") as project:
        first = interrupted(project)
    (folder / "alembic.ini").write_text(histories.INI)
    with fleet(folder) as project:
        report = upgrade(project)
        assert (report.status, report.counts["upgraded"]) == (RunStatus.SUCCEEDED, 2)
        assert project.ledger.run(first.run).status is RunStatus.SUPERSEDED


def test_one_run_is_live_at_a_time(folder: Path) -> None:
    with fleet(folder) as project, fleet(folder) as other:
        refused: list[str] = []

        def meanwhile(event: Event) -> None:
            if isinstance(event, RunStarted):
                for attempt in (lambda: upgrade(other), other.runs.resume, other.runs.reconcile, other.runs.prune):
                    with pytest.raises(LeaseHeld) as caught:
                        attempt()
                    refused.append(str(caught.value))

        report = upgrade(project, listeners=[meanwhile])
        assert report.status is RunStatus.SUCCEEDED
        assert len(refused) == 4
        assert all(report.run in text for text in refused)


def test_a_dead_run_is_aborted_by_reading_its_targets(folder: Path) -> None:
    with fleet(folder) as project:
        first = interrupted(project)
        aborted = project.runs.abort()
        assert (aborted.live, aborted.run.id, aborted.run.status) == (False, first.run, RunStatus.ABORTED)
        with pytest.raises(UsageError, match="no open run to abort"):
            project.runs.abort()


def test_a_live_run_is_asked_to_end(folder: Path) -> None:
    with fleet(folder) as project, fleet(folder) as other:
        asked: list[bool] = []

        def abort(event: Event) -> None:
            if isinstance(event, JobStarted) and not asked:
                asked.append(other.runs.abort().live)

        class Slow:
            """Lets the heartbeat hear of it."""

            def __call__(self, event: Event) -> None:
                abort(event)
                if isinstance(event, JobStarted):
                    stop.wait()

        class Stop(StopSignal):
            def wait(self) -> None:
                while self.cause is None:
                    pass

        stop = Stop()
        report = upgrade(project, stop=stop, listeners=[Slow()])
        assert asked == [True]
        assert (report.status, report.exit_code) == (RunStatus.ABORTED, ExitCode.FAILURES)
        assert report.counts["not_started"] == 3


def test_a_lost_ledger_is_rebuilt_from_the_version_tables(folder: Path) -> None:
    with fleet(folder) as project:
        upgrade(project)
    for path in (folder / ".orchestrate").glob("ledger.db*"):
        path.unlink()
    with fleet(folder) as project:
        told = project.runs.reconcile()
        assert (told.differing, told.settled, told.unreadable) == ((), (), ())
        assert project.runs.report().counts["unchanged"] == 4
        assert project.ledger.fleet() == 4
        assert upgrade(project).counts["unchanged"] == 4


def test_an_old_ledger_learns_what_has_happened_since(folder: Path) -> None:
    with fleet(folder) as project:
        first = interrupted(project)
    old = (folder / ".orchestrate" / "ledger.db").read_bytes()
    with fleet(folder) as project:
        project.runs.resume(executor="inline")
        project.run(project.plan("r003", command=Command.DOWNGRADE, tenants=["a"]), executor="inline")
    (folder / ".orchestrate" / "ledger.db").write_bytes(old)
    with fleet(folder) as project:
        told = project.runs.reconcile()
        assert told.settled == (first.run,)
        assert [(row.target, row.recorded, row.found) for row in told.differing] == [("a", ("r004",), ("r003",))]
        # What it did to `a` is undone, so it is not done: `resume` would do that again.
        told_of = project.ledger.run(first.run)
        assert (told_of.status, told_of.counts["upgraded"]) == (RunStatus.INTERRUPTED, 2)
        assert upgrade(project).counts["unchanged"] == 3


def test_old_runs_are_forgotten_and_the_audit_table_keeps_who_did_what(folder: Path) -> None:
    with fleet(folder) as project:
        runs = [upgrade(project).run for _ in range(4)]
        assert set(project.runs.prune(keep=2)) == set(runs[:2])
        assert [run.id for run in project.ledger.runs()] == [runs[3], runs[2]]
        actions = [entry.action for entry in project.runs.audit()]
        assert actions == ["runs prune", "upgrade", "upgrade", "upgrade", "upgrade"]


def test_a_target_that_left_the_registry_is_left_alone(folder: Path) -> None:
    with fleet(folder) as project:
        interrupted(project)
    with fleet(folder, "a", "b", "c") as project:
        report = project.runs.resume(executor="inline")
        assert report is not None
        gone = next(outcome for outcome in report.outcomes if outcome.target == "d")
        assert (gone.status, gone.reason and gone.reason.code) == (Status.SKIPPED, "unregistered")
        assert report.exit_code is ExitCode.FAILURES
    assert version(folder, "d") is None


def test_the_ledger_package_names_a_process_that_is_alive() -> None:
    assert not ledger.is_dead(ledger.this_process("me"))

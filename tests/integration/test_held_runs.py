"""Runs over real SQLite files that somebody holds back, and what may pass them by."""

from __future__ import annotations

import datetime
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator import Project
from orchestrator.errors import ExitCode, Refused
from orchestrator.ledger import RequestKind, this_process
from orchestrator.outcomes import Report, RunStatus, Status
from tests import histories
from tests.integration.test_runs import NAMES, broken, fleet, folder, interrupted, mended, upgrade

__all__ = ["folder"]

#: a day on which no test runs
NEVER = f"{datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3):%a}"


def staged(folder: Path, more: str = "", tenants: str = "") -> Project:
    """A canary wave before the rest, a strategy with `more` keys, and more tenants."""
    fleet(folder).close()
    path = folder / "tenants.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("strategies:")]
    waves = "waves: [{name: canary, size: 1}, {name: rest}]"
    lines.insert(lines.index("tenants:") + 1, tenants)
    lines.append(f"strategies: {{default: {{concurrency: 1, {waves}, {more}}}}}")
    path.write_text("\n".join(lines) + "\n")
    return Project.load(folder / "alembic.ini")


def canary(project: Project) -> str:
    return next(iter(project.plan().jobs)).target


def asked_to_pause(project: Project, run: str) -> None:
    project.ledger.request(run, this_process("ann@build7"), RequestKind.PAUSE, {})


def test_a_run_that_was_to_be_paused_when_its_runner_died_is_held(folder: Path) -> None:
    with fleet(folder) as project:
        run = interrupted(project).run
        asked_to_pause(project, run)
        with pytest.raises(Refused, match=f"run {run} is paused"):
            upgrade(project)
        other = project.plan(tenants=[NAMES[0]])
        assert project.upgrade(other, executor="inline").status is RunStatus.SUCCEEDED
        assert project.ledger.run(run).status is RunStatus.INTERRUPTED
        # It is the one that is meant, though another has ended since.
        waiting = project.runs.resume(executor="inline", on_pause="exit")
        assert waiting is not None
        assert (waiting.run, waiting.exit_code) == (run, ExitCode.PAUSED)
        done = project.control.continue_(executor="inline")
        assert isinstance(done, Report)
        assert (done.run, done.counts["upgraded"]) == (run, 4)


def test_a_reconciliation_leaves_a_paused_run_paused(folder: Path) -> None:
    with fleet(folder) as project:
        run = interrupted(project).run
        asked_to_pause(project, run)
        project.runs.resume(executor="inline", on_pause="exit")
        # Something that the run does not know of, so that there is something to tell of it.
        url = URL.create("sqlite", database=str(folder / "db" / "d.db"))
        histories.Starter(folder / "alembic.ini").bring(url, "r004")
        assert project.runs.reconcile().settled == (run,)
        assert project.ledger.run(run).status is RunStatus.PAUSED


def test_the_refusal_to_halt_again_says_what_lifts_it(folder: Path) -> None:
    with staged(folder, "max_failures: 9") as project:
        first = canary(project)
        broken(folder, first)
        run = upgrade(project).run
        with pytest.raises(Refused, match=r"runs budget r-.* --wave canary --max-failures N"):
            project.runs.resume(executor="inline")
        project.control.budget(1, wave="canary")
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert (report.run, report.counts["failed"], report.counts["upgraded"]) == (run, 1, 3)


def test_whoever_joins_waits_for_those_that_were_there_and_for_its_window(folder: Path) -> None:
    with staged(folder, "sweep: true") as project:
        first = canary(project)
        broken(folder, first)
        assert upgrade(project).status is RunStatus.HALTED
    mended(folder, first)
    sqlite3.connect(folder / "db" / "new.db").close()
    with staged(folder, "sweep: true", f"  new: {{window: {NEVER}}}") as project:
        retried = project.runs.retry(executor="inline")
        assert retried is not None
        assert (retried.counts["upgraded"], len(retried.outcomes)) == (1, 4)
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert [one.status for one in report.outcomes if one.target == "new"] == [Status.DEFERRED]
        assert (report.status, report.counts["upgraded"]) == (RunStatus.PAUSED, 4)


def test_whoever_joins_waits_for_the_window_of_those_before(folder: Path) -> None:
    with staged(folder, "sweep: true") as project:
        sqlite3.connect(folder / "db" / "new.db").close()
        plan = project.plan()
    with staged(folder, "sweep: true", "  new: {}") as project:
        assert project.run(plan, executor="inline").counts["upgraded"] == 5
        swept = project.ledger.plan(project.report().run).waves[-1]
        assert (swept.name, swept.window) == ("sweep", plan.waves[-1].window)


def test_a_rollback_heeds_no_freeze_no_deadline_and_takes_in_nobody(folder: Path) -> None:
    with staged(folder, "sweep: true, deadline: 1h, freeze: ['2020-01-01/2099-01-01']") as project:
        done = project.run(project.plan(outside_windows=True), executor="inline")
        assert done.status is RunStatus.SUCCEEDED
        _, plan = project.runs.rollback_plan()
        assert (plan.freeze, plan.deadline, plan.sweep) == ((), None, None)


GATED = "waves: [{name: canary, size: 1, gate: {command: [sh, -c, test -e fine]}}, {name: rest}]"


def gated(folder: Path) -> Project:
    staged(folder).close()
    path = folder / "tenants.yaml"
    path.write_text(path.read_text().replace("waves: [{name: canary, size: 1}, {name: rest}]", GATED))
    return Project.load(folder / "alembic.ini")


def test_no_new_run_gets_past_a_gate_that_failed(folder: Path) -> None:
    """The canary of a new plan has nothing left to do, so nobody would ask its gate."""
    with gated(folder) as project:
        first = canary(project)
        halted = upgrade(project)
        assert (halted.status, halted.counts["upgraded"]) == (RunStatus.HALTED, 1)
        said = f"run {halted.run} was halted behind wave canary, .* by `orchestrate resume {halted.run}`"
        with pytest.raises(Refused, match=said):
            upgrade(project)
        assert project.runs.reconcile().settled == ()
        with pytest.raises(Refused, match=said):
            upgrade(project)
        # What is done in it is nobody's business.
        done = project.upgrade(project.plan(tenants=[first]), executor="inline")
        assert done.counts["unchanged"] == 1
        (folder / "fine").touch()
        report = project.runs.resume(halted.run, executor="inline")
        assert report is not None
        assert (report.status, report.counts["upgraded"]) == (RunStatus.SUCCEEDED, 4)


def test_nor_past_one_that_was_not_asked_when_its_runner_died(folder: Path) -> None:
    with gated(folder) as project:
        halted = upgrade(project).run
    with Project.load(folder / "alembic.ini") as project:
        # As it was before the verdict was written down, and nobody has the lease.
        project.ledger.mark_wave(halted, replace(project.ledger.wave_marks(halted)[0], gate=None))
        project.ledger.set_status(halted, RunStatus.RUNNING)
        with pytest.raises(Refused, match="was interrupted behind wave canary"):
            upgrade(project)
        project.runs.abort(halted)
        # Another tenant is the canary of the new one, and its gate is asked as well.
        assert (upgrade(project).status, project.report().counts["upgraded"]) == (RunStatus.HALTED, 1)


def test_a_wave_without_pause_and_gate_holds_nothing(folder: Path) -> None:
    with staged(folder, "max_failures: 0") as project:
        plan = project.plan()
        broken(folder, [job.target for job in plan.jobs][1])
        halted = upgrade(project)
        assert (halted.status, halted.counts["upgraded"]) == (RunStatus.HALTED, 1)
        upgrade(project)
        assert project.ledger.run(halted.run).status is RunStatus.SUPERSEDED


def test_a_run_that_its_dead_runner_has_paused_says_for_what_it_waits(folder: Path) -> None:
    with staged(folder) as project:
        # As a runner leaves it that was killed while it waited: nothing is written of those that it had not begun.
        run = project.ledger.open_run(project.plan(), operator="ops", fleet=4).id
        asked_to_pause(project, run)
        project.ledger.set_status(run, RunStatus.PAUSED)
        report = project.report(run)
        assert (report.status, report.counts["not_started"]) == (RunStatus.PAUSED, 4)
        assert {one.reason and one.reason.text for one in report.outcomes} == {"paused by ann@build7"}
        assert [wave.status for wave in report.waves] == ["not_started", "not_started"]


def test_what_had_stopped_a_run_is_not_told_any_more_once_it_is_mended(folder: Path) -> None:
    with staged(folder) as project:
        first = canary(project)
        broken(folder, first)
        halted = upgrade(project)
        assert {one.reason.text for one in halted.outcomes if one.reason} == {
            f"1 failure exceeds max_failures 0 of the run: {first}"
        }
        mended(folder, first)
        retried = project.runs.retry(executor="inline")
        assert retried is not None
        assert retried.status is RunStatus.HALTED
        assert {one.reason.text for one in retried.outcomes if one.reason} == {
            "only what had failed was done again; the rest is left for `orchestrate resume`"
        }


def test_nor_past_the_last_gate_though_nothing_is_left_to_do(folder: Path) -> None:
    """Running it again in CI would turn a red gate green."""
    with gated(folder) as project:
        path = folder / "tenants.yaml"
        path.write_text(
            path.read_text().replace(GATED, "waves: [{name: all, gate: {command: [sh, -c, test -e fine]}}]")
        )
    with Project.load(folder / "alembic.ini") as project:
        halted = upgrade(project)
        assert (halted.status, halted.counts["upgraded"]) == (RunStatus.HALTED, 4)
        for tenants in (None, [NAMES[0]]):
            with pytest.raises(Refused, match=r"was halted behind wave all, .* by `orchestrate resume"):
                project.upgrade(project.plan(tenants=tenants), executor="inline")
        (folder / "fine").touch()
        report = project.runs.resume(executor="inline")
        assert report is not None
        assert report.status is RunStatus.SUCCEEDED
        assert upgrade(project).counts["unchanged"] == 4


def test_waves_that_a_retry_does_not_reach_are_not_started(folder: Path) -> None:
    with staged(folder) as project:
        first = canary(project)
        broken(folder, first)
        upgrade(project)
        mended(folder, first)
        report = project.runs.retry(executor="inline")
        assert report is not None
        assert [(wave.name, wave.status) for wave in report.waves] == [("canary", "succeeded"), ("rest", "not_started")]
        assert project.report().waves[1].status == "not_started"

"""Whatever is killed, one command goes on: the real commands, killed for real, and the fleet checked from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import checker, histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet, descendants, outcomes_of, report_of

#: put before the last revision's own statements: says that it was reached, and waits
HOLD = """
    import pathlib
    import time

    folder = pathlib.Path(__file__).parents[2]
    (folder / "reached").touch()
    while (folder / "hold").exists():
        time.sleep(0.02)
"""
PATIENCE = 60.0


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Four files, two at work at once, and a last revision that waits while the file `hold` is there."""
    made = fleets.sqlite_fleet(tmp_path / "project", count=4, starts=(0, 3, 7))
    registry = made.project.folder / "tenants.yaml"
    registry.write_text(registry.read_text() + "strategies:\n  default: {concurrency: 2}\n")
    [last] = (made.project.folder / "alembic" / "versions").glob("r010*.py")
    last.write_text(last.read_text().replace("def upgrade():\n", f"def upgrade():{HOLD}", 1))
    return made


@contextlib.contextmanager
def held(fleet: Fleet) -> Iterator[subprocess.Popen[bytes]]:
    """`orchestrate upgrade --all` with two targets in their last revision; nothing of it is left afterwards."""
    folder = fleet.project.folder
    (folder / "hold").touch()
    (folder / "reached").unlink(missing_ok=True)
    with (folder / "upgrade.log").open("wb") as log:
        runner = subprocess.Popen(
            [str(Path(sys.executable).parent / "orchestrate"), "upgrade", "--all"],
            cwd=folder,
            env=fleets.inherited(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(folder / "reached")
        yield runner
    finally:
        (folder / "hold").unlink(missing_ok=True)
        kill(runner)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.02)


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.02)


def kill(runner: subprocess.Popen[bytes]) -> None:
    """End the runner and its workers at once, as a machine that loses its power does."""
    for pid in [runner.pid, *descendants(runner.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    runner.wait(PATIENCE)


def killed(fleet: Fleet) -> None:
    """A run that died in the middle."""
    with held(fleet) as runner:
        kill(runner)


def latest(fleet: Fleet) -> dict[str, Any]:
    """The report of the latest run, as the ledger has it."""
    report: dict[str, Any] = fleet.orchestrate("runs", "show", "-o", "json").json
    return report


def starts(fleet: Fleet) -> list[checker.Expected]:
    """Every tenant where the fleet began."""
    began = []
    for member in fleet.members:
        ids = histories.revision_ids(member.start)
        tables = histories.tables_at(member.start)
        began.append(checker.Expected(url=member.url, heads=ids[-1:], markers=ids, tables=tables))
    return began


def test_a_killed_run_is_resumed(fleet: Fleet) -> None:
    with held(fleet) as runner:
        refused = fleet.orchestrate("upgrade", "--all", exit_status=3)
        assert f"pid {runner.pid}" in refused.errors
        assert "orchestrate abort" in refused.errors
        kill(runner)
    shown = fleet.orchestrate("runs", "show")
    assert "interrupted: its runner died" in shown.output
    assert re.search(r"2  lost\n +2  not started", shown.output)
    assert "to go on: orchestrate resume r-" in shown.output

    report = report_of(fleet.orchestrate("resume", "-o", "json"))

    assert report["status"] == "succeeded"
    assert report["counts"]["upgraded"] == 4
    checker.assert_right(fleet.expected())
    assert fleet.orchestrate("resume").output == "nothing to resume\n"


def test_the_same_command_again_takes_the_place_of_a_killed_run(fleet: Fleet) -> None:
    killed(fleet)

    report = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json"))

    assert report["counts"]["upgraded"] == 4
    checker.assert_right(fleet.expected())
    runs = fleet.orchestrate("runs", "list", "-o", "json").json["runs"]
    assert [run["status"] for run in runs] == ["succeeded", "superseded"]


def test_a_dead_run_is_aborted_and_not_resumed(fleet: Fleet) -> None:
    killed(fleet)

    aborted = fleet.orchestrate("abort", "-o", "json").json

    assert aborted["live"] is False
    assert aborted["run"]["status"] == "aborted"
    # Nobody but the tenant lock knows whether a worker has outlived its runner.
    assert {target["status"] for target in aborted["targets"]} == {"lost", "not_started"}
    assert "aborted" in fleet.orchestrate("resume", aborted["run"]["run"], exit_status=2).errors
    checker.assert_right([expected for expected in starts(fleet) if expected.heads])


@pytest.mark.parametrize("words", [[], ["--now"]])
def test_a_live_run_is_asked_to_stop_and_ends_itself(fleet: Fleet, words: list[str]) -> None:
    with held(fleet) as runner:
        aborted = fleet.orchestrate("abort", *words, "-o", "json").json
        assert aborted["runner"]["pid"] == runner.pid
        if not words:
            wait_for_text(fleet.project.folder / "upgrade.log", "aborted by somebody else")
            (fleet.project.folder / "hold").unlink()
        assert runner.wait(PATIENCE) == 1

    report = latest(fleet)
    assert report["status"] == "aborted"
    assert report["counts"]["upgraded"] == (0 if words else 2)
    assert report["counts"]["not_started"] >= 2


def test_what_failed_is_retried_and_all_is_rolled_back(fleet: Fleet) -> None:
    name = fleet.members[1].name
    inline = ("--executor", "inline")
    fleet.execute(name, histories.POISON)
    failed = fleet.orchestrate("upgrade", "--all", "--keep-going", *inline, exit_status=1)
    assert "once mended: orchestrate retry r-" in failed.output
    fleet.execute(name, histories.MEND)

    report = report_of(fleet.orchestrate("retry", *inline, "-o", "json"))

    assert report["counts"]["upgraded"] == 4
    assert outcomes_of(report)[name]["attempts"] == 2
    checker.assert_right(fleet.expected())
    assert fleet.orchestrate("retry").output == "nothing to retry\n"

    back = report_of(fleet.orchestrate("rollback", report["run"], "--yes", *inline, "-o", "json"))

    assert back["parent"] == report["run"]
    assert back["counts"]["downgraded"] == 4
    checker.assert_right([expected for expected in starts(fleet) if expected.heads])
    assert "has taken back" in fleet.orchestrate("rollback", "--yes", exit_status=2).errors


def test_a_lost_ledger_is_written_anew(fleet: Fleet) -> None:
    fleet.orchestrate("upgrade", "--all", "--executor", "inline")
    for path in (fleet.project.folder / ".orchestrate").glob("ledger.db*"):
        path.unlink()

    first = fleet.orchestrate("runs", "reconcile", "-o", "json").json
    name, broken = fleet.members[0].name, fleet.members[1].name
    fleet.project.alembic("-x", f"tenant={name}", "stamp", "r009")
    (fleet.project.folder / "tenants" / f"{broken}.db").write_bytes(b"this is no database")
    second = fleet.orchestrate("runs", "reconcile", "-o", "json", exit_status=1).json

    assert first["counts"]["unchanged"] == 4
    assert first["differing"] == []
    assert second["differing"] == [{"target": name, "recorded": ["r010"], "found": ["r009"]}]
    assert second["unreadable"] == [broken]
    audit = fleet.orchestrate("runs", "audit", "-o", "json").json["entries"]
    assert [entry["action"] for entry in audit] == ["runs reconcile"] * 2

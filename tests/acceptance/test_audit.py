"""Each command that changes something writes one audit row, and only those do; also when it is killed."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests import histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return fleets.sqlite_fleet(tmp_path / "project", count=3, size=4, starts=(0,))


def entries(fleet: Fleet) -> list[dict[str, Any]]:
    """The audit table, oldest first."""
    found: list[dict[str, Any]] = fleet.orchestrate("runs", "audit", "--last", "500", "-o", "json").json["entries"]
    return found[::-1]


def test_each_command_that_changes_something_writes_one_row(fleet: Fleet) -> None:
    versions = fleet.project.folder / "alembic" / "versions"
    writes = [
        ("upgrade r002 -t t000", 0, "upgrade"),
        ("upgrade --all --keep-going", 0, "upgrade"),
        ("downgrade r001 -t t000 --yes", 0, "downgrade"),
        ("stamp r002 -t t000 --yes", 0, "stamp"),
        ("rollback --yes", 0, "rollback"),
        ("upgrade r005 --all --concurrency 1", 1, "upgrade"),
        ("retry", 1, "retry"),
        ("runs reconcile", None, "runs reconcile"),
        ("runs prune --keep 2 --yes", 0, "runs prune"),
    ]
    expected: list[str] = []
    for line, exit_status, action in writes:
        if "r005" in line:
            histories.write_revision(versions, "r005", "r004", "breaks", 'op.execute("nonsense")')
        inline = () if line.startswith("runs") else ("--executor", "inline")
        fleet.orchestrate(*line.split(), *inline, exit_status=exit_status)
        expected.append(action)
    found = entries(fleet)
    assert [entry["action"] for entry in found] == expected
    for entry in found:
        assert entry["operator"]
        assert entry["host"]
        assert entry["at"]
        assert (entry["run"] is None) is (entry["action"] in ("runs prune",)), entry


def test_commands_that_only_look_write_none(fleet: Fleet) -> None:
    fleet.orchestrate("upgrade", "--all", "--executor", "inline")
    for line in (
        "status", "doctor", "upgrade --all --dry-run", "rollback --dry-run", "resume", "retry", "revision -m another",
        "upgrade nonsense --all", "downgrade base --all",
    ):  # fmt: skip
        fleet.orchestrate(*line.split(), exit_status=None)
    assert [entry["action"] for entry in entries(fleet)] == ["upgrade"]


@pytest.mark.parametrize("place", [1, 5, 9])
def test_a_killed_command_has_one_row_before_it_touches_a_tenant(fleet: Fleet, place: int) -> None:
    before = [member.snapshot() for member in fleet.members]

    done = fleet.orchestrate(
        "upgrade", "--all", "--executor", "inline", exit_status=None, ORCHESTRATE_FAILPOINT=f"{place}@ledger:kill"
    )

    assert done.exit_status == -signal.SIGKILL, f"{done}"
    rows = [entry["action"] for entry in entries(fleet)]
    touched = [member.snapshot() for member in fleet.members] != before
    assert rows == ["upgrade"] or (rows == [] and not touched)
    fleet.orchestrate("upgrade", "--all", "--executor", "inline")
    assert [entry["action"] for entry in entries(fleet)] == [*rows, "upgrade"]


# What the log may keep


def test_row_data_is_in_the_log_only_where_it_was_asked_for(tmp_path: Path) -> None:
    for kept in (False, True):
        fleet = fleets.sqlite_fleet(tmp_path / str(kept), count=2, starts=(5,))
        versions = fleet.project.folder / "alembic" / "versions"
        file = next(versions.glob("r006*"))
        # As PostgreSQL says it, in a form that any database can be made to say; a traceback shows the line as well.
        user, host = histories.CUSTOMER.split("@")
        detail = f'"no" + chr(10) + "DETAIL:  Key (email)=(" + "@".join(["{user}", "{host}"]) + ") already exists."'
        file.write_text(
            file.read_text().replace("def upgrade():", f"def upgrade():\n    raise RuntimeError({detail})", 1)
        )

        variables = {"ORCHESTRATE_LOG_DETAIL": "1"} if kept else {}
        done = fleet.orchestrate("upgrade", "--all", "-o", "json", "--report", "r.json", exit_status=1, **variables)
        shown = fleet.orchestrate("runs", "show", "--target", "t000", "-v").text
        shown += fleet.orchestrate("runs", "show", "--target", "t000", "-o", "json").text

        log = fleet.project.folder / ".orchestrate" / "log" / "orchestrate.jsonl"
        assert (histories.CUSTOMER in log.read_text()) is kept
        others = [
            path
            for path in fleet.project.folder.rglob("*")
            if path.is_file() and path.suffix not in (".jsonl", ".py", ".pyc")
        ]
        assert all(histories.CUSTOMER.encode() not in path.read_bytes() for path in others)
        assert histories.CUSTOMER not in done.text + shown
        assert [json.loads(line)["level"] for line in log.read_text().splitlines()]
        for private in (log, fleet.project.folder / ".orchestrate" / "ledger.db"):
            assert stat.S_IMODE(private.stat().st_mode) == 0o600, private


def test_files_stay_private_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        fleet = fleets.sqlite_fleet(tmp_path / "project", count=1, size=2, starts=(0,))
        fleet.orchestrate("upgrade", "--all")
    finally:
        os.umask(before)
    kept = [path for path in (fleet.project.folder / ".orchestrate").rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= {"ledger.db", "orchestrate.jsonl"}
    loose = [path for path in kept if path.stat().st_mode & 0o077 and path.stat().st_size]
    assert loose == []

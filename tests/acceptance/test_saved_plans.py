"""Plan in one place, approve in another, apply in a third: the real commands on SQLite files and PostgreSQL schemas."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import checker
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet


@pytest.fixture(params=["sqlite", "postgresql"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Six tenants, of which one is at head."""
    if request.param == "sqlite":
        yield fleets.sqlite_fleet(tmp_path / "fleet", count=6)
    else:
        database: URL = request.getfixturevalue("postgres_database")
        yield fleets.postgres_schemas(tmp_path / "fleet", database, count=6)


def plan_of(fleet: Fleet, *arguments: str) -> dict[str, object]:
    fleet.orchestrate("plan", *arguments, "--out", "plan.json")
    document: dict[str, object] = json.loads((fleet.project.folder / "plan.json").read_text())
    return document


def quarantine(fleet: Fleet) -> None:
    path = fleet.project.folder / "tenants.yaml"
    path.write_text(path.read_text().replace("t000: {}", "t000: {state: quarantined, reason: restoring}"))


def join(fleet: Fleet) -> None:
    path = fleet.project.folder / "tenants.yaml"
    path.write_text(path.read_text() + "  t900: {}\n")


def leave(fleet: Fleet) -> None:
    path = fleet.project.folder / "tenants.yaml"
    path.write_text(path.read_text().replace("  t004: {}\n", ""))


def move_on(fleet: Fleet) -> None:
    fleet.orchestrate("upgrade", "r008", "-t", "t001")


def edit_revision(fleet: Fleet) -> None:
    (path,) = (fleet.project.folder / "alembic" / "versions").glob("r009_*.py")
    path.write_text(path.read_text() + "\n# another thing\n")


def add_revision(fleet: Fleet) -> None:
    fleet.orchestrate("revision", "-m", "another", "--rev-id", "x011")


#: each on top of those before it
CHANGES: list[tuple[Callable[[Fleet], None], str]] = [
    (quarantine, "1 target is quarantined now, and was active: t000"),
    (join, "1 target joined: t900"),
    (leave, "1 target left: t004"),
    (move_on, "1 target is elsewhere than then: t001 r003 -> r008"),
    (edit_revision, "revision file r009 changed"),
    (add_revision, "x011 was added"),
]


def test_a_stale_plan_is_refused_with_its_reasons_and_nothing_is_run(fleet: Fleet) -> None:
    digest = str(plan_of(fleet)["digest"])
    for change, says in CHANGES:
        change(fleet)
        before = [member.snapshot() for member in fleet.members]
        refused = fleet.orchestrate("upgrade", "--plan", "plan.json", exit_status=3)
        assert says in refused.errors
        assert "Traceback" not in refused.text
        assert [member.snapshot() for member in fleet.members] == before
    unapproved = fleet.orchestrate("upgrade", "--all", exit_status=3, ORCHESTRATE_APPROVED_DIGEST=digest)
    assert digest in unapproved.errors
    compared = fleet.orchestrate("plan", "--diff", "plan.json", "--check", "-o", "json", exit_status=5).json
    told = {difference["text"] for difference in compared["differences"]}
    assert told >= {says for _, says in CHANGES if "1 target" not in says}
    assert [member.snapshot() for member in fleet.members] == before


def test_a_fresh_plan_is_run_with_the_digest_that_was_approved(fleet: Fleet) -> None:
    path = fleet.project.folder / "tenants.yaml"
    fleet.project.write_registry(path.read_text() + "environment: production\nprotected: true\n")
    digest = str(plan_of(fleet, "--concurrency", "2", "--max-failures", "50%")["digest"])

    assert "protected" in fleet.orchestrate("upgrade", "--plan", "plan.json", "--yes", exit_status=3).errors
    report = fleets.report_of(
        fleet.orchestrate("upgrade", "--plan", "plan.json", "--approve-digest", digest[:30], "-o", "json")
    )

    assert (report["plan_digest"], report["counts"]["upgraded"]) == (digest, 5)
    assert fleet.orchestrate("runs", "show", "-o", "json").json["plan_digest"] == digest
    (entry,) = fleet.orchestrate("runs", "audit", "-o", "json").json["entries"]
    assert entry["detail"]["approved"] == digest[:30]
    checker.assert_right(fleet.expected())
    done = fleet.orchestrate("upgrade", "--plan", "plan.json", "--confirm", "production", exit_status=3)
    assert f"run {report['run']} was of this plan, and has ended: succeeded" in done.errors


def test_two_checkouts_agree_on_the_digest(tmp_path: Path) -> None:
    fleet = fleets.sqlite_fleet(tmp_path / "fleet", count=3)
    digest = plan_of(fleet)["digest"]
    shutil.copytree(fleet.project.folder, tmp_path / "elsewhere")
    # The name of the folder is the project's where `project:` is not given; here it is.
    other = fleets.Project(folder=tmp_path / "elsewhere")
    assert other.orchestrate("plan", "-o", "json").json["digest"] == digest
    assert other.orchestrate("upgrade", "--plan", "plan.json", "-o", "json").json["plan_digest"] == digest

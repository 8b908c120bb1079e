"""One tenant's data violates a new constraint: the others go on, it is named with what mends it, and nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import checker, histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet, everything_written, outcomes_of, report_of

#: what each driver calls the violation
CODES = {"postgresql": "23505", "mysql": "1062", "sqlite": "2067"}


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "project"
    starts = (4, 5, 0)
    if request.param == "sqlite":
        yield fleets.sqlite_fleet(folder, count=9, starts=starts)
    elif request.param == "postgresql":
        database: URL = request.getfixturevalue("postgres_database")
        yield fleets.postgres_schemas(folder, database, count=9, starts=starts)
    else:
        server: URL = request.getfixturevalue("mariadb_url")
        yield from fleets.server_databases(folder, server, count=9, prefix="poison_m", starts=starts)


@pytest.fixture
def poisoned(fleet: Fleet) -> str:
    name = fleet.members[3].name
    fleet.execute(name, histories.POISON)
    return name


def test_the_others_go_on_and_the_mended_one_follows(fleet: Fleet, poisoned: str) -> None:
    before = fleet[poisoned].snapshot()

    done = fleet.orchestrate("upgrade", "--all", "--keep-going", "-o", "json", exit_status=1)

    report = report_of(done)
    assert report["status"] == "failed"
    assert report["counts"]["failed"] == 1
    assert report["counts"]["upgraded"] == len(fleet.members) - 1
    outcome = outcomes_of(report)[poisoned]
    failure = outcome["failure"]
    assert outcome["status"] == "failed"
    assert failure["code"] == CODES[fleet[poisoned].url.get_backend_name()]
    assert failure["revision"] == "r006"
    assert "accounts" in failure["statement"]
    assert failure["advice"]
    assert failure["kind"] == "permanent"
    assert histories.CUSTOMER not in done.text + everything_written(fleet.project)
    others = [member.expected(fleet.size) for member in fleet.members if member.name != poisoned]
    if fleet[poisoned].schema:
        pass_over = {("tenant_" + poisoned, table) for table in ["alembic_version", *histories.tables_at(5)]}
        checker.assert_right(others, others=pass_over)
    else:
        checker.assert_right(others)
    if fleet[poisoned].url.get_backend_name() == "mysql":
        assert outcome["at"] == ["r005"]
    else:
        assert outcome["at"] == outcome["from"]
        assert fleet[poisoned].snapshot() == before

    fleet.execute(poisoned, histories.MEND)
    mended = report_of(fleet.orchestrate("upgrade", "--failed", "-o", "json"))

    assert [outcome["target"] for outcome in mended["outcomes"]] == [poisoned]
    assert mended["counts"]["upgraded"] == 1
    checker.assert_right(fleet.expected())


def test_the_text_report_names_cause_and_remedy(fleet: Fleet, poisoned: str) -> None:
    done = fleet.orchestrate("upgrade", "--all", "--keep-going", exit_status=1)

    assert poisoned in done.text
    assert "r006" in done.text
    assert CODES[fleet[poisoned].url.get_backend_name()] in done.text
    assert "Traceback" not in done.text
    assert histories.CUSTOMER not in done.text
    run = fleet.orchestrate("runs", "list", "-o", "json").json
    assert run
    shown = fleet.orchestrate("runs", "show", "--target", poisoned)
    assert "r006" in shown.output
    assert histories.CUSTOMER not in shown.text


def test_without_keep_going_nothing_new_starts_after_a_failure(fleet: Fleet) -> None:
    first = fleet.members[0].name
    fleet.execute(first, histories.POISON)

    done = fleet.orchestrate("upgrade", "--all", "--concurrency", "1", "-o", "json", exit_status=1)

    report = report_of(done)
    assert report["status"] == "halted"
    assert outcomes_of(report)[first]["status"] == "failed"
    assert report["counts"]["not_started"] == len(fleet.members) - 1
    assert report["counts"]["upgraded"] == 0

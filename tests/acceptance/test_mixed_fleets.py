"""A fleet at mixed revisions goes to head with one command, and a second run finds nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import checker, histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet, outcomes_of, report_of

KINDS = ["postgresql-schemas", "postgresql-databases", "mariadb", "sqlite"]


@pytest.fixture(params=KINDS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "project"
    kind: str = request.param
    if kind == "sqlite":
        yield fleets.sqlite_fleet(folder, count=200)
    elif kind == "postgresql-schemas":
        database: URL = request.getfixturevalue("postgres_database")
        yield fleets.postgres_schemas(folder, database, count=60)
    else:
        server: URL = request.getfixturevalue("mariadb_url" if kind == "mariadb" else "postgres_url")
        yield from fleets.server_databases(folder, server, count=30, prefix=f"mixed_{kind[0]}")


def test_a_mixed_fleet_goes_to_head(fleet: Fleet) -> None:
    ids = histories.revision_ids(fleet.size)

    report = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json"))

    due = [member for member in fleet.members if member.start < fleet.size]
    assert report["counts"]["upgraded"] == len(due)
    assert report["counts"]["unchanged"] == len(fleet.members) - len(due)
    assert report["status"] == "succeeded"
    assert report["revision"] == ids[-1:]
    outcomes = outcomes_of(report)
    for member in fleet.members:
        outcome = outcomes[member.name]
        assert outcome["from"] == ids[: member.start][-1:]
        assert outcome["at"] == ids[-1:]
        assert outcome["applied"] == ids[member.start :]
        assert outcome["schema"] == member.schema
    checker.assert_right(fleet.expected())

    again = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json"))

    assert again["counts"]["unchanged"] == len(fleet.members) == sum(again["counts"].values())
    checker.assert_right(fleet.expected())
    status = fleet.orchestrate("status", "--check")
    assert str(len(fleet.members)) in status.output

"""Plain `alembic` on the same environment leaves the same databases as `orchestrate`, whole or one tenant at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import checker
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet
from tests.services import fixtures

Make = Callable[[str], AbstractContextManager[Fleet]]
COUNT = 6


@pytest.fixture(params=["postgresql-schemas", "postgresql-databases", "mariadb", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    kind: str = request.param

    @contextlib.contextmanager
    def fleet(name: str) -> Iterator[Fleet]:
        folder = tmp_path / name
        if kind == "sqlite":
            yield fleets.sqlite_fleet(folder, count=COUNT)
        elif kind == "postgresql-schemas":
            server: URL = request.getfixturevalue("postgres_url")
            with fixtures.fresh_postgres(server) as database:
                yield fleets.postgres_schemas(folder, database, count=COUNT)
        else:
            server = request.getfixturevalue("mariadb_url" if kind == "mariadb" else "postgres_url")
            yield from fleets.server_databases(folder, server, count=COUNT, prefix=f"{name}_{kind[0]}")

    return fleet


def test_upgrade_by_hand_gives_the_same_databases(make: Make) -> None:
    with make("ours") as ours, make("plain") as plain:
        ours.orchestrate("upgrade", "--all")
        plain.project.alembic("upgrade", "head")

        checker.assert_right(ours.expected())
        checker.assert_right(plain.expected())
        for one, other in zip(ours.members, plain.members, strict=True):
            assert one.snapshot() == other.snapshot()


def test_one_tenant_by_hand_leaves_the_others(make: Make) -> None:
    with make("single") as fleet:
        before = {member.name: member.snapshot() for member in fleet.members}
        chosen = fleet.members[1]

        fleet.project.alembic("-x", f"tenant={chosen.name}", "upgrade", "head")

        after = {member.name: member.snapshot() for member in fleet.members}
        assert {name for name in before if before[name] != after[name]} == {chosen.name}
        current = fleet.project.alembic("-x", f"tenant={chosen.name}", "current")
        assert chosen.name in current.text
        assert "r010 (head)" in current.output


def test_both_hands_take_turns(make: Make) -> None:
    with make("turns") as fleet:
        fleet.project.alembic("upgrade", "r006")
        fleet.orchestrate("upgrade", "r008", "--all")
        fleet.project.alembic("-x", f"tenant={fleet.members[0].name}", "upgrade", "r009")
        fleet.orchestrate("upgrade", "--all")

        checker.assert_right(fleet.expected())


def test_sql_by_hand_says_where_it_belongs(make: Make) -> None:
    with make("script") as fleet:
        before = [member.snapshot() for member in fleet.members]

        script = fleet.project.alembic("upgrade", "r003:r005", "--sql").output

        assert [member.snapshot() for member in fleet.members] == before
        for member in fleet.members:
            assert f"-- target {member.name}" in script
        assert script.count("INSERT INTO markers (revision) VALUES ('r004')") == len(fleet.members)
        assert "hush" not in script


def test_sql_by_hand_keeps_percent_signs(make: Make) -> None:
    with make("percent") as fleet:
        script = fleet.project.alembic("-x", f"tenant={fleet.members[0].name}", "upgrade", "r007:r008", "--sql").output
        assert "50 % of it''s" in script
        assert "%%" not in script

"""The statement journal on MariaDB: whatever a revision was doing when it died, the next try goes on from there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from orchestrator import databases, worker
from orchestrator.plans import Command, Condition
from orchestrator.tenants import Target
from tests import snapshots
from tests.integration.journal_runs import FIRST, STOP, TEN, die, edit, fail, run, succeed, target_of, write
from tests.services.fixtures import fresh_mariadb
from tests.services.servers import connect_mariadb


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    worker.finish()


@pytest.fixture
def target(mariadb_database: URL) -> Target:
    return target_of(mariadb_database)


@pytest.fixture(scope="module")
def ten(mariadb_url: URL, tmp_path_factory: pytest.TempPathFactory) -> snapshots.Snapshot:
    """What the ten statements make of a fresh database when nothing stops them."""
    folder = tmp_path_factory.mktemp("ten")
    write(folder, FIRST, TEN)
    with fresh_mariadb(mariadb_url) as url:
        succeed(folder, target_of(url), 2, start=0)
        return snapshots.take(url)


def rows(target: Target, query: str) -> list[Any]:
    with contextlib.closing(connect_mariadb(target.url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        connection.commit()
        return [row[0] if len(row) == 1 else row for row in cursor.fetchall()]


def left(target: Target) -> list[Any]:
    return rows(target, "SELECT position, kind, state FROM orchestrate_journal ORDER BY position")


@pytest.mark.parametrize("number", range(1, 11))
def test_a_revision_that_dies_between_two_statements_is_continued(
    tmp_path: Path, target: Target, ten: snapshots.Snapshot, number: int
) -> None:
    write(tmp_path, FIRST, TEN)
    die(tmp_path, target, 2, f"{number}:kill", start=0)
    succeed(tmp_path, target, 2)
    assert snapshots.take(target.url) == ten
    assert rows(target, "SELECT COUNT(*) FROM markers") == [1]
    assert left(target) == []


@pytest.mark.parametrize("number", range(1, 11))
def test_a_revision_that_fails_at_a_statement_is_continued(
    tmp_path: Path, target: Target, ten: snapshots.Snapshot, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(tmp_path, FIRST, TEN)
    with monkeypatch.context() as stopped:
        stopped.setenv(STOP, f"{number}:raise")
        assert fail(tmp_path, target, 2, start=0) == "stopped"
    succeed(tmp_path, target, 2)
    assert snapshots.take(target.url) == ten

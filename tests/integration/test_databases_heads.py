"""Heads of a mixed fleet, and what a server that is down costs."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import URL

from orchestrator import heads
from orchestrator.outcomes import FailureKind
from orchestrator.plans import Condition, Found
from orchestrator.tenants import Target
from tests.integration.database_targets import run, sqlite_target, target


def versioned_file(path: Path, version: str) -> Target:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('{version}')"
        )
    return sqlite_target(path)


class DeadServer:
    """Accepts connections, counts them, and hangs up."""

    def __init__(self) -> None:
        self.visitors = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = self._socket.accept()
                self.visitors += 1
                time.sleep(0.05)  # long enough for others to come too, if they were let
                visitor.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def fleet_database(postgres_database: URL) -> URL:
    engine = sqlalchemy.create_engine(postgres_database, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        statements = (
            f"CREATE SCHEMA s{number}; CREATE TABLE s{number}.alembic_version AS SELECT 'r{number}' AS version_num"
            for number in range(120)  # more than one statement reads at once
        )
        run(connection, "; ".join(statements))
    engine.dispose()
    return postgres_database


def test_a_mixed_fleet_is_read_in_its_order(
    fleet_database: URL, mariadb_database: URL, tmp_path: Path, closed_port: int
) -> None:
    fleet: list[Target] = []
    for number in range(120):
        fleet.append(target(f"p{number}", fleet_database, schema=f"s{number}"))
        if number % 40 == 0:
            fleet.append(versioned_file(tmp_path / f"f{number}.db", f"f{number}"))
            fleet.append(target(f"m{number}", mariadb_database))
            fleet.append(target(f"d{number}", mariadb_database.set(port=closed_port)))
    found = heads.read(fleet, 16)
    assert [each.target for each in found] == fleet
    by_kind = {kind: [each for each in found if each.target.name[0] == kind] for kind in "pfmd"}
    assert [each.heads for each in by_kind["p"]] == [(f"r{number}",) for number in range(120)]
    assert [each.heads for each in by_kind["f"]] == [("f0",), ("f40",), ("f80",)]
    assert {each.condition for each in by_kind["m"]} == {Condition.EMPTY}
    assert {each.condition for each in by_kind["d"]} == {Condition.UNREACHABLE}


def test_nothing_at_all_is_read_as_nothing() -> None:
    assert heads.read([], 4) == []


def test_two_hundred_files(tmp_path: Path) -> None:
    fleet = [versioned_file(tmp_path / f"t{number}.db", f"r{number}") for number in range(200)]
    assert [each.heads for each in heads.read(fleet, 8)] == [(f"r{number}",) for number in range(200)]
    assert len(list(tmp_path.iterdir())) == 200


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+psycopg2"])
def test_a_server_that_refuses_is_asked_once(driver: str, closed_port: int) -> None:
    url = URL.create(driver, "app", "s3cr3t", "127.0.0.1", closed_port)
    fleet = [target(f"t{number}", url.set(database=f"d{number}")) for number in range(30)]
    found = heads.read(fleet, 16)
    assert {each.condition for each in found} == {Condition.UNREACHABLE}
    failures = [each.failure for each in found if each.failure is not None]
    assert [failure.type for failure in failures] == ["OperationalError"] + ["ServerDown"] * 29
    assert {failure.code for failure in failures[1:]} == {"server_down"}
    assert failures[0].kind is FailureKind.SERVER
    assert len({failure.fingerprint for failure in failures[1:]}) == 1
    assert "s3cr3t" not in repr(found)


def test_a_server_that_hangs_up_on_everybody_is_still_asked_for_each_that_may_differ() -> None:
    """Hanging up is not proof that the whole server is down; MariaDB says `lost connection`."""
    server = DeadServer()
    try:
        url = URL.create("mysql+pymysql", "app", "s3cr3t", "127.0.0.1", server.port)
        found = heads.read([target(f"t{number}", url.set(database=f"d{number}")) for number in range(3)], 4)
    finally:
        server.close()
    assert {each.condition for each in found} == {Condition.UNREACHABLE}
    assert server.visitors == 3 * (1 + len(heads._PAUSES))


def test_a_refused_password_is_not_tried_again_for_the_same_user(mariadb_url: URL) -> None:
    wrong = mariadb_url.set(username="nobody_here", password="s3cr3t")
    fleet = [
        *(target(f"w{number}", wrong.set(database=f"d{number}")) for number in range(20)),
        target("right", mariadb_url.set(database="mysql")),
    ]
    found = heads.read(fleet, 8)
    failures = [each.failure for each in found[:20] if each.failure is not None]
    assert failures[0].code == "1045"
    assert [failure.code for failure in failures[1:]] == ["server_down"] * 19
    assert found[20].failure is None
    assert "s3cr3t" not in repr(found)


def test_a_crowded_server_is_given_a_little_time(postgres_database: URL) -> None:
    engine = sqlalchemy.create_engine(postgres_database, poolclass=sqlalchemy.NullPool)
    role = f"crowded_{postgres_database.database}"
    crowded = postgres_database.set(username=role, password="s3cr3t")
    with engine.connect() as admin:
        run(admin, f"CREATE ROLE {role} LOGIN PASSWORD 's3cr3t' CONNECTION LIMIT 1")
        other = sqlalchemy.create_engine(crowded, poolclass=sqlalchemy.NullPool).connect()
        leave = threading.Timer(0.3, other.close)
        leave.start()
        (found,) = heads.read([target("acme", crowded)], 1)
        leave.join()
        with sqlalchemy.create_engine(crowded, poolclass=sqlalchemy.NullPool).connect():
            (still,) = heads.read([target("acme", crowded)], 1)
        run(admin, f"DROP ROLE {role}")
    engine.dispose()
    assert found.condition is Condition.EMPTY
    assert still.failure is not None
    assert (still.failure.code, still.failure.kind) == ("53300", FailureKind.TRANSIENT)


def test_an_absent_database_does_not_stand_for_its_server(postgres_database: URL) -> None:
    fleet = [
        target("absent", postgres_database.set(database="no_such_database")),
        target("there", postgres_database),
    ]
    assert [each.condition for each in heads.read(fleet, 2)] == [Condition.ABSENT, Condition.EMPTY]


@pytest.mark.parametrize("cap", [1, 2, None])
def test_a_servers_cap_holds_for_looks_as_well(
    postgres_url: URL, monkeypatch: pytest.MonkeyPatch, cap: int | None
) -> None:
    fleet = [target(f"t{number}", postgres_url.set(database=f"absent_{number}")) for number in range(24)]
    now, most, gate = 0, 0, threading.Lock()
    look = heads._look

    def counted(group: heads._Group) -> list[Found]:
        nonlocal now, most
        with gate:
            now += 1
            most = max(most, now)
        try:
            return look(group)
        finally:
            with gate:
                now -= 1

    monkeypatch.setattr(heads, "_look", counted)
    heads.read(fleet, 24, {} if cap is None else {fleet[0].server: cap})
    assert most <= (cap or heads.PER_SERVER)
    assert most > 1 or cap == 1

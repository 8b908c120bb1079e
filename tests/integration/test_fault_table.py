"""Every fault of the table, provoked for real with every driver, is called what it is and says what to do."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from orchestrator import databases
from orchestrator.databases import Connections, backend_of
from orchestrator.outcomes import Failure, FailureKind
from orchestrator.tenants import Target, Tenant, Timeouts
from tests.integration import fault_rows_mariadb, fault_rows_postgresql, fault_rows_scripts, fault_rows_sqlite
from tests.integration.fault_grounds import SECRET, Ground, Row, Situation, wait_until
from tests.services import servers
from tests.services.fixtures import fresh_mariadb, fresh_postgres

#: by driver; the scripts' rows ask nothing that differs by database
TABLES: dict[str, tuple[Row, ...]] = {
    "psycopg": fault_rows_postgresql.ROWS,
    "psycopg2": fault_rows_postgresql.ROWS,
    "pymysql": fault_rows_mariadb.ROWS,
    "pysqlite": fault_rows_sqlite.ROWS,
    "alembic": fault_rows_scripts.ROWS,
}
#: provoked below, on a server that does not survive it
DOOMED = {Situation.SERVER_CRASH, Situation.NOT_ACCEPTING}
CASES = [pytest.param(driver, row, id=f"{driver}-{row.name}") for driver, rows in TABLES.items() for row in rows]


@pytest.fixture(scope="module")
def postgresql(postgres_url: URL) -> Iterator[URL]:
    with fresh_postgres(postgres_url) as url:
        _fill(_target(url, schema="acme"), fault_rows_postgresql.TABLES)
        yield url


@pytest.fixture(scope="module")
def mariadb(mariadb_url: URL) -> Iterator[URL]:
    with fresh_mariadb(mariadb_url) as url:
        _fill(_target(url), fault_rows_mariadb.TABLES)
        yield url


def _target(url: URL, **fields: str) -> Target:
    timeouts = Timeouts(connect=5, lock=1, statement=30, tenant_lock=1)
    return Target(tenant=Tenant(name="acme"), url=url, timeouts=timeouts, **fields)


def _fill(target: Target, statements: tuple[str, ...]) -> None:
    backend_of(target).provision(target)
    connections = Connections()
    with connections.open(target, application_name="fill") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
    connections.close()


def _ground(driver: str, folder: Path, connections: Connections, request: pytest.FixtureRequest) -> Ground:
    if driver == "pysqlite":
        target = _target(make_url(f"sqlite+pysqlite:///{folder}/acme.db"))
        _fill(target, fault_rows_sqlite.TABLES)
    elif driver == "alembic":
        target = _target(make_url(f"sqlite+pysqlite:///{folder}/acme.db"))
        backend_of(target).provision(target)
    elif driver == "pymysql":
        target = _target(request.getfixturevalue("mariadb"))
    else:
        url: URL = request.getfixturevalue("postgresql")
        target = _target(url.set(drivername=f"postgresql+{driver}"), schema="acme")
    return Ground(target=target, connections=connections, folder=folder)


@pytest.fixture
def connections() -> Iterator[Connections]:
    kept = Connections()
    yield kept
    kept.close()


def provoked(row: Row, ground: Ground) -> Failure:
    try:
        failure = row.provoke(ground)
    except Exception as error:  # noqa: BLE001 - every exception is to be classified
        failure = databases.classify(error, ground.target)
    assert failure is not None, "nothing went wrong"
    return failure


def kind_of(row: Row) -> FailureKind:
    if row.without_names is None:
        return row.kind
    try:
        socket.getaddrinfo("no.such.host.invalid", 1)
    except socket.gaierror as error:
        return row.without_names if error.errno == socket.EAI_AGAIN else row.kind
    return row.kind


@pytest.mark.parametrize(("driver", "row"), CASES)
def test_a_fault_is_called_what_it_is(
    driver: str, row: Row, tmp_path: Path, connections: Connections, request: pytest.FixtureRequest
) -> None:
    ground = _ground(driver, tmp_path, connections, request)
    failure = provoked(row, ground)
    assert (failure.kind, failure.code in row.codes) == (kind_of(row), True), failure
    assert re.search(row.advice, failure.advice), failure
    assert failure.crowded is row.crowded
    assert SECRET not in repr(failure)
    assert "s3cr3t" not in repr(failure)


def test_a_warm_connection_that_died_while_it_was_idle_is_not_even_noticed(
    tmp_path: Path, connections: Connections, request: pytest.FixtureRequest
) -> None:
    ground = _ground("psycopg", tmp_path, connections, request)
    assert fault_rows_postgresql.use_a_warm_connection_that_died(ground) is None


def test_a_server_that_crashes_and_one_that_shuts_down(connections: Connections, tmp_path: Path) -> None:
    crash, shutdown = fault_rows_postgresql.CRASH, fault_rows_postgresql.SHUTDOWN
    with servers.postgres() as url:
        for driver in ("psycopg", "psycopg2"):
            target = _target(url.set(drivername=f"postgresql+{driver}"))
            ground = Ground(target=target, connections=connections, folder=tmp_path)
            wait_until(lambda: fault_rows_postgresql.is_up(ground))  # noqa: B023 - called at once
            failure = provoked(crash, ground)
            assert (failure.kind, failure.code in crash.codes) == (crash.kind, True), failure
            assert re.search(crash.advice, failure.advice)
        failure = provoked(shutdown, ground)
    assert (failure.kind, failure.code) == (shutdown.kind, "57P03")
    assert re.search(shutdown.advice, failure.advice)


def test_the_table_is_long_enough() -> None:
    provoked = {row.situation for rows in TABLES.values() for row in rows} | {Situation.KILLED_WHILE_IDLE} | DOOMED
    assert provoked == set(Situation)
    assert len(provoked) >= 50

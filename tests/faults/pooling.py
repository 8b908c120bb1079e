"""PgBouncer between us and the server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
from sqlalchemy import URL

from orchestrator import databases
from orchestrator.databases.errors import PoolerInTheWay
from orchestrator.tenants import Target, Tenant
from tests.faults.stage import Figures, Stage, assert_at_head
from tests.services.poolers import pgbouncer
from tests.services.servers import connect_postgres


def refused(stage: Stage, *, pool_size: int, clients: int, rounds: int, commands: int) -> Figures:
    """In transaction mode: never let in, while so many other clients keep the pool busy."""
    with (
        pgbouncer(stage.postgres, mode="transaction", pool_size=pool_size) as through,
        stage.fleet(stage.postgres, through, count=2, size=2) as fleet,
    ):
        pooled = through.set(database=fleet.members[0].url.database)
        before = [member.snapshot() for member in fleet.members]
        with _busy(pooled, clients):
            missed = sum(_is_let_in(pooled) for _ in range(rounds))
            ended = [fleet.orchestrate("upgrade", "--all", exit_status=None) for _ in range(commands)]
        assert not missed, f"let in {missed} times of {rounds}"
        for done in ended:
            assert done.exit_status == 3, f"{done}"
            assert "transaction pooler" in done.text, f"{done}"
        assert [member.snapshot() for member in fleet.members] == before
        assert not _left_behind(pooled, pool_size), "settings of ours stayed on a session of the pool"
        return {
            "pool size": pool_size,
            "other clients": clients,
            "refused": f"{rounds}/{rounds}",
            "commands refused with exit code 3": f"{commands}/{commands}",
        }


def accepted(stage: Stage, *, pool_size: int, count: int) -> Figures:
    """In session mode every connection keeps its session: that is as good as none."""
    with (
        pgbouncer(stage.postgres, mode="session", pool_size=pool_size) as through,
        stage.fleet(stage.postgres, through, count=count, size=2) as fleet,
    ):
        fleet.orchestrate("upgrade", "--all", "--concurrency", str(max(1, pool_size - 1)))
        assert_at_head(fleet)
        return {"pool size": pool_size, "targets": count, "at head": count}


def _is_let_in(url: URL) -> bool:
    """One new connection, as a worker opens it."""
    target = Target(tenant=Tenant(name="t000"), url=url, schema="tenant_t000", connect_args={"sslmode": "disable"})
    connections = databases.Connections()
    try:
        with connections.open(target, application_name="orchestrate/test/t000"):
            return True
    except PoolerInTheWay:
        return False
    finally:
        connections.close()


def _left_behind(url: URL, pool_size: int) -> bool:
    """Whether a session of the pool has a tenant's search path."""
    with contextlib.ExitStack() as stack:
        for _ in range(pool_size):
            connection = stack.enter_context(contextlib.closing(_client(url)))
            connection.execute("BEGIN")  # keeps this one, so that the next client gets another
            row = connection.execute("SHOW search_path").fetchone()
            if row is not None and "tenant_" in str(row[0]):
                return True
    return False


@contextlib.contextmanager
def _busy(url: URL, clients: int) -> Iterator[None]:
    """So many clients with short transactions and short pauses."""
    ended = threading.Event()

    def work() -> None:
        with contextlib.closing(_client(url)) as connection:
            while not ended.wait(0.001):
                connection.execute("SELECT pg_sleep(0.002)")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _client(url: URL) -> psycopg.Connection[tuple[object, ...]]:
    connection = connect_postgres(url)
    connection.prepare_threshold = None  # the pool's sessions are everybody's
    return connection

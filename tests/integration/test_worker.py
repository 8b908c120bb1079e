"""`run_job` on real databases: what it says happened is what happened."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, NullPool, create_engine, inspect, make_url

from orchestrator import databases, worker
from orchestrator.outcomes import FailureKind, Outcome, Status
from orchestrator.plans import Command
from orchestrator.tenants import Target, Tenant, Timeouts, Transaction
from tests import histories
from tests.integration.worker_jobs import job, run
from tests.services.servers import connect_postgres

ROWS = "SELECT version_num FROM alembic_version"
CLASSIC = """
from alembic import context
from sqlalchemy import engine_from_config, pool

config = context.config


def run_migrations_online():
    connectable = engine_from_config(config.get_section(config.config_ini_section), poolclass=pool.NullPool)
    with connectable.connect() as connection:
        context.configure(connection=connection, target_metadata=None)
        with context.begin_transaction():
            context.run_migrations()


run_migrations_online()
"""

UNLOCK = "SELECT pg_advisory_unlock_all()"
AUTOCOMMIT = """def upgrade():
    tell = "INSERT INTO markers SELECT '{} lock ' || current_setting('lock_timeout')"
    op.execute(tell.format(1))
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY by_email ON accounts (email)")
        op.execute(tell.format(2))
    op.execute(tell.format(3))
"""
SERVERS = {"postgresql": "postgres", "mariadb": "mariadb"}
#: another runner brings the target to r004 while env.py is being loaded
MOVED_BY_ANOTHER = """from alembic import context
from sqlalchemy import NullPool, create_engine

other = create_engine("{url}", poolclass=NullPool).raw_connection()
other.cursor().execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
other.cursor().execute("INSERT INTO alembic_version VALUES ('r004')")
other.commit()
other.close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=4)
    return tmp_path


@pytest.fixture
def sqlite_target(tmp_path: Path) -> Target:
    path = tmp_path / "acme.db"
    sqlite3.connect(path).close()
    return Target(tenant=Tenant(name="acme"), url=make_url(f"sqlite:///{path}"))


@pytest.fixture
def schema_target(postgres_database: URL) -> Target:
    with connect_postgres(postgres_database) as connection:
        connection.execute("CREATE SCHEMA tenant_acme")
    return Target(
        tenant=Tenant(name="acme"), url=postgres_database, schema="tenant_acme", timeouts=Timeouts(tenant_lock=0.2)
    )


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    worker.finish()


@contextlib.contextmanager
def locked_by_somebody(target: Target) -> Iterator[None]:
    with contextlib.closing(databases.Connections()) as connections:
        opened = connections.open(target, application_name="somebody")
        with opened as connection, databases.tenant_lock(connection, target, 1):
            yield


def sqlite_rows(target: Target, query: str = ROWS) -> list[Any]:
    with sqlite3.connect(target.url.database) as connection:
        return [row[0] for row in connection.execute(query)]


def schema_rows(target: Target, query: str = ROWS) -> list[Any]:
    with connect_postgres(target.url) as connection:
        connection.execute("SET search_path TO tenant_acme")
        try:
            return [row[0] for row in connection.execute(query)]
        except psycopg.errors.UndefinedTable:
            return []


def edit_env(folder: Path, old: str, new: str) -> None:
    path = folder / "alembic" / "env.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_upgrade_is_verified_before_it_is_called_one(folder: Path, sqlite_target: Target) -> None:
    outcome = run(folder, sqlite_target, job(sqlite_target))
    assert outcome.failure is None
    assert (outcome.status, outcome.found, outcome.at) == (Status.UPGRADED, (), ("r004",))
    assert outcome.applied == ("r001", "r002", "r003", "r004")
    assert sqlite_rows(sqlite_target) == ["r004"]


def test_a_schema_is_upgraded_in_place(folder: Path, schema_target: Target) -> None:
    outcome = run(folder, schema_target, job(schema_target))
    assert (outcome.status, outcome.at) == (Status.UPGRADED, ("r004",))
    assert schema_rows(schema_target) == ["r004"]


def test_a_downgrade_goes_back_by_its_path(folder: Path, sqlite_target: Target) -> None:
    run(folder, sqlite_target, job(sqlite_target))
    down = job(sqlite_target, command=Command.DOWNGRADE, found=("r004",), wanted=("r002",), path=("r004", "r003"))
    outcome = run(folder, sqlite_target, dataclasses.replace(down, wanted=("r002",)))
    assert (outcome.status, outcome.at, outcome.applied) == (Status.DOWNGRADED, ("r002",), ("r004", "r003"))


def test_a_stamp_runs_nothing(folder: Path, sqlite_target: Target) -> None:
    outcome = run(folder, sqlite_target, job(sqlite_target, "r002", command=Command.STAMP, path=()))
    assert (outcome.status, outcome.at, outcome.applied) == (Status.STAMPED, ("r002",), ())
    assert sqlite_rows(sqlite_target, "SELECT name FROM sqlite_master WHERE type = 'table'") == ["alembic_version"]


def test_a_stamp_mends_a_version_that_no_file_has(folder: Path, sqlite_target: Target) -> None:
    with sqlite3.connect(sqlite_target.url.database) as connection:
        connection.executescript(
            "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('zz')"
        )
    given = job(sqlite_target, "r002", command=Command.STAMP, path=(), found=())
    outcome = run(folder, sqlite_target, dataclasses.replace(given, found=("zz",)))
    assert (outcome.status, outcome.at) == (Status.STAMPED, ("r002",))


def test_whoever_was_there_first_is_not_undone(folder: Path, sqlite_target: Target) -> None:
    run(folder, sqlite_target, job(sqlite_target))
    outcome = run(folder, sqlite_target, job(sqlite_target))
    assert (outcome.status, outcome.reason.code) == (Status.UNCHANGED, "concurrent")


def test_a_target_that_moved_on_meanwhile_gets_the_rest_of_the_way(folder: Path, sqlite_target: Target) -> None:
    run(folder, sqlite_target, job(sqlite_target, "r002"))
    outcome = run(folder, sqlite_target, job(sqlite_target))
    assert (outcome.status, outcome.applied) == (Status.UPGRADED, ("r003", "r004"))


@pytest.mark.parametrize("env", ["ours", "classic"])
@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_whoever_comes_between_the_look_and_the_transaction_is_not_repeated(
    folder: Path, sqlite_target: Target, request: pytest.FixtureRequest, engine: str, env: str
) -> None:
    """A classic env.py takes the lock when it connects, and on SQLite the transaction is the lock."""
    url = sqlite_target.url if engine == "sqlite" else request.getfixturevalue(f"{SERVERS[engine]}_database")
    target = dataclasses.replace(sqlite_target, url=url)
    if env == "classic":
        (folder / "alembic" / "env.py").write_text(CLASSIC)
    edit_env(folder, "from alembic import context\n", MOVED_BY_ANOTHER.format(url=url.render_as_string(False)))
    outcome = run(folder, target, job(target))
    assert outcome.failure is None
    assert (outcome.status, outcome.reason.code, outcome.at) == (Status.UNCHANGED, "concurrent", ("r004",))
    with create_engine(url, poolclass=NullPool).connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]


@pytest.mark.parametrize("transaction", list(Transaction))
def test_a_failure_leaves_what_its_transactions_say(
    folder: Path, schema_target: Target, transaction: Transaction
) -> None:
    path = histories.file_of(folder, "r004")
    path.write_text(path.read_text().replace("def upgrade():\n", "def upgrade():\n    op.execute('SELECT 1/0')\n", 1))
    target = dataclasses.replace(schema_target, transaction=transaction)
    check_what_is_kept(transaction, target, run(folder, target, job(target)))


@pytest.mark.parametrize("transaction", list(Transaction))
def test_a_strategy_says_it_instead_of_the_target(
    folder: Path, schema_target: Target, transaction: Transaction
) -> None:
    path = histories.file_of(folder, "r004")
    path.write_text(path.read_text().replace("def upgrade():\n", "def upgrade():\n    op.execute('SELECT 1/0')\n", 1))
    other = next(each for each in Transaction if each is not transaction)
    target = dataclasses.replace(schema_target, transaction=other)
    check_what_is_kept(transaction, target, run(folder, target, job(target, transaction=transaction)))


def check_what_is_kept(transaction: Transaction, target: Target, outcome: Outcome) -> None:
    kept = () if transaction is Transaction.TARGET else ("r001", "r002", "r003")
    assert outcome.status is Status.FAILED
    assert (outcome.failure.code, outcome.failure.revision) == ("22012", "r004")
    assert outcome.failure.statement == "SELECT ?/?", "literals may be customer data"
    assert outcome.applied == kept
    assert outcome.at == kept[-1:]
    assert schema_rows(target) == list(kept[-1:])


def test_an_env_py_that_commits_nothing_is_found_out(folder: Path, schema_target: Target) -> None:
    edit_env(
        folder,
        "        context.configure(",
        "        connection.exec_driver_sql('SELECT 1')\n        context.configure(",
    )
    outcome = run(folder, schema_target, job(schema_target))
    assert outcome.status is Status.FAILED
    assert "left a transaction open" in outcome.failure.message
    assert (outcome.at, outcome.applied) == ((), ())


def test_an_env_py_that_moves_another_version_table_is_found_out(folder: Path, sqlite_target: Target) -> None:
    edit_env(
        folder,
        "context.configure(**target.options(connection=connection, target_metadata=target_metadata))",
        "context.configure(connection=connection, version_table='elsewhere')",
    )
    outcome = run(folder, sqlite_target, job(sqlite_target))
    assert (outcome.status, outcome.failure.code, outcome.at) == (Status.FAILED, "not_verified", ())


@pytest.mark.parametrize("statement", ["raise SystemExit(0)", "raise AssertionError"])
def test_whatever_a_revision_raises_is_a_failure(folder: Path, sqlite_target: Target, statement: str) -> None:
    path = histories.file_of(folder, "r003")
    path.write_text(path.read_text().replace("def upgrade():\n", f"def upgrade():\n    {statement}\n", 1))
    outcome = run(folder, sqlite_target, job(sqlite_target))
    assert (outcome.status, outcome.failure.revision, outcome.at) == (Status.FAILED, "r003", ())
    assert outcome.failure.message


def test_older_scripts_fail_loudly(folder: Path, sqlite_target: Target) -> None:
    outcome = run(folder, sqlite_target, job(sqlite_target, "r999"))
    assert outcome.status is Status.FAILED
    assert "r999" in outcome.failure.message


def test_a_locked_tenant_is_left_alone(folder: Path, schema_target: Target) -> None:
    with locked_by_somebody(schema_target):
        outcome = run(folder, schema_target, job(schema_target))
    assert (outcome.status, outcome.failure.kind) == (Status.FAILED, FailureKind.TRANSIENT)
    assert "somebody" in outcome.failure.message
    assert schema_rows(schema_target) == []


@pytest.mark.parametrize("env", ["ours", "classic"])
@pytest.mark.parametrize("transaction", list(Transaction))
def test_an_autocommit_block_waits_for_locks_and_nothing_after_it_does(
    folder: Path, postgres_database: URL, transaction: Transaction, env: str
) -> None:
    if env == "classic":
        (folder / "alembic" / "env.py").write_text(CLASSIC)
    path = histories.file_of(folder, "r003")
    path.write_text(path.read_text().replace("def upgrade():\n", AUTOCOMMIT, 1))
    target = Target(tenant=Tenant(name="acme"), url=postgres_database, transaction=transaction)
    outcome = run(folder, target, job(target))
    assert (outcome.failure, outcome.at) == (None, ("r004",))
    with connect_postgres(postgres_database) as connection:
        seen = connection.execute("SELECT revision FROM markers WHERE revision ~ 'lock'").fetchall()
    assert sorted(row[0] for row in seen) == ["1 lock 200ms", "2 lock 0", "3 lock 200ms"]


def test_a_failed_index_build_names_what_is_in_the_way_of_the_next_one(folder: Path, schema_target: Target) -> None:
    path = histories.file_of(folder, "r003")
    broken = AUTOCOMMIT.replace("CREATE INDEX", "CREATE UNIQUE INDEX").replace("(email)", "((1))")
    path.write_text(path.read_text().replace("def upgrade():\n", broken, 1))
    outcome = run(folder, schema_target, job(schema_target))
    assert (outcome.failure.code, outcome.at) == ("23505", ("r002",))
    assert 'drop what it left behind: index "by_email" on table "accounts" is invalid' in outcome.failure.advice


def test_a_lock_that_was_lost_on_the_way_is_no_success(folder: Path, schema_target: Target) -> None:
    path = histories.file_of(folder, "r003")
    path.write_text(path.read_text().replace("def upgrade():", f"def upgrade():\n    op.execute('{UNLOCK}')", 1))
    outcome = run(folder, schema_target, job(schema_target))
    assert (outcome.status, outcome.failure.code, outcome.at) == (Status.FAILED, "lock_lost", ("r004",))


def test_a_missing_schema_is_made_only_when_told_to(folder: Path, schema_target: Target) -> None:
    target = dataclasses.replace(schema_target, schema="tenant_new")
    outcome = run(folder, target, job(target))
    assert outcome.status is Status.FAILED
    outcome = run(folder, target, job(target, provision=True))
    assert (outcome.status, outcome.at) == (Status.UPGRADED, ("r004",))


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_classic_env_py_works_unchanged(
    folder: Path, sqlite_target: Target, postgres_database: URL, engine: str
) -> None:
    (folder / "alembic" / "env.py").write_text(CLASSIC)
    target = sqlite_target if engine == "sqlite" else dataclasses.replace(sqlite_target, url=postgres_database)
    outcome = run(folder, target, job(target))
    assert outcome.failure is None
    assert (outcome.status, outcome.at) == (Status.UPGRADED, ("r004",))


def test_a_classic_env_py_is_refused_for_schemas(folder: Path, schema_target: Target) -> None:
    (folder / "alembic" / "env.py").write_text(CLASSIC)
    outcome = run(folder, schema_target, job(schema_target))
    assert outcome.status is Status.FAILED
    assert "orchestrate init" in outcome.failure.message


@pytest.mark.parametrize("heads", [(), ("r004",)])
def test_a_classic_env_py_with_a_url_of_its_own_moves_nobody(
    folder: Path, sqlite_target: Target, heads: tuple[str, ...]
) -> None:
    """At head over there, it must not pass for a target that somebody else brought to head."""
    (folder / "alembic" / "env.py").write_text(CLASSIC)
    own = dataclasses.replace(sqlite_target, url=sqlite_target.url.set(database=str(folder / "own.db")))
    if heads:
        assert run(folder, own, job(own, provision=True)).at == heads
    setting = f"config.set_main_option('sqlalchemy.url', '{own.url}')"
    (folder / "alembic" / "env.py").write_text(CLASSIC.replace("context.config\n", f"context.config\n{setting}\n"))
    outcome = run(folder, sqlite_target, job(sqlite_target))
    assert (outcome.status, outcome.at) == (Status.FAILED, ())
    assert "own.db, not to the target's" in outcome.failure.message
    assert "sqlalchemy.url" in outcome.failure.message
    with sqlite3.connect(own.url.database) as connection:
        assert ("accounts" in str(connection.execute("SELECT name FROM sqlite_master").fetchall())) is bool(heads)


def test_a_classic_env_py_waits_for_the_lock(folder: Path, postgres_database: URL) -> None:
    (folder / "alembic" / "env.py").write_text(CLASSIC)
    target = Target(tenant=Tenant(name="acme"), url=postgres_database, timeouts=Timeouts(tenant_lock=0.2))
    with locked_by_somebody(target):
        outcome = run(folder, target, job(target))
    assert (outcome.status, outcome.at) == (Status.FAILED, None)
    assert "somebody" in outcome.failure.message
    assert run(folder, target, job(target)).status is Status.UPGRADED


def test_a_classic_env_py_connects_with_the_targets_arguments(folder: Path, postgres_database: URL) -> None:
    (folder / "alembic" / "env.py").write_text(CLASSIC)
    path = histories.file_of(folder, "r003")
    tell = "op.execute(\"INSERT INTO markers SELECT current_setting('geqo_threshold')\")"
    path.write_text(path.read_text().replace("def upgrade():", f"def upgrade():\n    {tell}", 1))
    arguments = {"options": "-c geqo_threshold=7"}
    target = Target(tenant=Tenant(name="acme"), url=postgres_database, connect_args=arguments)
    assert run(folder, target, job(target)).failure is None
    with connect_postgres(postgres_database) as connection:
        assert ("7",) in connection.execute("SELECT revision FROM markers").fetchall()


@pytest.mark.parametrize("env", ["ours", "classic"])
def test_a_version_table_further_along_the_search_path_is_somebody_elses(
    folder: Path, postgres_database: URL, env: str
) -> None:
    """A database of the tenant's own, whose search path was set on the server."""
    if env == "classic":
        (folder / "alembic" / "env.py").write_text(CLASSIC)
    with connect_postgres(postgres_database) as connection:
        connection.execute("CREATE SCHEMA own")
        connection.execute("CREATE SCHEMA shared")
        connection.execute(f'ALTER DATABASE "{postgres_database.database}" SET search_path TO own, shared')
        connection.execute("CREATE TABLE shared.alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
        connection.execute("INSERT INTO shared.alembic_version VALUES ('r004')")
    target = Target(tenant=Tenant(name="acme"), url=postgres_database)
    (found,) = databases.backend_of(target).look([target])
    outcome = run(folder, target, job(target, found=found.heads))
    assert (outcome.status, outcome.applied) == (Status.UPGRADED, ("r001", "r002", "r003", "r004"))
    with connect_postgres(postgres_database) as connection:
        assert connection.execute("SELECT version_num FROM own.alembic_version").fetchall() == [("r004",)]


def test_one_process_serves_many_schemas_of_one_database(folder: Path, schema_target: Target) -> None:
    for number in range(5):
        tenant = Tenant(name=f"t{number}")
        target = dataclasses.replace(schema_target, tenant=tenant, schema=f"tenant_{number}")
        assert run(folder, target, job(target, provision=True)).status is Status.UPGRADED
    with connect_postgres(schema_target.url) as connection:
        counts = dict(
            connection.execute(
                "SELECT table_schema, count(*) FROM information_schema.tables "
                "WHERE table_schema ~ '^(public|tenant_)' GROUP BY 1"
            ).fetchall()
        )
    assert set(counts) == {f"tenant_{number}" for number in range(5)}
    assert len(set(counts.values())) == 1

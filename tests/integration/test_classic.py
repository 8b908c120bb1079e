"""A classic env.py may connect as often as it likes: whatever migrates holds the lock and has the settings."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from orchestrator import databases
from orchestrator.outcomes import Status
from orchestrator.tenants import Target, Tenant, Timeouts
from tests import histories
from tests.integration.worker_jobs import job, run

SERVERS = {"postgresql": "postgres_database", "mariadb": "mariadb_database"}
LIMIT = {"postgresql": "SHOW statement_timeout", "mariadb": "SELECT CAST(@@max_statement_time AS INT)"}
HEADING = """
from alembic import context
from sqlalchemy import engine_from_config, pool, text
from tests.integration import test_classic

config = context.config


def engine(**options):
    return engine_from_config(config.get_section(config.config_ini_section), **options)


def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

"""
#: what env.py does with its connections
WAYS = {
    "asks-first": """
with engine(poolclass=pool.NullPool).connect() as connection:
    connection.execute(text("SELECT 1"))
with engine(poolclass=pool.NullPool).connect() as connection:
    migrate(connection)
""",
    "keeps-a-pool": """
waiting, own = engine(), engine()
with waiting.connect() as connection:
    connection.execute(text("SELECT 1"))
with own.connect() as connection:
    migrate(connection)
""",
    "drops-a-connection": """
engine(poolclass=pool.NullPool).connect().execute(text("SELECT 1"))
with engine(poolclass=pool.NullPool).begin() as connection:
    migrate(connection)
""",
    "asks-meanwhile": """
own = engine()
with own.connect() as connection:
    with own.connect() as other:
        other.execute(text("SELECT 1"))
    migrate(connection)
""",
}
KEEPS_ANOTHER_OPEN = """
own = engine(poolclass=pool.NullPool)
with own.connect() as first, own.connect() as connection:
    migrate(connection)
"""
LEAVES_IT_OPEN = """
own = engine()
test_classic.KEPT.append(own.connect())
migrate(test_classic.KEPT[0])
"""
ASK = """def upgrade():
    from tests.integration import test_classic
    test_classic.ask(op.get_bind())
"""

#: connections that an env.py never closes
KEPT: list[object] = []


class Asked:
    """What the revision r003 found."""

    target: Target
    #: whether somebody else could have had the lock
    is_free: bool | None = None
    limit: object = None


def ask(bind: object) -> None:
    """Called by the revision, on the connection that migrates."""
    target = Asked.target
    backend = databases.backend_of(target)
    with databases.Connections().open(target, application_name="somebody") as other:
        Asked.is_free = backend.try_lock(other, target)
    name = "mariadb" if target.backend == "mysql" else target.backend
    if name in LIMIT:
        Asked.limit = bind.execute(text(LIMIT[name])).scalar()  # type: ignore[attr-defined]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=4)
    path = histories.file_of(tmp_path, "r003")
    path.write_text(path.read_text().replace("def upgrade():\n", ASK, 1))
    return tmp_path


@pytest.fixture(params=["sqlite", *SERVERS])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    path = tmp_path / "acme.db"
    sqlite3.connect(path).close()
    server = SERVERS.get(request.param)
    url = request.getfixturevalue(server) if server else make_url(f"sqlite:///{path}")
    timeouts = Timeouts(lock=0.1, tenant_lock=0.5, statement=77)
    Asked.target, Asked.is_free, Asked.limit = (
        Target(tenant=Tenant(name="acme"), url=url, timeouts=timeouts),
        None,
        None,
    )
    return Asked.target


def write_env(folder: Path, way: str) -> None:
    (folder / "alembic" / "env.py").write_text(HEADING + way)


@pytest.mark.parametrize("way", list(WAYS))
def test_the_connection_that_migrates_holds_the_lock(folder: Path, target: Target, way: str) -> None:
    write_env(folder, WAYS[way])
    outcome = run(folder, target, job(target))
    assert (outcome.failure, outcome.status) == (None, Status.UPGRADED)
    assert Asked.is_free is False
    assert str(Asked.limit) in {"sqlite": "None", "postgresql": "77s", "mysql": "77"}[target.backend]


@pytest.mark.parametrize("target", list(SERVERS), indirect=True)
def test_a_lock_on_another_connection_is_refused(folder: Path, target: Target) -> None:
    write_env(folder, KEEPS_ANOTHER_OPEN)
    outcome = run(folder, target, job(target))
    assert (outcome.status, outcome.applied) == (Status.FAILED, ())
    assert "close any other before that" in outcome.failure.message
    assert Asked.is_free is None


@pytest.mark.parametrize("target", list(SERVERS), indirect=True)
def test_a_connection_that_was_left_open_ends_with_its_job(folder: Path, target: Target) -> None:
    write_env(folder, LEAVES_IT_OPEN)
    try:
        assert run(folder, target, job(target)).status is Status.UPGRADED
        with databases.Connections().open(target, application_name="somebody") as other:
            assert databases.backend_of(target).try_lock(other, target)
    finally:
        KEPT.clear()


@pytest.mark.parametrize("target", ["sqlite"], indirect=True)
def test_a_file_is_rolled_back_whole_whichever_engine_migrates(folder: Path, target: Target) -> None:
    write_env(folder, WAYS["asks-first"])
    path = histories.file_of(folder, "r002")
    path.write_text(
        path.read_text().replace("def upgrade():\n", "def upgrade():\n    op.execute('DROP TABLE no')\n", 1)
    )
    assert run(folder, target, job(target)).status is Status.FAILED
    with sqlite3.connect(str(target.url.database)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []

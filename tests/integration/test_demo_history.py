"""The history of the embedded default: it runs both ways, keeps data, and its constraints hold, on two engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import IntegrityError

from orchestrator import registry
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url: URL = make_url(f"sqlite:///{tmp_path}/demo.db")
    if request.param == "postgresql":
        url = make_url(request.getfixturevalue("postgres_database"))
    engine = create_engine(url)
    yield engine
    engine.dispose()


def migrate(engine: Engine, revision: str) -> None:
    """Bring one database to a revision with nothing but Alembic."""
    config = Config(str(ROOT / "alembic.ini"))
    script = ScriptDirectory.from_config(config)

    def steps(heads: tuple[str, ...], _context: MigrationContext) -> list[object]:
        down = revision in script_behind(script, heads) or revision == "base"
        return script._downgrade_revs(revision, heads) if down else script._upgrade_revs(revision, heads)  # type: ignore[arg-type,return-value]

    with EnvironmentContext(config, script, fn=steps) as environment, engine.connect() as connection:
        environment.configure(connection=connection)
        with environment.begin_transaction():
            environment.run_migrations()


def script_behind(script: ScriptDirectory, heads: tuple[str, ...]) -> set[str]:
    return {found.revision for head in heads for found in script.iterate_revisions(head, "base")} - set(heads)


def test_it_goes_up_down_and_up_again(engine: Engine) -> None:
    migrate(engine, "head")
    assert set(inspect(engine).get_table_names()) == {
        "accounts", "alembic_version", "invoices", "plans", "projects", "users",
    }  # fmt: skip
    migrate(engine, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrate(engine, "head")


def test_data_is_carried_along(engine: Engine) -> None:
    migrate(engine, "r0004_projects_index")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO accounts (id, name, plan) VALUES (1, 'Acme', 'team')"))
        connection.execute(text("INSERT INTO users (id, account_id, email) VALUES (1, 1, ' Ann@Example.org ')"))
        connection.execute(text("INSERT INTO projects (id, account_id, title) VALUES (1, 1, 'Moon')"))
    migrate(engine, "head")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, price_cents FROM plans"))
        assert {row.name: row.price_cents for row in rows} == {"free": 0, "team": 2950, "enterprise": 49900}
        assert connection.scalar(text("SELECT email FROM users")) == "ann@example.org"
        assert connection.scalar(text("SELECT status FROM projects")) == "active"
    migrate(engine, "r0004_projects_index")
    with engine.connect() as connection:
        assert float(connection.scalar(text("SELECT price FROM plans WHERE name = 'team'"))) == 29.5


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO users (id, account_id, email) VALUES (2, 1, 'ann@example.org')",
        "INSERT INTO projects (id, account_id, title, status) VALUES (2, 1, 'Mars', 'lost')",
    ],
)
def test_its_constraints_hold(engine: Engine, statement: str) -> None:
    migrate(engine, "head")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO accounts (id, name, plan) VALUES (1, 'Acme', 'team')"))
        connection.execute(text("INSERT INTO users (id, account_id, email) VALUES (1, 1, 'ann@example.org')"))
    with engine.begin() as connection, pytest.raises(IntegrityError):
        connection.execute(text(statement))


def test_its_fleet_is_two_dozen_tenants_with_labels() -> None:
    fleet = registry.load(Settings.load(ROOT / "alembic.ini"))
    assert len(fleet.targets) == 24
    assert {target.backend for target in fleet.targets} == {"sqlite"}
    assert {target.labels["tier"] for target in fleet.targets} == {"free", "team", "enterprise"}
    assert {target.labels["region"] for target in fleet.targets} == {"eu", "us", "ap"}

"""Autogenerate on a schema per tenant: only the tenant's own tables take part, whatever else the search path shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator import Project
from tests import histories
from tests.services.servers import connect_postgres

MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, text
from sqlalchemy.dialects.postgresql import CITEXT

target_metadata = MetaData()
Table("plans", target_metadata, Column("id", Integer, primary_key=True), schema="public")
Table(
    "customers",
    target_metadata,
    Column("id", Integer, primary_key=True),
    Column("plan_id", ForeignKey("public.plans.id")),
    Column("email", CITEXT),
)
"""


@pytest.fixture
def folder(tmp_path: Path, postgres_database: URL) -> Path:
    histories.write(tmp_path, size=0, env=histories.ENV.replace("target_metadata = None", MODELS))
    url = postgres_database.render_as_string(hide_password=False)
    (tmp_path / "tenants.yaml").write_text(
        f"version: 1\ndefaults: {{url: '{url}', schema: 'tenant_{{tenant}}', search_path: [extensions, public]}}\n"
        "tenants: {acme: {}, globex: {}}\n"
    )
    with connect_postgres(postgres_database) as connection:
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("CREATE EXTENSION citext SCHEMA extensions")
        connection.execute("CREATE TABLE extensions.gazetteer (id integer)")
        connection.execute("CREATE TABLE public.plans (id integer PRIMARY KEY)")
        connection.execute("CREATE TABLE public.customers (shared integer)")
    return tmp_path


def test_shared_tables_are_left_alone(folder: Path) -> None:
    with Project.load(folder / "alembic.ini") as project:
        project.run(project.plan(provision=True), executor="inline")
        (path,) = project.revise("customers", autogenerate=True)
        text = path.read_text()
        assert "create_table('customers'" in text
        assert "public.plans.id" in text
        assert "drop_table" not in text.partition("def downgrade")[0]
        assert text.count("create_table") == 1
        report = project.run(project.plan(), executor="inline")
        assert report.counts["upgraded"] == 2, [outcome.failure for outcome in report.outcomes]
        assert project.revise("nothing", autogenerate=True) == []

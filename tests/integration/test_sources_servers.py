"""Sources and the search for unregistered tenants, on real servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import URL

from orchestrator import registry
from orchestrator.databases import synchronous
from tests.services.fixtures import create_mariadb, create_postgres, drop_mariadb, drop_postgres
from tests.unit.registries import Folder, by_name

SECRET = "c4n@ry/S3cr%t"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def run(url: URL, *statements: str) -> None:
    engine = sqlalchemy.create_engine(synchronous(url)[0], poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))


def sources(*several: dict[str, Any]) -> str:
    return "sources: " + json.dumps(several) + "\n"


def test_rows_of_a_query_are_tenants(folder: Folder, postgres_database: URL) -> None:
    run(
        postgres_database,
        "CREATE TABLE tenants (name text, region text, shard int, url text, active boolean)",
        "INSERT INTO tenants VALUES ('acme', 'eu', 7, 'postgresql://h/acme', true), ('globex', 'us', 8, NULL, true),"
        " ('gone', 'us', 9, NULL, false)",
    )
    query = "SELECT name, url, region AS label_region, shard::text AS label_shard FROM tenants WHERE active"
    loaded = folder.load(
        'defaults: {url: "postgresql://other/{tenant}"}\n'
        + sources({"type": "sql", "url": shown(postgres_database), "query": query + " ORDER BY name"})
    )
    targets = by_name(loaded)
    assert {name: target.server for name, target in targets.items()} == {"acme": "h:5432", "globex": "other:5432"}
    assert targets["globex"].labels == {"region": "us", "shard": "8"}


@pytest.mark.parametrize("query", ["DROP TABLE tenants", "SELECT * FROM nothing_here", "SELECT 'x:y' ||| 1"])
def test_a_query_that_fails_or_writes_is_an_error(folder: Folder, postgres_database: URL, query: str) -> None:
    run(postgres_database, "CREATE TABLE tenants (name text)")
    (problem,) = folder.problems(sources({"type": "sql", "url": shown(postgres_database), "query": query}))
    assert problem.startswith("tenants.yaml:2:11: source `sql`: failed: ")
    run(postgres_database, "SELECT * FROM tenants")


def test_a_wrong_password_is_an_error_without_it(folder: Folder, postgres_database: URL) -> None:
    url = shown(postgres_database.set(username="nobody_here", password=SECRET))
    (problem,) = folder.problems(sources({"type": "sql", "url": url, "query": "SELECT 1"}))
    assert "S3cr" not in problem


def test_schemas_that_match_are_tenants(folder: Folder, postgres_database: URL) -> None:
    run(postgres_database, "CREATE SCHEMA tenant_acme", 'CREATE SCHEMA "tenant_x-1"', "CREATE SCHEMA extensions")
    source = {"type": "schemas", "url": shown(postgres_database), "match": "tenant_*"}
    targets = folder.load(sources(source)).targets
    assert [(target.name, target.schema) for target in targets] == [("acme", "tenant_acme"), ("x-1", "tenant_x-1")]
    assert targets[0].url == synchronous(postgres_database)[0]
    (problem,) = folder.problems(sources(source | {"match": "nobody_*"}))
    assert "gave no tenants" in problem


def test_a_hostile_schema_is_named_and_refused(folder: Folder, postgres_database: URL) -> None:
    run(postgres_database, 'CREATE SCHEMA "tenant_x; DROP"', "CREATE SCHEMA tenant_fine")
    (problem,) = folder.problems(sources({"type": "schemas", "url": shown(postgres_database), "match": "tenant_*"}))
    assert "'x; DROP' cannot be the name of a tenant" in problem


def test_databases_that_match_are_tenants(folder: Folder, mariadb_url: URL) -> None:
    names = ["src_acme", "src_globex", "other_src"]
    create_mariadb(mariadb_url, *names)
    try:
        url = shown(mariadb_url.set(database=None))
        targets = folder.load(sources({"type": "schemas", "url": url, "match": "src_*"})).targets
        assert [(target.name, target.url.database) for target in targets] == [
            ("acme", "src_acme"),
            ("globex", "src_globex"),
        ]
        loaded = folder.load(
            f"defaults: {{url: '{shown(mariadb_url.set(database='PLACE'))}'}}\ntenants: {{acme: }}".replace(
                "PLACE", "src_{tenant}"
            )
        )
        (stray,) = registry.unregistered(loaded)
        assert stray.endswith("/src_globex")
    finally:
        drop_mariadb(mariadb_url, *names)


def test_schemas_of_a_template_that_nobody_registered(folder: Folder, postgres_database: URL) -> None:
    run(postgres_database, "CREATE SCHEMA tenant_acme", "CREATE SCHEMA tenant_stray", "CREATE SCHEMA elsewhere")
    loaded = folder.load(
        f"defaults: {{url: '{shown(postgres_database)}', schema: 'tenant_{{tenant}}'}}\ntenants: {{acme: , new: }}"
    )
    (stray,) = registry.unregistered(loaded)
    assert stray.endswith("schema tenant_stray")


def test_databases_of_a_template_that_nobody_registered(folder: Folder, postgres_url: URL) -> None:
    names = ["unreg_acme", "unreg_stray"]
    create_postgres(postgres_url, *names)
    try:
        url = shown(postgres_url.set(database="PLACE")).replace("PLACE", "unreg_{tenant}")
        loaded = folder.load(f"defaults: {{url: '{url}'}}\ntenants: {{acme: }}")
        (stray,) = registry.unregistered(loaded)
        assert stray.endswith("/unreg_stray")
    finally:
        drop_postgres(postgres_url, *names)

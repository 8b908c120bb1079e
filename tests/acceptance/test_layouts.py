"""Layouts beyond one schema and one chain: two databases per tenant, version tables elsewhere, shared schemas."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import checker, histories
from tests.acceptance.fleets import Project, outcomes_of, report_of, secrets, templated
from tests.services import fixtures
from tests.services.servers import connect_postgres

TWO_CHAINS = """\
[DEFAULT]
path_separator = os

[alembic]
script_location = %(here)s/alembic

[{name}]
script_location = %(here)s/{name}
"""

COLUMNS = "sa.Column('id', sa.Integer, primary_key=True)"


def test_two_databases_and_two_chains(tmp_path: Path, postgres_database: URL) -> None:
    folder = tmp_path / "project"
    histories.write(folder, size=6, ini=TWO_CHAINS.format(name="analytics"))
    histories.write(folder, size=9, scripts="analytics", prefix="a")
    (folder / "var").mkdir()
    project = Project(folder=folder, environment=secrets(postgres_database))
    project.write_registry(
        "version: 1\n"
        "tenants:\n"
        + "".join(
            f"  {name}:\n"
            "    databases:\n"
            f'      core: {{url: "sqlite:///var/{name}.db"}}\n'
            f'      analytics: {{url: "{templated(postgres_database)}", schema: "{name}", alembic: analytics}}\n'
            for name in ("acme", "globex")
        )
    )

    report = report_of(project.orchestrate("upgrade", "--all", "--provision", "-o", "json"))

    outcomes = outcomes_of(report)
    assert set(outcomes) == {"acme/core", "acme/analytics", "globex/core", "globex/analytics"}
    assert outcomes["acme/core"]["at"] == ["r006"]
    assert outcomes["acme/analytics"]["at"] == ["a009"]
    assert outcomes["acme/analytics"]["database"] == "analytics"
    core, analytics = histories.revision_ids(6), histories.revision_ids(9, "a")
    checker.assert_right(
        [
            *(
                checker.Expected(
                    url=URL.create("sqlite", database=str(folder / "var" / f"{name}.db")),
                    heads=core[-1:],
                    markers=core,
                    tables=histories.tables_at(6),
                )
                for name in ("acme", "globex")
            ),
            *(
                checker.Expected(
                    url=postgres_database,
                    schema=name,
                    heads=analytics[-1:],
                    markers=analytics,
                    tables=histories.tables_at(9),
                )
                for name in ("acme", "globex")
            ),
        ]
    )
    by_hand = project.alembic("-n", "analytics", "-x", "tenant=acme", "current")
    assert "a009 (head)" in by_hand.output
    assert "r006" not in by_hand.output
    again = report_of(project.orchestrate("upgrade", "--all", "-o", "json"))
    assert again["counts"]["unchanged"] == 4


VERSIONED = """\
version: 1
defaults:
  url: "{url}"
  version_table: "versions_of_{{tenant}}"
{more}
tenants: {{acme: {{}}, globex: {{}}}}
"""


@pytest.mark.parametrize("command", ["orchestrate", "alembic"])
def test_version_tables_elsewhere_on_postgresql(tmp_path: Path, postgres_database: URL, command: str) -> None:
    with connect_postgres(postgres_database) as connection:
        for schema in ("bookkeeping", "tenant_acme", "tenant_globex"):
            connection.execute(f"CREATE SCHEMA {schema}".encode())
    project = _versioned(
        tmp_path,
        postgres_database,
        '  schema: "tenant_{tenant}"\n  version_table_schema: bookkeeping',
        templated(postgres_database),
    )
    _upgrade(project, command)
    checker.assert_right(
        _expected_version(postgres_database, name, schema=f"tenant_{name}", version_schema="bookkeeping")
        for name in ("acme", "globex")
    )
    _unchanged(project)


@pytest.mark.parametrize("command", ["orchestrate", "alembic"])
def test_version_tables_elsewhere_on_mariadb(tmp_path: Path, mariadb_url: URL, command: str) -> None:
    names = {name: f"elsewhere_{command}_{name}" for name in ("acme", "globex")}
    books = f"elsewhere_{command}_books"
    fixtures.drop_mariadb(mariadb_url, *names.values(), books)
    fixtures.create_mariadb(mariadb_url, *names.values(), books)
    try:
        url = templated(mariadb_url.set(database=f"elsewhere_{command}_{{tenant}}"))
        project = _versioned(tmp_path, mariadb_url, f"  version_table_schema: {books}", url)
        _upgrade(project, command)
        checker.assert_right(
            _expected_version(mariadb_url.set(database=database), name, version_schema=books)
            for name, database in names.items()
        )
        _unchanged(project)
    finally:
        fixtures.drop_mariadb(mariadb_url, *names.values(), books)


@pytest.mark.parametrize("command", ["orchestrate", "alembic"])
def test_version_tables_of_another_name_on_sqlite(tmp_path: Path, command: str) -> None:
    place = URL.create("sqlite", database="{tenant}.db")
    project = _versioned(tmp_path, place, "", "sqlite:///{tenant}.db")
    for name in ("acme", "globex"):
        (project.folder / f"{name}.db").touch()
    _upgrade(project, command)
    checker.assert_right(
        _expected_version(place.set(database=str(project.folder / f"{name}.db")), name) for name in ("acme", "globex")
    )
    _unchanged(project)


def _versioned(tmp_path: Path, url: URL, more: str, text: str) -> Project:
    folder = tmp_path / "project"
    histories.write(folder, size=5)
    project = Project(folder=folder, environment=secrets(url))
    project.write_registry(VERSIONED.format(url=text, more=more))
    return project


def _upgrade(project: Project, command: str) -> None:
    if command == "orchestrate":
        project.orchestrate("upgrade", "--all")
    else:
        project.alembic("upgrade", "head")


def _unchanged(project: Project) -> None:
    report = report_of(project.orchestrate("upgrade", "--all", "-o", "json"))
    assert report["counts"]["unchanged"] == 2


def _expected_version(
    url: URL, name: str, *, schema: str | None = None, version_schema: str | None = None
) -> checker.Expected:
    ids = histories.revision_ids(5)
    return checker.Expected(
        url=url,
        schema=schema,
        heads=ids[-1:],
        markers=ids,
        tables=histories.tables_at(5),
        version_table=f"versions_of_{name}",
        version_schema=version_schema,
    )


SHARED = """\
version: 1
defaults:
  url: "{url}"
  schema: "tenant_{{tenant}}"
  search_path: [extensions, public]
tenants:
  shared: {{schema: public, search_path: [extensions], shared: true, alembic: shared}}
  acme: {{after: [shared]}}
  globex: {{after: [shared]}}
  initech: {{after: [shared]}}
"""


def test_extension_types_and_shared_tables(tmp_path: Path, postgres_database: URL) -> None:
    folder = tmp_path / "project"
    config = histories.write(folder, size=0, ini=TWO_CHAINS.format(name="shared"))
    histories.write(folder, size=0, scripts="shared")
    marks = "op.create_table('markers', sa.Column('revision', sa.String(40)))"
    countries = "op.create_table('countries', sa.Column('code', sa.String(2), primary_key=True))"
    fill = """op.execute("INSERT INTO countries VALUES ('AT'), ('NZ')")"""
    histories.write_revision(folder / "shared" / "versions", "s001", None, "shared", f"{marks}\n{countries}\n{fill}")
    people = (
        f"op.create_table('people', {COLUMNS}, sa.Column('email', CITEXT, unique=True), "
        "sa.Column('country', sa.String(2), sa.ForeignKey('countries.code')))"
    )
    versions = folder / "alembic" / "versions"
    citext = "from sqlalchemy.dialects.postgresql import CITEXT"
    histories.write_revision(versions, "t001", None, "people", f"{citext}\n{marks}\n{people}")
    insert = """op.execute("INSERT INTO people (email, country) VALUES ('Ada@Example.com', 'AT')")"""
    histories.write_revision(versions, "t002", "t001", "somebody", insert)
    assert config.exists()
    with connect_postgres(postgres_database) as connection:
        connection.execute("CREATE SCHEMA extensions")
        if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'").fetchone():
            connection.execute("CREATE EXTENSION citext SCHEMA extensions")
        else:  # a PostgreSQL from a wheel has no contrib; a type of that name is found along the same way
            connection.execute("CREATE DOMAIN extensions.citext AS text")
    project = Project(folder=folder, environment=secrets(postgres_database))
    project.write_registry(SHARED.format(url=templated(postgres_database)))

    report = report_of(project.orchestrate("upgrade", "--all", "--provision", "-o", "json"))

    assert report["counts"]["upgraded"] == 4
    tenants = [
        checker.Expected(
            url=postgres_database,
            schema=f"tenant_{name}",
            heads=["t002"],
            markers=["t001", "t002"],
            tables={"markers", "people"},
        )
        for name in ("acme", "globex", "initech")
    ]
    shared = checker.Expected(
        url=postgres_database,
        schema="public",
        heads=["s001"],
        markers=["s001"],
        tables={"markers", "countries"},
        shared=True,
    )
    checker.assert_right([shared, *tenants])
    with connect_postgres(postgres_database) as connection:
        for expected in tenants:
            rows = connection.execute(
                f"SELECT email::text, pg_typeof(email)::text FROM {expected.schema}.people".encode()
            ).fetchall()
            assert rows == [("Ada@Example.com", "extensions.citext")]
    again = report_of(project.orchestrate("upgrade", "--all", "-o", "json"))
    assert again["counts"]["unchanged"] == 4


def test_branches_labels_and_dependencies(tmp_path: Path, postgres_database: URL) -> None:
    folder = tmp_path / "project"
    histories.write(folder, size=4)
    histories.add_branches(folder)
    histories.add_autocommit(folder, "r004")
    project = Project(folder=folder, environment=secrets(postgres_database))
    project.write_registry(
        f'version: 1\ndefaults: {{url: "{templated(postgres_database)}", schema: "s_{{tenant}}"}}\n'
        "tenants: {acme: {}, globex: {}}\n"
    )

    refused = project.orchestrate("upgrade", "--all", "--provision", exit_status=2)
    project.orchestrate("upgrade", "billing@head", "-t", "acme", "--provision")
    only_billing = outcomes_of(report_of(project.orchestrate("upgrade", "b001", "-t", "acme", "-o", "json")))
    report = report_of(project.orchestrate("upgrade", "heads", "--all", "--provision", "-o", "json"))

    assert "heads" in refused.text
    assert only_billing["acme"]["at"] == ["b001"]
    assert report["counts"]["upgraded"] == 2
    ids = [*histories.revision_ids(4), "b001", "c001", "s001", "s002"]
    tables = histories.tables_at(4) | {"billing", "search", "more"}
    checker.assert_right(
        checker.Expected(url=postgres_database, schema=f"s_{name}", heads=["c001", "s002"], markers=ids, tables=tables)
        for name in ("acme", "globex")
    )
    again = report_of(project.orchestrate("upgrade", "heads", "--all", "-o", "json"))
    assert again["counts"]["unchanged"] == 2

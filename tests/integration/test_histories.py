"""The generated histories run on every kind of database, and the checker sees what is wrong with a fleet."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import checker, histories
from tests.services.servers import connect_postgres

SIZE = 10


def expected(url: URL, number: int = SIZE, schema: str | None = None) -> checker.Expected:
    ids = histories.revision_ids(number)
    return checker.Expected(url=url, schema=schema, heads=ids[-1:], markers=ids, tables=histories.tables_at(number))


@pytest.fixture
def starter(tmp_path: Path) -> histories.Starter:
    return histories.Starter(histories.write(tmp_path / "project", size=SIZE))


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    if request.param == "sqlite":
        return URL.create("sqlite", database=str(tmp_path / "tenant.db"))
    fixture = "postgres_database" if request.param == "postgresql" else "mariadb_database"
    url = request.getfixturevalue(fixture)
    assert isinstance(url, URL)
    return url


def test_every_revision_runs(starter: histories.Starter, database: URL) -> None:
    starter.bring(database, "r004")
    checker.assert_right([expected(database, 4)])
    starter.bring(database, "head")
    checker.assert_right([expected(database)])


def test_poison_stops_the_constraint(starter: histories.Starter, database: URL) -> None:
    starter.bring(database, "r005", then=histories.POISON)
    with pytest.raises(Exception, match=r"(?i)duplicate|unique"):
        starter.bring(database, "r006")
    # Plain Alembic leaves its half-made copy of the table behind on SQLite.
    starter.bring(database, None, then=["DROP TABLE IF EXISTS _alembic_tmp_accounts", *histories.MEND])
    starter.bring(database, "head")
    checker.assert_right([expected(database)])


def test_the_checker_sees_a_wrong_version(starter: histories.Starter, database: URL) -> None:
    starter.bring(database, "head", then=["UPDATE alembic_version SET version_num = 'r009'"])
    assert "at ['r009']" in " ".join(checker.check([expected(database)]))


def test_the_checker_sees_a_revision_that_ran_twice(starter: histories.Starter, database: URL) -> None:
    starter.bring(database, "head", then=["INSERT INTO markers (revision) VALUES ('r007')"])
    assert "revision r007 ran 2 times" in " ".join(checker.check([expected(database)]))


def test_the_checker_sees_a_revision_that_never_ran(starter: histories.Starter, database: URL) -> None:
    starter.bring(database, "head", then=["DELETE FROM markers WHERE revision = 'r007'"])
    assert "missing ['r007']" in " ".join(checker.check([expected(database)]))


def test_the_checker_sees_a_foreign_table(starter: histories.Starter, database: URL) -> None:
    starter.bring(database, "head", then=["CREATE TABLE stray (id INTEGER)"])
    assert "stray is too many" in " ".join(checker.check([expected(database)]))


def test_the_checker_sees_a_missing_tenant(starter: histories.Starter, database: URL) -> None:
    starter.bring(database, None)
    assert "cannot be read" in " ".join(checker.check([expected(database)]))


def test_the_checker_sees_a_table_outside_its_schema(starter: histories.Starter, postgres_database: URL) -> None:
    starter.bring(postgres_database, "head", schema="tenant_a")
    checker.assert_right([expected(postgres_database, schema="tenant_a")])
    with connect_postgres(postgres_database) as connection:
        connection.execute("CREATE TABLE public.notes (id int)")
    assert "public.notes is too many" in " ".join(checker.check([expected(postgres_database, schema="tenant_a")]))


def test_an_sqlite_orphan_is_seen(starter: histories.Starter, tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "orphan.db"))
    starter.bring(url, "head")
    with sqlite3.connect(str(url.database)) as connection:
        connection.execute("INSERT INTO invoices (id, account_id, cents) VALUES (77, 555, 1)")
    connection.close()
    assert "has no parent" in " ".join(checker.check([expected(url)]))


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        (histories.lose_revision, "r004"),
        (histories.make_cycle, "(?i)cycle"),
        (histories.add_head, "(?i)multiple head"),
        (histories.break_syntax, "(?i)syntax"),
    ],
    ids=["lost", "cycle", "heads", "syntax"],
)
def test_broken_histories_are_broken(breakage: object, says: str, tmp_path: Path) -> None:
    config = histories.write(tmp_path, size=6)
    assert callable(breakage)
    breakage(tmp_path)
    url = URL.create("sqlite", database=str(tmp_path / "x.db"))
    with pytest.raises(BaseException, match=says):
        histories.Starter(config).bring(url, "head")


def test_branches_and_autocommit_run(tmp_path: Path, postgres_database: URL) -> None:
    config = histories.write(tmp_path, size=4)
    histories.add_branches(tmp_path)
    histories.add_autocommit(tmp_path, "r004")
    starter = histories.Starter(config)
    starter.bring(postgres_database, "heads")
    assert set(starter.script.get_heads()) == {"b001", "c001", "s002"}
    tables = histories.tables_at(4) | {"billing", "search", "more"}
    ids = [*histories.revision_ids(4), "b001", "c001", "s001", "s002"]
    fleet = [checker.Expected(url=postgres_database, heads=["c001", "s002"], markers=ids, tables=tables)]
    checker.assert_right(fleet)

"""Whatever is broken: the documented exit status, one error for people, no traceback, no secret, nothing touched."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet, Project, assert_readable
from tests.services.servers import connect_postgres

HEAD = 'version: 1\ndefaults: {url: "sqlite:///tenants/{tenant}.db"}\n'


@dataclasses.dataclass(frozen=True)
class Registry:
    """A registry with one mistake, and where it is reported."""

    name: str
    text: str
    place: str
    says: str


REGISTRIES = [
    Registry("syntax", "version: 1\ntenants: {acme: {}\n", r"tenants\.yaml:\d+:\d+", "(?i)expected"),
    Registry("unknown-key", HEAD + "tenants:\n  t000: {labls: {}}\n", r"tenants\.yaml:4:10", "labls.*labels"),
    Registry("unknown-top-key", HEAD + "tennants:\n  t000: {}\n", r"tenants\.yaml:3:1", "tennants.*tenants"),
    Registry("duplicate-key", HEAD + "tenants:\n  t000: {}\n  t000: {}\n", r"tenants\.yaml:5:3", "t000"),
    Registry("alias", HEAD + "tenants:\n  t000: &a {}\n  t001: *a\n", r"tenants\.yaml:[45]:\d+", "(?i)alias|anchor"),
    Registry("tag", HEAD + "tenants:\n  t000: !!python/object:os.system {}\n", r"tenants\.yaml:4:\d+", "(?i)tag"),
    Registry("wrong-type", HEAD + "tenants: [t000]\n", r"tenants\.yaml:3:\d+", "(?i)tenants"),
    Registry("no-is-a-boolean", HEAD + "tenants:\n  no: {}\n", r"tenants\.yaml:4:3", "(?i)quot"),
    Registry("012-is-a-number", HEAD + "tenants:\n  012: {}\n", r"tenants\.yaml:4:3", "(?i)quot"),
    Registry(
        "missing-variable",
        'version: 1\ndefaults: {url: "postgresql+psycopg://u:${NOT_SET_ANYWHERE}@h/x_{tenant}"}\ntenants: {t000: {}}\n',
        r"tenants\.yaml:2:\d+",
        "NOT_SET_ANYWHERE",
    ),
    Registry(
        "secret-in-query",
        'version: 1\ntenants:\n  t000: {url: "postgresql+psycopg://h/x?password=hush1234"}\n',
        r"tenants\.yaml:3:\d+",
        "(?i)password",
    ),
    Registry(
        "hostile-identifier",
        'version: 1\ndefaults: {url: "postgresql+psycopg://u@h/x"}\ntenants:\n  t000: {schema: "a\\"; DROP TABLE b"}\n',
        r"tenants\.yaml:4:\d+",
        "(?i)schema|identifier|name",
    ),
    Registry(
        "over-long-identifier",
        f'version: 1\ndefaults: {{url: "postgresql+psycopg://u@h/x"}}\ntenants:\n  t000: {{schema: "{"s" * 64}"}}\n',
        r"tenants\.yaml:4:\d+",
        "63",
    ),
    Registry(
        "one-address-twice",
        'version: 1\ntenants:\n  t000: {url: "sqlite:///tenants/t000.db"}\n  t001: {url: "sqlite:///tenants/t000.db"}\n',
        r"tenants\.yaml:4:\d+",
        "t000",
    ),
    Registry("case-folded-clash", HEAD + "tenants:\n  Acme: {}\n  acme: {}\n", r"tenants\.yaml:5:\d+", "(?i)acme"),
    Registry("no-tenants", "version: 1\ntenants: {}\n", r"tenants\.yaml", "(?i)tenant"),
    Registry("wrong-version", "version: 9\ntenants: {t000: {}}\n", r"tenants\.yaml:1:\d+", "version"),
]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return fleets.sqlite_fleet(tmp_path / "project", count=3, size=6, starts=(3,))


@contextlib.contextmanager
def untouched(fleet: Fleet) -> Iterator[None]:
    """Every tenant is as it was, and no file appeared beside them."""
    before = [member.snapshot() for member in fleet.members]
    names = sorted((fleet.project.folder / "tenants").glob("*"))
    yield
    assert [member.snapshot() for member in fleet.members] == before
    assert sorted((fleet.project.folder / "tenants").glob("*")) == names


@pytest.mark.parametrize("broken", REGISTRIES, ids=lambda broken: broken.name)
def test_a_broken_registry(fleet: Fleet, broken: Registry) -> None:
    fleet.project.write_registry(broken.text)
    with untouched(fleet):
        done = fleet.orchestrate("upgrade", "--all", exit_status=2)
    assert_readable(done, broken.place, "hush1234")
    assert_readable(done, broken.says)
    assert done.output == ""


def test_every_mistake_at_once(fleet: Fleet) -> None:
    fleet.project.write_registry(HEAD + "strategys: {}\ntenants:\n  t000: {labls: {}}\n  t001: {stat: active}\n")
    done = fleet.orchestrate("tenants", "check", exit_status=2)
    for place in (r"tenants\.yaml:3:1", r"tenants\.yaml:5:10", r"tenants\.yaml:6:10"):
        assert_readable(done, place)


UPGRADE, PLAN, STATUS = ("upgrade", "--all"), ("plan",), ("status",)


@pytest.mark.parametrize(
    ("breakage", "says", "commands"),
    [
        (histories.lose_revision, "r004", (UPGRADE, PLAN, STATUS)),
        (histories.make_cycle, "(?i)cycle", (UPGRADE, PLAN, STATUS)),
        (histories.add_head, "(?is)heads.*x001.*`heads`", (UPGRADE, PLAN)),
        (histories.break_syntax, "r004", (UPGRADE, PLAN, STATUS)),
    ],
    ids=["missing-file", "cycle", "two-heads", "syntax"],
)
def test_broken_scripts(
    fleet: Fleet, breakage: Callable[[Path], None], says: str, commands: Sequence[Sequence[str]]
) -> None:
    breakage(fleet.project.folder)
    for command in commands:
        with untouched(fleet):
            done = fleet.orchestrate(*command, exit_status=2)
        assert_readable(done, says)


def test_an_unreachable_server(fleet: Fleet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        fleet.project.write_registry(
            "version: 1\ntenants:\n  t000: {url: 'sqlite:///tenants/t000.db'}\n"
            f"  gone: {{url: 'postgresql+psycopg://u:hush-hush@127.0.0.1:{port}/gone'}}\n"
        )
        with untouched(fleet):
            done = fleet.orchestrate("upgrade", "-t", "gone", exit_status=1)
        status = fleet.orchestrate("status", exit_status=1)
    assert_readable(done, f"{port}")
    assert_readable(done, "(?i)refused")
    assert_readable(status, "gone")


def test_a_wrong_password(tmp_path: Path, postgres_database: URL) -> None:
    fleet = fleets.postgres_schemas(tmp_path / "project", postgres_database, count=3, size=4, starts=(2,))
    before = [member.snapshot() for member in fleet.members]

    done = fleet.orchestrate("upgrade", "--all", exit_status=1, **{fleets.PASSWORD: "not-it-at-all"})

    assert [member.snapshot() for member in fleet.members] == before
    assert_readable(done, "(?i)password|authentication", "not-it-at-all")


def test_a_wrong_password_on_mariadb(tmp_path: Path, mariadb_database: URL) -> None:
    folder = tmp_path / "project"
    histories.write(folder, size=3)
    project = Project(folder=folder, environment={fleets.PASSWORD: "not-it-at-all"})
    project.write_registry(f'version: 1\ntenants:\n  acme: {{url: "{fleets.templated(mariadb_database)}"}}\n')
    done = project.orchestrate("upgrade", "--all", exit_status=1)
    assert_readable(done, "(?i)password|access denied|1045", "not-it-at-all")


@pytest.mark.parametrize("server", ["postgres_url", "mariadb_url"])
def test_an_unknown_database(tmp_path: Path, server: str, request: pytest.FixtureRequest) -> None:
    url: URL = request.getfixturevalue(server)
    folder = tmp_path / "project"
    histories.write(folder, size=3)
    project = Project(folder=folder, environment=fleets.secrets(url))
    nowhere = fleets.templated(url.set(database="never_created"))
    project.write_registry(f'version: 1\ntenants:\n  acme: {{url: "{nowhere}"}}\n')

    done = project.orchestrate("upgrade", "--all", "-o", "json", exit_status=1)
    text = project.orchestrate("upgrade", "--all", exit_status=1)

    assert done.json["counts"]["not_provisioned"] == 1
    assert_readable(text, "(?i)provision")


def test_an_absent_file_is_not_made(fleet: Fleet) -> None:
    fleet.project.write_registry(HEAD + "tenants: {t000: {}, t001: {}, t002: {}, absent: {}}\n")
    with untouched(fleet):
        fleet.orchestrate("status", exit_status=None)
        done = fleet.orchestrate("upgrade", "-t", "absent", exit_status=1)
    assert_readable(done, "--provision")


def test_a_role_that_may_only_read(tmp_path: Path, postgres_database: URL) -> None:
    fleet = fleets.postgres_schemas(tmp_path / "project", postgres_database, count=2, size=4, starts=(2,))
    role = f"reader_of_{postgres_database.database}"
    with connect_postgres(postgres_database) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        for member in fleet.members:
            connection.execute(f'GRANT USAGE ON SCHEMA "{member.schema}" TO {role}'.encode())
            connection.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{member.schema}" TO {role}'.encode())
    registry = (fleet.project.folder / "tenants.yaml").read_text()
    fleet.project.write_registry(registry.replace("defaults:\n", f"defaults:\n  role: {role}\n"))
    before = [member.snapshot() for member in fleet.members]

    done = fleet.orchestrate("upgrade", "--all", exit_status=1)

    assert [member.snapshot() for member in fleet.members] == before
    assert_readable(done, "(?i)42501|permission denied|must be owner")
    with connect_postgres(postgres_database) as connection:
        connection.execute(f"DROP OWNED BY {role}".encode())
        connection.execute(f"DROP ROLE {role}".encode())


def test_an_unknown_tenant(fleet: Fleet) -> None:
    with untouched(fleet):
        done = fleet.orchestrate("upgrade", "-t", "t0000", exit_status=2)
    assert_readable(done, "(?s)t0000.*t000")


@pytest.mark.parametrize("selection", [("-l", "region=mars"), ("-t", "x*"), ("--all", "--exclude", "*")])
def test_an_empty_selection(fleet: Fleet, selection: Sequence[str]) -> None:
    with untouched(fleet):
        done = fleet.orchestrate("upgrade", *selection, exit_status=2)
    assert_readable(done, "(?i)no t|nothing|empty|match")


def test_no_selection(fleet: Fleet) -> None:
    with untouched(fleet):
        done = fleet.orchestrate("upgrade", exit_status=2)
    assert_readable(done, "--all")


def test_an_unknown_revision(fleet: Fleet) -> None:
    with untouched(fleet):
        done = fleet.orchestrate("upgrade", "nothing-like-it", "--all", exit_status=2)
    assert_readable(done, "nothing-like-it")


def test_a_ledger_newer_than_the_code(fleet: Fleet) -> None:
    fleet.orchestrate("upgrade", "r004", "--all")
    ledger = fleet.project.folder / ".orchestrate" / "ledger.db"
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        (version,) = [table for table in tables if "version" in table]
        connection.execute(f"UPDATE {version} SET version_num = 'from_the_future'")
        connection.commit()
    kept = ledger.read_bytes()
    with untouched(fleet):
        done = fleet.orchestrate("upgrade", "--all", exit_status=3)
    assert_readable(done, "(?i)ledger.*newer|newer.*ledger")
    assert ledger.read_bytes() == kept


@pytest.mark.parametrize("name", ["alembic.ini", "tenants.yaml"])
def test_a_missing_file(fleet: Fleet, name: str) -> None:
    (fleet.project.folder / name).unlink()
    with untouched(fleet):
        done = fleet.orchestrate("upgrade", "--all", exit_status=2)
    assert_readable(done, name.replace(".", r"\."))


def test_reading_writes_nothing(fleet: Fleet) -> None:
    files = sorted(fleet.project.folder.rglob("*.db*"))
    with untouched(fleet):
        for command in (["status"], ["plan"], ["plan", "--sql"], ["tenants", "list"], ["runs", "list"]):
            fleet.orchestrate(*command)
    assert sorted(fleet.project.folder.rglob("*.db*")) == files


def test_destructive_commands_ask(fleet: Fleet) -> None:
    with untouched(fleet):
        down = fleet.orchestrate("downgrade", "base", "--all", exit_status=2)
        stamp = fleet.orchestrate("stamp", "head", "--all", exit_status=2)
    assert_readable(down, "--yes")
    assert_readable(stamp, "--yes")

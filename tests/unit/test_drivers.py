"""Drivers of URLs, and passwords that a command prints."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import make_url

from orchestrator.databases import DriverMissing, backend_for, drivers, passwords, postgresql, synchronous
from orchestrator.databases.errors import PasswordUnavailable, PoolerInTheWay
from orchestrator.tenants import PasswordCommand, Target, Tenant


@pytest.mark.parametrize(
    ("given", "used", "replaced"),
    [
        (
            "postgresql+asyncpg://u@h/d?ssl=require&command_timeout=5",
            "postgresql+psycopg://u@h/d?sslmode=require",
            "asyncpg",
        ),
        ("postgresql+psycopg_async://u@h/d", "postgresql+psycopg://u@h/d", "psycopg_async"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg2://u@h/d", None),
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d", None),
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d", None),
        ("mysql+aiomysql://u@h/d?charset=utf8mb4", "mysql+pymysql://u@h/d?charset=utf8mb4", "aiomysql"),
        ("mariadb+asyncmy://u@h/d", "mariadb+pymysql://u@h/d", "asyncmy"),
        ("sqlite+aiosqlite:///x.db", "sqlite+pysqlite:///x.db", "aiosqlite"),
        ("sqlite:///x.db", "sqlite:///x.db", None),
    ],
)
def test_every_url_runs_on_a_named_driver_that_blocks(given: str, used: str, replaced: str | None) -> None:
    assert synchronous(make_url(given)) == (make_url(used), replaced)


@pytest.mark.parametrize(
    ("installed", "used"),
    [({"pymysql"}, "pymysql"), ({"mysqldb"}, "mysqldb"), ({"mysqldb", "pymysql"}, "mysqldb"), (set(), "pymysql")],
)
def test_plain_mysql_means_the_driver_that_is_there(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], used: str
) -> None:
    monkeypatch.setattr(drivers, "is_installed", installed.__contains__)
    for kind in ("mysql", "mariadb"):
        assert synchronous(make_url(f"{kind}://u@h/d"))[0].drivername == f"{kind}+{used}"


def test_plain_postgresql_means_psycopg2_where_only_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "is_installed", {"psycopg2"}.__contains__)
    assert synchronous(make_url("postgresql://u@h/d"))[0].drivername == "postgresql+psycopg2"


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, url, extra in (
        ("psycopg", "postgresql+psycopg://u:s3cr3t@h/d", "postgres"),
        ("pymysql", "mysql+pymysql://u:s3cr3t@h/d", "mysql"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DriverMissing, match=rf"pip install 'alembic-orchestrator\[{extra}\]'") as caught:
            drivers.require_driver(make_url(url))
        assert "s3cr3t" not in str(caught.value)


def test_a_kind_of_database_that_nobody_supports_is_refused() -> None:
    with pytest.raises(DriverMissing, match="`oracle` are not supported; these are: postgresql"):
        backend_for(make_url("oracle+oracledb://u:s3cr3t@h/d"))


class PooledConnection:
    """Enough of a connection to PostgreSQL: the driver was greeted with one process id, the server has another."""

    def __init__(self, greeted: int, second: int) -> None:
        self.info: dict[str, object] = {}
        self.connection = SimpleNamespace(driver_connection=SimpleNamespace(info=SimpleNamespace(backend_pid=greeted)))
        answer = SimpleNamespace(scalar=lambda: second)
        self.engine = SimpleNamespace(
            connect=lambda: contextlib.nullcontext(SimpleNamespace(execute=lambda _query: answer))
        )


@pytest.mark.parametrize(
    ("greeted", "second", "refused"),
    [(7, 8, False), (99, 8, False), (99, 7, True)],
    ids=["none", "session", "transaction"],
)
def test_a_pooler_that_shares_server_sessions_is_refused(greeted: int, second: int, *, refused: bool) -> None:
    target = Target(tenant=Tenant(name="acme"), url=make_url("postgresql+psycopg://u:s3cr3t@pooler:6432/d"))
    connection = PooledConnection(greeted, second)
    with pytest.raises(PoolerInTheWay, match="pooler:6432") if refused else contextlib.nullcontext():
        postgresql._refuse_pooler(connection, 7, target)  # type: ignore[arg-type]


def counting(tmp_path: Path) -> tuple[str, ...]:
    return ("sh", "-c", f"echo x >> {tmp_path}/calls; printf ' s3cr3t\\n'")


def test_a_password_is_kept_for_its_time(tmp_path: Path) -> None:
    kept = PasswordCommand(command=counting(tmp_path))
    assert [passwords.current_password(kept) for _ in range(3)] == ["s3cr3t"] * 3
    assert (tmp_path / "calls").read_text().count("x") == 1
    assert passwords.forget_password(kept)
    assert not passwords.forget_password(kept)
    passwords.current_password(kept)
    assert (tmp_path / "calls").read_text().count("x") == 2
    passwords.current_password(PasswordCommand(command=kept.command, ttl=0))
    assert (tmp_path / "calls").read_text().count("x") == 3


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (("sh", "-c", "echo s3cr3t; echo s3cr3t >&2; exit 3"), "ended with status 3"),
        (("no-such-program", "s3cr3t"), "cannot be started"),
        (("sh", "-c", ": s3cr3t"), "printed nothing"),
    ],
)
def test_a_command_that_fails_is_named_and_not_echoed(command: tuple[str, ...], problem: str) -> None:
    with pytest.raises(PasswordUnavailable, match=problem) as caught:
        passwords.current_password(PasswordCommand(command=command))
    assert command[0] in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None

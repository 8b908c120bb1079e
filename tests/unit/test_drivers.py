"""Drivers of URLs, and passwords that a command prints."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
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
    """Enough of a connection to PostgreSQL: what the driver was greeted with, and who serves it from then on.

    `others` are the process ids that further connections are served by; there is one for each of them.
    """

    def __init__(self, greeted: int, ours: Sequence[int], others: Sequence[int]) -> None:
        self.info: dict[str, object] = {}
        self.connection = SimpleNamespace(driver_connection=SimpleNamespace(info=SimpleNamespace(backend_pid=greeted)))
        self._ours, self._others = iter(ours), iter(others)
        self.engine = SimpleNamespace(connect=self._connect)

    def _connect(self) -> contextlib.AbstractContextManager[SimpleNamespace]:
        answer = SimpleNamespace(scalar=lambda: next(self._others))
        return contextlib.nullcontext(SimpleNamespace(execute=lambda _query: answer))

    def execute(self, _query: object) -> SimpleNamespace:
        return SimpleNamespace(scalar=lambda: next(self._ours))

    def rollback(self) -> None:
        """It is in no transaction between two statements."""


@pytest.mark.parametrize(
    ("greeted", "ours", "others", "refused"),
    [
        (7, [7], [], False),
        (99, [7] * 19, range(8, 14), False),
        (99, [7] * 4, [7], True),
        (99, [7, 7, 8], [9], True),
        (99, [7] * 7, [8, 7], True),
    ],
    ids=["no pooler", "session mode", "another is given ours", "ours is another", "another is given ours later"],
)
def test_a_pooler_that_shares_server_sessions_is_refused(
    greeted: int, ours: Sequence[int], others: Sequence[int], *, refused: bool
) -> None:
    target = Target(tenant=Tenant(name="acme"), url=make_url("postgresql+psycopg://u:s3cr3t@pooler:6432/d"))
    connection = PooledConnection(greeted, ours, others)
    with pytest.raises(PoolerInTheWay, match="pooler:6432") if refused else contextlib.nullcontext():
        postgresql._refuse_pooler(connection, target)  # type: ignore[arg-type]


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

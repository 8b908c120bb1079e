"""SQLAlchemy engines that hide parameters, ask for passwords when they connect, and know an absent database."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from orchestrator import round_trips
from orchestrator.databases import pymysql_connections
from orchestrator.databases.drivers import require_driver
from orchestrator.databases.errors import TargetAbsent
from orchestrator.databases.passwords import current_password, forget_password
from orchestrator.tenants import Hidden, PasswordCommand, Target, keep_secret, server_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """All that it takes to connect to one database."""

    url: URL
    password: PasswordCommand | None = None
    connect_args: Mapping[str, Any] = dataclasses.field(default_factory=Hidden)

    @classmethod
    def of(cls, target: Target, **defaults: object) -> Access:
        """The target's; `defaults` are connect arguments that its own go before."""
        return cls(url=target.url, password=target.password, connect_args=Hidden({**defaults, **target.connect_args}))

    @property
    def place(self) -> str:
        """Server and database, fit to be shown."""
        host, port = server_of(self.url)
        return f"{host}:{port}/{self.url.database or ''}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a kind of server says when it does not let us in."""

    #: whether the database does not exist
    is_absent: Callable[[BaseException], bool]
    #: whether the password was refused
    is_refused: Callable[[BaseException], bool]


#: changes the arguments that the driver is about to be called with
Adjust = Callable[[list[Any], dict[str, Any]], None]


def open_engine(
    access: Access, answers: Answers, *, keep: bool = False, adjust: Adjust | None = None, **options: Any
) -> Engine:
    """An engine that keeps one connection with `keep`, else none. The password never becomes part of a DSN string."""
    keep_secret(access.url, access.connect_args)
    require_driver(access.url)
    round_trips.pass_failpoints()
    pool: dict[str, Any] = (
        # More than one is open only while a second look at the same database is needed; none of those is kept.
        {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 8} if keep else {"poolclass": NullPool}
    )
    engine = sqlalchemy.create_engine(
        access.url, connect_args=dict(access.connect_args), hide_parameters=True, **pool, **options
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: Dialect, _entry: ConnectionPoolEntry, arguments: list[Any], keywords: dict[str, Any]
    ) -> DBAPIConnection:
        if adjust is not None:
            adjust(arguments, keywords)
        try:
            return _connect(dialect, access.password, answers, arguments, keywords)
        except Exception as error:
            if answers.is_absent(error):
                raise TargetAbsent(f"{access.place}: no such database") from None
            raise

    return engine


def _connect(
    dialect: Dialect,
    source: PasswordCommand | None,
    answers: Answers,
    arguments: list[Any],
    keywords: dict[str, Any],
) -> DBAPIConnection:
    """Connect; a remembered password that the server refuses is asked for once more, since tokens run out."""
    call = functools.partial(pymysql_connections.connect, dialect) if dialect.driver == "pymysql" else dialect.connect
    if source is None:
        return call(*arguments, **keywords)
    try:
        return call(*arguments, **{**keywords, "password": current_password(source)})
    except Exception as error:
        if not (answers.is_refused(error) and forget_password(source)):
            raise
    return call(*arguments, **{**keywords, "password": current_password(source)})

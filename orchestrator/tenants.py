"""Who is in the fleet: tenants, and the databases or schemas of theirs that are migrated."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from sqlalchemy import URL

from orchestrator.redaction import is_secretive, remember, remember_arguments


class State(enum.StrEnum):
    """Whether a tenant takes part in runs."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    QUARANTINED = "quarantined"


class Transaction(enum.StrEnum):
    """How much of a target's path one transaction holds, where the database has transactional DDL."""

    TARGET = "target"
    REVISION = "revision"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long one job may wait for each thing, in seconds."""

    connect: float = 10.0
    #: one wait for a lock inside the database
    lock: float = 1.0
    statement: float = 900.0
    #: waiting for another orchestrator, or a hand-run Alembic, to let go of the tenant
    tenant_lock: float = 300.0
    job: float = 7200.0


class Hidden(dict[str, Any]):
    """A mapping whose values may be secrets: it works as a dict and prints its keys only."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: ***" for key in self) + "}"

    __str__ = __repr__


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PasswordCommand:
    """A command whose standard output is the password, asked again when the last answer is older than `ttl`."""

    #: its arguments may be secrets
    command: tuple[str, ...] = dataclasses.field(repr=False)
    #: seconds
    ttl: float = 600.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A customer in the registry."""

    name: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    state: State = State.ACTIVE
    reason: str | None = None
    owner: str | None = None
    #: the last day on which a state other than active holds
    until: datetime.date | None = None
    #: names of tenants that must be done first
    after: tuple[str, ...] = ()
    #: its schema is one that the others refer to
    shared: bool = False
    #: its maintenance windows, as `windows.Window.parse` reads them; none means always
    window: tuple[str, ...] = ()
    #: where it was defined: `tenants.yaml:12:5`, or the source's name
    place: str = ""

    def takes_part(self, today: datetime.date) -> bool:
        """Whether a run on that day migrates this tenant; an expired state no longer holds."""
        expired = self.until is not None and self.until < today
        return self.state is State.ACTIVE or expired


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One database or schema of one tenant: the unit that is migrated."""

    tenant: Tenant
    #: key of the database within the tenant, None where the tenant has only one
    database: str | None = None
    #: always with a synchronous driver; `repr` masks its password
    url: URL
    password: PasswordCommand | None = None
    schema: str | None = None
    #: schemas searched after the target's own
    search_path: tuple[str, ...] = ()
    version_table: str = "alembic_version"
    #: None for the target's own schema
    version_table_schema: str | None = None
    role: str | None = None
    connect_args: Mapping[str, Any] = dataclasses.field(default_factory=Hidden)
    timeouts: Timeouts = Timeouts()
    transaction: Transaction = Transaction.TARGET
    #: section of alembic.ini that holds the chain
    section: str = "alembic"
    #: `module:factory` of the Flask application that the target came from, and its bind key there
    app: str | None = None
    bind: str | None = None
    #: names of targets that must be done first: other databases of the tenant, and `after`
    after: tuple[str, ...] = ()
    #: folder of tenants.yaml, at which relative paths start
    root: str = ""

    @property
    def name(self) -> str:
        """`acme`, or `acme/analytics` for a tenant of several databases."""
        return self.tenant.name if self.database is None else f"{self.tenant.name}/{self.database}"

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of the tenant."""
        return self.tenant.labels

    @property
    def backend(self) -> str:
        """`postgresql`, `mysql` (MariaDB as well) or `sqlite`."""
        name = self.url.get_backend_name()
        return "mysql" if name == "mariadb" else name

    @property
    def server(self) -> str:
        """`host:port`, or `sqlite`: what per-server caps and breakers go by. Holds no secret."""
        if self.backend == "sqlite":
            return "sqlite"
        host, port = server_of(self.url)
        return f"{host}:{port}"

    @property
    def location(self) -> str:
        """Where the target is, fit to be shown: host, port, database and schema, never the URL."""
        database = self.url.database or ""
        if self.backend == "sqlite":
            return database or ":memory:"
        schema = f" schema {self.schema}" if self.schema else ""
        return f"{self.server}/{database}{schema}"

    @property
    def place(self) -> str:
        """Its location as every machine calls it: a file below the folder of tenants.yaml by its path from there."""
        path = PurePath(self.location)
        inside = self.root and self.backend == "sqlite" and path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if inside else self.location


#: of a URL, before anything is unescaped in it
_WRITTEN_PASSWORD = re.compile(r"[^:/]*://[^:/@]*:([^@]*)@")

DEFAULT_PORTS: Mapping[str, int] = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


def server_of(url: URL) -> tuple[str, int]:
    """Host (or socket folder) and port that a URL connects to."""
    default = DEFAULT_PORTS.get(url.get_backend_name(), 0)
    host = url.host or _first(url.query.get("host")) or _first(url.query.get("unix_socket")) or "localhost"
    port = url.port or int(_first(url.query.get("port")) or default)
    return host, port


def _first(value: str | tuple[str, ...] | None) -> str | None:
    return value[0] if isinstance(value, tuple) else value


def keep_secret(url: URL, arguments: Mapping[str, Any] | None = None) -> None:
    """Take the secrets of a URL, and of the driver's arguments that go with it, out of every text from now on."""
    password = None if url.password is None else str(url.password)
    # Nobody could read of a user or a database any more that is called like its password.
    if password not in (url.username, url.host, url.database):
        remember(password)
    remember(*(_first(value) for key, value in url.query.items() if is_secretive(key)))
    remember_arguments(arguments or {})


def keep_secret_as_written(text: str) -> None:
    """Take the password of a URL out of every text as its user escaped it, too: some parsers give it back that way."""
    written = _WRITTEN_PASSWORD.match(text)
    if written is not None and "%" in written[1]:
        remember(written[1])


def is_cut_short(text: str) -> bool:
    """Whether an @ that nobody escaped ends the password of this URL: what follows it is then taken for a place."""
    _, _, place = text.partition("@")
    address, _, query = place.partition("?")
    stray = any("=" not in part for part in query.split("&")) and "@" in query
    return not text.lower().startswith("sqlite") and ("@" in address or stray)

"""What loading gives: the whole fleet, validated and frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from orchestrator.errors import Refused
from orchestrator.notifications.rules import NotificationRule
from orchestrator.strategy import Strategy
from orchestrator.tenants import Hidden, PasswordCommand, Target, Tenant


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Where tenants of one template live: schemas of one database, databases of one server, or files of one folder."""

    url: URL
    connect_args: Mapping[str, Any] = dataclasses.field(default_factory=Hidden)
    password: PasswordCommand | None = None
    #: glob of the names, with `*` for what differs by tenant
    match: str
    #: whether the names are schemas
    schemas: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose runs a ledger holds: what is known without knowing any tenant."""

    project: str
    environment: str
    #: a SQLAlchemy URL; it may carry a password
    ledger: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All tenants of one project in one environment, and how to roll out to them."""

    path: Path
    project: str
    environment: str
    protected: bool
    #: a SQLAlchemy URL; it may carry a password
    ledger: str = dataclasses.field(repr=False)
    tenants: tuple[Tenant, ...]
    #: in the order of the registry, the databases of a tenant in theirs
    targets: tuple[Target, ...]
    strategies: Mapping[str, Strategy]
    #: `host:port` to the most jobs that may run on it at once
    server_caps: Mapping[str, int]
    #: who is told of what happens to runs; variables in them are not filled in yet
    notifications: tuple[NotificationRule, ...] = ()
    #: what should be said once
    notes: tuple[str, ...]
    #: what `unregistered` looks through
    patterns: tuple[Pattern, ...] = ()
    #: where a password stands in a file that everybody can read, and what to do about it; one of the notes
    exposure: str | None = None


def refuse_unconfirmed(environment: str, given: str | None, *, protected: bool, flag: str) -> None:
    """Raise `Refused` for a write to a protected environment that was not named, and to any that was named wrongly.

    `flag` is what the caller's user types before the name: `--confirm ` or `-x confirm=`.
    """
    if given is None and protected:
        raise Refused(
            f"the environment `{environment}` is protected: pass {flag}{environment} if that is the one you mean"
        )
    if given is not None and given != environment:
        raise Refused(f"{flag}{given}: these tenants are in `{environment}`; nothing was written")

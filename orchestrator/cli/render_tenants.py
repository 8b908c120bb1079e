"""The registry as text and JSON; a place is shown as host, port, database and schema, never as a URL."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.cli.render import headed_table, table
from orchestrator.cli.terminals import Line, Mood

if TYPE_CHECKING:
    from orchestrator.tenants import Target

TENANTS_FORMAT = "orchestrate.tenants/1"


def tenants_lines(targets: Sequence[Target]) -> Iterator[Line]:
    """One line per target."""
    cells = [("target", "state", "labels", "place")]
    cells += [(target.name, _state(target), _labels(target), target.location) for target in targets]
    return headed_table(cells)


def tenant_lines(targets: Sequence[Target]) -> Iterator[Line]:
    """All that is known about one tenant, its databases one after the other."""
    tenant = targets[0].tenant
    yield Line(tenant.name, Mood.STRONG)
    yield from _facts(
        [
            ("state", _state(targets[0])),
            ("reason", tenant.reason),
            ("owner", tenant.owner),
            ("until", tenant.until.isoformat() if tenant.until else None),
            ("labels", _labels(targets[0])),
            ("after", ", ".join(tenant.after)),
            ("defined in", tenant.place),
        ]
    )
    for target in targets:
        yield Line()
        yield Line(target.name if target.database else "database", Mood.STRONG)
        yield from _facts(_facts_of(target))


def _facts_of(target: Target) -> list[tuple[str, str | None]]:
    return [
        ("kind", target.url.drivername),
        ("place", target.location),
        ("search path", ", ".join(target.search_path)),
        ("version table", ".".join(part for part in (target.version_table_schema, target.version_table) if part)),
        ("role", target.role),
        ("section", target.section),
        ("application", target.app),
        ("transaction", f"one per {target.transaction.value}"),
    ]


def _facts(facts: Sequence[tuple[str, str | None]]) -> Iterator[Line]:
    return (Line(text) for text in table([(name, value) for name, value in facts if value]))


def _state(target: Target) -> str:
    """As runs see it: a state whose last day is over no longer holds."""
    tenant = target.tenant
    if tenant.state.value == "active" or not tenant.takes_part(datetime.datetime.now(datetime.UTC).date()):
        return tenant.state.value
    return f"active, was {tenant.state.value}"


def _labels(target: Target) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(target.labels.items()))


def tenants_document(targets: Sequence[Target], *, project: str, environment: str) -> dict[str, Any]:
    """The targets as JSON."""
    return {
        "format": TENANTS_FORMAT,
        "project": project,
        "environment": environment,
        "targets": [target_row(target) for target in targets],
    }


def target_row(target: Target) -> dict[str, Any]:
    """One target as JSON, without any secret."""
    tenant = target.tenant
    return {
        "target": target.name,
        "tenant": tenant.name,
        "database": target.database,
        "schema": target.schema,
        "labels": dict(target.labels),
        "server": target.server,
        "place": target.location,
        "state": tenant.state.value,
        "reason": tenant.reason,
        "owner": tenant.owner,
        "until": tenant.until.isoformat() if tenant.until else None,
        "after": list(target.after),
        "section": target.section,
        "version_table": target.version_table,
        "version_table_schema": target.version_table_schema,
        "search_path": list(target.search_path),
        "defined_in": tenant.place,
    }

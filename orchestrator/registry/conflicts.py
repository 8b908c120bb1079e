"""Mistakes between tenants: two at one place, names that fold into one, an order that cannot be kept."""

from __future__ import annotations

import collections
import dataclasses
import graphlib
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from orchestrator.registry.problems import Problems, few, nearest
from orchestrator.tenants import Target, Tenant, server_of

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


def check_conflicts(tenants: Sequence[Tenant], targets: Sequence[Target], problems: Problems) -> None:
    """Note tenants whose names fold into one, and targets that share a place or a version table."""
    _check_names(tenants, targets, problems)
    addresses = {target.name: address_of(target) for target in targets}
    shared = _shared(targets, lambda target: addresses[target.name])
    for group in shared:
        _note_group(group, problems, f"{few(_names(group))} are at one place: {group[0].location}", "give each its own")
    known = {target.name for group in shared for target in group}
    for group in _shared(targets, lambda target: version_table_of(target, addresses[target.name])):
        if not known.issuperset(_names(group)):
            _note_group(
                group,
                problems,
                f"{few(_names(group))} have one version table, `{group[0].version_table}`",
                "give each its own `version_table` or `version_table_schema`",
            )


def ordered(
    tenants: Sequence[Tenant], targets: Sequence[Target], problems: Problems, *, complete: bool
) -> list[Target]:
    """The targets with the names of those that must be done first; `complete` when no tenant is missing here."""
    known = {tenant.name: tenant for tenant in tenants}
    by_tenant: dict[str, list[Target]] = collections.defaultdict(list)
    for target in targets:
        by_tenant[target.tenant.name].append(target)
    _check_after(known, problems, complete=complete)
    return [_with_after(target, by_tenant) for target in targets]


def address_of(target: Target) -> Hashable:
    """What two targets have in common only if they are one database or schema."""
    if target.backend == "sqlite":
        return "sqlite", os.path.realpath(target.url.database or "")
    schema = (target.schema or "public") if target.backend == "postgresql" else ""
    return target.backend, normalised_server(target), _folded(target, target.url.database), schema


def _folded(target: Target, database: str | None) -> str | None:
    """MariaDB and MySQL may take names that differ in upper and lower case only for one database."""
    return database.lower() if database is not None and target.backend == "mysql" else database


def version_table_of(target: Target, address: Hashable) -> Hashable:
    """What two targets have in common only if their versions are rows of one table."""
    table, schema = target.version_table, target.version_table_schema
    if target.backend == "sqlite":
        return address, table.lower()
    if schema is None:
        return address, table
    if target.backend == "mysql":
        return ("mysql", normalised_server(target), _folded(target, schema), ""), table
    return ("postgresql", normalised_server(target), target.url.database, schema), table


def normalised_server(target: Target) -> tuple[str, int]:
    """Host and port in one spelling for all that mean the same."""
    host, port = server_of(target.url)
    host = host.lower().rstrip(".")
    return ("localhost" if host in _LOCAL else host), port


def _shared(targets: Iterable[Target], key: Callable[[Target], Hashable]) -> list[list[Target]]:
    groups: dict[Hashable, list[Target]] = collections.defaultdict(list)
    for target in targets:
        groups[key(target)].append(target)
    return [group for group in groups.values() if len(group) > 1]


def _names(targets: Iterable[Target]) -> list[str]:
    return [target.name for target in targets]


def _note_group(group: Sequence[Target], problems: Problems, text: str, remedy: str) -> None:
    second = group[1]
    path: tuple[str, ...] = ("tenants", second.tenant.name)
    problems.add(path if second.database is None else (*path, "databases", second.database), text, remedy, at_key=True)


def _check_names(tenants: Iterable[Tenant], targets: Iterable[Target], problems: Problems) -> None:
    for names, what in ((_unique(t.name for t in tenants), "tenants"), (_unique(t.name for t in targets), "databases")):
        folded: dict[str, str] = {}
        for name in names:
            first = folded.setdefault(name.casefold(), name)
            if first is not name and first.partition("/")[0].casefold() not in _twice(names, what):
                tenant, _, database = name.partition("/")
                problems.add(
                    ("tenants", tenant, "databases", database),
                    f"{what} `{first}` and `{name}` differ in upper and lower case only",
                    "rename one: files, servers and people fold case",
                    at_key=True,
                )


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _twice(names: Sequence[str], what: str) -> frozenset[str]:
    """Tenants whose names clash themselves: their databases then clash as a matter of course."""
    if what == "tenants":
        return frozenset()
    counted = collections.Counter(tenant.casefold() for tenant in {name.partition("/")[0] for name in names})
    return frozenset(tenant for tenant, count in counted.items() if count > 1)


def _check_after(known: Mapping[str, Tenant], problems: Problems, *, complete: bool) -> None:
    for tenant in known.values():
        for position, name in enumerate(tenant.after):
            if name not in known and complete:
                problems.add(
                    ("tenants", tenant.name, "after", position),
                    f"`after` of tenant `{tenant.name}` names `{name}`, which is no tenant",
                    nearest(name, known, "remove it, or register it"),
                )
    graph = {tenant.name: [name for name in tenant.after if name in known] for tenant in known.values() if tenant.after}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle: list[str] = error.args[1]
        problems.add(
            ("tenants", cycle[-1], "after"),
            "`after` goes in a circle: " + " → ".join(f"`{name}`" for name in cycle),
            "remove one of these",
        )


def _with_after(target: Target, by_tenant: Mapping[str, list[Target]]) -> Target:
    own = by_tenant[target.tenant.name]
    earlier = _names(own[: next(i for i, one in enumerate(own) if one.database == target.database)])
    others = [name for tenant in target.tenant.after for name in _names(by_tenant.get(tenant, ()))]
    after = tuple(dict.fromkeys(name for name in (*others, *earlier) if name != target.name))
    return dataclasses.replace(target, after=after) if after else target

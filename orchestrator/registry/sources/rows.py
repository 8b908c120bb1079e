"""What sources give: names, or mappings with the keys of a tenant, checked row by row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.registry.models import Connection, TenantEntry
from orchestrator.registry.problems import Mistake, nearest
from orchestrator.registry.scalars import NAME_PATTERN
from orchestrator.registry.validation import describe, known_keys

#: rows by tenant: one, or one for each of its databases
Rows = Mapping[str, tuple[TenantEntry, ...]]

_CONNECTION_KEYS = frozenset(field.rstrip("_") for field in Connection.model_fields)
_NAME = re.compile(NAME_PATTERN)
_SCALARS = (str, int, float)


class Reader:
    """Reads rows one after another, and goes on after a wrong one so that all are told."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str | None, TenantEntry]] = {}
        #: which row, and what is wrong with it
        self.mistakes: list[Mistake] = []

    def read_all(self, items: Iterable[Any]) -> Rows:
        """All sound rows by tenant."""
        for number, item in enumerate(items, start=1):
            try:
                self._read(item, number)
            except Mistake as mistake:
                self.mistakes.append(mistake)
        return {name: tuple(entries.values()) for name, entries in self._found.items()}

    def _read(self, item: Any, number: int) -> None:
        row = {"name": item} if isinstance(item, str) else item
        if not isinstance(row, Mapping):
            raise Mistake(f"row {number} is neither a name nor a mapping", "give names, or mappings with `name`")
        name, values = _split_name(row, number)
        database = _database(values, name)
        entry = _entry(name, values, database)
        databases = self._found.setdefault(name, {})
        if database in databases or (databases and (database is None or None in databases)):
            raise Mistake(
                f"row `{name}` comes twice", "give each tenant once, or once for each of its databases with `database`"
            )
        databases[database] = entry


def _split_name(row: Mapping[Any, Any], number: int) -> tuple[str, dict[str, Any]]:
    values = {str(key): value for key, value in row.items()}
    name = values.pop("name", None)
    if name is None or isinstance(name, bool) or str(name) == "":
        raise Mistake(f"row {number} has no `name`", "give each row one")
    if not _NAME.fullmatch(str(name)):
        raise Mistake(
            f"row {number}: {str(name)[:60]!a} cannot be the name of a tenant",
            "letters, digits, `_`, `.` and `-`, at most 100, and no `.` or `-` first",
        )
    return str(name), values


def _database(values: dict[str, Any], name: str) -> str | None:
    key = values.pop("database", None)
    if key is None:
        return None
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        raise Mistake(f"row `{name}`: `database` is no key of a database", "write a name like `core`")
    return key


def _entry(name: str, values: dict[str, Any], database: str | None) -> TenantEntry:
    labels = _labels(values, name)
    unknown = [key for key in values if key not in known_keys(("tenants", name))]
    if unknown:
        known = [*known_keys(("tenants", name)), "database", "label_NAME"]
        raise Mistake(
            f"row `{name}`: unknown key `{unknown[0][:60]}`",
            nearest(unknown[0], known, f"known are {', '.join(known)}"),
        )
    if database is not None:
        within = {key: values.pop(key) for key in list(values) if key in _CONNECTION_KEYS}
        values["databases"] = {database: within}
    try:
        return TenantEntry.model_validate(values | ({"labels": labels} if labels else {}))
    except ValidationError as error:
        raise Mistake(f"row `{name}`: " + " · ".join(describe(error))) from None


def _labels(values: dict[str, Any], name: str) -> dict[str, str | None]:
    given = values.pop("labels", None) or {}
    if not isinstance(given, Mapping):
        raise Mistake(f"row `{name}`: `labels` is no mapping", "write it like {region: eu}")
    labels = {str(key): value for key, value in given.items()}
    labels |= {key.removeprefix("label_"): values.pop(key) for key in list(values) if key.startswith("label_")}
    if wrong := [key for key, value in labels.items() if value is not None and not isinstance(value, _SCALARS)]:
        raise Mistake(f"row `{name}`: label `{wrong[0][:60]}` is not text", "give text or a number")
    return {key: _label(value) for key, value in labels.items() if value is None or str(value)}


def _label(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """A database's row: NULL says nothing, it unsets nothing."""
    return {key: value for key, value in row.items() if value is not None}

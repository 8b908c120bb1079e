"""Inheritance: defaults, then profile, then a source's row, then the tenant, then one of its databases."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from orchestrator.registry.documents import Path
from orchestrator.registry.models import Strict
from orchestrator.registry.urls import scheme_of


class Origin(enum.Enum):
    """Who wrote a value, which decides what is put into it."""

    #: `defaults` and `profiles`: variables and placeholders
    INHERITED = "inherited"
    #: tenants and sources in the file: variables
    WRITTEN = "written"
    #: what a source gave at run time: taken as it is, it may be a customer's own text
    GIVEN = "given"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One place that settings come from."""

    path: Path
    origin: Origin
    #: begins every problem of this layer: "source `sql`, row `acme`: "
    prefix: str = ""

    def below(self, key: str) -> Layer:
        """The layer of a mapping within this one."""
        return dataclasses.replace(self, path=(*self.path, key))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value, and where it was written."""

    value: Any
    layer: Layer
    path: Path
    #: the kind of database that it was written for, None where that is not known
    kind: str | None = None


#: settings by key; those that are merged by name as `labels.NAME`, `timeouts.NAME`, `databases.NAME`
Settings = Mapping[str, Setting]

_MERGED = ("labels", "timeouts", "databases")
#: what makes no sense for another kind of database than that of the URL beside it
_BOUND_TO_KIND = ("connect_args", "search_path", "role", "version_table_schema")


def overlay(below: Settings, entry: Strict, layer: Layer) -> dict[str, Setting]:
    """The settings with an entry's own put over them; `null` removes what is inherited."""
    settings = dict(below)
    for field in type(entry).model_fields:
        if field not in entry.model_fields_set:
            continue
        key = field.rstrip("_")
        value = getattr(entry, field)
        path = (*layer.path, key)
        if key in _MERGED:
            _merge(settings, key, value, layer, path)
        elif value is None:
            settings.pop(key, None)
        else:
            settings[key] = Setting(value=value, layer=layer, path=path)
    _bind(settings, layer)
    return settings


def settings_within(settings: Settings, key: str) -> dict[str, Setting]:
    """The merged settings of `labels`, `timeouts` or `databases`, by their own names."""
    prefix = f"{key}."
    return {name.removeprefix(prefix): setting for name, setting in settings.items() if name.startswith(prefix)}


def _merge(settings: dict[str, Setting], key: str, value: Any, layer: Layer, path: Path) -> None:
    if value is None:
        for name in [name for name in settings if name.startswith(f"{key}.")]:
            del settings[name]
        return
    for name, one in _items(value).items():
        if one is None:
            settings.pop(f"{key}.{name}", None)
            continue
        earlier = settings.get(f"{key}.{name}") if key == "databases" else None
        kept = (*(earlier.value if earlier else ()), (one, layer.below(key).below(name))) if key == "databases" else one
        settings[f"{key}.{name}"] = Setting(value=kept, layer=layer, path=(*path, name))


def _items(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Strict):
        return {field: getattr(value, field) for field in value.model_fields_set}
    return dict(value)


def _bind(settings: dict[str, Setting], layer: Layer) -> None:
    """Note which kind of database a layer's settings were written for, which its URL says."""
    url = settings.get("url")
    kind = None if url is None else _kind(url.value)
    for key in _BOUND_TO_KIND:
        setting = settings.get(key)
        if setting is not None and setting.layer is layer:
            settings[key] = dataclasses.replace(setting, kind=kind)


def _kind(url: str | URL) -> str | None:
    return scheme_of(url) if isinstance(url, str) else scheme_of(f"{url.drivername}://")

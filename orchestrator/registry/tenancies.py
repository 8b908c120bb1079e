"""Layers of one tenant to a `Tenant` and its targets, for every tenant of the file and of the sources."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.registry.documents import Path
from orchestrator.registry.layers import Layer, Origin, Setting, Settings, overlay, settings_within
from orchestrator.registry.models import RegistryFile, TenantEntry
from orchestrator.registry.problems import Mistake, Problems, nearest
from orchestrator.registry.scalars import check_window
from orchestrator.registry.targets import Surroundings, TargetBuilder
from orchestrator.registry.variables import filler, take_apart
from orchestrator.tenants import State, Target, Tenant

#: problems told of one line before the rest is only counted
MOST_PER_LINE = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one source says of one tenant."""

    layer: Layer
    #: from the source's own keys: labels and profile
    overlay: TenantEntry
    #: one entry, or one for each database of the tenant
    rows: tuple[TenantEntry, ...]


class Tenancies:
    """Builds tenants one after another and remembers what is wrong with them."""

    def __init__(self, file: RegistryFile, surroundings: Surroundings, problems: Problems) -> None:
        self._file = file
        self._surroundings = surroundings
        self._problems = problems
        self._bases: dict[str | None, Settings] = {}
        self._complaints: collections.Counter[Path] = collections.Counter()
        #: asynchronous drivers that were replaced
        self.replaced: set[str] = set()

    def build(self, name: str, given: Given | None) -> tuple[Tenant, list[Target]]:
        """One tenant; a target that something is wrong with is left out."""
        if given is not None and name not in self._file.tenants:
            self._problems.came_from(("tenants", name), given.layer.path)
        settings = self._settings(name, given)
        names = {"tenant": name}
        labels = self._labels(settings, names)
        self._refuse_forgotten_state(settings, name)
        names |= {f"label.{key}": value for key, value in labels.items()}
        tenant = Tenant(
            name=name,
            labels=labels,
            state=_value(settings, "state") or State.ACTIVE,
            reason=self._text(settings, "reason", names),
            owner=self._text(settings, "owner", names),
            until=_value(settings, "until"),
            after=tuple(_value(settings, "after") or ()),
            shared=bool(_value(settings, "shared")),
            window=tuple(self._windows(settings, names)),
            place=self._place(name, given),
        )
        return tenant, list(self._targets(tenant, settings, names))

    def finish(self) -> None:
        """Say how many problems were not told one by one."""
        for path, count in self._complaints.items():
            if count > MOST_PER_LINE:
                self._problems.add(path, f"{count - MOST_PER_LINE} more tenants are wrong here", "mend these first")

    def base(self, profile: str | None) -> Settings:
        """Defaults, with a profile over them."""
        if profile not in self._bases:
            settings = overlay({}, self._file.defaults, Layer(path=("defaults",), origin=Origin.INHERITED))
            if profile is not None:
                layer = Layer(path=("profiles", profile), origin=Origin.INHERITED)
                settings = overlay(settings, self._file.profiles[profile], layer)
            self._bases[profile] = settings
        return self._bases[profile]

    def _settings(self, name: str, given: Given | None) -> Settings:
        entry = self._file.tenants.get(name)
        layer = Layer(path=("tenants", name), origin=Origin.WRITTEN)
        layers = [(entry, layer)] if entry is not None else []
        if given is not None:
            written = dataclasses.replace(given.layer, origin=Origin.WRITTEN)
            layers = [(given.overlay, written), *((row, given.layer) for row in given.rows), *layers]
        settings = self.base(self._profile(layers))
        for one, its_layer in layers:
            settings = overlay(settings, one, its_layer)
        return settings

    def _profile(self, layers: list[tuple[TenantEntry, Layer]]) -> str | None:
        named = [(entry.profile, layer) for entry, layer in layers if "profile" in entry.model_fields_set]
        if not named or named[-1][0] is None:
            return None
        profile, layer = named[-1]
        if profile in self._file.profiles:
            return profile
        known = self._file.profiles
        remedy = nearest(str(profile), known, f"known are {', '.join(known)}" if known else "add it under `profiles`")
        self._problems.add((*layer.path, "profile"), f"{layer.prefix}unknown profile `{profile}`", remedy)
        return None

    def _labels(self, settings: Settings, names: Mapping[str, str]) -> dict[str, str]:
        found = {key: self._filled(setting, names) for key, setting in settings_within(settings, "labels").items()}
        return {key: value for key, value in found.items() if value is not None}

    def _refuse_forgotten_state(self, settings: Settings, name: str) -> None:
        """Whoever says why, or until when, a tenant is left alone means that it is, and it would be migrated."""
        said = next((key for key in ("reason", "until") if _value(settings, key) is not None), None)
        if said is not None and _value(settings, "state") is None:
            remedy = "add `state: quarantined` or `state: suspended`, or `state: active` where that is over"
            mistake = Mistake(f"`{said}` is about a state, and there is none: the tenant is active", remedy)
            self._complain(settings[said], mistake, name)

    def _text(self, settings: Settings, key: str, names: Mapping[str, str]) -> str | None:
        setting = settings.get(key)
        return None if setting is None else self._filled(setting, names)

    def _windows(self, settings: Settings, names: Mapping[str, str]) -> Iterable[str]:
        setting = settings.get("window")
        if setting is not None:
            for number, raw in enumerate(setting.value):
                one = dataclasses.replace(setting, value=raw, path=(*setting.path, number))
                yield from self._window(one, names)

    def _window(self, setting: Setting, names: Mapping[str, str]) -> Iterable[str]:
        text = self._filled(setting, names, any_label=True)
        try:
            yield from () if text is None else (check_window(text),)
        except ValueError as error:
            what, _, remedy = str(error).partition("; ")
            mistake = Mistake(f"`window`: {what}", remedy, is_general=text == setting.value)
            self._complain(setting, mistake, names["tenant"])

    def _filled(self, setting: Setting, names: Mapping[str, str], *, any_label: bool = False) -> str | None:
        if setting.layer.origin is Origin.GIVEN:
            return str(setting.value)
        try:
            template = take_apart(setting.value, placeholders=setting.layer.origin is Origin.INHERITED)
            return template.filled(filler(self._surroundings.variables, names, any_label=any_label))
        except Mistake as mistake:
            self._complain(setting, mistake, names["tenant"])
            return None

    def _targets(self, tenant: Tenant, settings: Settings, names: Mapping[str, str]) -> Iterable[Target]:
        databases = settings_within(settings, "databases")
        if not databases:
            yield from self._target(tenant, None, settings, names)
        for key, setting in databases.items():
            merged = settings
            for entry, layer in setting.value:
                merged = overlay(merged, entry, layer)
            yield from self._target(tenant, key, merged, {**names, "database": key})

    def _target(
        self, tenant: Tenant, database: str | None, settings: Settings, names: Mapping[str, str]
    ) -> Iterable[Target]:
        if "url" not in settings:
            where = (
                f"tenant `{tenant.name}`" if database is None else f"database `{database}` of tenant `{tenant.name}`"
            )
            self._problems.add(
                ("tenants", tenant.name, "databases", database or ""),
                f"{where} has no `url`",
                "add one to it, to its profile or to `defaults`",
                at_key=True,
            )
            return
        builder = TargetBuilder(
            self._surroundings, settings, names, lambda setting, mistake: self._complain(setting, mistake, tenant.name)
        )
        built = builder.build(tenant, database)
        if built is not None:
            target, replaced = built
            self.replaced |= {replaced} if replaced else set()
            yield target

    def _complain(self, setting: Setting, mistake: Mistake, tenant: str) -> None:
        path, prefix = setting.path, setting.layer.prefix
        if setting.layer.origin is Origin.INHERITED and not mistake.is_general:
            self._complaints[path] += 1
            if self._complaints[path] > MOST_PER_LINE:
                return
            prefix = f"tenant `{tenant}`: " if f"tenant `{tenant}`" not in mistake.text else ""
        self._problems.add_mistake(path, mistake, prefix)

    def _place(self, name: str, given: Given | None) -> str:
        if name in self._file.tenants or given is None:
            return self._problems.place(("tenants", name), at_key=True)
        return given.layer.prefix.partition(", ")[0]


def _value(settings: Settings, key: str) -> Any:
    setting = settings.get(key)
    return None if setting is None else setting.value

"""Schemas, databases and files that look like tenants and are not registered."""

from __future__ import annotations

import fnmatch
import glob
import secrets
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL

from orchestrator.databases import backend_for
from orchestrator.errors import Problem, RegistryError
from orchestrator.redaction import remember_arguments
from orchestrator.registry.conflicts import address_of
from orchestrator.registry.layers import Origin, Settings
from orchestrator.registry.models import PasswordEntry
from orchestrator.registry.problems import Mistake
from orchestrator.registry.registries import Pattern, Registry
from orchestrator.registry.sources.places import failure_of
from orchestrator.registry.targets import Surroundings
from orchestrator.registry.urls import fill_url, scheme_of, settle_url
from orchestrator.registry.variables import Fill, Placeholder, Template, Variable, filled_within, take_apart
from orchestrator.tenants import Hidden, PasswordCommand, Target, Tenant

#: stands for what differs by tenant; nobody can have written it
_WILDCARD = f"any{secrets.token_hex(12)}"


def unregistered(registry: Registry) -> list[str]:
    """What matches the templates of `defaults` and `profiles` without belonging to a tenant: where it is, by name.

    Raises `RegistryError` where a server cannot be asked.
    """
    known = {address_of(target) for target in registry.targets}
    found: dict[str, None] = {}
    problems: list[Problem] = []
    for pattern in registry.patterns:
        try:
            for target in _candidates(pattern):
                if address_of(target) not in known:
                    found[target.location] = None
        except Mistake as mistake:
            problems.append(Problem(place=_shown(pattern.url), text=mistake.text, remedy=mistake.remedy))
    if problems:
        raise RegistryError(problems)
    return sorted(found)


def pattern_of(settings: Settings, surroundings: Surroundings) -> Pattern | None:
    """Where tenants with these settings live; None where that differs by nothing, or by more than one name."""
    url_setting, schema_setting = settings.get("url"), settings.get("schema")
    if url_setting is None or url_setting.layer.origin is not Origin.INHERITED:
        return None

    def fill(part: Variable | Placeholder) -> str:
        return _WILDCARD if isinstance(part, Placeholder) else surroundings.variables.value(part)

    try:
        url, _ = settle_url(fill_url(_template(url_setting.value), fill), surroundings.root)
        schema = None if schema_setting is None else _template(schema_setting.value).filled(fill)
        arguments, password = _arguments(settings, fill, url), _password(settings, fill)
    except Mistake:
        return None  # told where tenants inherit it
    varying = _WILDCARD in (url.database or "")
    fixed = (*_fixed_parts(url), str(dict(arguments)), *(password.command if password else ()))
    if any(_WILDCARD in text for text in fixed) or varying == (schema is not None and _WILDCARD in schema):
        return None
    remember_arguments(arguments)
    return Pattern(
        url=url,
        connect_args=arguments,
        password=password,
        match="*".join(glob.escape(part) for part in ((url.database if varying else schema) or "").split(_WILDCARD)),
        schemas=not varying,
    )


def _candidates(pattern: Pattern) -> Iterator[Target]:
    for name in _places(pattern):
        if not fnmatch.fnmatchcase(name, pattern.match):
            continue
        url = pattern.url if pattern.schemas else pattern.url.set(database=name)
        yield Target(tenant=Tenant(name="unregistered"), url=url, schema=name if pattern.schemas else None)


def _places(pattern: Pattern) -> list[str]:
    url = pattern.url
    if url.get_backend_name() == "sqlite":
        path = Path(pattern.match)
        fixed = "*" not in str(path.parent)
        return [str(one) for one in sorted(path.parent.glob(path.name)) if one.is_file()] if fixed else []
    if not pattern.schemas:
        url = url.set(database="postgres" if url.get_backend_name() == "postgresql" else None)
    try:
        return backend_for(url).places(
            url, dict(pattern.connect_args), schemas=pattern.schemas, password=pattern.password
        )
    except Exception as error:  # noqa: BLE001 - a driver may raise anything, and says too much when it does
        raise failure_of(error, url) from None


def _template(raw: str) -> Template:
    return take_apart(raw, placeholders=True)


def _fixed_parts(url: URL) -> list[str]:
    """What has to be one place for all tenants, so that it can be looked through."""
    return [url.username or "", str(url.password or ""), url.host or "", str(url.query)]


def _arguments(settings: Settings, fill: Fill, url: URL) -> Hidden:
    setting = settings.get("connect_args")
    if setting is None or setting.kind not in (None, scheme_of(f"{url.drivername}://")):
        return Hidden()
    return Hidden(filled_within(setting.value, lambda text: _template(text).filled(fill)))


def _password(settings: Settings, fill: Fill) -> PasswordCommand | None:
    setting = settings.get("password")
    entry = None if setting is None else setting.value
    if not isinstance(entry, PasswordEntry):
        return None
    return PasswordCommand(command=tuple(_template(part).filled(fill) for part in entry.command), ttl=entry.ttl)


def _shown(url: URL) -> str:
    return Target(tenant=Tenant(name="unregistered"), url=url).location

"""tenants.yaml and its sources to a `Registry`, or to every problem there is with them."""

from __future__ import annotations

import configparser
import dataclasses
import os
from collections.abc import Mapping

from sqlalchemy import URL

from orchestrator.errors import Problem, RegistryError
from orchestrator.registry import documents
from orchestrator.registry.conflicts import check_conflicts, normalised_server, ordered
from orchestrator.registry.discovery import pattern_of
from orchestrator.registry.exposure import exposed
from orchestrator.registry.layers import Layer, Origin
from orchestrator.registry.models import AnySource, RegistryFile, TenantEntry
from orchestrator.registry.notifications import read_notifications
from orchestrator.registry.problems import Mistake, Problems
from orchestrator.registry.registries import Identity, Pattern, Registry
from orchestrator.registry.sources import read_source, title_of
from orchestrator.registry.strategies import read_strategies
from orchestrator.registry.targets import Surroundings
from orchestrator.registry.tenancies import Given, Tenancies
from orchestrator.registry.urls import fill_url, settle_url
from orchestrator.registry.validation import Validated, validate
from orchestrator.registry.variables import Variables, take_apart
from orchestrator.settings import Settings
from orchestrator.tenants import Target, Tenant

DEFAULT_LEDGER = ".orchestrate/ledger.db"
#: keys that every tenant rests on: with one of them broken, more problems would only be noise
_FOUNDATIONS = frozenset({"defaults", "profiles"})
_IDENTITY = frozenset({"version", "project", "environment", "ledger"})


def load(settings: Settings, *, environ: Mapping[str, str] | None = None) -> Registry:
    """Read the registry and its sources; raises `RegistryError` with all problems in file order."""
    document = documents.parse(_text(settings), settings.registry.name)
    problems = Problems(document)
    loading = _loading(settings, document, problems, environ)
    registry = loading.load()
    problems.raise_if_any()
    exposure = exposed(document, settings.registry)
    return dataclasses.replace(registry, exposure=exposure, notes=(*registry.notes, *([exposure] if exposure else [])))


def identify(settings: Settings, *, environ: Mapping[str, str] | None = None) -> Identity:
    """Read whose ledger it is, and nothing else: what was run can be looked up while sources and passwords are away."""
    document = documents.parse(_text(settings), settings.registry.name)
    problems = Problems(document)
    loading = _loading(settings, document.only(_IDENTITY), problems, environ)
    identity = loading.identity()
    problems.raise_if_any()
    return identity


def _loading(
    settings: Settings, document: documents.Document, problems: Problems, environ: Mapping[str, str] | None
) -> _Loading:
    for position, text, remedy in document.problems:
        problems.add_at(position, text, remedy)
    environ = os.environ if environ is None else environ
    variables = Variables(settings.root, environ)
    surroundings = Surroundings(root=settings.root, variables=variables, sections=_sections(settings, problems))
    validated = validate(document, variables, problems)
    if validated.broken & _FOUNDATIONS:
        problems.raise_if_any()
    return _Loading(settings, validated, surroundings, problems, environ)


class _Loading:
    """One reading of one file."""

    def __init__(
        self,
        settings: Settings,
        validated: Validated,
        surroundings: Surroundings,
        problems: Problems,
        environ: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._file: RegistryFile = validated.file
        self._surroundings = surroundings
        self._problems = problems
        self._environ = environ
        #: a broken file is not a reason to ask anybody anything; nor are tenants missing that it would have named
        self._is_complete = not validated.broken and not problems
        #: whoever is no tenant here is none
        self._names_all = self._is_complete or not (self._file.sources or validated.broken & {"sources", "tenants"})
        self._tenancies = Tenancies(self._file, surroundings, problems)

    def load(self) -> Registry:
        """Everything there is; what is wrong is in the problems, and the registry then not to be used."""
        tenants, targets = self._tenants()
        check_conflicts(tenants, targets, self._problems)
        targets = ordered(tenants, targets, self._problems, complete=self._names_all)
        file, identity = self._file, self.identity()
        return Registry(
            path=self._settings.registry,
            project=identity.project,
            environment=identity.environment,
            protected=file.protected,
            ledger=identity.ledger,
            tenants=tuple(tenants),
            targets=tuple(targets),
            strategies=read_strategies(file.strategies, self._surroundings, self._problems),
            server_caps=self._server_caps(targets),
            notifications=read_notifications(file.notifications, self._problems),
            notes=tuple(self._notes(targets, identity.ledger)),
            patterns=tuple(self._patterns()),
        )

    def identity(self) -> Identity:
        """Whose runs they are."""
        return Identity(
            project=self._text("project", self._file.project) or self._settings.root.name or "project",
            environment=self._text("environment", self._file.environment) or "default",
            ledger=self._ledger(),
        )

    def _tenants(self) -> tuple[list[Tenant], list[Target]]:
        given = self._given() if self._is_complete else {}
        tenants: list[Tenant] = []
        targets: list[Target] = []
        for name in dict.fromkeys([*self._file.tenants, *given]):
            tenant, its_targets = self._tenancies.build(name, given.get(name))
            tenants.append(tenant)
            targets += its_targets
        self._tenancies.finish()
        return tenants, targets

    def _given(self) -> dict[str, Given]:
        """What all sources say, by tenant."""
        given: dict[str, Given] = {}
        for number, source in enumerate(self._file.sources):
            path: documents.Path = ("sources", number)
            rows = read_source(
                source,
                self._surroundings,
                lambda mistake, path=path: self._problems.add_mistake(path, mistake),  # type: ignore[misc]
            )
            overlay = _overlay(source)
            for name, entries in rows.items():
                layer = Layer(path=path, origin=Origin.GIVEN, prefix=f"{title_of(source)}, row `{name}`: ")
                if name in given:
                    other = given[name].layer.prefix.partition(",")[0]
                    self._problems.add(
                        path,
                        f"{title_of(source)} gives `{name}`, which {other} gives as well",
                        "take it out of one of them",
                    )
                given.setdefault(name, Given(layer=layer, overlay=overlay, rows=entries))
        return given

    def _text(self, key: str, raw: str | None) -> str | None:
        try:
            return None if raw is None else self._surroundings.variables.text(raw)
        except Mistake as mistake:
            self._problems.add_mistake((key,), mistake)
            return None

    def _ledger(self) -> str:
        raw = self._file.ledger
        if self._settings.ledger is not None or raw is None:
            return self._settings.ledger or str(
                URL.create("sqlite", database=str(self._settings.root / DEFAULT_LEDGER))
            )
        try:
            template = take_apart(raw, placeholders=False)
            url, _ = settle_url(fill_url(template, self._surroundings.variables.value), self._settings.root)
        except Mistake as mistake:
            self._problems.add_mistake(("ledger",), mistake)
            return ""
        return url.render_as_string(hide_password=False)

    def _server_caps(self, targets: list[Target]) -> dict[str, int]:
        """Caps by the servers' names as targets spell them, whatever spelling the file uses."""
        caps = {name: entry.concurrency for name, entry in self._file.servers.items()}
        folded = {_folded(name): cap for name, cap in caps.items()}
        for target in targets:
            server = target.server
            if server not in caps and server != "sqlite":
                host, port = normalised_server(target)
                cap = folded.get(f"{host}:{port}")
                caps |= {} if cap is None else {server: cap}
        return caps

    def _notes(self, targets: list[Target], ledger: str) -> list[str]:
        notes = [
            f"driver {driver} is asynchronous; its synchronous sibling is used instead"
            for driver in sorted(self._tenancies.replaced)
        ]
        used = {target.server for target in targets} | {
            "{}:{}".format(*normalised_server(target)) for target in targets if target.server != "sqlite"
        }
        if self._is_complete:
            notes += [
                f"servers: `{name}` is no server of any tenant; write it as host:port"
                for name in self._file.servers
                if name not in used and _folded(name) not in used
            ]
        if self._environ.get("CI", "").lower() in ("true", "1") and ledger.startswith("sqlite"):
            notes.append(
                "the ledger is a SQLite file, which is gone after this CI job; set `ledger:` to a PostgreSQL URL"
            )
        return notes

    def _patterns(self) -> list[Pattern]:
        profiles: list[str | None] = [None, *self._file.profiles]
        found = [pattern_of(self._tenancies.base(profile), self._surroundings) for profile in profiles]
        return [pattern for pattern in found if pattern is not None]


def _overlay(source: AnySource) -> TenantEntry:
    keys = {"labels": source.labels} if source.labels else {}
    return TenantEntry.model_validate(keys | ({"profile": source.profile} if source.profile else {}))


def _folded(server: str) -> str:
    host, _, port = server.lower().rpartition(":")
    return f"localhost:{port}" if host in ("127.0.0.1", "::1", "[::1]") else f"{host}:{port}"


def _text(settings: Settings) -> str:
    name = settings.registry.name
    try:
        if settings.registry.stat().st_size > documents.LARGEST_FILE:
            limit = documents.LARGEST_FILE // 1024 // 1024
            raise RegistryError(
                [Problem(place=name, text=f"larger than {limit} MiB", remedy="move tenants to `sources`")]
            )
        return settings.registry.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RegistryError(
            [Problem(place=name, text=f"cannot be read: {error.strerror}", remedy="name it with -f/--registry")]
        ) from None
    except UnicodeDecodeError:
        raise RegistryError([Problem(place=name, text="not UTF-8 text", remedy="save it as UTF-8")]) from None


def _sections(settings: Settings, problems: Problems) -> frozenset[str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(settings.config.read_text(encoding="utf-8"))
    except OSError:
        return frozenset()
    except (configparser.Error, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        place = settings.config.name + (f":{line}" if line else "")
        problems.add_elsewhere(
            Problem(place=place, text="not a readable .ini file", remedy="mend its sections and keys")
        )
        return frozenset()
    return frozenset(parser.sections())

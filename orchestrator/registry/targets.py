"""Settings of one database to a `Target`: everything filled in and checked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL

from orchestrator.redaction import remember_arguments
from orchestrator.registry.identifiers import check_database, check_identifier, check_schema
from orchestrator.registry.layers import Origin, Setting, Settings, settings_within
from orchestrator.registry.models import PasswordEntry
from orchestrator.registry.problems import Mistake, nearest
from orchestrator.registry.urls import fill_url, parse_url, settle_url
from orchestrator.registry.variables import Fill, Template, Variables, filled_within, filler, take_apart
from orchestrator.tenants import Hidden, PasswordCommand, Target, Tenant, Timeouts, Transaction, keep_secret

T = TypeVar("T")

MAIN_SECTION = "alembic"
#: arguments of drivers that lead to another place than the URL says
_PLACE_ARGUMENTS = frozenset({"host", "port", "dbname", "database", "db", "dsn", "conninfo", "service"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What settings are filled in from and checked against."""

    #: folder of tenants.yaml
    root: Path
    variables: Variables
    #: sections of alembic.ini
    sections: frozenset[str]


class TargetBuilder:
    """Reads the settings of one database of one tenant; one wrong setting does not hide another."""

    def __init__(
        self,
        surroundings: Surroundings,
        settings: Settings,
        names: Mapping[str, str],
        complain: Callable[[Setting, Mistake], None],
    ) -> None:
        self._surroundings = surroundings
        self._settings = settings
        self._fill: Fill = filler(surroundings.variables, names)
        self._complain = complain
        self._is_sound = True
        self._backend = ""

    def build(self, tenant: Tenant, database: str | None) -> tuple[Target, str | None] | None:
        """The target and the asynchronous driver that was replaced; None where something is wrong with it."""
        settled = self._read("url", self._url)
        if settled is None:
            return None
        url, replaced = settled
        self._backend = "mysql" if url.get_backend_name() == "mariadb" else url.get_backend_name()
        url, password = self._password(url)
        target = Target(
            tenant=tenant,
            database=database,
            url=url,
            password=password,
            schema=self._read("schema", lambda setting: self._schema(setting, is_shared=tenant.shared)),
            search_path=self._read("search_path", self._search_path) or (),
            version_table=self._read("version_table", self._identifier) or "alembic_version",
            version_table_schema=self._read("version_table_schema", self._version_table_schema),
            role=self._read("role", self._role),
            connect_args=self._read("connect_args", self._connect_args) or Hidden(),
            timeouts=Timeouts(**{key: one.value for key, one in settings_within(self._settings, "timeouts").items()}),
            transaction=self._read("transaction", lambda setting: setting.value) or Transaction.TARGET,
            section=self._read("alembic", self._section) or MAIN_SECTION,
            app=self._read("app", self._text),
            bind=self._read("bind", self._text),
            root=str(self._surroundings.root),
        )
        return (target, replaced) if self._is_sound else None

    def _read(self, key: str, read: Callable[[Setting], T]) -> T | None:
        setting = self._settings.get(key)
        if setting is None:
            return None
        try:
            return read(setting)
        except Mistake as mistake:
            self._is_sound = False
            if key in ("password", "connect_args"):
                # What looks like a placeholder may be a piece of the secret.
                mistake.text = re.sub(r" `\{[^`]*\}`", "", mistake.text)
            self._complain(setting, mistake)
            return None

    def _template(self, setting: Setting, raw: str | None = None) -> Template:
        return take_apart(setting.value if raw is None else raw, placeholders=setting.layer.origin is Origin.INHERITED)

    def _text(self, setting: Setting, raw: str | None = None) -> str:
        if setting.layer.origin is Origin.GIVEN:
            return str(setting.value if raw is None else raw)
        return self._template(setting, raw).filled(self._fill)

    def _shown(self, setting: Setting, value: str, raw: str | None = None) -> str:
        """The value as it may be told: as written, where a variable is in it."""
        if setting.layer.origin is Origin.GIVEN:
            return value
        template = self._template(setting, raw)
        return template.raw if template.has_variables else value

    def _url(self, setting: Setting) -> tuple[URL, str | None]:
        given = setting.layer.origin is Origin.GIVEN
        url = parse_url(setting.value) if given else fill_url(self._template(setting), self._fill)
        url, replaced = settle_url(url, self._surroundings.root)
        backend = url.get_backend_name()
        if backend != "sqlite":
            check_database(url.database or "", "mysql" if backend == "mariadb" else backend, None)
        return url, replaced

    def _password(self, url: URL) -> tuple[URL, PasswordCommand | None]:
        setting = self._settings.get("password")
        if setting is None or self._backend == "sqlite":
            return url, None
        entry = setting.value
        if isinstance(entry, PasswordEntry):
            command = self._read("password", lambda one: tuple(self._text(one, part) for part in entry.command))
            return url, PasswordCommand(command=command or (), ttl=entry.ttl)
        url = url.set(password=self._read("password", self._text))
        keep_secret(url)
        return url, None

    def _schema(self, setting: Setting, *, is_shared: bool) -> str:
        if self._backend != "postgresql":
            raise Mistake(f"`schema` on {_title(self._backend)}, which has none", "unset it with `schema: null`")
        name = self._text(setting)
        check_schema("schema", name, self._shown(setting, name))
        is_literal = setting.layer.origin is not Origin.GIVEN and self._template(setting).is_constant
        if name.lower() == "public" and not (is_shared or is_literal):
            raise Mistake(
                "schema `public` comes out of a template", "write `shared: true` at the tenant, or its schema by name"
            )
        return name

    def _search_path(self, setting: Setting) -> tuple[str, ...]:
        if not self._fits(setting, "search_path", "postgresql"):
            return ()
        names = [(raw, self._text(setting, raw)) for raw in setting.value]
        for raw, name in names:
            check_identifier("schema", name, "postgresql", self._shown(setting, name, raw))
        return tuple(name for _, name in names)

    def _identifier(self, setting: Setting) -> str:
        name = self._text(setting)
        check_identifier(f"{setting.path[-1]}", name, self._backend, self._shown(setting, name))
        return name

    def _version_table_schema(self, setting: Setting) -> str | None:
        if not self._fits(setting, "version_table_schema", "postgresql", "mysql"):
            return None
        name = self._text(setting)
        if self._backend == "postgresql":
            check_schema("version_table_schema", name, self._shown(setting, name))
        else:
            check_database(name, self._backend, self._shown(setting, name))
        return name

    def _role(self, setting: Setting) -> str | None:
        return self._identifier(setting) if self._fits(setting, "role", "postgresql", "mysql") else None

    def _connect_args(self, setting: Setting) -> Hidden:
        if setting.kind not in (None, self._backend):
            return Hidden()
        moved = _PLACE_ARGUMENTS.intersection(setting.value)
        if moved:
            raise Mistake(
                f"`{min(moved)}` in `connect_args`", "it belongs in `url`, where two tenants at one place show"
            )
        arguments = Hidden(filled_within(setting.value, lambda raw: self._text(setting, raw)))
        remember_arguments(arguments)
        return arguments

    def _section(self, setting: Setting) -> str:
        name, known = self._text(setting), self._surroundings.sections
        if name not in known:
            shown = self._shown(setting, name)
            raise Mistake(
                f"alembic.ini has no section `{shown}`",
                nearest(shown, known, f"add [{shown}] with its script_location"),
            )
        return name

    def _fits(self, setting: Setting, key: str, *backends: str) -> bool:
        """Whether a setting applies here; what was inherited from another kind of database is left out silently."""
        if setting.kind not in (None, self._backend):
            return False
        if self._backend in backends:
            return True
        if setting.layer.origin is Origin.INHERITED and setting.kind is None:
            return False
        raise Mistake(f"`{key}` on {_title(self._backend)}, which has none", f"unset it with `{key}: null`")


def _title(backend: str) -> str:
    return {"mysql": "MariaDB or MySQL", "sqlite": "SQLite"}.get(backend, "PostgreSQL")

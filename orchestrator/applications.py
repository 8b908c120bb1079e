"""Flask applications as a source of databases and metadata; Flask itself is imported only when one is loaded."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, MetaData, make_url
from sqlalchemy.exc import ArgumentError

from orchestrator.errors import SettingsError
from orchestrator.redaction import first_line, scrub

if TYPE_CHECKING:
    from flask import Flask

MAIN = "SQLALCHEMY_DATABASE_URI"
BINDS = "SQLALCHEMY_BINDS"


@functools.cache
def load(app: str) -> Flask:
    """The application that `module:factory`, `module:factory("argument")`, `module:app` or `module` names.

    The current folder is made importable. Raises `SettingsError` when there is no such application or making it fails.
    """
    module_name, _, attribute = app.partition(":")
    if not module_name:
        raise SettingsError(f"Flask application `{app}`: no module is named; write it as `package.module:factory`")
    importable(Path.cwd())
    try:
        return _found(module_name, attribute)
    except SettingsError:
        raise
    except (Exception, SystemExit) as error:
        raise SettingsError(_reason(app, module_name, error)) from error


@contextlib.contextmanager
def active(app: str | None) -> Iterator[Flask | None]:
    """Run the body inside the application's context; None is no application and no context."""
    if app is None:
        yield None
        return
    loaded = load(app)
    with loaded.app_context():
        yield loaded


def importable(folder: Path) -> None:
    """Put a folder first on the import path, once."""
    text = str(folder)
    if text not in sys.path:
        sys.path.insert(0, text)


def databases(app: Flask) -> dict[str | None, URL]:
    """URL of each bind key, None for the main database, in the order of the configuration.

    Relative SQLite files lie in the instance folder, where Flask-SQLAlchemy looks for them; `{tenant}` stays as it is.
    """
    binds: Mapping[str | None, Any] = app.config.get(BINDS) or {}
    configured: dict[str | None, Any] = {}
    if app.config.get(MAIN) is not None:
        configured[None] = app.config[MAIN]
    configured.update((key, value) for key, value in binds.items() if key is not None or None not in configured)
    if not configured:
        raise SettingsError(f"Flask application `{app.name}` sets neither {MAIN} nor {BINDS} in its configuration")
    return {key: _anchored(_url(app, key, value), app.instance_path) for key, value in configured.items()}


def metadata(app: Flask, bind: str | None) -> MetaData | None:
    """The tables that the application's models have on one bind key; None when it has no Flask-SQLAlchemy."""
    return _metadatas(app).get(bind)


def other_tables(app: Flask, bind: str | None) -> set[tuple[str | None, str]]:
    """Schema and name of the tables that belong to other bind keys only."""
    metadatas = _metadatas(app)
    own = _tables(metadatas.get(bind))
    return {table for key, other in metadatas.items() if key != bind for table in _tables(other)} - own


def _found(module_name: str, attribute: str) -> Flask:
    from flask import cli  # noqa: PLC0415 - only fleets that name an application pay for Flask

    module = importlib.import_module(module_name)
    return cli.find_app_by_string(module, attribute) if attribute else cli.find_best_app(module)


def _reason(app: str, module_name: str, error: BaseException) -> str:
    place = f"Flask application `{app}`"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and (module_name == missing or module_name.startswith(f"{missing}.")):
        return f"{place}: there is no module `{missing}`; run in the folder that holds it, or add it to PYTHONPATH"
    message = first_line(scrub(getattr(error, "message", None) or str(error)))
    cause = message if type(error).__name__ == "NoAppException" else f"{type(error).__name__}: {message}"
    return f"{place} cannot be loaded: {cause.rstrip('.: ')}; `flask --app '{app}' routes` shows the whole traceback"


def _url(app: Flask, key: str | None, value: Any) -> URL:
    place = MAIN if key is None else f"{BINDS}[{key!r}]"
    if isinstance(value, Mapping):
        value = value.get("url")
    if not isinstance(value, str | URL):
        raise SettingsError(f"Flask application `{app.name}`: {place} holds no URL")
    try:
        return make_url(value)
    except (ArgumentError, ValueError):
        # The cause may echo the URL, password and all.
        raise SettingsError(
            f"Flask application `{app.name}`: {place} is not a database URL; write driver://user:password@host/database"
        ) from None


def _anchored(url: URL, folder: str) -> URL:
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return url
    is_uri = "uri" in url.query
    prefix, path = ("file:", url.database.removeprefix("file:")) if is_uri else ("", url.database)
    return url if os.path.isabs(path) else url.set(database=prefix + os.path.join(folder, path))  # noqa: PTH117, PTH118 - text with placeholders, not a path yet


def _metadatas(app: Flask) -> Mapping[str | None, MetaData]:
    extension = app.extensions.get("sqlalchemy") or getattr(app.extensions.get("migrate"), "db", None)
    several: Mapping[str | None, MetaData] | None = getattr(extension, "metadatas", None)
    if several is not None:
        return several
    single: MetaData | None = getattr(extension, "metadata", None)
    return {} if single is None else {None: single}


def _tables(known: MetaData | None) -> set[tuple[str | None, str]]:
    return set() if known is None else {(table.schema, table.name) for table in known.tables.values()}

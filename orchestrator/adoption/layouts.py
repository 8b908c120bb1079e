"""Where a project keeps its alembic.ini and its revision scripts, and the settings that other folders need."""

from __future__ import annotations

import configparser
import dataclasses
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from alembic.config import Config
from alembic.util import CommandError

from orchestrator import applications
from orchestrator.adoption.proposals import read
from orchestrator.errors import SettingsError

MAIN = "alembic"
#: what `alembic init` writes
_EXAMPLE_URL = "driver://user:pass@localhost/dbname"
_CONFIGS = ("alembic.ini", "migrations/alembic.ini")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A project's files, as far as they exist."""

    config: Path
    #: text of alembic.ini with the line ends of Unix, None where there is none
    text: str | None
    #: text of alembic.ini as it should be
    adopted: str | None
    #: folder of the scripts of each section, the main one first
    folders: dict[str, Path]
    #: `sqlalchemy.url` of the main section, None where it is not a real one
    url: str | None


def find(directory: Path, config: Path | None) -> Layout:
    """The project in a directory, or the one that an alembic.ini belongs to."""
    ini = (config or _config_in(directory)).absolute()
    text = read(ini).replace("\r\n", "\n") if ini.is_file() else None
    try:
        return _layout(ini, text)
    except (configparser.Error, tomllib.TOMLDecodeError, CommandError) as error:
        raise SettingsError(f"{ini}: cannot be read: {str(error).splitlines()[0]}") from error


def with_option(text: str, section: str, key: str, value: str) -> str:
    """The ini file with an option set, all else in it as it was."""
    header = re.search(rf"^\[{re.escape(section)}\][ \t]*\n", text, re.MULTILINE)
    if header is None:
        return f"[{section}]\n{key} = {value}\n\n{text}"
    following = re.search(r"^\[", text[header.end() :], re.MULTILINE)
    end = header.end() + following.start() if following else len(text)
    body = text[header.end() : end]
    line = f"{key} = {value}\n"
    changed, number = re.subn(rf"^{re.escape(key)}[ \t]*[=:].*\n?", lambda _: line, body, count=1, flags=re.MULTILINE)
    return text[: header.end()] + (changed if number else line + body) + text[end:]


def _config_in(directory: Path) -> Path:
    found = (directory / name for name in _CONFIGS if (directory / name).is_file())
    return next(found, directory / _CONFIGS[0])


def _layout(ini: Path, text: str | None) -> Layout:
    settings = _settings(ini)
    adopted = text
    folders: dict[str, Path] = {}
    for section, location in _locations(settings):
        folders[section], portable = _folder(location, ini.parent)
        if adopted is not None and portable is not None:
            adopted = with_option(adopted, section, "script_location", portable)
    if MAIN not in folders and text is not None:
        folders[MAIN], adopted = _unlocated(ini, settings, adopted or "")
    if not folders:
        folders[MAIN] = ini.parent / "alembic"
    return Layout(config=ini, text=text, adopted=adopted, folders=folders, url=_url(settings))


def _settings(ini: Path) -> Config:
    toml = ini.parent / "pyproject.toml"
    return Config(file_=str(ini), toml_file=str(toml) if toml.is_file() else None)


def _locations(settings: Config) -> Iterator[tuple[str, str]]:
    """Sections that have revision scripts of their own, with `script_location`."""
    main = settings.get_alembic_option("script_location")
    if main:
        yield MAIN, main
    shared = settings.file_config.defaults().get("script_location")
    for section in settings.file_config.sections():
        own = settings.file_config.get(section, "script_location", fallback=None)
        if section != MAIN and own and own != shared:
            yield section, own


def _folder(location: str, beside: Path) -> tuple[Path, str | None]:
    """The folder of a `script_location`, and how to write it so that it is found from everywhere.

    Alembic starts a relative one at the current folder, which a scheduled run may not share.
    """
    path = Path(location)
    if path.is_absolute():
        return path, None
    if ":" in location:
        return _package_folder(location, beside), None
    if (beside / path).is_dir() or not path.is_dir():
        return beside / path, "%(here)s" if path == Path() else f"%(here)s/{path.as_posix()}"
    return path.absolute(), None


def _package_folder(location: str, beside: Path) -> Path:
    package, _, rest = location.partition(":")
    for folder in (beside, Path.cwd()):
        applications.importable(folder)
    try:
        specification = importlib.util.find_spec(package)
    except ImportError:
        specification = None
    if specification is None or not specification.submodule_search_locations:
        raise SettingsError(
            f"script_location = {location}: there is no package `{package}`; run where it can be imported"
        )
    return Path(next(iter(specification.submodule_search_locations)), *rest.split(":"))


def _unlocated(ini: Path, settings: Config, text: str) -> tuple[Path, str]:
    """Flask-Migrate names no `script_location`: its scripts are beside the file, the application is one folder up."""
    is_beside = (ini.parent / "env.py").is_file()
    options = {
        "script_location": "%(here)s" if is_beside else "%(here)s/alembic",
        "prepend_sys_path": "%(here)s/.." if is_beside else "%(here)s",
    }
    if not settings.file_config.has_option(MAIN, "version_locations"):
        options["path_separator"] = "os"
    for key, value in reversed(options.items()):
        if not settings.file_config.has_option(MAIN, key):
            text = with_option(text, MAIN, key, value)
    return ini.parent if is_beside else ini.parent / "alembic", text


def _url(settings: Config) -> str | None:
    try:
        url = settings.file_config.get(MAIN, "sqlalchemy.url", fallback=None)
    except (configparser.InterpolationError, ValueError):
        return None
    return None if url in (None, "", _EXAMPLE_URL) else url

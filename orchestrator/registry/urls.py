"""Database URLs: variables filled into their components, then checked; no message ever shows any of it."""

from __future__ import annotations

import dataclasses
import functools
import re
import secrets
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from orchestrator.databases import synchronous
from orchestrator.registry.problems import Mistake, nearest
from orchestrator.registry.variables import Fill, Part, Template
from orchestrator.tenants import is_cut_short, keep_secret, keep_secret_as_written

KNOWN_BACKENDS = ("postgresql", "mysql", "mariadb", "sqlite")
_SCHEME = re.compile(r"([a-z][a-z0-9]*)(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_SECRET_KEYS = re.compile(r"(?i)(?:ssl_?)?(?:password|passwd|pass|pwd|passphrase)|(?:access_?|auth_?)?token|.*secret.*")
_FORM = (
    "write it like driver://user:password@host/database; `%`, `@`, `/` and `#` in a password need ${VAR} or %-escapes"
)

#: digits only, so that a stand-in can stand for a port as well; nobody can guess it and write it into a URL
_STAND_IN = "9" + "".join(secrets.choice("0123456789") for _ in range(23))
_STOOD_IN = re.compile(_STAND_IN + r"([0-9]{3})")


@dataclasses.dataclass(frozen=True, slots=True)
class _Skeleton:
    """A URL with stand-ins for what is to be filled in."""

    url: URL
    parts: tuple[Part, ...]


def scheme_of(raw: str) -> str | None:
    """The kind of database that a URL as written names, None where a variable names it."""
    match = _SCHEME.match(raw)
    if not match:
        return None
    return {"mariadb": "mysql", "postgres": "postgresql"}.get(match[1].lower(), match[1].lower())


def fill_url(template: Template, fill: Fill) -> URL:
    """The URL of a template; values fill its components as they are, whatever characters they hold."""
    if template.is_one_variable or template.is_constant:
        return parse_url(template.filled(fill))
    skeleton = _skeleton(template)
    url = skeleton.url

    def fill_text(text: str) -> str:
        return _STOOD_IN.sub(lambda match: _filled_part(skeleton.parts[int(match[1])], fill), text)

    query = {
        key: fill_text(value) if isinstance(value, str) else tuple(map(fill_text, value))
        for key, value in url.query.items()
    }
    return URL.create(
        fill_text(url.drivername),
        username=None if url.username is None else fill_text(url.username),
        password=None if url.password is None else fill_text(str(url.password)),
        host=None if url.host is None else fill_text(url.host),
        port=None if url.port is None else _port(fill_text(str(url.port))),
        database=None if url.database is None else fill_text(url.database),
        query=query,
    )


def parse_url(text: str) -> URL:
    """A URL from text; the error does not echo it."""
    if is_cut_short(text):
        raise Mistake(
            "an @ stands in the host of the URL", "write an @ of the password as %40, or the password as ${VAR}"
        )
    keep_secret_as_written(text)
    try:
        return make_url(text)
    except (ArgumentError, ValueError, TypeError):
        raise Mistake("not a database URL", _FORM) from None


def settle_url(url: URL, root: Path, *, needs_database: bool = True) -> tuple[URL, str | None]:
    """A checked URL with a driver that blocks and an absolute SQLite path, and the asynchronous driver it replaced."""
    keep_secret(url)
    if url.drivername == "postgres":  # what hosting providers write, and SQLAlchemy refuses
        url = url.set(drivername="postgresql")
    _check_kind(url)
    _check_parts(url)
    if "+" not in url.drivername:
        url = url.set(drivername=_usual_driver(url.drivername))
    url, replaced = synchronous(url)
    if url.get_backend_name() == "sqlite":
        return _settle_file(url, root), replaced
    if needs_database and not url.database:
        raise Mistake("the URL names no database", "end it with /DATABASE")
    return url, replaced


def _skeleton(template: Template) -> _Skeleton:
    return _skeleton_of(template.parts)


@functools.lru_cache(maxsize=1024)
def _skeleton_of(parts: tuple[Part, ...]) -> _Skeleton:
    text = "".join(part if isinstance(part, str) else f"{_STAND_IN}{number:03}" for number, part in enumerate(parts))
    return _Skeleton(parse_url(text), parts)


def _filled_part(part: Part, fill: Fill) -> str:
    return part if isinstance(part, str) else fill(part)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Mistake("the port of the URL is not a number", "write a port from 1 to 65535")
    return int(text)


def _check_kind(url: URL) -> None:
    kind = url.drivername.partition("+")[0]
    if kind not in KNOWN_BACKENDS:
        shown = kind if kind.isidentifier() and len(kind) < 20 else "?"
        raise Mistake(
            f"unknown kind of database `{shown}`",
            nearest(kind, KNOWN_BACKENDS, f"known are {', '.join(KNOWN_BACKENDS)}"),
        )
    if not _is_dialect(url.drivername):
        raise Mistake(f"SQLAlchemy knows no such driver for {kind}", f"write {kind}:// for the usual one")


@functools.cache
def _usual_driver(kind: str) -> str:
    """The driver that a URL without one runs on; found out once, it depends on what is installed."""
    return synchronous(URL.create(kind))[0].drivername


@functools.cache
def _is_dialect(drivername: str) -> bool:
    try:
        URL.create(drivername).get_dialect()
    except NoSuchModuleError:
        return False
    except ImportError:
        return True  # the dialect is known, and its driver is missed where a connection is made
    return True


def _check_parts(url: URL) -> None:
    secret = next((key for key in url.query if _SECRET_KEYS.fullmatch(key)), None)
    if secret is None and "odbc_connect" in url.query:
        secret = "odbc_connect"  # noqa: S105 - the name of a key
    if secret is not None:
        raise Mistake(
            f"the URL carries a secret in its query string (`{secret}`)",
            "put it before the @, or under `password` or `connect_args`",
        )
    host = url.host or ""
    if "@" in host:
        raise Mistake(
            "an @ stands in the host of the URL", "write an @ of the password as %40, or the password as ${VAR}"
        )
    if any(character.isspace() or not character.isprintable() for character in host):
        raise Mistake("a blank or control character stands in the host of the URL", "remove it")
    _check_place(url)


def _check_place(url: URL) -> None:
    """The place must be readable from the URL alone, or two tenants at one place would go unnoticed."""
    ports = [str(url.port)] if url.port is not None else [_first(url.query["port"])] if "port" in url.query else []
    if any(not port.isdecimal() or not 0 < int(port) < 65536 for port in ports):
        raise Mistake("the port of the URL is not a number", "write a port from 1 to 65535")
    hidden = [key for key in ("dbname", "database", "db", "service") if key in url.query]
    hidden += [key for key, part in (("host", url.host), ("port", url.port)) if key in url.query and part]
    if hidden:
        raise Mistake(
            f"`{hidden[0]}` in the query string of the URL", "write it in its own place: //host:port/database"
        )


def _first(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[0]


def _settle_file(url: URL, root: Path) -> URL:
    path = url.database or ""
    if path in ("", ":memory:") or "memory" in (url.query.get("mode"), url.query.get("vfs")):
        raise Mistake("a SQLite database in memory is gone before it is migrated", "write sqlite:///path/to/file.db")
    if path.startswith("file:") or "uri" in url.query:
        raise Mistake("a SQLite `file:` URI", "write the plain path, sqlite:///path/to/file.db")
    if not path.isprintable():
        raise Mistake("a control character stands in the path of the URL", "remove it")
    if url.host:
        raise Mistake("a SQLite URL with a host", "write three slashes for a relative path, four for an absolute one")
    return url.set(database=str(root / path))

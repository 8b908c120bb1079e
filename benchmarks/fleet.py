"""`python -m benchmarks.fleet [TENANTS]`: a fleet of PostgreSQL schemas to head, against plain Alembic and the floor.

Three ways to bring the same ten revisions to every schema of one throwaway server:

* the floor: the SQL of `alembic upgrade head --sql`, sent as one string per tenant over one warm connection;
* `orchestrate upgrade --all`, start-up included, then once more with nothing due;
* plain `alembic -x tenant=NAME upgrade head`, a process per tenant, on a sample of ten.

Prints milliseconds per tenant, the ratio to the floor, and the peak memory of the command's largest process.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from tests import histories
from tests.services import fixtures, session
from tests.services.servers import connect_postgres

REVISIONS = 10
SAMPLE = 10


def main(tenants: int = 200) -> None:
    """Measure and print a table."""
    session.open_session()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            rows = _measure(Path(scratch), tenants)
    finally:
        session.close_session()
    floor = rows[0][1]
    print(f"{tenants} schemas, {REVISIONS} revisions")
    for name, milliseconds, memory in rows:
        peak = f"{memory:6.0f} MiB" if memory else ""
        print(f"{name:42} {milliseconds:9.2f} ms/tenant  {milliseconds / floor:8.2f} x floor  {peak}")


def _measure(folder: Path, tenants: int) -> list[tuple[str, float, float]]:
    histories.write(folder, size=REVISIONS)
    names = [f"t{number:04d}" for number in range(tenants)]
    server = session.server("postgres")
    with fixtures.fresh_postgres(server) as reference, fixtures.fresh_postgres(server) as fleet:
        _registry(folder, reference, names)
        script = _script(folder, names[0])
        rows = [("floor: one string per tenant", _floor(reference, script, names), 0.0)]
        _registry(folder, fleet, names)
        _schemas(fleet, names)
        rows.append(_command("orchestrate upgrade --all", folder, ["orchestrate", "upgrade", "--all", "-q"], tenants))
        rows.append(
            _command(
                "orchestrate upgrade --all, nothing due", folder, ["orchestrate", "upgrade", "--all", "-q"], tenants
            )
        )
        rows.append(_command("orchestrate status --check", folder, ["orchestrate", "status", "--check", "-q"], tenants))
        again = [f"p{number:04d}" for number in range(SAMPLE)]
        _registry(folder, fleet, again)
        _schemas(fleet, again)
        rows.append(_each("alembic, a process per tenant", folder, again))
    return rows


def _registry(folder: Path, database: URL, names: Sequence[str]) -> None:
    url = database.render_as_string(hide_password=False)
    tenants = "".join(f"  {name}: {{}}\n" for name in names)
    (folder / "tenants.yaml").write_text(
        f"version: 1\ndefaults: {{url: '{url}', schema: '{{tenant}}'}}\ntenants:\n{tenants}", encoding="utf-8"
    )


def _schemas(database: URL, names: Sequence[str]) -> None:
    with connect_postgres(database) as connection:
        for name in names:
            connection.execute(f'CREATE SCHEMA "{name}"'.encode())


def _script(folder: Path, name: str) -> str:
    """The SQL of the whole history for one tenant."""
    done = subprocess.run(
        [_program("alembic"), "-x", f"tenant={name}", "upgrade", "head", "--sql"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def _floor(database: URL, script: str, names: Sequence[str]) -> float:
    _schemas(database, names)
    with connect_postgres(database) as connection:
        began = time.perf_counter()
        for name in names:
            connection.execute(script.replace(names[0], name).encode())
        return (time.perf_counter() - began) * 1000 / len(names)


def _command(title: str, folder: Path, command: Sequence[str], tenants: int) -> tuple[str, float, float]:
    with _timed() as elapsed:
        subprocess.run([_program(command[0]), *command[1:]], cwd=folder, check=True, capture_output=True)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return title, elapsed() * 1000 / tenants, memory


def _each(title: str, folder: Path, names: Sequence[str]) -> tuple[str, float, float]:
    with _timed() as elapsed:
        for name in names:
            command = [_program("alembic"), "-x", f"tenant={name}", "upgrade", "head"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return title, elapsed() * 1000 / len(names), 0.0


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    began = time.perf_counter()
    ended: list[float] = []
    yield lambda: ended[0]
    ended.append(time.perf_counter() - began)


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

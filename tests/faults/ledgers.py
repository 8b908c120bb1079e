"""A ledger that goes away, or has no room left, in mid-run."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL

from tests.acceptance import fleets
from tests.acceptance.fleets import Done, Fleet
from tests.faults.proxy import proxied
from tests.faults.rules import OutageAfter
from tests.faults.stage import Figures, Stage, append, assert_at_head, problems_of
from tests.services import fixtures
from tests.services.servers import connect_postgres

_INTENTS = "SELECT DISTINCT target FROM orchestrate_attempts"
#: pages of SQLite that the small disk holds beside the empty ledger
_ROOM = 30


def unreachable(stage: Stage, *, count: int, after: int) -> Figures:
    """The ledger's server goes down after so many tries were written, and is back for `resume`."""
    rule = OutageAfter(r"INSERT INTO orchestrate_attempts", after)
    with (
        fixtures.fresh_postgres(stage.postgres) as database,
        proxied(stage.postgres, rule) as proxy,
        _files(stage, count) as fleet,
    ):
        through = fleets.templated(proxy.url.set(database=database.database)) + "?sslmode=disable"
        append(fleet.project, f'ledger: "{through}"\n')
        done = fleet.orchestrate("upgrade", "--all", "-o", "json", exit_status=None, **fleets.secrets(database))
        assert rule.refused or rule.broke, f"{done}"
        started = _started_in_postgres(database)
        figures = _judged(fleet, started, done)
        rule.end()
        resumed = fleet.orchestrate("resume", "-o", "json", exit_status=None, **fleets.secrets(database))
        assert resumed.exit_status == 0, f"{done}\n{resumed}"
        assert_at_head(fleet)
        return {**figures, "resume ended with": resumed.exit_status}


def full(stage: Stage, *, count: int) -> Figures:
    """The disk with the ledger's file has no room left; for `resume` there is room again."""
    with _files(stage, count) as fleet:
        disk = fleet.project.folder / "disk"
        disk.mkdir()
        append(fleet.project, 'ledger: "sqlite:///disk/ledger.db"\n')
        # A namespace of its own: what is mounted in it ends with it, and needs no rights on this machine.
        done = _isolated(fleet, "fill")
        started = _started_in_file(fleet.project.folder / "saved" / "ledger.db")
        figures = _judged(fleet, started, done)
        for file in (fleet.project.folder / "saved").iterdir():
            file.rename(disk / file.name)
        resumed = fleet.orchestrate("resume", "-o", "json", exit_status=None)
        assert resumed.exit_status == 0, f"{done}\n{resumed}"
        assert_at_head(fleet)
        return {**figures, "resume ended with": resumed.exit_status}


def _judged(fleet: Fleet, started: set[str], done: Done) -> Figures:
    """The run has stopped, and has told so; nothing was migrated that the ledger does not know to have begun."""
    assert done.exit_status not in (0, None), f"{done}"
    assert "Traceback" not in done.errors, f"{done}"
    problems = problems_of(fleet)
    touched = {
        member.name for member in fleet.members if not any(str(member.url.database) in text for text in problems)
    }
    assert touched <= started, f"migrated without an intent: {touched - started}"
    assert len(touched) < len(fleet.members), f"the run did not stop\n{done}"
    return {
        "targets": len(fleet.members),
        "begun by the ledger": len(started),
        "at head when it stopped": len(touched),
        "exit code": done.exit_status,
    }


@contextlib.contextmanager
def _files(stage: Stage, count: int) -> Iterator[Fleet]:
    """SQLite tenants: nothing but the ledger is in trouble here."""
    folder = stage.folder / f"files-{os.urandom(4).hex()}"
    yield fleets.sqlite_fleet(folder, count=count, size=3, starts=(0,))


def _started_in_postgres(database: URL) -> set[str]:
    with contextlib.closing(connect_postgres(database)) as connection:
        return {str(row[0]) for row in connection.execute(_INTENTS.encode())}


def _started_in_file(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {str(row[0]) for row in connection.execute(_INTENTS)}


def _isolated(fleet: Fleet, step: str) -> Done:
    """Run this module's `main` where it may mount a disk: as root of a user namespace."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", __name__, str(_ROOM)]
    ended = subprocess.run(
        command,
        cwd=fleet.project.folder,
        env={**fleets.inherited(), **fleet.project.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Done(command=tuple(command), exit_status=ended.returncode, output=ended.stdout, errors=ended.stderr)


def main(room: str) -> int:
    """In the project's folder: mount a disk, make the ledger on it, leave little room, and upgrade."""
    program = str(Path(sys.executable).parent / "orchestrate")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "disk"], check=True)
    subprocess.run([program, "upgrade", "-t", "t000", "-q"], check=True, stdin=subprocess.DEVNULL)
    state = os.statvfs("disk")
    Path("disk/ballast").write_bytes(b"\0" * ((state.f_bavail - int(room)) * state.f_bsize))
    ended = subprocess.run([program, "upgrade", "--all", "-o", "json"], check=False, stdin=subprocess.DEVNULL)
    Path("disk/ballast").unlink()
    saved = Path("saved")
    saved.mkdir()
    for file in Path("disk").iterdir():
        (saved / file.name).write_bytes(file.read_bytes())
    return ended.returncode


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

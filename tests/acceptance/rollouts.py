"""Fleets to roll out to, runs that are left running while others talk to them, and what the databases say of both."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL

import orchestrator
from orchestrator.selectors import stable_hash
from tests import checker, histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Done, Project, descendants
from tests.services import fixtures
from tests.services.servers import connect_postgres

#: seconds that a test waits for what must come
PATIENCE = 120.0
SIZE = 2
#: what breaks the revision for a tenant, and what mends its data
POISON = "DELETE FROM accounts WHERE id = 1"
ANTIDOTE = "INSERT INTO accounts (id, email) VALUES (1, 'Ada@Example.com')"
#: a try leaves its trace even where it is rolled back: sequences are in no transaction
COUNTED = """op.execute("SELECT nextval('tries')")"""
#: put before a revision's own statements: waits while the file `hold` is there, or one of the tenant's own name
HELD = """
    import pathlib
    import time

    folder = pathlib.Path(__file__).parents[2]
    (folder / "reached").touch()
    while (folder / "hold").exists():
        time.sleep(0.02)
"""


# -- a large fleet, copied for each test ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards:
    """Schemas in several PostgreSQL databases, each at r001 of two revisions; made once, and copied for each test."""

    server: URL
    #: names of the databases that are copied, by that of the copy
    originals: Mapping[str, str]
    #: the database of each tenant
    homes: Mapping[str, str]

    def url(self, tenant: str) -> URL:
        return self.server.set(database=self.homes[tenant])


@contextlib.contextmanager
def shards(server: URL, *, count: int, databases: int) -> Iterator[Shards]:
    """So many tenants, dealt out to so many databases."""
    mark = uuid.uuid4().hex[:6]
    copies = [f"shard_{mark}_{number}" for number in range(databases)]
    made = Shards(
        server=server,
        originals={name: f"{name}_original" for name in copies},
        homes={f"t{number:03d}": copies[number % databases] for number in range(count)},
    )
    fixtures.create_postgres(server, *made.originals.values())
    try:
        for name, original in made.originals.items():
            _settle(server.set(database=original), [one for one, home in made.homes.items() if home == name])
        yield made
    finally:
        fixtures.drop_postgres(server, *made.originals, *made.originals.values())


def _settle(url: URL, tenants: Iterable[str]) -> None:
    """What r001 makes, once for each tenant, without Alembic."""
    with contextlib.closing(connect_postgres(url)) as connection:
        for tenant in tenants:
            connection.execute(
                f"""CREATE SCHEMA tenant_{tenant};
                SET search_path TO tenant_{tenant};
                CREATE SEQUENCE tries;
                CREATE TABLE markers (revision varchar(40) NOT NULL);
                CREATE TABLE accounts (id integer PRIMARY KEY, email varchar(120) NOT NULL);
                CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
                INSERT INTO markers VALUES ('r001');
                INSERT INTO alembic_version VALUES ('r001');
                INSERT INTO accounts VALUES (1, 'Ada@Example.com'), (2, 'bob@example.com');""".encode()
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BigFleet:
    """A project over a copy of the shards."""

    project: Project
    shards: Shards

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shards.homes)

    def write(self, strategies: str, *, tenants: Collection[str] | None = None, more: str = "") -> None:
        """The registry: these tenants, or all; tenants beside those of the shards live in the first database."""
        first = next(iter(self.shards.originals))
        home = fleets.templated(self.shards.server.set(database="{label.shard}"))
        lines = ["version: 1", "project: acceptance", "defaults:"]
        lines += [f'  url: "{home}"', '  schema: "tenant_{tenant}"', "tenants:"]
        lines += [
            f"  {name}: {{labels: {{shard: {self.shards.homes.get(name, first)}}}}}" for name in tenants or self.names
        ]
        self.project.write_registry("\n".join([*lines, "strategies:", strategies, more, ""]))

    def orchestrate(self, *arguments: str, exit_status: int | None = 0) -> Done:
        return self.project.orchestrate(*arguments, exit_status=exit_status)

    def execute(self, tenants: Collection[str], statement: str) -> None:
        """Run SQL on these tenants."""
        for database in self.shards.originals:
            with contextlib.closing(connect_postgres(self.shards.server.set(database=database))) as connection:
                for tenant in tenants:
                    if self.shards.homes[tenant] == database:
                        connection.execute(f"SET search_path TO tenant_{tenant}; {statement}".encode())

    def tries(self) -> dict[str, int]:
        """How often the counted revision has begun on each tenant, where it has; what was rolled back counts."""
        query = "SELECT schemaname, last_value FROM pg_sequences WHERE sequencename = 'tries' AND last_value > 0"
        found: dict[str, int] = {}
        for database in self.shards.originals:
            with contextlib.closing(connect_postgres(self.shards.server.set(database=database))) as connection:
                rows = connection.execute(query.encode()).fetchall()
                found |= {str(schema).removeprefix("tenant_"): int(str(number)) for schema, number in rows}
        return found

    def expected(self, *, upgraded: Collection[str] | None = None) -> list[checker.Expected]:
        """These at head, or all; the others where they began."""
        at_head = set(self.names if upgraded is None else upgraded)
        return [self._expected(name, SIZE if name in at_head else 1) for name in self.names]

    def _expected(self, name: str, size: int) -> checker.Expected:
        ids, schema = histories.revision_ids(size), f"tenant_{name}"
        tables = histories.tables_at(size)
        return checker.Expected(url=self.shards.url(name), schema=schema, heads=ids[-1:], markers=ids, tables=tables)


@contextlib.contextmanager
def copied(made: Shards, folder: Path) -> Iterator[BigFleet]:
    """The fleet as it was made, whose second revision counts its tries."""
    with contextlib.closing(connect_postgres(made.server)) as connection:
        for name, original in made.originals.items():
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{original}"'.encode())
    folder.mkdir()
    histories.write(folder, size=SIZE)
    histories.edit(folder, "r002", "def upgrade():\n", f"def upgrade():\n    {COUNTED}\n")
    yield BigFleet(project=Project(folder=folder, environment=fleets.secrets(made.server)), shards=made)


# -- a small fleet of files -----------------------------------------------------------------------------------------


def small(
    folder: Path, strategies: str, *, count: int = 4, start: int = 0, more: str = "", hold: bool = False
) -> fleets.Fleet:
    """Files that are empty, or at r001; with `hold` the last revision waits while the file `hold` is there."""
    made = fleets.sqlite_fleet(folder, count=count, size=SIZE, starts=(start,))
    write(made, strategies, more)
    if hold:
        histories.edit(folder, "r002", "def upgrade():\n", f"def upgrade():{HELD}")
    return made


def write(fleet: fleets.Fleet, strategies: str, more: str = "", *, tenants: Mapping[str, str] | None = None) -> None:
    """The registry of a small fleet; `tenants` has more keys of some, and who is left out of it has left."""
    given = dict.fromkeys((member.name for member in fleet.members), "") if tenants is None else tenants
    lines = ["version: 1", "project: acceptance", "defaults:", '  url: "sqlite:///tenants/{tenant}.db"', "tenants:"]
    lines += [f"  {name}: {{{keys}}}" for name, keys in given.items()]
    fleet.project.write_registry("\n".join([*lines, "strategies:", strategies, more, ""]))


def keys(fleet: fleets.Fleet, **given: str) -> dict[str, str]:
    """Keys of some tenants, and none of the others."""
    return {member.name: given.get(member.name, "") for member in fleet.members}


def assert_only(fleet: fleets.Fleet, *upgraded: str) -> None:
    """These are at head, and nothing at all was done to the others."""
    for member in fleet.members:
        if member.name in upgraded:
            checker.assert_right([member.expected(fleet.size)])
        elif member.start:
            checker.assert_right([member.expected(member.start)])
        else:
            # What a killed worker had begun is rolled back by whoever opens the file next.
            with contextlib.closing(sqlite3.connect(member.url.database or "", timeout=30)) as connection:
                tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            assert not tables, f"something was done to {member.name}"


def script(fleet: fleets.Fleet, name: str, text: str) -> None:
    """A program in the project's folder."""
    path = fleet.project.folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# -- runs that go on while others talk to them ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Live:
    """A command that is running."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def ends(self, exit_status: int, seconds: float = PATIENCE) -> str:
        """Wait for its end; returns what it has written."""
        self.process.wait(seconds)
        assert self.process.returncode == exit_status, f"{self.process.returncode}:\n{self.text}"
        return self.text

    def says(self, *words: str) -> None:
        """Wait until all of that was written."""
        until(lambda: all(word in self.text for word in words), lambda: f"{words} not in:\n{self.text}")

    def kill(self) -> None:
        """End it and its workers at once, as a machine that loses its power does."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@contextlib.contextmanager
def live(project: Project, *arguments: str, terminal: bool = False) -> Iterator[Live]:
    """`orchestrate` in the background; nothing of it is left afterwards."""
    log = project.folder / f"live-{uuid.uuid4().hex[:6]}.log"
    command = [str(Path(sys.executable).parent / "orchestrate"), *arguments]
    environment = {**fleets.inherited(), **project.environment}
    keyboard, screen = pty.openpty() if terminal else (None, None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=project.folder,
            env={**environment, "TERM": "dumb"},
            stdin=subprocess.DEVNULL if screen is None else screen,
            stdout=output,
            stderr=output if screen is None else screen,
            start_new_session=True,
        )
    running = Live(process=process, log=log)
    try:
        with _drained(keyboard, log):
            yield running
    finally:
        (project.folder / "hold").unlink(missing_ok=True)
        running.kill()
        for end in filter(None, (keyboard, screen)):
            with contextlib.suppress(OSError):
                os.close(end)


@contextlib.contextmanager
def _drained(keyboard: int | None, log: Path) -> Iterator[None]:
    """What is shown on a terminal goes into the log, or whoever writes to it would wait for ever."""
    if keyboard is None:
        yield
        return
    with log.open("ab") as output:
        reader = subprocess.Popen(["/bin/cat"], stdin=keyboard, stdout=output, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        reader.kill()
        reader.wait(PATIENCE)


def until(
    holds: Callable[[], Any], told: Callable[[], str] = lambda: "it never came", seconds: float = PATIENCE
) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def heard(project: Project) -> None:
    """Wait until the live runner has asked its ledger for news, after now."""
    for _ in range(2):  # the first beat may have been under way
        before = _beat(project)
        until(lambda before=before: _beat(project) != before, lambda: "its runner does not beat")  # type: ignore[misc]


def _beat(project: Project) -> object:
    with contextlib.closing(sqlite3.connect(project.folder / ".orchestrate" / "ledger.db", timeout=30)) as connection:
        return connection.execute("SELECT token, renewed_at FROM orchestrate_leases").fetchone()


def latest(project: Project, run: str | None = None) -> dict[str, Any]:
    """The report of a run, the latest without one, as the ledger has it."""
    with orchestrator.Project.load(project.folder / "alembic.ini") as reader:
        return reader.report(run).to_json()


def unsettled(project: Project) -> set[str]:
    """Targets that the live run is at work on."""
    with orchestrator.Project.load(project.folder / "alembic.ini") as reader:
        return set(reader.ledger.unsettled(reader.report().run))


def canary(fleet: fleets.Fleet) -> tuple[str, list[str]]:
    """Whom a wave of one takes, and the others."""
    names = [member.name for member in fleet.members]
    first = min(names, key=stable_hash)
    return first, [name for name in names if name != first]


def statuses(report: Mapping[str, Any]) -> dict[str, str]:
    """By target."""
    return {outcome["target"]: outcome["status"] for outcome in report["outcomes"]}


def waves(report: Mapping[str, Any]) -> dict[str, str]:
    """Status by wave."""
    return {wave["name"]: wave["status"] for wave in report["waves"]}


def gate(report: Mapping[str, Any], wave: str) -> dict[str, Any]:
    """What the gate of a wave said."""
    (found,) = [one["gate"] for one in report["waves"] if one["name"] == wave]
    assert isinstance(found, dict), report["waves"]
    return found


def members(plan: Mapping[str, Any]) -> dict[str, str]:
    """The wave of each tenant of a plan."""
    return {job["tenant"]: wave["name"] for wave in plan["waves"] for job in wave["jobs"]}


def window(begins: datetime.timedelta, lasts: datetime.timedelta) -> str:
    """A window of every day, from now on by the clock of UTC."""
    start = datetime.datetime.now(datetime.UTC) + begins
    return f"{start:%H:%M}-{start + lasts:%H:%M}"


def open_window() -> str:
    """Open now, and for as long as a test takes."""
    return window(-datetime.timedelta(hours=2), datetime.timedelta(hours=5))


def closed_window() -> str:
    """Closed now, and for as long as a test takes."""
    return window(datetime.timedelta(hours=3), datetime.timedelta(hours=1))

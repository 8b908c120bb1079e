"""Fleets on real databases, and the real `orchestrate` and `alembic` commands run on them as subprocesses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from tests import checker, histories, snapshots
from tests.services import fixtures

#: variable that the registries take the server's password from
PASSWORD = "FLEET_DB_PASSWORD"


@dataclasses.dataclass
class _Patience:
    seconds: float = 300


#: how long a command may take; the long forms have more of it
PATIENCE = _Patience()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """What a command did."""

    command: tuple[str, ...]
    exit_status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """Standard output, which must hold one JSON document and nothing else."""
        return json.loads(self.output)

    @property
    def text(self) -> str:
        return self.output + self.errors

    def __str__(self) -> str:
        return f"{' '.join(self.command)} ended with {self.exit_status}\n{self.output}\n{self.errors}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project:
    """A folder with alembic.ini, alembic/ and tenants.yaml."""

    folder: Path
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def write_registry(self, text: str) -> None:
        (self.folder / "tenants.yaml").write_text(text)

    def orchestrate(self, *arguments: str, exit_status: int | None = 0, **variables: str) -> Done:
        """Run `orchestrate`; None accepts every exit status."""
        return self.run("orchestrate", *arguments, exit_status=exit_status, **variables)

    def alembic(self, *arguments: str, exit_status: int | None = 0) -> Done:
        """Run plain `alembic`."""
        return self.run("alembic", *arguments, exit_status=exit_status)

    def run(self, program: str, *arguments: str, exit_status: int | None = 0, **variables: str) -> Done:
        command = (str(Path(sys.executable).parent / program), *arguments)
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env={**inherited(), **self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE.seconds,
            check=False,
        )
        done = Done(
            command=(program, *arguments), exit_status=ended.returncode, output=ended.stdout, errors=ended.stderr
        )
        assert exit_status is None or done.exit_status == exit_status, f"{done}"
        return done


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One tenant of a fleet, and the number of the revision at which it starts (0: empty)."""

    name: str
    url: URL
    schema: str | None = None
    start: int

    def expected(self, size: int) -> checker.Expected:
        ids = histories.revision_ids(size)
        return checker.Expected(
            url=self.url, schema=self.schema, heads=ids[-1:], markers=ids, tables=histories.tables_at(size)
        )

    def snapshot(self) -> snapshots.Snapshot:
        return snapshots.take(self.url, self.schema)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    """Tenants at mixed revisions of one generated history."""

    project: Project
    members: tuple[Member, ...]
    size: int
    starter: histories.Starter

    def __getitem__(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    def expected(self) -> list[checker.Expected]:
        """Every tenant at head."""
        return [member.expected(self.size) for member in self.members]

    def execute(self, name: str, statements: Sequence[str]) -> None:
        """Run SQL on one tenant."""
        member = self[name]
        self.starter.bring(member.url, None, schema=member.schema, then=statements)

    def orchestrate(self, *arguments: str, exit_status: int | None = 0, **variables: str) -> Done:
        return self.project.orchestrate(*arguments, exit_status=exit_status, **variables)


Place = Callable[[str], tuple[URL, str | None]]


def build(
    folder: Path,
    place: Place,
    template: str,
    *,
    count: int,
    size: int = 10,
    starts: Sequence[int] = (0, 3, 7, 10, 1, 5),
    prefix: str = "t",
    environment: Mapping[str, str] | None = None,
) -> Fleet:
    """A fleet whose tenants start at `starts`, in turn; `template` is the `defaults:` of its registry."""
    folder.mkdir(parents=True, exist_ok=True)
    starter = histories.Starter(histories.write(folder, size=size))
    members = []
    for number in range(count):
        name = f"{prefix}{number:03d}"
        url, schema = place(name)
        start = starts[number % len(starts)]
        starter.bring(url, f"r{start:03d}" if start else None, schema=schema)
        members.append(Member(name=name, url=url, schema=schema, start=start))
    project = Project(folder=folder, environment=environment or {})
    names = "".join(f"  {member.name}: {{}}\n" for member in members)
    project.write_registry(f"version: 1\nproject: acceptance\ndefaults:\n{template}\ntenants:\n{names}")
    return Fleet(project=project, members=tuple(members), size=size, starter=starter)


def sqlite_fleet(folder: Path, *, count: int, **options: Any) -> Fleet:
    """A file per tenant."""
    (folder / "tenants").mkdir(parents=True)

    def place(name: str) -> tuple[URL, None]:
        path = folder / "tenants" / f"{name}.db"
        path.touch()
        return URL.create("sqlite", database=str(path)), None

    return build(folder, place, '  url: "sqlite:///tenants/{tenant}.db"', count=count, **options)


def postgres_schemas(folder: Path, database: URL, *, count: int, **options: Any) -> Fleet:
    """A schema per tenant in one database."""

    def place(name: str) -> tuple[URL, str]:
        return database, f"tenant_{name}"

    template = f'  url: "{templated(database)}"\n  schema: "tenant_{{tenant}}"'
    return build(folder, place, template, count=count, environment=secrets(database), **options)


def server_databases(folder: Path, server: URL, *, count: int, prefix: str, **options: Any) -> Iterator[Fleet]:
    """A database per tenant on PostgreSQL or MariaDB; dropped when the generator goes on."""
    postgres = server.get_backend_name() == "postgresql"
    create, drop = (
        (fixtures.create_postgres, fixtures.drop_postgres)
        if postgres
        else (fixtures.create_mariadb, fixtures.drop_mariadb)
    )
    prefix = f"{prefix}_{uuid.uuid4().hex[:6]}_"  # tests share the server
    names = [f"{prefix}{number:03d}" for number in range(count)]
    create(server, *names)
    template = f'  url: "{templated(server.set(database="{tenant}"))}"'
    try:
        yield build(
            folder,
            lambda name: (server.set(database=name), None),
            template,
            count=count,
            prefix=prefix,
            environment=secrets(server),
            **options,
        )
    finally:
        drop(server, *names)


def templated(url: URL) -> str:
    """A URL as a registry has it: the password comes from a variable."""
    host = f"{url.host}:{url.port}" if url.port else url.host
    return f"{url.drivername}://{url.username}:${{{PASSWORD}}}@{host}/{url.database}"


def secrets(url: URL) -> dict[str, str]:
    """The variable that `templated` names."""
    return {PASSWORD: url.password or ""}


def report_of(done: Done) -> dict[str, Any]:
    """The report on standard output, with what must hold for every report checked."""
    report: dict[str, Any] = done.json
    assert report["format"] == "orchestrate.report/1"
    assert report["exit_code"] == done.exit_status
    statuses = [outcome["status"] for outcome in report["outcomes"]]
    assert {status: number for status, number in report["counts"].items() if number} == {
        status: statuses.count(status) for status in set(statuses)
    }
    targets = [outcome["target"] for outcome in report["outcomes"]]
    assert len(targets) == len(set(targets))
    return report


def outcomes_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Outcomes by target."""
    return {outcome["target"]: outcome for outcome in report["outcomes"]}


def everything_written(project: Project) -> str:
    """All text that a command may have left behind: ledger, log, reports."""
    files = [path for path in project.folder.rglob("*") if path.is_file() and "tenants/" not in str(path)]
    ours = [path for path in files if ".orchestrate" in path.parts or path.suffix in (".json", ".xml", ".html")]
    return "\n".join(path.read_bytes().decode(errors="replace") for path in ours)


def assert_readable(done: Done, says: str, *secrets: str) -> None:
    """One error for people: it says what is wrong, without a traceback and without a secret."""
    assert "Traceback" not in done.text, f"{done}"
    assert re.search(says, done.text), f"{says!r} is not in:\n{done}"
    for secret in (*secrets, "hush"):
        assert secret not in done.text, f"{secret!r} is in:\n{done}"


def inherited() -> dict[str, str]:
    """What commands see of this process's environment."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
    return {**{key: os.environ[key] for key in kept if key in os.environ}, "NO_COLOR": "1"}


def descendants(pid: int) -> list[int]:
    """Processes that it has started, and those that they have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]

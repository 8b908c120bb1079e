"""Where a scenario plays: real servers, fleets that reach them through a proxy, and commands that run beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from tests import checker
from tests.acceptance import fleets
from tests.acceptance.fleets import Done, Fleet, Project
from tests.services import fixtures
from tests.services.servers import children

Figures = dict[str, Any]

#: the strategy that all fleets here use unless they say otherwise: waits that suit a test
QUICK = "strategies:\n  default: {retries: {busy: [1s, 2s, 4s], server: [1s, 1s, 2s], lost: 5}}\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A folder, and the administrators' URLs of two servers."""

    folder: Path
    postgres: URL
    mariadb: URL
    seed: int = 1

    def server(self, kind: str) -> URL:
        """By name: `postgresql` or `mariadb`."""
        return self.postgres if kind == "postgresql" else self.mariadb

    @contextlib.contextmanager
    def fleet(
        self, server: URL, through: URL | None = None, *, more: str = QUICK, settings: str = "", **options: Any
    ) -> Iterator[Fleet]:
        """A schema per tenant on PostgreSQL, a database per tenant on MariaDB; `settings` go into `defaults`.

        The fleet's members name the server itself, the registry the way `through`.
        """
        folder = Path(tempfile.mkdtemp(prefix="fleet-", dir=self.folder))
        given = {"count": 3, "size": 4, "starts": (0,), **options}
        make = schemas if server.get_backend_name() == "postgresql" else databases
        with make(folder, server, through or server, settings, given) as fleet:
            append(fleet.project, more)
            yield fleet


@contextlib.contextmanager
def schemas(folder: Path, server: URL, through: URL, settings: str, given: dict[str, Any]) -> Iterator[Fleet]:
    """A schema per tenant in one fresh database."""
    with fixtures.fresh_postgres(server) as database:
        url = fleets.templated(through.set(database=database.database))
        # The proxy reads along.
        template = f'  url: "{url}"\n  schema: "tenant_{{tenant}}"\n  connect_args: {{sslmode: disable}}\n{settings}'
        yield fleets.build(
            folder,
            lambda name: (database, f"tenant_{name}"),
            template,
            environment=fleets.secrets(server),
            **given,
        )


@contextlib.contextmanager
def databases(folder: Path, server: URL, through: URL, settings: str, given: dict[str, Any]) -> Iterator[Fleet]:
    """A fresh database per tenant."""
    prefix = f"f{uuid.uuid4().hex[:8]}_"
    names = [f"{prefix}{number:03d}" for number in range(given["count"])]
    fixtures.create_mariadb(server, *names)
    template = f'  url: "{fleets.templated(through.set(database="{tenant}"))}"\n{settings}'
    try:
        yield fleets.build(
            folder,
            lambda name: (server.set(database=name), None),
            template,
            prefix=prefix,
            environment=fleets.secrets(server),
            **given,
        )
    finally:
        fixtures.drop_mariadb(server, *names)


def append(project: Project, text: str) -> None:
    """Add top-level keys to a registry."""
    project.write_registry((project.folder / "tenants.yaml").read_text() + "\n" + text)


def problems_of(fleet: Fleet) -> list[str]:
    """What keeps it from being at head; the table of our journal is none of the history's."""
    return [text for text in checker.check(fleet.expected()) if not text.endswith(".orchestrate_journal is too many")]


def assert_at_head(fleet: Fleet) -> None:
    """Every tenant is right, each revision once."""
    problems = problems_of(fleet)
    assert not problems, "\n".join(problems[:20])


def assert_told_truly(fleet: Fleet, report: dict[str, Any]) -> None:
    """What the report says of each target is what its database says, and no revision ran twice."""
    problems = problems_of(fleet)
    outcomes = fleets.outcomes_of(report)
    for name, outcome in outcomes.items():
        wrong = _about(fleet[name], fleet.size, problems)
        if outcome["status"] in ("upgraded", "unchanged"):
            assert not wrong, "\n".join([f"told to be {outcome['status']}:", *wrong])
        else:
            assert wrong, f"at head, and told to be otherwise: {outcome}"
    twice = [problem for problem in problems if problem.endswith("times")]
    assert not twice, "\n".join(twice)


def _about(member: fleets.Member, size: int, problems: list[str]) -> list[str]:
    """Those of one target; tables that are too few or too many are listed under their schema."""
    name, schema = member.expected(size).name, member.schema or member.url.database
    table = f": table {schema}."
    return [text for text in problems if (text.startswith(f"{name}: ") and ": table " not in text) or table in text]


class Command:
    """`orchestrate`, or another program, beside the test."""

    def __init__(self, project: Project, *arguments: str, program: str = "orchestrate") -> None:
        self._arguments = (program, *arguments)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{program}-", dir=project.folder))
        with (self._folder / "output").open("w") as output, (self._folder / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / program), *arguments],
                cwd=project.folder,
                env={**fleets.inherited(), **project.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def wait(self) -> Done:
        """When it has ended by itself."""
        return Done(
            command=self._arguments,
            exit_status=self.process.wait(fleets.PATIENCE.seconds),
            output=(self._folder / "output").read_text(),
            errors=(self._folder / "errors").read_text(),
        )

    def kill(self) -> Done:
        """SIGKILL, to it and to its workers, which are in a group of their own."""
        for pid in _family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.wait()


def _family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    return [pid, *(later for child in children(pid) for later in _family(child))]


@contextlib.contextmanager
def beside(project: Project, *arguments: str, program: str = "orchestrate") -> Iterator[Command]:
    """A command that is killed at the end unless it has ended."""
    command = Command(project, *arguments, program=program)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.kill()

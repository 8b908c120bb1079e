"""Fleets that can be put back to where they started in no time, on raw drivers: one kind per engine."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import io
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pymysql.constants.CLIENT
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import URL

from tests import checker, histories
from tests.acceptance import fleets
from tests.services import fixtures, session
from tests.services.servers import connect_mariadb, connect_postgres
from tests.soak import ledgers

_JOURNAL = "orchestrate_journal"
ENGINES = ("sqlite", "postgresql", "mariadb")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How large a fleet is, and where its tenants start, in turn (0: empty)."""

    tenants: int
    revisions: int = 6
    starts: Sequence[int] = (0, 0, 3, 0, 1)
    #: one more revision at the end, which leaves its transaction to build an index
    autocommit: bool = False
    #: commit after each revision
    per_revision: bool = False

    @property
    def ids(self) -> list[str]:
        """All revisions."""
        return histories.revision_ids(self.revisions) + (["c001"] if self.autocommit else [])


class Ground(abc.ABC):
    """One engine's fleet: a project with its tenants, which `reset` puts back to the start."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.size = size
        self.folder = folder / "project"
        self.folder.mkdir(parents=True)
        config = histories.write(self.folder, size=size.revisions)
        if size.autocommit:
            histories.add_autocommit(self.folder, f"r{size.revisions:03d}")
        self.starter = histories.Starter(config)
        self.members = tuple(
            fleets.Member(
                name=f"t{number:03d}",
                url=self.place(f"t{number:03d}"),
                schema=self.schema(f"t{number:03d}"),
                start=size.starts[number % len(size.starts)],
            )
            for number in range(size.tenants)
        )
        self.project = fleets.Project(folder=self.folder, environment=self.environment())
        names = "".join(f"  {member.name}: {{}}\n" for member in self.members)
        transaction = "\n  transaction: revision" if size.per_revision else ""
        self.project.write_registry(
            f"version: 1\nproject: soak\ndefaults:\n{self.template()}{transaction}\ntenants:\n{names}"
        )

    @abc.abstractmethod
    def place(self, name: str) -> URL:
        """Where a tenant lives."""

    def schema(self, name: str) -> str | None:
        """The tenant's schema, where it has one."""
        return None

    @abc.abstractmethod
    def template(self) -> str:
        """`defaults:` of the registry."""

    def environment(self) -> Mapping[str, str]:
        """Variables that the registry needs."""
        return {}

    @abc.abstractmethod
    def restore(self) -> None:
        """Put every tenant's database back to the start."""

    @abc.abstractmethod
    def versions(self, among: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        """What each tenant's version table says, of those among them; nothing for a tenant without one."""

    def sessions(self) -> list[str]:
        """Server sessions that still work for a tenant, or hold a lock."""
        return []

    def leftovers(self) -> list[str]:
        """What a finished journal may not leave behind."""
        return []

    def starts(self) -> set[int]:
        """The numbers of the revisions that tenants start at."""
        return {member.start for member in self.members}

    def reset(self, *, ledger: bool = False) -> None:
        """Back to the start; with `ledger` to an empty ledger whose tables are made already."""
        shutil.rmtree(self.folder / ".orchestrate", ignore_errors=True)
        self.restore()
        kept = self.folder.parent / "empty-ledger"
        if ledger:
            if not kept.exists():
                make_ledger(kept)
            shutil.copytree(kept, self.folder / ".orchestrate")

    def _among(self, names: Collection[str] | None) -> list[fleets.Member]:
        return [member for member in self.members if names is None or member.name in names]

    def expected(self) -> list[checker.Expected]:
        """Every tenant at head."""
        ids = self.size.ids
        at_head = (member.expected(self.size.revisions) for member in self.members)
        return [dataclasses.replace(expected, heads=ids[-1:], markers=ids) for expected in at_head]

    def wrong(self, expected: Sequence[checker.Expected]) -> list[str]:
        """What the checker says."""
        return checker.check(expected)

    def problems(self) -> list[str]:
        """Everything that is wrong once all is said to be done."""
        found = self.wrong(self.expected())
        book = ledgers.read(self.folder)
        if book is None:
            return [*found, "there is no ledger"]
        missing = {member.name for member in self.members} - set(book.claims)
        return [
            *found,
            *book.problems(self.versions()),
            *(f"ledger: nothing about {name}" for name in sorted(missing)),
            *(
                f"ledger: {one.target} is {one.status}"
                for one in book.claims.values()
                if one.status not in ledgers.CLAIMS
            ),
            *self.leftovers(),
        ]

    def script_to(self, number: int, dialect: str) -> str:
        """The SQL that Alembic itself brings an empty target to that revision with."""
        written = io.StringIO()
        revision = f"r{number:03d}"

        def steps(current: object, _context: object) -> object:
            return self.starter.script._upgrade_revs(revision, current)  # type: ignore[arg-type]

        with EnvironmentContext(
            self.starter.config, self.starter.script, fn=steps, as_sql=True, destination_rev=revision
        ) as environment:
            environment.configure(dialect_name=dialect, literal_binds=True, output_buffer=written)
            with environment.begin_transaction():
                environment.run_migrations()
        return written.getvalue()


class SQLiteGround(Ground):
    """A file per tenant, copied from one file per starting point."""

    def __init__(self, folder: Path, size: Size) -> None:
        super().__init__(folder, size)
        (self.folder / "tenants").mkdir()
        self._templates = {start: folder / f"start-{start}.db" for start in self.starts()}
        for start, path in self._templates.items():
            path.touch()
            if start:
                self.starter.bring(URL.create("sqlite", database=str(path)), f"r{start:03d}")

    def place(self, name: str) -> URL:
        return URL.create("sqlite", database=str(self.folder / "tenants" / f"{name}.db"))

    def template(self) -> str:
        return '  url: "sqlite:///tenants/{tenant}.db"'

    def restore(self) -> None:
        for member in self.members:
            path = Path(str(member.url.database))
            for ending in ("-journal", "-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
            shutil.copyfile(self._templates[member.start], path)

    def versions(self, among: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        found = {}
        for member in self._among(among):
            # For writing: a journal that a killed writer left has to be rolled back before anybody can read.
            file = f"file:{member.url.database}?mode=rw"
            with contextlib.closing(sqlite3.connect(file, uri=True, timeout=30)) as connection:
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
                    rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
                    found[member.name] = tuple(sorted(str(version) for (version,) in rows))
        return found

    def leftovers(self) -> list[str]:
        return [f"{path} is left" for path in (self.folder / "tenants").glob("*-journal")]


class PostgresGround(Ground):
    """A schema per tenant; the database is made anew from a template."""

    def __init__(self, folder: Path, size: Size, server: URL, name: str) -> None:
        self._server, self._name = server, name
        self.database = server.set(database=name)
        super().__init__(folder, size)
        self._made = False

    def place(self, name: str) -> URL:
        return self.database

    def schema(self, name: str) -> str:
        return f"tenant_{name}"

    def template(self) -> str:
        return f'  url: "{fleets.templated(self.database)}"\n  schema: "tenant_{{tenant}}"'

    def environment(self) -> Mapping[str, str]:
        return fleets.secrets(self._server)

    def restore(self) -> None:
        if not self._made:
            self._make()
        fixtures.drop_postgres(self._server, self._name)
        with contextlib.closing(connect_postgres(self._server)) as connection:
            connection.execute(f'CREATE DATABASE "{self._name}" TEMPLATE "{self._name}_start"'.encode())

    def _make(self) -> None:
        fixtures.drop_postgres(self._server, self._name, f"{self._name}_start")
        fixtures.create_postgres(self._server, f"{self._name}_start")
        scripts = {start: self.script_to(start, "postgresql") if start else "" for start in self.starts()}
        url = self._server.set(database=f"{self._name}_start")
        with contextlib.closing(connect_postgres(url)) as connection:
            for member in self.members:
                connection.execute(f'CREATE SCHEMA "{member.schema}"'.encode())
                connection.execute(f'SET search_path TO "{member.schema}"'.encode())
                if member.start:
                    connection.execute(scripts[member.start].encode())
        self._made = True

    def versions(self, among: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        with contextlib.closing(connect_postgres(self.database)) as connection:
            there = {
                str(schema)
                for (schema,) in connection.execute(
                    "SELECT schemaname FROM pg_tables WHERE tablename = 'alembic_version'"
                )
            }
            parts = [
                f"SELECT '{member.name}', version_num FROM \"{member.schema}\".alembic_version"
                for member in self._among(among)
                if member.schema in there
            ]
            return _grouped(connection.execute(" UNION ALL ".join(parts).encode()).fetchall() if parts else [])

    def sessions(self) -> list[str]:
        with contextlib.closing(connect_postgres(self._server)) as connection:
            sessions = connection.execute(
                "SELECT pid, application_name, state FROM pg_stat_activity WHERE datname = %s", (self._name,)
            ).fetchall()
            locks = connection.execute(
                "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
                "WHERE l.locktype = 'advisory' AND d.datname = %s",
                (self._name,),
            ).fetchall()
        return [f"session {row}" for row in sessions] + [f"advisory lock of {row}" for row in locks]

    def drop(self) -> None:
        """Leave nothing on the server."""
        fixtures.drop_postgres(self._server, self._name, f"{self._name}_start")


class MariaGround(Ground):
    """A database per tenant, dropped and made anew."""

    def __init__(self, folder: Path, size: Size, server: URL, name: str) -> None:
        self._server, self._name = server, name
        super().__init__(folder, size)
        self._scripts = {start: self.script_to(start, "mysql") for start in self.starts() if start}

    def place(self, name: str) -> URL:
        return self._server.set(database=f"{self._name}_{name}")

    def template(self) -> str:
        return f'  url: "{fleets.templated(self._server.set(database=self._name + "_{tenant}"))}"'

    def environment(self) -> Mapping[str, str]:
        return fleets.secrets(self._server)

    def restore(self) -> None:
        self.drop()
        with contextlib.closing(_several(self._server)) as connection, connection.cursor() as cursor:
            for member in self.members:
                cursor.execute(f"CREATE DATABASE `{member.url.database}`; USE `{member.url.database}`")
                if member.start:
                    cursor.execute(self._scripts[member.start])
                while cursor.nextset():
                    pass

    def versions(self, among: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        with contextlib.closing(connect_mariadb(self._server)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_schema FROM information_schema.tables "
                f"WHERE table_name = 'alembic_version' AND table_schema LIKE '{self._name}\\_t%'"
            )
            there = {str(schema) for (schema,) in cursor.fetchall()}
            parts = [
                f"SELECT '{member.name}', version_num FROM `{member.url.database}`.alembic_version"
                for member in self._among(among)
                if member.url.database in there
            ]
            if not parts:
                return {}
            cursor.execute(" UNION ALL ".join(parts))
            return _grouped(cursor.fetchall())

    def sessions(self) -> list[str]:
        with contextlib.closing(connect_mariadb(self._server)) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, db, command, state FROM information_schema.processlist WHERE db LIKE '{self._name}\\_t%'"
            )
            return [f"session {row}" for row in cursor.fetchall()]

    def leftovers(self) -> list[str]:
        """Rows of journals; the empty table stays, since dropping it would commit."""
        with contextlib.closing(connect_mariadb(self._server)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_schema FROM information_schema.tables "
                f"WHERE table_name = '{_JOURNAL}' AND table_schema LIKE '{self._name}\\_t%'"
            )
            schemas = [str(schema) for (schema,) in cursor.fetchall()]
            parts = [f"SELECT '{schema}', revision, position FROM `{schema}`.{_JOURNAL}" for schema in schemas]
            cursor.execute(" UNION ALL ".join(parts) or "SELECT 1 FROM dual WHERE 1 = 0")
            return [f"journal row {row} is left" for row in cursor.fetchall()]

    def wrong(self, expected: Sequence[checker.Expected]) -> list[str]:
        return [problem for problem in super().wrong(expected) if not problem.endswith(f".{_JOURNAL} is too many")]

    def drop(self) -> None:
        """Leave nothing on the server."""
        fixtures.drop_mariadb(self._server, *(str(member.url.database) for member in self.members))


def make_ledger(folder: Path) -> None:
    """An empty ledger, by the code under test in a process of its own."""
    import subprocess
    import sys

    code = (
        "import sys; from orchestrator.ledger import opening; "
        "opening.open_ledger(f'sqlite:///{sys.argv[1]}/ledger.db', project='soak', environment='').close()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=Path(__file__).parents[2])


@contextlib.contextmanager
def ground(engine: str, size: Size, server: URL | None = None, name: str | None = None) -> Iterator[Ground]:
    """A fleet on that engine, gone with the block; the server is the session's unless one is given."""
    name = name or f"soak_{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="orchestrate-soak-") as folder:
        if engine == "sqlite":
            yield SQLiteGround(Path(folder), size)
            return
        kind, make = {"postgresql": ("postgres", PostgresGround), "mariadb": ("mariadb", MariaGround)}[engine]
        made = make(Path(folder), size, server or session.server(kind), name)
        try:
            yield made
        finally:
            made.drop()


def _several(server: URL) -> pymysql.Connection[pymysql.cursors.Cursor]:
    """A connection that takes several statements at once."""
    return pymysql.connect(
        host=server.host or "127.0.0.1",
        port=server.port or 3306,
        user=server.username,
        password=server.password or "",
        autocommit=True,
        client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS,
        ssl_disabled=True,
    )


def _grouped(rows: Sequence[tuple[object, ...]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name, version in rows:
        found.setdefault(str(name), []).append(str(version))
    return {name: tuple(sorted(versions)) for name, versions in found.items()}

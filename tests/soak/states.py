"""A fleet that anything may happen to, in any order: what the commands leave is held against a model in plain Python.

On SQLite, inline, by real commands that are really killed. The model knows for each tenant the version and the marker
rows; a command may move a tenant only the way that its revisions lead, and only a tenant that it was asked to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests import histories
from tests.acceptance.fleets import Done, Project
from tests.soak import ledgers
from tests.soak.crash_points import INLINE, KILLED
from tests.soak.launching import Launcher

_MOST_TENANTS = 4
_MOST_REVISIONS = 6
#: more than any command here passes; a number beyond its last place lets it end by itself
_NUMBERS = st.integers(min_value=1, max_value=220)
_WHICH = st.integers(min_value=0, max_value=_MOST_TENANTS - 1)


@dataclasses.dataclass(kw_only=True)
class Tenant:
    """What a tenant must be like."""

    path: Path
    #: number of its revision, 0 for an empty file
    version: int = 0
    #: numbers of the revisions whose marker row is there
    applied: frozenset[int] = frozenset()
    #: the number of the revision whose table somebody else has made
    poison: int | None = None
    #: by a hand, since the ledger last heard of it
    moved: bool = False

    def read(self) -> tuple[int, list[int]]:
        """Version and marker rows as they are, each as often as it is there."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = _numbers(connection, "version_num", "alembic_version", names)
            markers = _numbers(connection, "revision", "markers", names)
            left = {name for name in names if name.startswith(("_alembic", "orchestrate"))}
            assert not left, f"{self.path.name}: {left} are left"
            assert len(versions) <= 1, f"{self.path.name}: at {versions}"
        return (versions[0] if versions else 0), sorted(markers)

    def has(self, table: str) -> bool:
        """Whether there is a table of that name."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        return found is not None

    def applied_at(self, version: int) -> frozenset[int]:
        """The marker rows that it must have when its revisions have taken it there."""
        if version < self.version:
            return frozenset(number for number in self.applied if number <= version)
        return self.applied | frozenset(range(self.version + 1, version + 1))

    def execute(self, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()


class FleetMachine(RuleBasedStateMachine):
    """One fleet's life."""

    #: commands of all fleets of this process
    steps: ClassVar[int] = 0

    def __init__(self, commands: Launcher, others: Launcher) -> None:
        super().__init__()
        self._commands, self._others = commands, others
        self._folder = Path(tempfile.mkdtemp(prefix="orchestrate-states-"))
        histories.write(self._folder, size=0)
        (self._folder / "tenants").mkdir()
        self._project = Project(folder=self._folder)
        self._ledger, self._backup = self._folder / ".orchestrate", self._folder / "yesterday"
        self.tenants: dict[str, Tenant] = {}
        #: files of tenants that have left, which nobody may touch any more
        self.gone: dict[Path, bytes] = {}
        self.head = 0
        self._made = 0

    def teardown(self) -> None:
        shutil.rmtree(self._folder)

    # What changes around the commands

    @initialize()
    def begin(self) -> None:
        self.write_revision()
        self.add_tenant()
        self.add_tenant()

    @precondition(lambda self: len(self.tenants) < _MOST_TENANTS)
    @rule()
    def add_tenant(self) -> None:
        name = f"t{self._made:03d}"
        self._made += 1
        path = self._folder / "tenants" / f"{name}.db"
        path.touch()
        self.tenants[name] = Tenant(path=path)
        self._write_registry()

    @precondition(lambda self: len(self.tenants) > 1)
    @rule(which=_WHICH)
    def remove_tenant(self, which: int) -> None:
        tenant = self.tenants.pop(self._name(which))
        self.gone[tenant.path] = tenant.path.read_bytes()
        self._write_registry()

    @precondition(lambda self: self.head < _MOST_REVISIONS)
    @rule()
    def write_revision(self) -> None:
        self.head += 1
        up, down = f'op.create_table("{_table(self.head)}", sa.Column("id", sa.Integer, primary_key=True))', ""
        down = f'op.drop_table("{_table(self.head)}")'
        if self.head == 1:
            up = 'op.create_table("markers", sa.Column("revision", sa.String(40), nullable=False))\n' + up
            down += '\nop.drop_table("markers")'
        versions = self._folder / "alembic" / "versions"
        before = _revision(self.head - 1) if self.head > 1 else None
        histories.write_revision(versions, _revision(self.head), before, "more", up, down)

    @rule(which=_WHICH)
    def poison(self, which: int) -> None:
        tenant = self.tenants[self._name(which)]
        if tenant.version and tenant.poison is None:
            tenant.poison = tenant.version + 1
            tenant.execute(f"CREATE TABLE IF NOT EXISTS {_table(tenant.poison)} (id INTEGER)")

    @rule()
    def mend(self) -> None:
        for tenant in self.tenants.values():
            if tenant.poison is not None and tenant.poison not in tenant.applied:
                tenant.execute(f"DROP TABLE IF EXISTS {_table(tenant.poison)}")
            tenant.poison = None

    @rule(which=_WHICH)
    def upgrade_by_hand(self, which: int) -> None:
        """Somebody brings a tenant one revision on, with their own tools."""
        tenant = self.tenants[self._name(which)]
        number = tenant.version + 1
        if not tenant.version or number > self.head or self._is_poisoned(tenant):
            return
        tenant.execute(
            f"CREATE TABLE {_table(number)} (id INTEGER NOT NULL PRIMARY KEY)",
            f"INSERT INTO markers (revision) VALUES ('{_revision(number)}')",
            f"UPDATE alembic_version SET version_num = '{_revision(number)}'",
        )
        tenant.version, tenant.applied, tenant.moved = number, tenant.applied | {number}, True

    # Commands

    @rule()
    def upgrade(self) -> None:
        done = self._run("upgrade", "--all", "--keep-going", "--accept-shrink")
        self._observe(self.tenants)
        poisoned = [tenant for tenant in self.tenants.values() if self._is_poisoned(tenant)]
        assert done.exit_status == (1 if poisoned else 0), f"{done}"
        for name, tenant in self.tenants.items():
            assert tenant.version == self.head or self._is_poisoned(tenant), f"{name} stays at {tenant.version}: {done}"

    @rule(which=_WHICH)
    def upgrade_one(self, which: int) -> None:
        name = self._name(which)
        done = self._run("upgrade", "-t", name, "--accept-shrink")
        self._observe([name])
        assert done.exit_status == int(self._is_poisoned(self.tenants[name])), f"{done}"

    @rule(number=_NUMBERS)
    def die_in_an_upgrade(self, number: int) -> None:
        self._die(number, "upgrade", "--all", "--keep-going", "--accept-shrink")

    @rule(number=_NUMBERS)
    def die_in_a_resume(self, number: int) -> None:
        self._die(number, "resume")

    @rule(number=_NUMBERS)
    def die_in_a_rollback(self, number: int) -> None:
        self._die(number, "rollback", "--yes")

    @rule()
    def resume(self) -> None:
        done = self._run("resume")
        self._observe(self.tenants)
        assert done.exit_status in (0, 1, 3), f"{done}"
        again = self._run("resume")
        self._observe([])
        assert done.exit_status == 3 or again.exit_status in (0, 1, 3), f"{again}"

    @rule()
    def retry(self) -> None:
        done = self._run("retry")
        self._observe(self.tenants)
        assert done.exit_status in (0, 1), f"{done}"

    @rule()
    def roll_back(self) -> None:
        done = self._run("rollback", "--yes")
        self._observe(self.tenants)
        assert done.exit_status in (0, 1, 2), f"{done}"

    @rule()
    def abort(self) -> None:
        book = ledgers.read(self._folder)
        done = self._run("abort")
        self._observe([])
        is_open = book is not None and bool(set(book.runs.values()) - ledgers.CLOSED)
        assert done.exit_status == (0 if is_open else 2), f"{done}"

    @rule(which=_WHICH)
    def stamp(self, which: int) -> None:
        """Somebody says that a tenant is one revision further than it is."""
        name = self._name(which)
        tenant = self.tenants[name]
        if not tenant.version or tenant.version >= self.head:
            return
        done = self._run("stamp", _revision(tenant.version + 1), "-t", name, "--yes", "--accept-shrink")
        assert done.exit_status == 0, f"{done}"
        tenant.version, tenant.moved = tenant.version + 1, False

    @rule()
    def lose_the_ledger(self) -> None:
        shutil.rmtree(self._ledger, ignore_errors=True)
        done = self._run("runs", "reconcile", inline=False)
        assert done.exit_status == 0, f"{done}"
        book = ledgers.read(self._folder)
        assert book is not None
        assert set(book.claims) == set(self.tenants)
        for name, claim in book.claims.items():
            self.tenants[name].moved = False
            assert claim.at == self._heads(name)

    @rule()
    def back_up_the_ledger(self) -> None:
        if self._ledger.exists():
            shutil.rmtree(self._backup, ignore_errors=True)
            shutil.copytree(self._ledger, self._backup)

    @rule()
    def restore_an_old_ledger(self) -> None:
        """What it says is of yesterday; nobody may be harmed who believes it."""
        if self._backup.exists():
            shutil.rmtree(self._ledger, ignore_errors=True)
            shutil.copytree(self._backup, self._ledger)
            for tenant in self.tenants.values():
                tenant.moved = True

    @rule()
    def start_a_second_one(self) -> None:
        """While one is at work, another is refused and changes nothing; the first then dies."""
        first = self._others.start(
            self._project, "upgrade", "--all", "--accept-shrink", *INLINE, failpoint="1@job.before:hang"
        )
        arguments = ("upgrade", "--all", "--accept-shrink", *INLINE)
        if self._hangs(first):
            second = self._run("upgrade", "--all", "--accept-shrink")
            assert second.exit_status == 3, f"{second}"
            self._observe([])
            self._others.kill()
            done = self._others.wait(first, arguments)
            assert done.exit_status == KILLED
        else:
            self._others.wait(first, arguments)
        self._observe(self.tenants)

    # What must hold after each of them

    @invariant()
    def nobody_else_was_touched(self) -> None:
        for path, content in self.gone.items():
            assert path.read_bytes() == content, f"{path.name} has left the fleet and was written to"

    @invariant()
    def tenants_are_as_the_model_says(self) -> None:
        self._observe([])

    @invariant()
    def ledger_claims_no_more_than_there_is(self) -> None:
        book = ledgers.read(self._folder)
        # Where an intent has no outcome the ledger says that it does not know.
        unknown = {target for _, target in book.unsettled} if book is not None else set()
        for name, claim in book.claims.items() if book is not None else ():
            tenant = self.tenants.get(name)
            if tenant is None or tenant.moved or name in unknown:
                continue
            if claim.status in ledgers.CLAIMS:
                assert claim.at == self._heads(name), f"{claim}, but {name} is at {tenant.version}"

    # How

    def _run(self, *arguments: str, inline: bool = True, failpoint: str = "") -> Done:
        type(self).steps += 1
        inline = inline and arguments[0] != "abort"
        words = (*arguments, *(INLINE if inline else ()))
        return self._commands.orchestrate(self._project, *words, failpoint=failpoint, exit_status=None)

    def _die(self, number: int, *arguments: str) -> None:
        done = self._run(*arguments, failpoint=f"{number}:kill")
        self._observe(self.tenants)
        assert done.exit_status in (KILLED, 0, 1, 2, 3), f"{done}"
        assert "internal error" not in done.text, f"{done}"

    def _observe(self, touched: Collection[str]) -> None:
        """Look at all tenants: those that were touched may have moved along their revisions, the others not at all."""
        for name, tenant in self.tenants.items():
            version, markers = tenant.read()
            if name in touched:
                tenant.applied, moved = tenant.applied_at(version), version != tenant.version
                assert version <= self.head
                tenant.version, tenant.moved = version, tenant.moved and not moved
            assert (version, markers) == (tenant.version, sorted(tenant.applied)), f"{name}: {version}, {markers}"

    def _hangs(self, output: Path, seconds: float = 30) -> bool:
        """Whether it has come to its failpoint; False when it ended instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (output / "err").exists() and "failpoint 1:" in (output / "err").read_text():
                return True
            if self._others.ended():
                return False
            time.sleep(0.01)
        raise AssertionError("the first one neither ended nor came to its first job")

    def _is_poisoned(self, tenant: Tenant) -> bool:
        """Whether an upgrade cannot go on; with no version left, somebody else's table makes the tenant unversioned."""
        if tenant.poison is None or tenant.poison in tenant.applied or not tenant.has(_table(tenant.poison)):
            return False
        return tenant.version == 0 or tenant.version < tenant.poison <= self.head

    def _heads(self, name: str) -> tuple[str, ...]:
        version = self.tenants[name].version
        return (_revision(version),) if version else ()

    def _name(self, which: int) -> str:
        names = sorted(self.tenants)
        return names[which % len(names)]

    def _write_registry(self) -> None:
        names = "".join(f"  {name}: {{}}\n" for name in self.tenants)
        template = '  url: "sqlite:///tenants/{tenant}.db"'
        self._project.write_registry(f"version: 1\nproject: states\ndefaults:\n{template}\ntenants:\n{names}")


def _numbers(connection: sqlite3.Connection, column: str, table: str, tables: Collection[str]) -> list[int]:
    if table not in tables:
        return []
    return [int(str(value)[1:]) for (value,) in connection.execute(f"SELECT {column} FROM {table}")]


def _revision(number: int) -> str:
    return f"r{number:03d}"


def _table(number: int) -> str:
    return f"work_{number:03d}"

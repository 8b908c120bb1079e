"""Hostile names are refused with file and line, or stand for exactly one place that is really theirs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator import registry
from orchestrator.cli.terminals import visible
from orchestrator.errors import RegistryError
from orchestrator.registry.conflicts import address_of
from orchestrator.settings import Settings
from orchestrator.tenants import Target
from tests import histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Project, report_of
from tests.security.hostile_names import names
from tests.services.servers import connect_mariadb, connect_postgres

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
COUNT = 5_000
SEED = int(os.environ.get("SEED", "20261122"))
#: of the accepted names, how many are really migrated on each server
MIGRATED = 400 if THOROUGH else 24

#: where a name may come from, with how it is found again; `{n}` keeps those apart that are not under test
PLACES: dict[str, tuple[str, Callable[[Target], str | None]]] = {
    "tenant": ("{name}: {{schema: t{n}}}", lambda target: target.tenant.name),
    "schema": ("t{n}: {{schema: {name}}}", lambda target: target.schema),
    "database": ("t{n}: {{schema: x, url: {postgresql}}}", lambda target: target.url.database),
    "mariadb": ("t{n}: {{schema: null, url: {mysql}}}", lambda target: target.url.database),
    "key": ("t{n}: {{databases: {{{name}: {{}}}}}}", lambda target: target.database),
}
HEAD = 'version: 1\ndefaults: {url: "postgresql://h/d", schema: "t_{tenant}"}\ntenants:\n'


def _quoted(name: str) -> str:
    """As a scalar of YAML, whatever characters it holds."""
    plain = {character for character in map(chr, range(32, 127)) if character not in '"\\'}
    return '"' + "".join(one if one in plain else f"\\U{ord(one):08X}" for one in name) + '"'


class Registries:
    """Loads names as tenants.yaml, one to a line."""

    def __init__(self, folder: Path) -> None:
        (folder / "alembic.ini").write_text("[alembic]\nscript_location = alembic\n")
        (folder / "tenants.yaml").write_text("")
        self.file = folder / "tenants.yaml"
        self.settings = Settings.load(folder / "alembic.ini", environ={})

    def sift(self, form: str, every: Sequence[str]) -> tuple[dict[str, Target], set[str]]:
        """The names that are accepted, with their targets, and those of whose lines a problem is told."""
        left, refused = list(every), set[str]()
        while problems := self._problems(form, left):
            places = [re.match(r"tenants\.yaml:(\d+):\d+: ", problem) for problem in problems]
            assert all(places), problems
            assert all(problem.isprintable() for problem in problems), problems
            lines = {int(place[1]) for place in places if place}
            wrong = {name for line, name in enumerate(left, start=HEAD.count("\n") + 1) if line in lines}
            assert wrong, problems
            refused |= wrong
            left = [name for name in left if name not in wrong]
        return dict(zip(left, self._load(form, left), strict=True)), refused

    def _problems(self, form: str, every: Sequence[str]) -> list[str]:
        try:
            self._load(form, every)
        except RegistryError as error:
            return [str(problem) for problem in error.problems]
        return []

    def _load(self, form: str, every: Sequence[str]) -> tuple[Target, ...]:
        lines = [
            form.format(
                n=number,
                name=_quoted(name),
                postgresql=_quoted(f"postgresql://h/{name}"),
                mysql=_quoted(f"mysql://h/{name}"),
            )
            for number, name in enumerate(every)
        ]
        self.file.write_text(HEAD + "".join(f"  {line}\n" for line in lines))
        return registry.load(self.settings, environ={}).targets


@pytest.fixture
def registries(tmp_path: Path) -> Registries:
    return Registries(tmp_path)


@pytest.mark.parametrize("place", PLACES)
def test_each_name_is_refused_where_it_stands_or_taken_as_it_is(registries: Registries, place: str) -> None:
    """Nothing is cut, folded or filled in on the way: what is accepted is the name, letter by letter."""
    form, found = PLACES[place]
    everywhere = place in ("tenant", "schema")
    every = names(COUNT if THOROUGH or everywhere else 1_500, SEED)
    if not (everywhere or place == "key"):
        every = [name for name in every if not set("?@") & set(name)]  # in a URL these begin another part of it

    accepted, refused = registries.sift(form, every)

    assert {name: found(target) for name, target in accepted.items()} == {name: name for name in accepted}
    assert all(re.fullmatch(r"[A-Za-z0-9_.$-]+", name) for name in accepted)
    assert all(len((target.schema or "").encode()) <= 63 for target in accepted.values())
    assert len(accepted) + len(refused) == len(every)
    assert min(len(accepted), len(refused)) > 300
    if place != "key":  # two tenants may each have a `core`
        folded = {str(address_of(target)).lower() for target in accepted.values()}
        assert len(folded) == len(accepted) or place in ("schema", "database")  # PostgreSQL keeps those apart
        assert len({address_of(target) for target in accepted.values()}) == len(accepted)


def test_no_two_names_are_one(registries: Registries) -> None:
    """Of names that fold or normalise into one another only one is accepted."""
    accepted, refused = registries.sift(PLACES["tenant"][0], names(COUNT, SEED))
    folded = [unicodedata.normalize("NFKC", name).casefold() for name in accepted]
    assert len(set(folded)) == len(folded)
    assert {"acme", "public"} & set(folded)
    twins = [name for name in refused if re.fullmatch(r"[A-Za-z0-9_.-]+", name) and name.casefold() in folded]
    assert len(twins) > 10


# On real servers


def some(registries: Registries) -> list[str]:
    """Tenants' names spread over all that are accepted."""
    accepted, _ = registries.sift(PLACES["tenant"][0], names(COUNT if THOROUGH else 1_500, SEED))
    every = [name for name in accepted if len(name) <= 55]
    return every[:: max(1, len(every) // MIGRATED)][:MIGRATED]


def _project(folder: Path, defaults: str, tenants: Sequence[str], url: URL | None) -> Project:
    histories.write(folder, size=2)
    project = Project(folder=folder, environment=fleets.secrets(url) if url else {})
    listed = "".join(f"  {_quoted(name)}: {{}}\n" for name in tenants)
    project.write_registry(f"version: 1\ndefaults: {defaults}\ntenants:\n{listed}")
    return project


def _migrate(project: Project, count: int) -> None:
    """Provision and upgrade all."""
    report = report_of(project.orchestrate("upgrade", "--all", "--provision", "--executor", "inline", "-o", "json"))
    assert report["counts"]["upgraded"] == count
    project.orchestrate("status", "--check")


def test_accepted_names_are_schemas_of_their_own(
    registries: Registries, tmp_path: Path, postgres_database: URL
) -> None:
    taken = [name for name in some(registries) if "." not in name]  # a schema's name takes less than a tenant's
    url = fleets.templated(postgres_database)
    project = _project(tmp_path / "project", f'{{url: "{url}", schema: "t_{{tenant}}"}}', taken, postgres_database)

    _migrate(project, len(taken))

    with contextlib.closing(connect_postgres(postgres_database)) as connection:
        rows = connection.execute(
            "SELECT schemaname, count(*) FROM pg_tables WHERE schemaname NOT LIKE 'pg\\_%' "
            "AND schemaname <> 'information_schema' GROUP BY 1"
        ).fetchall()
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
        ).fetchall()
        held = connection.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
            "WHERE locktype = 'advisory' AND datname = current_database()"
        ).fetchone()
    tables = len(histories.tables_at(2)) + 1
    assert dict(rows) == {f"t_{name}": tables for name in taken}
    assert {name for (name,) in schemas} == {"public", *(f"t_{name}" for name in taken)}
    assert held == (0,)


def test_accepted_names_are_databases_of_their_own(registries: Registries, tmp_path: Path, mariadb_url: URL) -> None:
    prefix = f"h{os.getpid() % 1000}_"
    taken = [name for name in some(registries) if "." not in name]  # a database's name takes less than a tenant's
    url = fleets.templated(mariadb_url.set(database=f"{prefix}{{tenant}}"))

    def databases() -> set[str]:
        with contextlib.closing(connect_mariadb(mariadb_url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE %s", (f"{prefix}%",)
            )
            return {name for (name,) in cursor.fetchall()}

    project = _project(tmp_path / "project", f'{{url: "{url}"}}', taken, mariadb_url)
    try:
        _migrate(project, len(taken))
        assert databases() == {f"{prefix}{name}" for name in taken}
        with contextlib.closing(connect_mariadb(mariadb_url)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_schema, count(*) FROM information_schema.tables WHERE table_schema LIKE %s GROUP BY 1",
                (f"{prefix}%",),
            )
            counts = dict(cursor.fetchall())
        assert set(counts) == databases()
        assert len(set(counts.values())) == 1
    finally:
        with contextlib.closing(connect_mariadb(mariadb_url)) as connection, connection.cursor() as cursor:
            for name in databases():
                cursor.execute(f"DROP DATABASE `{name}`")
    assert databases() == set()


def test_accepted_names_are_files_of_their_own(registries: Registries, tmp_path: Path) -> None:
    taken = some(registries)
    project = _project(tmp_path / "project", '{url: "sqlite:///var/{tenant}.db"}', taken, None)
    (project.folder / "var").mkdir()

    _migrate(project, len(taken))

    assert {file.name for file in (project.folder / "var").iterdir()} == {f"{name}.db" for name in taken}
    outside = {path for path in tmp_path.rglob("*.db") if path.parent.name not in ("var", ".orchestrate")}
    assert outside == set()
    for name in taken:
        with contextlib.closing(sqlite3.connect(project.folder / "var" / f"{name}.db")) as connection:
            assert connection.execute("SELECT count(*) FROM markers").fetchone() == (2,)


# Hostile text that is shown

TEXT = "\x1b[2J\x1b]0;owned\x07\r\u202e\u2028\x9b31m<img onerror=x>\x00\x08"


def printable(text: str) -> Iterator[str]:
    """Characters of an output that drive a terminal."""
    return (
        character
        for character in text
        if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character != "\n"
    )


def test_no_text_of_others_drives_the_terminal(tmp_path: Path) -> None:
    """In reasons, owners, labels, revision messages, errors, and in the operator's name."""
    fleet = fleets.sqlite_fleet(tmp_path / "project", count=2, size=2, starts=(0,))
    versions = fleet.project.folder / "alembic" / "versions"
    hostile = TEXT.replace("\0", "")
    histories.write_revision(versions, "r003", "r002", "one more", f"raise RuntimeError({TEXT!r})")
    file = next(versions.glob("r003*"))
    file.write_text(file.read_text().replace('"""one more"""', f'"""one more {hostile!r}"""'.replace("'", "")))
    quoted = json.dumps(hostile)
    fleet.project.write_registry(
        'version: 1\ndefaults: {url: "sqlite:///tenants/{tenant}.db"}\ntenants:\n'
        f"  t000: {{labels: {{note: {quoted}}}}}\n"
        f"  t001: {{state: quarantined, reason: {quoted}, owner: {quoted}}}\n"
    )
    operator = {"USER": hostile, "LOGNAME": hostile, "USERNAME": hostile}
    for line in (
        "tenants list", "tenants show t001", "upgrade --all --executor inline", "runs list", "runs show --target t000",
        "runs audit", "status", "doctor",
    ):  # fmt: skip
        shown = fleet.orchestrate(*line.split(), exit_status=None, **operator)
        assert list(printable(shown.text)) == [], f"{shown!r}"
        if line in ("tenants list", "runs show --target t000", "runs audit"):
            as_json = fleet.orchestrate(*line.split(), "-o", "json", exit_status=None, **operator)
            assert json.loads(as_json.output) is not None
            assert list(printable(as_json.text)) == [], f"{as_json!r}"


@pytest.mark.parametrize(
    "character", ["\0", "\x1b", "\x7f", "\x9b", "\r", "\b", "\u202e", "\u2066", "\u2028", "\ufeff", "\ud800"]
)
def test_a_character_that_drives_a_terminal_is_spelled_out(character: str) -> None:
    assert visible(f"a{character}b").isprintable()

"""What is reported done is done, and what is not due is not touched: whatever env.py, revisions and networks do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

import orchestrator
from tests import checker, histories
from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet, Project, outcomes_of, report_of
from tests.services.servers import connect_postgres

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
DONE = ("upgraded", "unchanged")

CONFIGURE = "context.configure(**target.options(connection=connection, target_metadata=target_metadata))"
BEGIN = "with context.begin_transaction():"


@dataclasses.dataclass(frozen=True)
class Lie:
    """A way in which Alembic says that all went well."""

    name: str
    #: what env.py has instead of what it should have
    env: Callable[[str], str] = str
    #: body of the second revision
    revision: str = 'op.create_table("proof", sa.Column("id", sa.Integer))'


def _instead(old: str, new: str) -> Callable[[str], str]:
    def change(env: str) -> str:
        assert old in env
        return env.replace(old, new)

    return change


def _before_configure(line: str) -> Callable[[str], str]:
    return _instead(CONFIGURE, f"{line}\n        {CONFIGURE}")


PROOF = 'op.create_table("proof", sa.Column("id", sa.Integer))'
LIES = [
    Lie("no-commit", _instead(BEGIN, "if True:")),
    Lie(
        "rolls-back",
        _instead(
            "            context.run_migrations()",
            "            context.run_migrations()\n            connection.rollback()",
        ),
    ),
    Lie("returns-early", _instead(CONFIGURE, "return")),
    Lie("runs-nothing", _instead("            context.run_migrations()", "            pass")),
    Lie(
        "swallows",
        _instead(
            "            context.run_migrations()",
            "            try:\n                context.run_migrations()\n"
            "            except Exception:\n                connection.rollback()",
        ),
        'op.execute("nonsense")',
    ),
    Lie(
        "stamps-only",
        _instead(
            "            context.run_migrations()", '            context.get_context().stamp(context.script, "head")'
        ),
    ),
    Lie(
        "other-version-table",
        _instead(CONFIGURE, 'context.configure(connection=connection, version_table="elsewhere")'),
    ),
    Lie(
        "version-table-in-public",
        _instead(CONFIGURE, 'context.configure(connection=connection, version_table_schema="public")'),
    ),
    Lie("search-path-first", _before_configure('connection.exec_driver_sql("SET search_path TO public")')),
    Lie(
        "search-path-committed",
        _before_configure('connection.exec_driver_sql("SET search_path TO public"); connection.commit()'),
    ),
    Lie("transaction-left-open", _before_configure('connection.exec_driver_sql("SELECT 1")')),
    Lie(
        "engine-of-its-own",
        _instead(
            "with target.connect() as connection:",
            "import sqlalchemy\n    with sqlalchemy.create_engine(target.url).connect() as connection:",
        ),
    ),
    Lie("runs-other-targets", _instead("for target in environment.targets(context):", "for target in ():")),
    Lie("revision-swallows", revision=f'try:\n    op.execute("nonsense")\nexcept Exception:\n    pass\n{PROOF}'),
    Lie("revision-sets-search-path", revision=f'op.execute("SET search_path TO public")\n{PROOF}'),
    Lie("revision-rolls-back", revision=f'{PROOF}\nop.execute("ROLLBACK")'),
    Lie("revision-rolls-back-by-driver", revision=f"{PROOF}\nop.get_bind().connection.dbapi_connection.rollback()"),
    Lie(
        "invalid-index",
        revision=f"""
{PROOF}
op.execute("INSERT INTO proof VALUES (1), (1)")
with op.get_context().autocommit_block():
    try:
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY proof_once ON proof (id)")
    except Exception:
        pass
""",
    ),
]


def test_no_lie_is_reported_as_done(tmp_path: Path, postgres_database: URL) -> None:
    """Each target has a chain and an env.py of its own; one of them is honest."""
    lies = [*LIES, Lie("honest")]
    folder = tmp_path / "project"
    for number, lie in enumerate(lies):
        env, prefix = lie.env(histories.ENV), f"l{number}r"
        histories.write(folder, size=1, env=env, scripts=f"chains/{lie.name}", prefix=prefix)
        versions = folder / "chains" / lie.name / "versions"
        histories.write_revision(versions, f"{prefix}002", f"{prefix}001", "proves", lie.revision)
        with (folder / "alembic.ini").open("a") as config:
            config.write(f"\n[{lie.name}]\nscript_location = %(here)s/chains/{lie.name}\n")
    project = Project(folder=folder, environment=fleets.secrets(postgres_database))
    tenants = "".join(f"  {lie.name}: {{alembic: {lie.name}}}\n" for lie in lies)
    url = fleets.templated(postgres_database)
    project.write_registry(f'version: 1\ndefaults: {{url: "{url}", schema: "t_{{tenant}}"}}\ntenants:\n{tenants}')

    report = report_of(
        project.orchestrate("upgrade", "--all", "--keep-going", "--provision", "-o", "json", exit_status=1)
    )

    outcomes = outcomes_of(report)
    lied = {name: outcome["status"] for name, outcome in outcomes.items() if outcome["status"] in DONE}
    assert lied == {"honest": "upgraded"}, json.dumps({name: outcomes[name] for name in lied}, indent=1)
    with contextlib.closing(connect_postgres(postgres_database)) as connection:
        proofs = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'proof'").fetchall()
    assert ("t_honest",) in proofs


# Where statements go


@contextlib.contextmanager
def resets(database: URL, seed: int) -> Iterator[None]:
    """Ends sessions of workers at random moments, warm ones between two jobs among them."""
    chance, over = random.Random(seed), threading.Event()
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'orchestrate/%' AND random() < 0.4"
    )

    def reset() -> None:
        with contextlib.closing(connect_postgres(database)) as connection:
            while not over.wait(chance.uniform(0.02, 0.3)):
                connection.execute(query)

    thread = threading.Thread(target=reset)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_no_statement_reaches_another_tenant(tmp_path: Path, postgres_database: URL) -> None:
    """Many schemas over few warm connections that are cut at random; each revision leaves a marker where it runs."""
    count = 500 if THOROUGH else 60
    fleet = fleets.postgres_schemas(tmp_path / "project", postgres_database, count=count, size=8, starts=(0, 2, 5))
    with resets(postgres_database, seed=20261122):
        fleet.orchestrate("upgrade", "--all", "--keep-going", "--concurrency", "4", "-o", "json", exit_status=None)
    while fleet.orchestrate("status", "--check", exit_status=None).exit_status == 5:
        # What was cut off too often is lost or failed; nothing else is ever left to do.
        resumed = fleet.orchestrate("resume", exit_status=None)
        assert "nothing to resume" not in resumed.text or fleet.orchestrate("retry").exit_status == 0

    checker.assert_right(fleet.expected())


# What is not due


@dataclasses.dataclass(frozen=True)
class Traces:
    """What a write leaves behind, on PostgreSQL and of files."""

    fleet: Fleet
    database: URL | None

    def take(self) -> Any:
        if self.database is None:
            files = sorted((self.fleet.project.folder / "tenants").iterdir())
            return [(file.name, file.stat().st_mtime_ns, file.read_bytes()) for file in files]
        with contextlib.closing(connect_postgres(self.database)) as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            return connection.execute(
                "SELECT tup_inserted, tup_updated, tup_deleted FROM pg_stat_database WHERE datname = current_database()"
            ).fetchall()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_resuming_a_run_that_is_done_writes_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    database: URL | None = None
    if kind == "sqlite":
        fleet = fleets.sqlite_fleet(tmp_path / "project", count=3, size=4, starts=(0, 2, 4))
    else:
        database = request.getfixturevalue("postgres_database")
        fleet = fleets.postgres_schemas(tmp_path / "project", database, count=3, size=4, starts=(0, 2, 4))
    fleet.orchestrate("upgrade", "--all", "--executor", "inline")
    time.sleep(1.2)  # sessions that ended a moment ago tell their counts late
    traces = Traces(fleet, database)
    before = traces.take()

    for name, value in fleet.project.environment.items():
        monkeypatch.setenv(name, value)
    project = orchestrator.Project.load(fleet.project.folder / "alembic.ini")
    for _ in range(100 if THOROUGH else 19):
        assert project.runs.resume() is None
    assert "nothing to resume" in fleet.orchestrate("resume").text

    time.sleep(1.2 if database else 0)
    assert traces.take() == before
    checker.assert_right(fleet.expected())


# What stops, and what goes on


def test_one_poisoned_tenant_costs_the_others_nothing(tmp_path: Path) -> None:
    count = 500 if THOROUGH else 40
    fleet = fleets.sqlite_fleet(tmp_path / "project", count=count, starts=(5,))
    fleet.execute("t007", histories.POISON)

    report = report_of(fleet.orchestrate("upgrade", "--all", "--keep-going", "-o", "json", exit_status=1))

    counts = {status: number for status, number in report["counts"].items() if number}
    assert counts == {"upgraded": count - 1, "failed": 1}
    assert outcomes_of(report)["t007"]["failure"]["revision"] == "r006"
    checker.assert_right(member.expected(fleet.size) for member in fleet.members if member.name != "t007")


def test_a_broken_revision_stops_at_the_first_target(tmp_path: Path) -> None:
    fleet = fleets.sqlite_fleet(tmp_path / "project", count=12, starts=(5,), size=5)
    versions = fleet.project.folder / "alembic" / "versions"
    histories.write_revision(
        versions, "r006", "r005", "broken", 'op.execute("ALTER TABLE nowhere ADD COLUMN x integer")'
    )
    before = [member.snapshot() for member in fleet.members]

    report = report_of(fleet.orchestrate("upgrade", "--all", "--concurrency", "1", "-o", "json", exit_status=1))

    counts = {status: number for status, number in report["counts"].items() if number}
    assert counts == {"failed": 1, "not_started": 11}
    assert report["status"] == "halted"
    assert [member.snapshot() for member in fleet.members] == before


def test_a_run_stops_when_too_many_have_failed(tmp_path: Path) -> None:
    """Of 50 targets 2 % may fail, which is one; the second one stops it, and at most one job per slot comes after."""
    slots = 3
    fleet = fleets.sqlite_fleet(tmp_path / "project", count=50, starts=(5,))
    for name in ("t001", "t003", "t020"):
        fleet.execute(name, histories.POISON)

    done = fleet.orchestrate(
        "upgrade", "--all", "--max-failures", "2%", "--concurrency", str(slots), "-o", "jsonl", exit_status=1
    )

    events = [json.loads(line) for line in done.output.splitlines()]
    failed = [
        number
        for number, event in enumerate(events)
        if event["type"] == "JobFinished" and event["outcome"]["status"] == "failed"
    ]
    after = [event for event in events[failed[1] :] if event["type"] == "JobStarted"]
    assert len(after) <= slots
    assert events[-1]["report"]["status"] == "halted"
    assert events[-1]["report"]["counts"]["not_started"] > 0


def test_a_tenant_ahead_of_the_code_is_skipped_and_the_others_go_on(tmp_path: Path) -> None:
    fleet = fleets.sqlite_fleet(tmp_path / "project", count=6, size=4, starts=(0, 2, 4))
    fleet.execute("t002", ("UPDATE alembic_version SET version_num = 'from_tomorrow'",))
    before = fleet["t002"].snapshot()

    report = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", exit_status=1))

    skipped = outcomes_of(report)["t002"]
    assert (skipped["status"], skipped["reason"]["code"]) == ("skipped", "unknown_revision")
    assert report["counts"]["failed"] == report["counts"]["not_started"] == 0
    assert fleet["t002"].snapshot() == before
    checker.assert_right(member.expected(4) for member in fleet.members if member.name != "t002")
    fleet.orchestrate("upgrade", "--all", "--allow-ahead")

"""A run over real SQLite files goes on after what passes: a locked file, a killed worker."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import URL

from orchestrator import Project
from orchestrator.events import Event, JobDeferred
from orchestrator.outcomes import RunStatus, Status
from tests import histories

KILLING = """
import os, pathlib, signal
revision, down_revision = "r004", "r003"

def upgrade():
    died = pathlib.Path({died!r})
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)

def downgrade():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=3)
    (tmp_path / "db").mkdir()
    for name in ("acme", "globex"):
        sqlite3.connect(tmp_path / "db" / f"{name}.db").close()
    (tmp_path / "tenants.yaml").write_text(
        'version: 1\ndefaults: {url: "sqlite:///db/{tenant}.db", timeouts: {lock: 100ms, tenant_lock: 100ms}}\n'
        "tenants: {acme: , globex: }\n"
        "strategies: {default: {concurrency: 1, retries: {busy: [300ms], lost: 1}}}\n"
    )
    return tmp_path


def test_a_locked_tenant_is_upgraded_once_the_lock_is_gone(folder: Path) -> None:
    other = sqlite3.connect(folder / "db" / "acme.db", isolation_level=None)
    deferred: list[JobDeferred] = []

    def unlock(event: Event) -> None:
        if isinstance(event, JobDeferred):
            deferred.append(event)
            other.rollback()

    with Project.load(folder / "alembic.ini") as project:
        plan = project.plan()
        other.execute("BEGIN IMMEDIATE")
        report = project.run(plan, executor="inline", listeners=[unlock])
        attempts = project.ledger.attempts(report.run, "acme")
    other.close()
    assert report.status is RunStatus.SUCCEEDED
    assert [outcome.attempts for outcome in report.outcomes] == [2, 1]
    assert [event.outcome.target for event in deferred] == ["acme"]
    assert [attempt.outcome.status for attempt in attempts if attempt.outcome] == [Status.DEFERRED, Status.UPGRADED]


def test_a_tenant_that_stays_locked_fails_alone(folder: Path) -> None:
    other = sqlite3.connect(folder / "db" / "acme.db", isolation_level=None)
    with Project.load(folder / "alembic.ini") as project:
        plan = project.plan(max_failures=1)
        other.execute("BEGIN IMMEDIATE")
        report = project.run(plan, executor="inline")
    other.close()
    failed, done = report.outcomes
    assert (failed.status, failed.attempts, done.status) == (Status.FAILED, 2, Status.UPGRADED)


def test_a_worker_that_was_killed_is_replaced_and_its_job_resumed(folder: Path) -> None:
    died = folder / "died"
    (folder / "alembic" / "versions" / "r004_killing.py").write_text(KILLING.format(died=str(died)))
    with Project.load(folder / "alembic.ini") as project:
        report = project.run(project.plan())
        acme, globex = (project.ledger.attempts(report.run, name) for name in ("acme", "globex"))
    assert report.status is RunStatus.SUCCEEDED
    assert died.exists()
    assert sorted([len(acme), len(globex)]) == [1, 2]
    assert {outcome.at for outcome in report.outcomes} == {("r004",)}


def test_a_server_with_too_few_connections_fails_nobody(tmp_path: Path, postgres_database: URL) -> None:
    histories.write(tmp_path, size=3)
    names = [f"t{number:02}" for number in range(24)]
    role = f"few_{uuid.uuid4().hex[:8]}"
    owner = sqlalchemy.create_engine(
        postgres_database.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with owner.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'few' CONNECTION LIMIT 3")
        for name in names:
            connection.exec_driver_sql(f"CREATE SCHEMA {name} AUTHORIZATION {role}")
    url = owner.url.set(username=role, password="few").render_as_string(hide_password=False)
    (tmp_path / "tenants.yaml").write_text(
        f"version: 1\ndefaults: {{url: '{url}', schema: '{{tenant}}'}}\n"
        f"tenants: {{{', '.join(f'{name}: ' for name in names)}}}\nstrategies: {{default: {{concurrency: 8}}}}\n"
    )
    try:
        with Project.load(tmp_path / "alembic.ini") as project:
            report = project.run(project.plan())
    finally:
        with owner.connect() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role} CASCADE")
            connection.exec_driver_sql(f"DROP ROLE {role}")
        owner.dispose()
    assert report.status is RunStatus.SUCCEEDED
    assert {outcome.at for outcome in report.outcomes} == {("r003",)}
    assert max(outcome.attempts for outcome in report.outcomes) > 1, "there was room for all of them"

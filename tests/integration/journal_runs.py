"""Revisions that can be stopped at any statement, and tries of them that die there."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import textwrap
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

from orchestrator import worker
from orchestrator.outcomes import Outcome, Status
from orchestrator.plans import Command, Job
from orchestrator.tenants import Target, Tenant, Timeouts, Transaction
from tests import histories
from tests.services.servers import connect_mariadb

#: which statement is the last one that a try comes to, and what happens before it: `3:kill`, `3:raise`
STOP = "JOURNAL_TEST_STOP"

REVISION = """\
import os
import signal

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None


def at(number):
    where, _, how = os.environ.get("JOURNAL_TEST_STOP", "").partition(":")
    if where != str(number):
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("stopped")


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""

FIRST = """
op.create_table("markers", sa.Column("revision", sa.String(40), nullable=False))
op.create_table(
    "accounts",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("email", sa.String(120), nullable=False),
    sa.Column("plan_id", sa.Integer),
)
op.create_table("plans", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(40)))
op.execute("INSERT INTO accounts (id, email) VALUES (1, 'ada@example.com'), (2, 'bob@example.com')")
"""

#: every kind of statement, each once: none of them can be run twice
TEN = """
op.create_table("invoices", sa.Column("id", sa.Integer, primary_key=True), sa.Column("account_id", sa.Integer))
at(1)
op.execute("INSERT INTO markers VALUES ('two')")
at(2)
op.add_column("accounts", sa.Column("name", sa.String(40)))
at(3)
op.execute("INSERT INTO invoices (id, account_id) SELECT id, id FROM accounts WHERE email LIKE '%@example.com'")
at(4)
op.create_index("invoices_account", "invoices", ["account_id"])
at(5)
op.create_foreign_key(None, "accounts", "plans", ["plan_id"], ["id"])
at(6)
op.alter_column("accounts", "email", new_column_name="address", existing_type=sa.String(120), existing_nullable=False)
at(7)
plans = sa.table("plans", sa.column("id"), sa.column("name"))
op.bulk_insert(plans, [{"id": 1, "name": "10 % off"}, {"id": 2, "name": ""}])
at(8)
op.drop_column("accounts", "name")
at(9)
op.rename_table("invoices", "bills")
at(10)
"""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.integration.journal_runs"])


def write(folder: Path, *bodies: str, downgrades: tuple[str, ...] = (), env: str | None = None) -> Path:
    """An environment whose revisions r001, r002 … do what the bodies say."""
    config = histories.write(folder, size=0, **({"env": env} if env else {}))
    for number, body in enumerate(bodies, start=1):
        down = downgrades[number - 1] if number <= len(downgrades) else "pass"
        edit(folder, number, body, down)
    return config


def edit(folder: Path, number: int, body: str, downgrade: str = "pass") -> None:
    text = REVISION.format(
        revision=f"r{number:03d}",
        down=f"r{number - 1:03d}" if number > 1 else None,
        upgrade=textwrap.indent(textwrap.dedent(body).strip(), "    "),
        downgrade=textwrap.indent(textwrap.dedent(downgrade).strip(), "    "),
    )
    path = folder / "alembic" / "versions" / f"r{number:03d}.py"
    path.write_text(text)
    histories.forget_bytecode(path)


def target_of(url: URL | str, **fields: Any) -> Target:
    timeouts = Timeouts(connect=5, lock=2, statement=20, tenant_lock=10)
    return Target(
        tenant=Tenant(name="acme"),
        url=make_url(url),
        **{"timeouts": timeouts, "transaction": Transaction.TARGET, **fields},
    )


def run(
    folder: Path,
    target: Target,
    number: int,
    *,
    start: int | None = None,
    command: Command = Command.UPGRADE,
    **fields: Any,
) -> Outcome:
    """One try, here, to revision `number` from `start`, the one below it unless said."""
    start = number - 1 if start is None else start
    ids = histories.revision_ids(max(number, start))
    path = tuple(ids[start:number]) if number > start else tuple(reversed(ids[number:start]))
    job = Job(
        target=target.name,
        tenant=target.tenant.name,
        schema=target.schema,
        server=target.server,
        command=command,
        found=(ids[start - 1],) if start else (),
        wanted=(ids[number - 1],) if number else (),
        path=() if command is Command.STAMP else path,
        wave="all",
    )
    job = dataclasses.replace(job, **fields)
    settings = worker.WorkerSettings(config=folder / "alembic.ini", run="r-test", log=folder / "log.jsonl")
    worker.prepare(settings)
    return worker.run_job(job, target, settings)


def succeed(folder: Path, target: Target, number: int, **options: Any) -> Outcome:
    outcome = run(folder, target, number, **options)
    assert outcome.failure is None, outcome.failure
    assert outcome.status in (Status.UPGRADED, Status.DOWNGRADED, Status.STAMPED)
    return outcome


def fail(folder: Path, target: Target, number: int, **options: Any) -> str:
    """One try that has to fail; its message."""
    outcome = run(folder, target, number, **options)
    assert outcome.status is Status.FAILED
    assert outcome.failure is not None
    return outcome.failure.message


def die(folder: Path, target: Target, number: int, stop: str = "", *, start: int | None = None, **environ: str) -> None:
    """One try in a process of its own, which has to end by SIGKILL."""
    child = _forks.Process(target=_try, args=(folder, target, number, start, {STOP: stop, **environ}))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def _try(folder: Path, target: Target, number: int, start: int | None, environ: dict[str, str]) -> None:
    os.environ.update(environ)
    command = Command.DOWNGRADE if start is not None and start > number else Command.UPGRADE
    run(folder, target, number, start=start, command=command)


def rows(target: Target, query: str) -> list[Any]:
    """What a MariaDB target answers; single columns bare."""
    with contextlib.closing(connect_mariadb(target.url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        connection.commit()
        return [row[0] if len(row) == 1 else row for row in cursor.fetchall()]


def left(target: Target) -> list[Any]:
    """What the journal of a MariaDB target holds."""
    return rows(target, "SELECT position, kind, state FROM orchestrate_journal ORDER BY position")

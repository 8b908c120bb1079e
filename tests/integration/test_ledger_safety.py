"""What the SQL ledger keeps to on bad days: a full disk, a server that goes away, an older ledger, a curious hand."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, func, insert, make_url, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from orchestrator import failpoints
from orchestrator.errors import ExitCode, LedgerError
from orchestrator.ledger import Ledger, StopRequest, open_ledger, tables, this_process, versions
from orchestrator.ledger.contract import failure, job, outcome, plan, settled, wave
from orchestrator.ledger.rows import plan_columns
from orchestrator.ledger.transactions import now
from orchestrator.outcomes import RunStatus, Status
from tests.integration.ledgers import SCOPE, file, listening, raw, statements, url

__all__ = ["file", "raw", "url"]


@pytest.fixture
def ledger(url: URL) -> Iterator[Ledger]:
    opened = open_ledger(url, **SCOPE)
    yield opened
    opened.close()


def _rows(raw: Engine, table: str) -> int:
    with raw.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM orchestrate_{table}")).scalar_one())


def _fail_all(ledger: Ledger, run: str, names: Sequence[str]) -> None:
    for name in names:
        ledger.start(run, job(name))
        ledger.record(run, outcome(name, Status.FAILED, failure=failure()))


def _ended(ledger: Ledger, *names: str) -> str:
    """A run of which every job failed."""
    run = ledger.open_run(plan([wave(*names)], settled("hooli")), operator="ops", fleet=2).id
    _fail_all(ledger, run, names)
    ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES)
    return run


# -- the audit table ----------------------------------------------------------------------------------------------


_CHANGES = ("UPDATE orchestrate_audit SET operator = 'nobody'", "DELETE FROM orchestrate_audit")
_MORE_CHANGES = {
    "sqlite": ["REPLACE INTO orchestrate_audit SELECT * FROM orchestrate_audit"],
    "postgresql": [
        "TRUNCATE orchestrate_audit",
        "INSERT INTO orchestrate_audit TABLE orchestrate_audit ON CONFLICT (id) DO UPDATE SET action = 'x'",
    ],
}


def test_the_database_refuses_to_change_the_audit_table(ledger: Ledger, raw: Engine) -> None:
    ledger.note(this_process("ops"), "upgrade")
    ledger.note(this_process("ops"), "abort")
    before = ledger.audit()
    for statement in [*_CHANGES, *_MORE_CHANGES[raw.dialect.name]]:
        with (
            pytest.raises(DBAPIError, match="rows of orchestrate_audit are never changed and never removed"),
            raw.begin() as connection,
        ):
            connection.execute(text(statement))
        assert ledger.audit() == before


# -- older ledgers ------------------------------------------------------------------------------------------------


def test_runs_of_a_ledger_without_leases_were_interrupted(
    url: URL, raw: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(versions, "VERSIONS", versions.VERSIONS[:1])
        older.setattr("alembic.command.upgrade", _upgrading_to("0001"))
        open_ledger(url, **SCOPE).close()
    decided = plan([wave("acme")])
    kept = {"strategy": "careful", "operator": "ops", "started_at": now(), "size": 1, "fleet": 1}
    table = tables.runs.to_metadata(tables.MetaData())
    with raw.begin() as connection:
        columns = connection.execute(text("SELECT * FROM orchestrate_runs")).keys()
        assert "counts" not in columns
        for run, status in (("r-1", RunStatus.RUNNING), ("r-2", RunStatus.SUCCEEDED)):
            row = {**SCOPE, **plan_columns(decided), **kept, "id": run, "status": status.value}
            connection.execute(insert(table).values({table.c[name]: value for name, value in row.items()}))
    ledger = open_ledger(url, **SCOPE)
    assert [(run.id, run.status) for run in ledger.runs()] == [
        ("r-2", RunStatus.SUCCEEDED),
        ("r-1", RunStatus.INTERRUPTED),
    ]
    assert ledger.plan("r-1") == decided
    ledger.close()


def _upgrading_to(version: str) -> Any:
    from alembic import command

    upgrade = command.upgrade
    return lambda config, _revision: upgrade(config, version)


# -- writing ------------------------------------------------------------------------------------------------------


def test_what_is_written_already_is_not_written_again(url: URL, raw: Engine, ledger: Ledger) -> None:
    known = [settled(f"tenant{number}") for number in range(50)]
    run = ledger.open_run(plan([wave("acme", "globex")], *known), operator="ops", fleet=52).id
    ledger.start(run, job("acme"))
    ledger.record(run, outcome("acme"))
    everything = [outcome("acme"), outcome("globex", Status.NOT_STARTED), *known]
    ledger.close_run(run, RunStatus.HALTED, ExitCode.FAILURES, everything)
    assert _rows(raw, "outcomes") == 52
    lease = ledger.acquire(this_process("ops"))
    ledger.adopt_run(run, lease, reopen=True)
    ledger.start(run, job("globex"))
    ledger.record(run, outcome("globex"))
    ledger.close_run(run, RunStatus.SUCCEEDED, ExitCode.OK, [outcome("acme"), outcome("globex"), *known])
    assert _rows(raw, "outcomes") == 53


def test_failpoints_surround_each_write(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    monkeypatch.setattr(failpoints, "hit", passed.append)
    lease = ledger.acquire(this_process("ops"))
    run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease).id
    ledger.start(run, job("acme"))
    ledger.record(run, outcome("acme", Status.FAILED, failure=failure()))
    ledger.add_jobs(run, [job("globex")])
    ledger.renew(lease)
    ledger.request_stop(run, StopRequest.DRAIN)
    ledger.note(lease.holder, "upgrade")
    ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES)
    ledger.adopt_run(run, lease, reopen=True)
    ledger.release(lease)
    assert passed == ["ledger.before", "ledger.after"] * 11
    passed.clear()
    for read in (ledger.live, ledger.runs, ledger.open_runs, ledger.run, ledger.fleet, ledger.audit):
        read()
    for read_one in (ledger.plan, ledger.outcomes, ledger.unsettled):
        read_one(run)
    assert passed == []


def test_a_lost_lease_undoes_the_whole_write(raw: Engine, ledger: Ledger) -> None:
    lease = ledger.acquire(this_process("ops"))
    ledger.release(lease)
    with pytest.raises(LedgerError, match="given back"):
        ledger.open_run(plan([wave("acme")], settled("hooli")), operator="ops", fleet=2, lease=lease)
    assert [_rows(raw, name) for name in ("runs", "jobs", "outcomes")] == [0, 0, 0]


# -- reading ------------------------------------------------------------------------------------------------------


def test_no_question_reads_a_whole_table(file: Path) -> None:
    address = URL.create("sqlite", database=str(file))
    ledger = open_ledger(address, **SCOPE)
    _ended(ledger, "acme", "globex")
    run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops", fleet=2).id
    asked: list[tuple[str, Any]] = []
    with listening("before_cursor_execute", lambda *call: asked.append((call[2], call[3]))):
        ledger.runs()
        ledger.open_runs()
        ledger.run(run)
        ledger.outcomes(run)
        ledger.unsettled(run)
        ledger.attempts(run, "acme")
        ledger.live()
        ledger.audit()
        ledger.prune(keep=5)
    ledger.close()
    with sqlite3.connect(file) as connection:
        for statement, parameters in asked:
            steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            scans = [step[3] for step in steps if step[3].startswith("SCAN orchestrate_")]
            assert scans == [], statement
    connection.close()
    assert len(asked) >= 10


def test_runs_are_told_in_few_questions(raw: Engine, ledger: Ledger) -> None:
    """However many there are, and however they ended."""
    lease = ledger.acquire(this_process("ops"))
    for _ in range(3):
        _ended(ledger, "acme")
        ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease)
    with statements() as sent:
        assert len(ledger.runs()) == 6
    assert len(sent) == 3


# -- pruning ------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_pruned_run(raw: Engine, ledger: Ledger) -> None:
    _ended(ledger, "acme", "globex")
    last = _ended(ledger, "acme")
    ledger.prune()
    assert [run.id for run in ledger.runs()] == [last]
    assert [_rows(raw, name) for name in ("runs", "jobs", "attempts", "outcomes", "failures")] == [1, 1, 1, 2, 1]


def test_a_run_that_was_opened_again_meanwhile_stays(raw: Engine, ledger: Ledger) -> None:
    run = _ended(ledger, "acme")
    last = _ended(ledger, "acme")

    def reopen(*call: Any) -> None:
        if call[2].startswith("DELETE"):
            with raw.begin() as connection:
                connection.execute(text("UPDATE orchestrate_runs SET status = 'running'"))

    with listening("before_cursor_execute", reopen):
        assert list(ledger.prune()) == []
    assert [each.id for each in ledger.runs()] == [last, run]


def _pages(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])


def test_pruning_shrinks_the_file_when_nobody_is_busy(file: Path) -> None:
    ledger = open_ledger(URL.create("sqlite", database=str(file)), **SCOPE)
    names = [f"tenant{number}" for number in range(400)]
    for _ in range(2):
        run = ledger.open_run(plan([wave(*names)]), operator="ops", fleet=400).id
        ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES, [outcome(name) for name in names])
    _ended(ledger, "acme")
    full = _pages(file)
    lease = ledger.acquire(this_process("ops"))
    live = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=400, lease=lease).id
    assert len(ledger.prune(keep=3)) == 1
    assert _pages(file) >= full
    ledger.close_run(live, RunStatus.SUCCEEDED, ExitCode.OK)
    ledger.release(lease)
    busy = sqlite3.connect(file, isolation_level=None)

    def write(*call: Any) -> None:
        if call[2] == "VACUUM":
            busy.execute("BEGIN IMMEDIATE")

    with listening("before_cursor_execute", write):
        assert len(ledger.prune(keep=1)) == 2
    assert busy.in_transaction
    assert _pages(file) >= full
    busy.close()
    _ended(ledger, "acme")
    assert len(ledger.prune(keep=1)) == 1
    assert _pages(file) < full / 2
    assert file.stat().st_size < full / 2 * 4096
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(ledger.runs()) == 1
    ledger.close()


# -- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_whatever_the_ledger_writes_is_private(file: Path, mode: str) -> None:
    """Also where the operator's umask hides nothing, and on a disk where there can be no write-ahead log."""
    mask = os.umask(0)
    try:
        open_ledger(URL.create("sqlite", database=str(file)), **SCOPE).close()
        with sqlite3.connect(file) as connection:
            assert connection.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
        connection.close()
        seen: dict[str, int] = {}

        def look(*_call: Any) -> None:
            seen.update({each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()})

        ledger = open_ledger(URL.create("sqlite", database=str(file)), **SCOPE)
        with listening("after_cursor_execute", look):
            _ended(ledger, "acme")
            _ended(ledger, "acme")
            ledger.prune()
        ledger.close()
    finally:
        os.umask(mask)
    beside = {"wal": {"ledger.db-wal", "ledger.db-shm"}, "delete": {"ledger.db-journal"}}[mode]
    assert set(seen) == {"ledger.db"} | beside
    assert set(seen.values()) == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


# -- a full disk, a server that goes away -------------------------------------------------------------------------


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(file: Path) -> None:
    def fill(connection: Any, _record: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    address = URL.create("sqlite", database=str(file))
    setup = open_ledger(address, **SCOPE)
    names = [f"tenant{number}" for number in range(300)]
    run = setup.open_run(plan([wave(*names)]), operator="ops", fleet=300).id
    setup.close()
    rest = [outcome(name, Status.FAILED, failure=failure()) for name in names]
    with listening("connect", fill):
        ledger = open_ledger(address, **SCOPE)
        with pytest.raises(LedgerError, match=r"ledger\.db cannot be used: database or disk is full; mend that, or"):
            ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES, rest)
        with pytest.raises(LedgerError, match="database or disk is full"):
            ledger.open_run(plan([wave(*names)]), operator="ops", fleet=300)
        with pytest.raises(LedgerError, match="database or disk is full"):
            _fail_all(ledger, run, names)
        written = sum(attempt.outcome is not None for name in names for attempt in ledger.attempts(run, name))
        assert len(ledger.outcomes(run)) == written
        assert [each.id for each in ledger.runs()] == [run]
        ledger.close()
    mended = open_ledger(address, **SCOPE)
    assert mended.run(run).counts["failed"] == written
    assert mended.close_run(run, RunStatus.FAILED, ExitCode.FAILURES, rest).counts["failed"] == 300
    mended.close()


class _Killer:
    """Ends the ledger's connections as soon as a statement that begins so has been sent."""

    def __init__(self, url: URL, beginning: str, *, times: int) -> None:
        self._engine = create_engine(url)
        self._beginning = beginning
        self.left = times

    def __call__(self, *call: Any) -> None:
        if self.left and call[2].startswith(self._beginning):
            self.left -= 1
            with self._engine.connect() as connection:
                ours = "application_name = 'orchestrate/ledger'"
                connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {ours}"))
            self._engine.dispose()


@pytest.mark.parametrize("beginning", ["INSERT INTO orchestrate_runs", "INSERT INTO orchestrate_jobs"])
def test_a_server_that_ends_the_opening_of_a_run_leaves_nothing(postgres_database: URL, beginning: str) -> None:
    ledger = open_ledger(postgres_database, **SCOPE)
    lease = ledger.acquire(this_process("ops"))
    killer = _Killer(postgres_database, beginning, times=1)
    with listening("after_cursor_execute", killer), pytest.raises(LedgerError) as raised:
        ledger.open_run(plan([wave("acme")], settled("hooli")), operator="ops", fleet=2, lease=lease)
    assert killer.left == 0
    secret = make_url(postgres_database).password
    assert secret
    assert secret not in str(raised.value)
    assert f"{postgres_database.host}:{postgres_database.port}/{postgres_database.database}" in str(raised.value)
    assert list(ledger.runs()) == []
    assert ledger.live() == lease
    assert ledger.open_run(plan([wave("acme")]), operator="ops", fleet=2, lease=lease).size == 1
    ledger.close()


def test_a_server_that_ends_the_closing_of_a_run_once_is_asked_again(postgres_database: URL) -> None:
    ledger = open_ledger(postgres_database, **SCOPE)
    lease = ledger.acquire(this_process("ops"))
    run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops", fleet=2, lease=lease).id
    ledger.start(run, job("acme"))
    rest = [outcome("acme", Status.LOST, failure=failure()), outcome("globex", Status.NOT_STARTED)]
    for times, ending in ((2, "refused"), (1, "closed")):
        killer = _Killer(postgres_database, "UPDATE orchestrate_runs", times=times)
        with listening("after_cursor_execute", killer):
            if ending == "refused":
                with pytest.raises(LedgerError):
                    ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES, rest)
                assert (ledger.run(run).status, len(ledger.outcomes(run))) == (RunStatus.RUNNING, 0)
            else:
                closed = ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES, rest)
                assert (closed.status, len(ledger.outcomes(run))) == (RunStatus.FAILED, 2)
        assert killer.left == 0
    raw = create_engine(postgres_database)
    with raw.connect() as connection:
        assert connection.execute(select(func.count()).select_from(tables.outcomes)).scalar_one() == 2
    raw.dispose()
    ledger.close()

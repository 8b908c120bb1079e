"""The lease of the SQL ledger between real processes, one of which may be killed or stopped at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.engine import Engine

from orchestrator.errors import ExitCode, LeaseHeld, LeaseLost
from orchestrator.ledger import LEASE_SECONDS, Ledger, open_ledger, this_process
from orchestrator.ledger import leases as leases_module
from orchestrator.ledger.contract import failure, job, outcome, plan, settled, wave
from orchestrator.outcomes import RunStatus, Status
from tests.integration.ledgers import SCOPE, file, let_time_pass, raw, statements, url

__all__ = ["file", "raw", "url"]

#: takes the lease and opens a run; at each line on its standard input it starts a job
RUNNER = """
import sys
from orchestrator.errors import OrchestratorError
from orchestrator.ledger import open_ledger, this_process
from orchestrator.ledger.contract import job, plan, wave
ledger = open_ledger(sys.argv[1], project="billing", environment="test")
lease = ledger.acquire(this_process("runner"))
run = ledger.open_run(plan([wave("acme", "globex")]), operator="runner", fleet=2, lease=lease)
print(run.id, flush=True)
for line in sys.stdin:
    try:
        print(ledger.start(run.id, job(line.strip())), flush=True)
    except OrchestratorError as error:
        print(type(error).__name__, flush=True)
"""

#: eight processes that ask for the lease at the same moment; the winner keeps it until all have asked
RIVALS = """
import json, os, sys
from orchestrator.errors import LeaseHeld
from orchestrator.ledger import open_ledger, this_process
start, go = os.pipe()
answers, told = os.pipe()
asked, all_asked = os.pipe()
for number in range(8):
    if os.fork() == 0:
        os.close(go)
        os.close(all_asked)
        ledger = open_ledger(sys.argv[1], project="billing", environment="test")
        os.read(start, 1)
        try:
            answer = ledger.acquire(this_process(f"rival{number}")).token
        except LeaseHeld as error:
            answer = str(error)
        os.write(told, (json.dumps(answer) + chr(10)).encode())
        os.read(asked, 1)
        os._exit(0)
os.close(go)
os.close(told)
lines = os.fdopen(answers)
print(json.dumps([json.loads(lines.readline()) for _ in range(8)]))
"""


@pytest.fixture
def ledger(url: URL) -> Iterator[Ledger]:
    opened = open_ledger(url, **SCOPE)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the lease is an error."""

    def refuse(_seconds: float) -> None:
        raise AssertionError("waited")

    monkeypatch.setattr(leases_module.time, "sleep", refuse)


@pytest.fixture
def runner(url: URL, ledger: Ledger) -> Iterator[subprocess.Popen[str]]:
    process = _python(RUNNER, url)
    yield process
    process.kill()
    process.communicate()


def _python(script: str, url: URL) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", script, url.render_as_string(hide_password=False)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str], *, sent: str | None = None) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if sent is not None:
        process.stdin.write(f"{sent}\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


def test_of_eight_processes_one_gets_the_lease(url: URL, ledger: Ledger) -> None:
    answers: list[Any] = json.loads(_python(RIVALS, url).communicate()[0])
    assert [answer for answer in answers if isinstance(answer, int)] == [1]
    refusals = [answer for answer in answers if not isinstance(answer, int)]
    assert len(refusals) == 7
    assert all("another run of billing/test is about to begin, by rival" in refusal for refusal in refusals)
    assert ledger.live() is None


def test_a_killed_runner_is_replaced_at_once(
    url: URL, ledger: Ledger, runner: subprocess.Popen[str], impatient: None
) -> None:
    run = _line(runner)
    assert _line(runner, sent="acme") == "1"
    with pytest.raises(LeaseHeld, match=rf"{run} of billing/test is live, by runner on .*, pid {runner.pid}, since"):
        ledger.acquire(this_process("next"))
    assert ledger.run().status is RunStatus.RUNNING
    runner.kill()
    # Its parent has not asked yet how it ended: what is left of it is a zombie.
    os.waitid(os.P_PID, runner.pid, os.WEXITED | os.WNOWAIT)
    assert ledger.run().status is RunStatus.INTERRUPTED
    lease = ledger.acquire(this_process("next"))
    assert ledger.adopt_run(run, lease, reopen=True).status is RunStatus.RUNNING
    assert list(ledger.unsettled(run)) == ["acme"]
    assert ledger.start(run, job("acme")) == 2


def test_a_stopped_runner_that_was_overtaken_writes_nothing_more(
    url: URL, raw: Engine, ledger: Ledger, runner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "_WAKING_SECONDS", 0.5)
    run = _line(runner)
    assert _line(runner, sent="acme") == "1"
    runner.send_signal(signal.SIGSTOP)
    let_time_pass(raw, LEASE_SECONDS)
    ledger.acquire(this_process("next"))
    runner.send_signal(signal.SIGCONT)
    assert _line(runner, sent="globex") == "LeaseLost"
    assert list(ledger.attempts(run, "globex")) == []


def test_a_write_waits_for_a_takeover_under_way(url: URL, raw: Engine, ledger: Ledger) -> None:
    """And finds that the lease is gone: it may not slip in between the look at the lease and the commit."""
    lease = ledger.acquire(this_process("ops"))
    run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease).id
    lost: list[LeaseLost] = []

    def write() -> None:
        for work in (lambda: ledger.start(run, job("acme")), lambda: ledger.record(run, outcome("acme"))):
            try:
                work()
            except LeaseLost as error:
                lost.append(error)

    with raw.connect() as connection:
        connection.execute(text("UPDATE orchestrate_leases SET token = token + 1"))
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(timeout=0.5)
        assert writer.is_alive()
        connection.commit()
    writer.join()
    assert len(lost) == 2
    assert list(ledger.attempts(run, "acme")) == list(ledger.outcomes(run)) == []


def test_a_job_costs_two_statements(url: URL, ledger: Ledger) -> None:
    lease = ledger.acquire(this_process("ops"))
    run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease).id
    with statements() as sent:
        ledger.start(run, job("acme"))
        ledger.record(run, outcome("acme"))
    assert [statement.split()[:3] for statement in sent] == [
        ["INSERT", "INTO", "orchestrate_attempts"],
        ["INSERT", "INTO", "orchestrate_outcomes"],
    ]


def test_any_driver_writes_under_the_lease(postgres_database: URL) -> None:
    ledger = open_ledger(postgres_database.set(drivername="postgresql+psycopg2"), **SCOPE)
    lease = ledger.acquire(this_process("ops"))
    run = ledger.open_run(plan([wave("acme")], settled("hooli")), operator="ops", fleet=2, lease=lease).id
    assert ledger.start(run, job("acme")) == 1
    failed = outcome("acme", Status.FAILED, failure=failure())
    ledger.record(run, failed)
    assert list(ledger.outcomes(run)) == [failed, settled("hooli")]
    assert ledger.renew(lease) is None
    assert ledger.close_run(run, RunStatus.FAILED, ExitCode.FAILURES).counts["failed"] == 1
    ledger.note(lease.holder, "upgrade", run=run)
    assert [entry.run for entry in ledger.audit()] == [run]
    ledger.close()


def test_the_clock_of_the_server_counts(postgres_database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of this machine may be anywhere."""
    ledger = open_ledger(postgres_database, **SCOPE)
    lease = ledger.acquire(this_process("ops"))
    monkeypatch.setattr("orchestrator.ledger.transactions.now", lambda: pytest.fail("asked the local clock"))
    assert ledger.live() == lease
    assert ledger.renew(lease) is None
    ledger.note(lease.holder, "upgrade")
    ledger.release(lease)
    ledger.close()


def test_a_clock_that_was_set_back_does_not_keep_the_lease(
    raw: Engine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder elsewhere whose heartbeat lies in the future, and stays there, is dead after all."""
    lost = ledger.acquire(this_process("ops"))
    with raw.begin() as connection:
        connection.execute(text("UPDATE orchestrate_leases SET host = 'build7'"))
    let_time_pass(raw, -3600)
    waited = iter(range(0, 3600, 5))
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: next(waited))
    monkeypatch.setattr(leases_module.time, "sleep", lambda _seconds: None)
    assert ledger.acquire(this_process("next")).token > lost.token

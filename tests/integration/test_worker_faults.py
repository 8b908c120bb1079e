"""`run_job` among faults that pass: locks, deadlocks, cut connections, sessions of processes that died."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ProgrammingError

from orchestrator import databases, logs, worker
from orchestrator.outcomes import FailureKind, Status
from orchestrator.plans import Command
from orchestrator.tenants import Target, Tenant, Timeouts, Transaction
from tests import histories
from tests.integration.worker_jobs import job, run
from tests.services.servers import connect_mariadb, connect_postgres

SERVERS = {"postgresql": "postgres_database", "mariadb": "mariadb_database"}
SESSIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND query LIKE '%{}%' "
    "AND pid <> pg_backend_pid()",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE db = '{}' AND info LIKE '%{}%' "
    "AND id <> CONNECTION_ID()",
}
SLEEP = {"postgresql": "SELECT pg_sleep(60)", "mariadb": "SELECT SLEEP(60)"}
#: set when a revision runs for the second time
TRIED = "TRIED_BEFORE"
#: takes the tenant lock as a worker would, and works on the server until it is killed
DOOMED = """
import sys
from sqlalchemy import make_url
from orchestrator import databases
from orchestrator.tenants import Target, Tenant

url, statement = sys.stdin.read().splitlines()
target = Target(tenant=Tenant(name="acme"), url=make_url(url))
with databases.Connections().open(target, application_name="orchestrate/r-dead/acme") as connection:
    databases.wait_for_lock(connection, target, 10)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET client_connection_check_interval = 0")
    print(databases.backend_of(target).session(connection), flush=True)
    connection.exec_driver_sql(statement)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=4)
    return tmp_path


@pytest.fixture(params=list(SERVERS))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(request: pytest.FixtureRequest, engine: str) -> Target:
    url: URL = request.getfixturevalue(SERVERS[engine])
    return Target(tenant=Tenant(name="acme"), url=url, timeouts=Timeouts(lock=0.5, tenant_lock=20))


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What happens in the pauses between two tries, first to last; none of them takes time."""
    during: list[Callable[[], None]] = []

    def sleep(_seconds: float) -> None:
        if during:
            during.pop(0)()

    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=sleep, perf_counter=time.perf_counter))
    return during


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    worker.finish()


def rows(target: Target, query: str) -> list[Any]:
    engine = create_engine(target.url, poolclass=NullPool)
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(query).scalars())


def assert_applied_once(target: Target, last: int = 4) -> None:
    assert sorted(rows(target, "SELECT revision FROM markers")) == histories.revision_ids(last)
    assert rows(target, "SELECT version_num FROM alembic_version") == [f"r{last:03d}"]


def stands_at(target: Target) -> list[str]:
    with contextlib.suppress(ProgrammingError):
        return rows(target, "SELECT version_num FROM alembic_version")
    return []


def insert_code(folder: Path, revision: str, code: str) -> None:
    path = histories.file_of(folder, revision)
    indented = "".join(f"    {line}\n" for line in code.strip().splitlines())
    path.write_text(path.read_text().replace("def upgrade():\n", f"def upgrade():\n{indented}", 1))


def sessions(target: Target, engine: str, text: str) -> list[int]:
    return rows(target, SESSIONS[engine].format(target.url.database, text).replace("%", "%%"))


def wait_until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (seen := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return seen


def said(folder: Path) -> str:
    return "\n".join(str(record.get("message")) for record in logs.read(folder / "log.jsonl"))


# -- locks and deadlocks --------------------------------------------------------------------------------------------


def test_a_locked_table_is_waited_for_in_several_tries(
    folder: Path, target: Target, naps: list[Callable[[], None]]
) -> None:
    """No transaction is open while it waits between two tries, so whoever has the lock can go on."""
    run(folder, target, job(target, "r002"))
    other = create_engine(target.url, poolclass=NullPool).connect()
    other.exec_driver_sql("SELECT * FROM accounts FOR UPDATE")
    naps += [lambda: None, other.close]
    outcome = run(folder, target, job(target, found=("r002",)))
    assert (outcome.status, outcome.attempts, outcome.found) == (Status.UPGRADED, 3, ("r002",))
    assert outcome.applied == ("r003", "r004")
    assert_applied_once(target)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_table_that_stays_locked_gives_the_job_back(folder: Path, target: Target, naps: object) -> None:
    run(folder, target, job(target, "r002"))
    with create_engine(target.url, poolclass=NullPool).connect() as other:
        other.exec_driver_sql("SELECT * FROM accounts FOR UPDATE")
        quick = dataclasses.replace(target, timeouts=Timeouts(lock=0.05))
        outcome = run(folder, quick, job(target, "r003", found=("r002",)))
    assert (outcome.status, outcome.failure.kind, outcome.attempts) == (Status.FAILED, FailureKind.TRANSIENT, 6)
    assert outcome.failure.code == "55P03"
    assert (outcome.at, outcome.applied) == (("r002",), ())
    assert said(folder).count("failed, the next one is in") == 5


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_deadlock_is_one_more_try(folder: Path, target: Target, naps: list[Callable[[], None]]) -> None:
    insert_code(
        folder,
        "r003",
        """
op.execute("SET LOCAL deadlock_timeout = '5ms'; SET LOCAL lock_timeout = 0")
op.execute("LOCK TABLE accounts")
waiting = sa.text("SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
                  "WHERE NOT l.granted AND d.datname = current_database()")
while first_time and not op.get_bind().scalar(waiting):
    pass
op.execute("LOCK TABLE invoices")
""",
    )
    path = histories.file_of(folder, "r003")
    path.write_text(
        path.read_text().replace(
            "    waiting =", f"    import os; first_time = not os.environ.pop({TRIED!r}, None)\n    waiting ="
        )
    )
    run(folder, target, job(target, "r002"))
    with connect_postgres(target.url) as other:
        other.execute("SET deadlock_timeout = '1min'")
        other.execute("BEGIN; LOCK TABLE invoices")
        thread = threading.Thread(target=functools.partial(lock_after, other, target))
        thread.start()

        def let_go() -> None:
            thread.join()
            other.execute("COMMIT")
            os.environ[TRIED] = "yes"

        naps.append(let_go)
        outcome = run(folder, target, job(target, found=("r002",)))
    assert (outcome.status, outcome.attempts) == (Status.UPGRADED, 2)
    assert "deadlock detected" in said(folder)
    assert_applied_once(target)


def lock_after(other: psycopg.Connection[Any], target: Target) -> None:
    """Lock `accounts` as soon as the revision has it."""
    held = (
        "SELECT l.pid FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation "
        "WHERE l.granted AND c.relname = 'accounts' AND l.mode = 'AccessExclusiveLock'"
    )
    wait_until(lambda: rows(target, held))
    other.execute("LOCK TABLE accounts")


# -- connections that are cut ---------------------------------------------------------------------------------------


def end_session(target: Target, number: int) -> None:
    if target.backend == "postgresql":
        with connect_postgres(target.url) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", (number,))
        return
    with contextlib.closing(connect_mariadb(target.url)) as admin, admin.cursor() as cursor:
        cursor.execute(f"KILL {number}")


def cut_once(target: Target, function: Callable[..., Any], *, at: int = 1) -> Callable[..., Any]:
    """The function, before whose n-th call the server ends the session of the connection that it is given."""
    calls = iter(range(1, 1000))

    @functools.wraps(function)
    def cut(connection: Any, *arguments: Any, **keywords: Any) -> Any:
        if next(calls) == at:
            end_session(target, databases.backend_of(target).session(connection))
        return function(connection, *arguments, **keywords)

    return cut


@pytest.mark.parametrize(("phase", "attempts"), [("prepare", 1), ("try_lock", 2), ("verify", 1), ("unlock", 1)])
def test_a_session_that_ends_around_the_work_costs_a_try_at_most(
    folder: Path, target: Target, monkeypatch: pytest.MonkeyPatch, naps: object, phase: str, attempts: int
) -> None:
    backend = databases.backend_of(target)
    monkeypatch.setattr(backend, phase, cut_once(target, getattr(backend, phase)))
    outcome = run(folder, target, job(target))
    assert (outcome.failure, outcome.status, outcome.attempts) == (None, Status.UPGRADED, attempts)
    assert (outcome.found, outcome.applied) == ((), ("r001", "r002", "r003", "r004"))
    assert_applied_once(target)


@pytest.mark.parametrize(("call", "attempts"), [(1, 2), (2, 1)])
def test_a_session_that_ends_while_the_version_is_read(
    folder: Path, target: Target, monkeypatch: pytest.MonkeyPatch, naps: object, call: int, attempts: int
) -> None:
    monkeypatch.setattr(worker, "read_heads", cut_once(target, worker.read_heads, at=call))
    outcome = run(folder, target, job(target))
    assert (outcome.failure, outcome.status, outcome.attempts) == (None, Status.UPGRADED, attempts)
    assert outcome.applied == ("r001", "r002", "r003", "r004")
    assert_applied_once(target)


@contextlib.contextmanager
def cut_before(target: Target, words: str, *, times: int) -> Iterator[None]:
    """The server ends the session that is about to send a statement with these words, the first few times."""
    left = iter(range(times))

    def cut(connection: Connection, _cursor: object, statement: str, *_details: object) -> None:
        if words in statement and next(left, None) is not None:
            end_session(target, databases.backend_of(target).session(connection))

    event.listen(Engine, "before_cursor_execute", cut)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", cut)


@pytest.mark.parametrize("transaction", list(Transaction))
def test_a_session_that_ends_in_a_revision_is_settled_and_tried_again(
    folder: Path, target: Target, naps: object, transaction: Transaction
) -> None:
    given = dataclasses.replace(target, transaction=transaction)
    with cut_before(target, "ADD COLUMN display_name", times=1):
        outcome = run(folder, given, job(given))
    assert (outcome.failure, outcome.status, outcome.attempts) == (None, Status.UPGRADED, 2)
    assert (outcome.found, outcome.applied) == ((), ("r001", "r002", "r003", "r004"))
    assert_applied_once(target)


def test_a_revision_that_always_loses_its_session_is_given_up(
    folder: Path, target: Target, engine: str, naps: object
) -> None:
    with cut_before(target, "ADD COLUMN display_name", times=9):
        outcome = run(folder, target, job(target))
    kept = () if engine == "postgresql" else ("r001", "r002")
    assert (outcome.status, outcome.failure.kind, outcome.attempts) == (Status.FAILED, FailureKind.AMBIGUOUS, 3)
    assert (outcome.at, outcome.applied) == (kept[-1:], kept)
    assert outcome.failure.revision == "r003"


@pytest.mark.parametrize("transaction", list(Transaction))
def test_a_commit_whose_answer_is_lost_is_found_in_the_version_table(
    folder: Path, target: Target, monkeypatch: pytest.MonkeyPatch, naps: object, transaction: Transaction
) -> None:
    commit = DefaultDialect.do_commit

    def commit_and_lose(self: DefaultDialect, connection: Any) -> None:
        commit(self, connection)
        if stands_at(target) == ["r004"]:
            monkeypatch.setattr(DefaultDialect, "do_commit", commit)
            driver = connection.dbapi_connection
            number = driver.info.backend_pid if target.backend == "postgresql" else driver.thread_id()
            end_session(target, number)
            connection.cursor().execute("SELECT 1")

    monkeypatch.setattr(DefaultDialect, "do_commit", commit_and_lose)
    given = dataclasses.replace(target, transaction=transaction)
    outcome = run(folder, given, job(given))
    assert (outcome.failure, outcome.status, outcome.attempts) == (None, Status.UPGRADED, 1)
    assert outcome.reason.code == "verified"
    assert outcome.applied == ("r001", "r002", "r003", "r004")
    assert_applied_once(target)


def test_an_unknown_fate_goes_back_as_unknown(
    folder: Path, target: Target, monkeypatch: pytest.MonkeyPatch, naps: object
) -> None:
    def look(*_: object) -> None:
        raise ConnectionError("no way there")

    monkeypatch.setattr(worker.Work, "_look", look)
    with cut_before(target, "ADD COLUMN display_name", times=1):
        outcome = run(folder, target, job(target))
    assert (outcome.status, outcome.failure.kind) == (Status.FAILED, FailureKind.AMBIGUOUS)
    assert (outcome.at, outcome.attempts) == (None, 1)


def test_a_session_that_replaces_the_one_with_the_lock_is_not_used(folder: Path, target: Target, naps: object) -> None:
    """A revision swallows the end of its session and goes on: the next session would have neither lock nor schema."""
    insert_code(
        folder,
        "r003",
        """
bind = op.get_bind()
try:
    op.execute("UPDATE accounts SET email = email")
except Exception:
    bind.get_transaction().rollback()
bind.exec_driver_sql("CREATE TABLE elsewhere (id int)")
""",
    )
    with cut_before(target, "UPDATE accounts", times=1):
        outcome = run(folder, target, job(target))
    assert (outcome.status, outcome.failure.code) == (Status.FAILED, "lock_lost")
    assert rows(target, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'elsewhere'") == [0]


def test_a_new_connection_is_made_where_the_server_may_have_changed_places(
    folder: Path, postgres_database: URL, naps: list[Callable[[], None]]
) -> None:
    """A process keeps a session for the schemas of one database: it would lead to the old primary again."""
    target = Target(tenant=Tenant(name="acme"), url=postgres_database, schema="public")
    setting = f'ALTER DATABASE "{postgres_database.database}" {{}} default_transaction_read_only'
    with connect_postgres(postgres_database.set(database="postgres")) as elsewhere:
        elsewhere.execute(setting.format("SET") + " = on")
        naps.append(lambda: elsewhere.execute(setting.format("RESET")))
        outcome = run(folder, target, job(target))
    assert (outcome.failure, outcome.attempts) == (None, 2)
    assert_applied_once(target)


# -- jobs that are taken up again -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stands", "applied"), [("r004", ("r003", "r004")), ("r003", ("r003", "r004")), ("r002", ("r003", "r004"))]
)
def test_an_upgrade_that_is_taken_up_again_counts_what_an_earlier_try_did(
    folder: Path, target: Target, stands: str, applied: tuple[str, ...]
) -> None:
    run(folder, target, job(target, stands))
    outcome = run(folder, target, job(target, found=("r002",), resumed=True))
    assert (outcome.status, outcome.found, outcome.at) == (Status.UPGRADED, ("r002",), ("r004",))
    assert outcome.applied == applied
    assert (outcome.reason.code if outcome.reason else None) == ("verified" if stands == "r004" else None)
    assert_applied_once(target)


@pytest.mark.parametrize("stands", ["r004", "r003", "r002"])
def test_a_downgrade_that_is_taken_up_again_goes_on_from_where_it_is(folder: Path, target: Target, stands: str) -> None:
    run(folder, target, job(target, stands))
    down = {"command": Command.DOWNGRADE, "found": ("r004",), "path": ("r004", "r003"), "resumed": True}
    outcome = run(folder, target, job(target, "r002", **down))
    assert (outcome.status, outcome.found, outcome.at) == (Status.DOWNGRADED, ("r004",), ("r002",))
    assert outcome.applied == ("r004", "r003")
    assert_applied_once(target, last=2)


def test_a_downgrade_goes_nowhere_from_below_its_end(folder: Path, target: Target) -> None:
    run(folder, target, job(target, "r001"))
    down = {"command": Command.DOWNGRADE, "found": ("r004",), "path": ("r004", "r003"), "resumed": True}
    outcome = run(folder, target, job(target, "r002", **down))
    assert (outcome.status, outcome.reason.code, outcome.at) == (Status.SKIPPED, "moved", ("r001",))
    assert_applied_once(target, last=1)


def test_a_stamp_that_is_taken_up_again_is_a_stamp(folder: Path, target: Target) -> None:
    stamp = {"command": Command.STAMP, "path": ()}
    run(folder, target, job(target, "r002", **stamp))
    outcome = run(folder, target, job(target, "r002", resumed=True, **stamp))
    assert (outcome.status, outcome.reason.code, outcome.applied) == (Status.STAMPED, "verified", ())


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_an_earlier_try_that_left_an_invalid_index_is_no_success(folder: Path, target: Target) -> None:
    run(folder, target, job(target))
    with connect_postgres(target.url) as connection:
        connection.execute("CREATE INDEX half_built ON accounts (email)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half_built'::regclass")
    outcome = run(folder, target, job(target, resumed=True))
    assert (outcome.status, outcome.failure.code) == (Status.FAILED, "invalid_index")


# -- sessions whose client died -------------------------------------------------------------------------------------


@contextlib.contextmanager
def orphan(target: Target, engine: str) -> Iterator[int]:
    """A session of a dead process that holds the tenant lock and works on; its number on the server."""
    process = subprocess.Popen(
        [sys.executable, "-c", DOOMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{target.url.render_as_string(hide_password=False)}\n{SLEEP[engine].replace('60', '61')}\n")
    process.stdin.close()
    number = int(process.stdout.readline())
    wait_until(lambda: number in sessions(target, engine, "61"))
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        yield number
    finally:
        if number in sessions(target, engine, "61"):
            end_session(target, number)


def test_an_orphan_is_named_and_waited_for_or_ended(folder: Path, target: Target, engine: str) -> None:
    hurried = dataclasses.replace(target, timeouts=Timeouts(tenant_lock=0.3))
    with orphan(target, engine) as number:
        for dead, end in (("r-another", True), ("r-dead", False)):
            outcome = run(folder, hurried, job(hurried), orphans=frozenset({"r-unseen", dead}), end_orphans=end)
            assert (outcome.status, outcome.failure.code, outcome.attempts) == (Status.FAILED, "tenant_locked", 1)
            assert f"pid {number}" in outcome.failure.message
            assert number in sessions(target, engine, "61"), "nobody asked for the end of this one"
        named = f"pid {number} (orchestrate/r-dead/acme, user "
        assert f"an orphan of a run that died holds the tenant lock, waiting: {named}" in said(folder)
        outcome = run(folder, target, job(target), orphans=frozenset({"r-dead"}), end_orphans=True)
        assert number not in sessions(target, engine, "61")
    assert (outcome.status, outcome.attempts) == (Status.UPGRADED, 1)
    assert f"ended the orphan of a run that died, which held the tenant lock: {named}" in said(folder)


def test_a_cancelled_job_leaves_no_statement_on_the_server(folder: Path, target: Target, engine: str) -> None:
    """As a second Ctrl-C does: the driver may only hang up, which the server does not notice."""
    insert_code(folder, "r003", f'op.execute("{SLEEP[engine]}")')
    main = threading.main_thread().ident
    assert main is not None
    # Whoever was started in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        wait_until(lambda: sessions(target, engine, "(60)"))
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(folder, target, job(target))
    thread.join()
    wait_until(lambda: not sessions(target, engine, "(60)"))
    path = histories.file_of(folder, "r003")
    path.write_text(path.read_text().replace(f'    op.execute("{SLEEP[engine]}")\n', ""))
    histories.forget_bytecode(path)
    outcome = run(folder, target, job(target, resumed=True))
    assert outcome.status is Status.UPGRADED
    assert_applied_once(target)

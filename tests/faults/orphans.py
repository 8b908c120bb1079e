"""What a killed runner leaves on the server: statements that go on, and locks that are held for nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.acceptance.fleets import Done, Fleet, Member, everything_written
from tests.faults import spans
from tests.faults.stage import Command, Figures, Stage, assert_at_head, beside
from tests.services.servers import connect_mariadb, connect_postgres

#: a statement that works until it is let go, and does not look whether its client is still there
_WORK = {
    "postgresql": """
    op.execute("SET LOCAL client_connection_check_interval = 0")
    op.execute("DO $$ BEGIN WHILE NOT pg_try_advisory_xact_lock(42) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$")
""",
    "mariadb": """
    op.execute("UPDATE accounts SET email = email WHERE id = hold()")
""",
}
#: the same, under the settings that ours have
_WATCHED_WORK = """
    op.execute("DO $$ BEGIN PERFORM pg_sleep(300); END $$")
"""
_WORKERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO %%pg_sleep%%' AND state = 'active'"
    " AND datname = %s",
    "mariadb": "SELECT id FROM information_schema.processlist WHERE db = %s AND command = 'Query'"
    " AND (info LIKE 'UPDATE accounts%%' OR info LIKE 'DO SLEEP%%' OR info LIKE '%%IS_USED_LOCK%%')"
    " AND id <> CONNECTION_ID()",
}
#: one long wait would look after its client from time to time; many short ones do not
_FUNCTION = """
CREATE FUNCTION hold() RETURNS INT NOT DETERMINISTIC READS SQL DATA
BEGIN WHILE IS_USED_LOCK('hold') IS NOT NULL DO DO SLEEP(0.05); END WHILE; RETURN 1; END
"""
_HOLD = {"postgresql": "SELECT pg_advisory_lock(42)", "mariadb": "SELECT GET_LOCK('hold', 10)"}
_LET_GO = {"postgresql": "SELECT pg_advisory_unlock(42)", "mariadb": "SELECT RELEASE_LOCK('hold')"}
_STEP = 0.02


class Watcher:
    """Asks the server what it is doing in the database of a tenant, and keeps a long statement from its end."""

    def __init__(self, kind: str, member: Member) -> None:
        self._kind = kind
        self._database = member.url.database
        self._connection = connect_postgres(member.url) if kind == "postgresql" else connect_mariadb(member.url)
        if kind == "mariadb":
            with self._connection.cursor() as cursor:
                cursor.execute(_FUNCTION)
        self._ask(_HOLD[kind])

    def workers(self) -> list[int]:
        """Sessions that are at the long statement."""
        return self._ask(_WORKERS[self._kind], self._database)

    def let_go(self) -> None:
        """Let it come to its end."""
        self._ask(_LET_GO[self._kind])

    def holders(self) -> list[int]:
        """Sessions that may hold a tenant lock; MariaDB does not tell, so there it is whoever is in the database."""
        if self._kind == "postgresql":
            return self._ask(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()"
            )
        everybody = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"
        return self._ask(everybody, self._database)

    def _ask(self, question: str, *values: object) -> list[int]:
        with self._connection.cursor() as cursor:
            cursor.execute(question, values or None)
            return [int(row[0] or 0) for row in cursor.fetchall()]

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def _at_work(stage: Stage, kind: str, work: str) -> Iterator[tuple[Fleet, Watcher, Path]]:
    """A tenant whose last revision does not end by itself; its spans are kept."""
    with stage.fleet(stage.server(kind), count=1, size=2) as fleet:
        _add_work(fleet, work)
        with contextlib.closing(Watcher(kind, fleet.members[0])) as watcher:
            yield fleet, watcher, spans.keep(fleet)


def long_statement(stage: Stage, kind: str, *, end: bool) -> Figures:
    """SIGKILL while the server works on a long statement, then `resume` at once, with or without `--end-orphans`."""
    with _at_work(stage, kind, _WORK[kind]) as (fleet, watcher, log):
        with beside(fleet.project, "upgrade", "--all", "-q") as command:
            (orphan,) = _when(command, watcher.workers)
            command.kill()
        begun = len(spans.read(log))
        killed = time.monotonic()
        with beside(fleet.project, "resume", *(["--end-orphans"] if end else [])) as command:
            _when(command, lambda: [orphan] if _is_named(fleet, orphan) else [])
            if not end:
                # It has seen the orphan; now it has the time to do something wrong.
                time.sleep(1)
                assert watcher.workers() == [orphan], "the statement ended with its client: nothing is tested here"
                assert len(spans.read(log)) == begun, "begun while the orphan works"
                watcher.let_go()
            while orphan in watcher.workers():
                assert len(spans.read(log)) == begun or orphan not in watcher.workers(), "begun while the orphan works"
                time.sleep(_STEP)
            lived = time.monotonic() - killed
            watcher.let_go()
            done = command.wait()
        assert done.exit_status == 0, f"{done}"
        assert_at_head(fleet)
        spans.assert_apart(log, once=False)
        return {"ended by us": end, "lived after the kill (s)": round(lived, 2), "begun beside it": 0}


def _is_named(fleet: Fleet, orphan: int) -> bool:
    return f"pid {orphan}" in everything_written(fleet.project)


def _add_work(fleet: Fleet, code: str) -> None:
    """Put that into the last revision."""
    (path,) = (fleet.project.folder / "alembic" / "versions").glob(f"r{fleet.size:03d}_*.py")
    text = path.read_text()
    path.write_text(text.replace("def upgrade():\n", f"def upgrade():\n{code}\n", 1))


def _when(command: Command, look: Callable[[], list[int]]) -> list[int]:
    """What a look finds, as soon as it finds something."""
    while not (found := look()):
        assert command.process.poll() is None, f"{command.wait()}"
        time.sleep(_STEP)
    return found


def stale_lock(stage: Stage, kind: str, *, rounds: int = 1) -> Figures:
    """SIGKILL to the runner and its workers in the middle of a revision: seconds until the lock can be taken."""
    took = [_stale_lock(stage, kind) for _ in range(rounds)]
    return {"rounds": rounds, "longest wait for the lock (s)": round(max(took), 2)}


def _stale_lock(stage: Stage, kind: str) -> float:
    # MariaDB has nothing that watches over a client while a statement runs; there the client dies between two.
    work = _WATCHED_WORK if kind == "postgresql" else "    import time\n    time.sleep(300)"
    with _at_work(stage, kind, work) as (fleet, watcher, log):
        with beside(fleet.project, "upgrade", "--all", "-q") as command:
            if kind == "postgresql":
                _when(command, watcher.workers)
            else:
                _when(command, lambda: [span.pid for span in spans.read(log) if span.revision == "r002"])
            assert watcher.holders()
            command.kill()
        killed = time.monotonic()
        while watcher.holders():
            time.sleep(_STEP)
        return time.monotonic() - killed


def worker_dies(stage: Stage, kind: str, *, count: int) -> Figures:
    """SIGKILL to a worker that holds a tenant's lock: the run itself does that tenant again."""
    with stage.fleet(stage.server(kind), count=count, size=2) as fleet:
        log = spans.keep(fleet, pause=0.5)
        with beside(fleet.project, "upgrade", "--all", "-o", "json", "--concurrency", "1") as command:
            (pid, *_) = _when(command, lambda: [span.pid for span in spans.read(log) if span.end is None])
            os.kill(pid, signal.SIGKILL)
            done: Done = command.wait()
        assert done.exit_status == 0, f"{done}"
        assert_at_head(fleet)
        spans.assert_apart(log, once=False)
        report = done.json
        return {"targets": count, "most attempts": max(outcome["attempts"] for outcome in report["outcomes"])}

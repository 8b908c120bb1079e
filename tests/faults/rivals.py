"""Others who want the same tenants at the same time: orchestrators, hands, applications."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

from sqlalchemy import URL

from tests import checker, histories
from tests.acceptance.fleets import Fleet, Member, outcomes_of, report_of
from tests.faults import spans
from tests.faults.stage import Figures, Stage, assert_at_head, assert_told_truly, beside
from tests.services.servers import connect_mariadb, connect_postgres

_SHARE = ("upgrade", "--all", "-o", "json", "--concurrency", "2")


def same_ledger(stage: Stage, kind: str, *, rivals: int, count: int) -> Figures:
    """So many orchestrators of one project: one works, the others are told who does."""
    with stage.fleet(stage.server(kind), count=count, size=3) as fleet:
        log = spans.keep(fleet, pause=0.05)
        with contextlib.ExitStack() as stack:
            commands = [stack.enter_context(beside(fleet.project, *_SHARE)) for _ in range(rivals)]
            ended = [command.wait() for command in commands]
        statuses = [done.exit_status for done in ended]
        assert statuses.count(0) >= 1, "\n".join(map(str, ended))
        assert set(statuses) <= {0, 3}, "\n".join(map(str, ended))
        refused = [done for done in ended if done.exit_status == 3]
        assert all("is live" in done.text or "since" in done.text for done in refused), "\n".join(map(str, refused))
        assert_at_head(fleet)
        number = spans.assert_apart(log)
        return {"orchestrators": rivals, "targets": count, "spans": number, "overlaps": 0, "refused": len(refused)}


def different_ledgers(stage: Stage, kind: str, *, rivals: int, count: int) -> Figures:
    """Orchestrators that know nothing of each other: the tenant locks decide."""
    with stage.fleet(stage.server(kind), count=count, size=3) as fleet:
        log = spans.keep(fleet, pause=0.05)
        with contextlib.ExitStack() as stack:
            commands = [
                stack.enter_context(beside(fleet.project, *_SHARE, "--ledger", f"sqlite:///ledger{number}.db"))
                for number in range(rivals)
            ]
            ended = [command.wait() for command in commands]
        assert {done.exit_status for done in ended} == {0}, "\n".join(map(str, ended))
        for done in ended:
            assert_told_truly(fleet, report_of(done))
        assert_at_head(fleet)
        upgraded = sum(report_of(done)["counts"]["upgraded"] for done in ended)
        number = spans.assert_apart(log)
        assert upgraded == count, f"{upgraded} were told to be upgraded, {count} are there"
        return {"orchestrators": rivals, "targets": count, "spans": number, "overlaps": 0, "told upgraded": upgraded}


def by_hand(stage: Stage, kind: str, *, hands: int, count: int) -> Figures:
    """`alembic upgrade head` on our env.py, started at the same time as `orchestrate upgrade`."""
    with stage.fleet(stage.server(kind), count=count, size=3) as fleet:
        log = spans.keep(fleet, pause=0.05)
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(beside(fleet.project, *_SHARE))
            others = [
                stack.enter_context(beside(fleet.project, "upgrade", "head", program="alembic")) for _ in range(hands)
            ]
            done, ended = ours.wait(), [command.wait() for command in others]
        assert done.exit_status == 0, f"{done}"
        assert {each.exit_status for each in ended} == {0}, "\n".join(map(str, ended))
        assert_at_head(fleet)
        return {"hands": hands, "targets": count, "spans": spans.assert_apart(log), "overlaps": 0}


def concurrently(stage: Stage, *, rivals: int, count: int) -> Figures:
    """A concurrent index build in a revision, while others poll for the tenant's lock."""
    with stage.fleet(stage.postgres, count=count, size=2) as fleet:
        histories.add_autocommit(fleet.project.folder, "r002")
        spans.keep(fleet)
        with contextlib.ExitStack() as stack:
            commands = [
                stack.enter_context(beside(fleet.project, *_SHARE, "--ledger", f"sqlite:///ledger{number}.db"))
                for number in range(rivals)
            ]
            ended = [command.wait() for command in commands]
        assert {done.exit_status for done in ended} == {0}, "\n".join(map(str, ended))
        checker.assert_right(_with_index(member, fleet.size) for member in fleet.members)
        everything = "\n".join(path.read_text() for path in (fleet.project.folder / ".orchestrate").rglob("*.log"))
        assert "40P01" not in everything
        return {"orchestrators": rivals, "concurrent builds": count, "deadlocks": 0, "invalid indexes": 0}


def _with_index(member: Member, size: int) -> checker.Expected:
    expected = member.expected(size)
    return dataclasses.replace(expected, heads=["c001"], markers=[*expected.markers, "c001"])


def many_schemas(stage: Stage, *, count: int, jobs: int, compare: bool = True) -> Figures:
    """Many schemas of one database side by side: nobody is told that somebody else's lock is in the way."""
    seconds: dict[int, float] = {}
    for at_once in (1, jobs) if compare else (jobs,):
        more = f"servers:\n  '{stage.postgres.host}:{stage.postgres.port}': {{concurrency: {jobs}}}\n"
        with stage.fleet(stage.postgres, count=count, size=3, more=more) as fleet:
            done = fleet.orchestrate("upgrade", "--all", "--concurrency", str(at_once), "-o", "json")
            report = report_of(done)
            assert {outcome["attempts"] for outcome in report["outcomes"]} == {1}, f"{done}"
            assert "tenant lock" not in _log_of(fleet)
            assert_at_head(fleet)
            seconds[at_once] = report["duration_s"]
    return {
        "schemas in one database": count,
        "jobs at once": jobs,
        "told to be locked": 0,
        "seconds with one job at a time": seconds.get(1),
        "seconds": seconds[jobs],
    }


def _log_of(fleet: Fleet) -> str:
    return "\n".join(path.read_text() for path in (fleet.project.folder / ".orchestrate").rglob("*.log"))


# An application that holds a table


def locked_table(stage: Stage, kind: str, *, seconds: float, busy: str, count: int = 4) -> Figures:
    """An application's transaction has read a table and stays open; another one queries the table all the time.

    The first one keeps the migration from its lock. The migration, while it waits, keeps the second one waiting.
    """
    more = f"strategies:\n  default: {{retries: {{busy: {busy}, server: [1s], lost: 2}}}}\n"
    with stage.fleet(stage.server(kind), count=count, size=4, starts=(2,), more=more) as fleet:
        held = fleet.members[0]
        with _reading(held, seconds), _querying(held) as stalls:
            done = fleet.orchestrate("upgrade", "--all", "-o", "json", exit_status=None)
        report = report_of(done)
        assert_told_truly(fleet, report)
        assert done.exit_status == 0, f"{done}"
        assert_at_head(fleet)
        outcomes = outcomes_of(report)
        others = [outcome for name, outcome in outcomes.items() if name != held.name]
        assert {outcome["attempts"] for outcome in others} == {1}, f"{done}"
        assert outcomes[held.name]["attempts"] > 1, f"{done}"
        ours = [outcome["duration_ms"] / 1000 for outcome in others]
        return {
            "seconds that the table was held": seconds,
            "tries of the tenant": outcomes[held.name]["attempts"],
            "longest stall of the application's queries (s)": round(max(stalls), 2),
            "queries": len(stalls),
            "longest of the other tenants (s)": round(max(ours), 2),
        }


_WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE state LIKE 'Waiting%%lock' AND db = %s",
}


@contextlib.contextmanager
def _reading(member: Member, seconds: float) -> Iterator[None]:
    """A transaction that has read `accounts`, until so long after somebody first waited for it."""
    left = threading.Event()

    def hold() -> None:
        with contextlib.closing(_connect(member.url)) as connection:
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT count(*) FROM {_accounts(member)}")
            cursor.fetchall()
            read.set()
            with contextlib.closing(_connect(member.url)) as other:
                look = other.cursor()
                while not left.wait(0.02):
                    look.execute(_WAITING[member.url.get_backend_name()], (member.url.database,))
                    if any(number for (number,) in look.fetchall()):
                        break
            left.wait(seconds)
            cursor.execute("ROLLBACK")

    read = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    read.wait(30)
    try:
        yield
    finally:
        left.set()
        thread.join()


@contextlib.contextmanager
def _querying(member: Member) -> Iterator[list[float]]:
    """Query `accounts` all the time; the seconds that each query took."""
    took: list[float] = []
    ended = threading.Event()

    def query() -> None:
        with contextlib.closing(_connect(member.url)) as connection:
            cursor = connection.cursor()
            while not ended.wait(0.01):
                began = time.monotonic()
                cursor.execute(f"SELECT count(*) FROM {_accounts(member)}")
                cursor.fetchall()
                took.append(time.monotonic() - began)

    thread = threading.Thread(target=query)
    thread.start()
    try:
        yield took
    finally:
        ended.set()
        thread.join()


def _connect(url: URL):  # type: ignore[no-untyped-def]  # two drivers, of which the cursor is all that is used
    return connect_postgres(url) if url.get_backend_name() == "postgresql" else connect_mariadb(url)


def _accounts(member: Member) -> str:
    return f'"{member.schema}".accounts' if member.schema else "accounts"

"""Servers that have no room, that are down for a while, or that die in mid-run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import URL

from tests.acceptance import fleets
from tests.acceptance.fleets import Fleet, report_of
from tests.faults.messages import Statement
from tests.faults.proxy import Proxy, proxied
from tests.faults.rules import PASS, Fate, OutageAfter, Rule, Verdict
from tests.faults.stage import Figures, Stage, append, assert_at_head, assert_told_truly, beside
from tests.services.servers import Server, connect_postgres, mariadb_server, postgres_server

#: a role without the right to the slots that are kept for administrators
_PLAIN = "plain_role"
_LOCKS = r"pg_try_advisory_lock|GET_LOCK"


def crowded(stage: Stage, kind: str, *, count: int, slots: int, jobs: int) -> Figures:
    """A server with fewer connections than jobs that the run may have on it."""
    with _small_server(kind, slots) as url:
        address = f"{url.host}:{url.port}"
        more = (
            f"servers:\n  '{address}': {{concurrency: {jobs}}}\n"
            "strategies:\n  default: {retries: {busy: [1s, 2s, 4s], server: [2s, 5s, 10s, 20s], lost: 5}}\n"
        )
        with stage.fleet(url, count=count, size=2, more=more) as fleet:
            done = fleet.orchestrate("upgrade", "--all", "--concurrency", str(jobs), "-o", "json", exit_status=None)
            report = report_of(done)
            assert_told_truly(fleet, report)
            assert done.exit_status == 0, f"{done}"
            assert_at_head(fleet)
            attempts = [outcome["attempts"] for outcome in report["outcomes"]]
            return {
                "connections that the server has": slots,
                "jobs at once": jobs,
                "targets": count,
                "at head": report["counts"]["upgraded"],
                "failed": report["counts"]["failed"],
                "turned away at least once": sum(number > 1 for number in attempts),
                "most attempts": max(attempts),
            }


@contextlib.contextmanager
def _small_server(kind: str, slots: int) -> Iterator[URL]:
    if kind == "mariadb":
        with mariadb_server(max_connections=slots) as server:
            yield server.url
        return
    reserved = max(2, slots // 4)
    with postgres_server(max_connections=slots, superuser_reserved_connections=reserved, max_wal_senders=0) as server:
        with contextlib.closing(connect_postgres(server.url)) as connection:
            connection.execute(f"CREATE ROLE {_PLAIN} LOGIN CREATEDB PASSWORD 'plain'".encode())
        yield server.url.set(username=_PLAIN, password="plain")


# One server of several


@contextlib.contextmanager
def _several(stage: Stage, rules: Sequence[Rule], each: int, more: str) -> Iterator[tuple[Fleet, list[Proxy]]]:
    """One fleet behind several proxies, which stand for servers; tenants take turns at them."""
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(proxied(stage.postgres, rule)) for rule in rules]
        fleet = stack.enter_context(stage.fleet(stage.postgres, count=each * len(rules), size=2, more=""))
        text = (fleet.project.folder / "tenants.yaml").read_text()
        for number, member in enumerate(fleet.members):
            url = fleets.templated(proxies[number % len(rules)].url.set(database=member.url.database))
            text = text.replace(f"  {member.name}: {{}}\n", f'  {member.name}: {{url: "{url}"}}\n')
        fleet.project.write_registry(text)
        # One job at a time on each, so that none is on its way when a breaker opens.
        caps = "".join(f"  '127.0.0.1:{proxy.port}': {{concurrency: 1}}\n" for proxy in proxies)
        append(fleet.project, f"servers:\n{caps}{more}")
        yield fleet, proxies


def one_of_five_down(stage: Stage, *, each: int) -> Figures:
    """One server goes down in mid-run and stays down: the others finish, and what it held up is taken up later."""
    rule = OutageAfter(_LOCKS, 2)
    rules: list[Rule] = [Rule(), Rule(), Rule(), Rule(), rule]
    more = "strategies:\n  default: {retries: {busy: [1s], server: [300ms, 600ms, 900ms, 900ms], lost: 2}}\n"
    with _several(stage, rules, each, more) as (fleet, proxies):
        server = f"127.0.0.1:{proxies[-1].port}"
        done = fleet.orchestrate("upgrade", "--all", "--keep-going", "-o", "json", exit_status=None)
        report = report_of(done)
        refused = rule.refused
        assert_told_truly(fleet, report)
        here = [outcome for outcome in report["outcomes"] if outcome["server"] == server]
        others = [outcome for outcome in report["outcomes"] if outcome["server"] != server]
        assert {outcome["status"] for outcome in others} == {"upgraded"}, f"{done}"
        statuses = [outcome["status"] for outcome in here]
        assert statuses.count("failed") == 1, f"{done}"
        assert set(statuses) <= {"failed", "deferred", "upgraded"}, f"{done}"
        assert done.exit_status == 1, f"{done}"
        # One of them opened the breaker.
        assert 1 <= refused <= 6, f"{refused} connections were tried\n{done}"
        rule.end()
        resumed = fleet.orchestrate("resume", "-o", "json", exit_status=None)
        again = fleet.orchestrate("retry", "-o", "json", exit_status=None)
        assert_at_head(fleet)
        return {
            "targets on each of five servers": each,
            "connections tried on the dead one": refused,
            "its targets failed": statuses.count("failed"),
            "its targets deferred": statuses.count("deferred"),
            "targets of the others at head": len(others),
            "resume ended with": resumed.exit_status,
            "retry of the failed one ended with": again.exit_status,
        }


def comes_back(stage: Stage, *, each: int, seconds: float) -> Figures:
    """One server goes down in mid-run and comes back while the run waits for it."""
    rule = OutageAfter(_LOCKS, 2)
    more = "strategies:\n  default: {retries: {busy: [1s], server: [500ms, 1s, 2s, 4s], lost: 2}}\n"
    with _several(stage, [Rule(), rule], each, more) as (fleet, _proxies):
        with beside(fleet.project, "upgrade", "--all", "-o", "json") as command:
            while not rule.refused and command.process.poll() is None:
                time.sleep(0.02)
            time.sleep(seconds)
            rule.end()
            done = command.wait()
        report = report_of(done)
        assert done.exit_status == 0, f"{done}"
        assert_at_head(fleet)
        return {"refused": rule.refused, "at head without a hand": report["counts"]["upgraded"]}


# A server that dies


class KillServerAt(Rule):
    """At the n-th commit that moves a version, the server is killed: before it sees it, or as it works on it."""

    def __init__(self, kill: Callable[[], None], number: int) -> None:
        self.dead = threading.Event()
        self._kill = kill
        self._left = number

    def on_statement(self, statement: Statement) -> Verdict:
        if not statement.commits_version or self.dead.is_set():
            return PASS
        self._left -= 1
        if self._left > 0:
            return PASS
        self._kill()
        self.dead.set()
        return Verdict(Fate.RESET)


def server_dies(stage: Stage, kind: str, *, count: int, at: int, down: float) -> Figures:
    """SIGKILL to all of the server's processes at its n-th commit; it is back after some seconds."""
    with _lasting_server(kind) as server:
        rule = KillServerAt(server.kill, at)
        more = "strategies:\n  default: {retries: {busy: [1s, 2s], server: [1s, 1s, 2s, 5s, 10s, 20s, 30s], lost: 5}}\n"
        with (
            proxied(server.url, rule) as proxy,
            stage.fleet(server.url, proxy.url, count=count, size=4, more=more) as fleet,
        ):
            with beside(fleet.project, "upgrade", "--all", "-o", "json") as command:
                while not rule.dead.wait(0.05):
                    assert command.process.poll() is None, f"{command.wait()}"
                time.sleep(down)
                server.start()
                done = command.wait()
            report = report_of(done)
            assert_told_truly(fleet, report)
            assert done.exit_status == 0, f"{done}"
            assert_at_head(fleet)
            attempts = [outcome["attempts"] for outcome in report["outcomes"]]
            return {
                "targets": count,
                "killed at commit": at,
                "seconds down": down,
                "at head without a hand": report["counts"]["upgraded"],
                "tried more than once": sum(number > 1 for number in attempts),
            }


def _lasting_server(kind: str) -> contextlib.AbstractContextManager[Server]:
    """One that loses nothing which it said was committed."""
    changed: dict[str, Any] = {"innodb_flush_log_at_trx_commit": 1}
    return postgres_server(synchronous_commit="on") if kind == "postgresql" else mariadb_server(**changed)

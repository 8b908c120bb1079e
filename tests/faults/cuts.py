"""Connections that break: around the COMMIT that counts, or anywhere by chance."""

from __future__ import annotations

import statistics

from tests.acceptance.fleets import outcomes_of, report_of
from tests.faults.proxy import proxied
from tests.faults.rules import CutCommits, RandomResets, Stall
from tests.faults.stage import Figures, Stage, assert_at_head, assert_told_truly

KINDS = ("postgresql", "mariadb")


def ambiguous_commits(stage: Stage, kind: str, *, before: int, after: int, again: bool = True) -> Figures:
    """Cut so many commits before and so many after the server does them; the driver reports both alike.

    Without `again` each target has one try, so that what was settled is seen before a further try mends it.
    """
    retries = "{busy: [], server: [1s], lost: 3}" if again else "{busy: [], server: [1s], lost: 0}"
    server = stage.server(kind)
    rule = CutCommits(before=before, after=after, every=2)
    with (
        proxied(server, rule) as proxy,
        stage.fleet(
            server, proxy.url, count=2 * (before + after), more=f"strategies:\n  default: {{retries: {retries}}}\n"
        ) as fleet,
    ):
        done = fleet.orchestrate(
            "upgrade", "--all", "--keep-going", "--concurrency", "4", "-o", "json", exit_status=None
        )
        report = report_of(done)
        assert_told_truly(fleet, report)
        assert sorted(rule.cuts) == sorted(["RESET"] * before + ["CUT_ANSWER"] * after), f"{rule.cuts}\n{done}"
        statuses = [outcome["status"] for outcome in report["outcomes"]]
        if again:
            assert_at_head(fleet)
            assert done.exit_status == 0, f"{done}"
        verified = [outcome for outcome in report["outcomes"] if (outcome["reason"] or {}).get("code") == "verified"]
        return {
            "cut before COMMIT": before,
            "cut after COMMIT": after,
            "told to be upgraded": statuses.count("upgraded"),
            "told to be failed": statuses.count("failed") + statuses.count("lost"),
            "settled by reading the version": len(verified),
        }


def random_resets(stage: Stage, kind: str, *, count: int, statements: float, connections: float = 0.05) -> Figures:
    """Reset such shares of the connections and of the statements, by chance."""
    server = stage.server(kind)
    rule = RandomResets(connections=connections, statements=statements, seed=stage.seed)
    with proxied(server, rule) as proxy, stage.fleet(server, proxy.url, count=count, size=2) as fleet:
        done = fleet.orchestrate("upgrade", "--all", "-o", "json", exit_status=None)
        report = report_of(done)
        attempts = [outcome["attempts"] for outcome in report["outcomes"]]
        affected = [number for number in attempts if number > 1]
        figures = {
            "share of connections reset": connections,
            "share of statements reset": statements,
            "targets": count,
            "resets": rule.resets,
            "connections": proxy.connections,
            "at head": report["counts"]["upgraded"],
            "affected": len(affected),
            "mean attempts of the affected": round(statistics.mean(affected), 2) if affected else 1,
            "most attempts": max(attempts),
        }
        assert_told_truly(fleet, report)
        assert done.exit_status == 0, f"{figures}\n{done}"
        assert_at_head(fleet)
        return figures


def stalls(stage: Stage, kind: str, *, seconds: float, limit: float) -> Figures:
    """A statement gets stuck in the network for so long, which is longer than a job may take."""
    server = stage.server(kind)
    rule = Stall(r"CREATE TABLE invoices", seconds)
    with (
        proxied(server, rule) as proxy,
        stage.fleet(server, proxy.url, count=3, size=2, settings=f"  timeouts: {{job: {limit:g}s}}\n") as fleet,
    ):
        done = fleet.orchestrate("upgrade", "--all", "--keep-going", "-o", "json", exit_status=None)
        report = report_of(done)
        assert rule.done
        assert_told_truly(fleet, report)
        assert done.exit_status == 1, f"{done}"
        failed = [outcome for outcome in outcomes_of(report).values() if outcome["status"] != "upgraded"]
        assert [(outcome["failure"] or {}).get("code") for outcome in failed] == ["job_timeout"], f"{done}"
        # The server does not know yet that its client is gone.
        again = fleet.orchestrate("retry", "--end-orphans", exit_status=None)
        assert again.exit_status == 0, f"{done}\n{again}"
        assert_at_head(fleet)
        return {"seconds stuck": seconds, "limit of a job": limit, "ended at the limit": len(failed)}

"""Every kind of gate with every verdict, on real PostgreSQL: what passes it, and what is not touched behind it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from orchestrator.selectors import stable_hash
from tests import checker
from tests.acceptance import fleets, rollouts
from tests.acceptance.fleets import report_of
from tests.acceptance.rollouts import BigFleet, gate, statuses, waves

VERDICTS = ("passed", "failed", "inconclusive")
KINDS = ("command", "each", "url", "http")
COUNT = 2 * len(VERDICTS) * len(KINDS)
HERE = ("--executor", "inline")


class Health(http.server.BaseHTTPRequestHandler):
    """Says of three addresses that all is well, that it is not, and nothing that could be understood."""

    def do_GET(self) -> None:
        status = 503 if self.path == "/failed" else 200
        body = json.dumps({"checks": [{"ok": True}]} if self.path == "/passed" else {"checks": []}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def fleet(postgres_url: URL, service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigFleet]:
    """Two tenants and one strategy for each kind and verdict; the first of the two is the canary."""
    with (
        rollouts.shards(postgres_url, count=COUNT, databases=1) as made,
        rollouts.copied(made, tmp_path_factory.mktemp("gates") / "project") as copy,
    ):
        (database,) = made.originals
        place = fleets.templated(postgres_url.set(database=database))
        rules = {
            ("command", "passed"): "command: [sh, -c, 'cat; exit 0']",
            ("command", "failed"): "command: [sh, -c, 'exit 3']",
            ("command", "inconclusive"): "command: [sh, -c, 'exit 75']",
            ("each", "passed"): "sql: 'SELECT count(*) = 2 FROM invoices', on: each",
            ("each", "failed"): "sql: 'SELECT count(*) = 3 FROM invoices', on: each",
            ("each", "inconclusive"): "sql: 'SELECT NULL', on: each",
            ("url", "passed"): f"sql: 'SELECT 1', url: '{place}'",
            ("url", "failed"): f"sql: 'SELECT false', url: '{place}'",
            ("url", "inconclusive"): f"sql: 'SELECT * FROM nowhere', url: '{place}'",
            **{("http", word): f"http: '{service}/{word}', path: checks.0.ok" for word in VERDICTS},
        }
        copy.write(
            "\n".join(
                f"  {kind}-{verdict}: {{waves: [{{name: canary, size: 1, gate: {{{rule}}}}}, {{name: rest}}]}}"
                for (kind, verdict), rule in rules.items()
            )
        )
        yield copy


def pair(fleet: BigFleet, kind: str, verdict: str) -> tuple[str, str]:
    """The canary, and the one behind it."""
    place = 2 * (KINDS.index(kind) * len(VERDICTS) + VERDICTS.index(verdict))
    first, second = sorted(fleet.names[place : place + 2], key=stable_hash)
    return first, second


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_gate(fleet: BigFleet, kind: str, verdict: str) -> None:
    first, second = pair(fleet, kind, verdict)
    exit_status = {"passed": 0, "failed": 1, "inconclusive": 4}[verdict]

    done = fleet.orchestrate(
        "upgrade", "-t", f"{first},{second}", "--strategy", f"{kind}-{verdict}", "-o", "json", *HERE,
        exit_status=exit_status,
    )  # fmt: skip

    report = report_of(done)
    said = gate(report, "canary")
    assert (said["verdict"], said["kind"]) == (verdict, {"each": "sql", "url": "sql"}.get(kind, kind))
    assert f"gate of wave canary {'is ' if verdict == 'inconclusive' else ''}{verdict}" in done.errors
    assert report["status"] == {"passed": "succeeded", "failed": "halted", "inconclusive": "paused"}[verdict]
    assert statuses(report) == {first: "upgraded", second: "upgraded" if verdict == "passed" else "not_started"}
    tried = {name for name in fleet.tries() if name in (first, second)}
    assert tried == ({first, second} if verdict == "passed" else {first})
    if kind != "command":
        return
    if verdict == "inconclusive":
        overruled = report_of(fleet.orchestrate("continue", report["run"], "-o", "json", *HERE))
        assert gate(overruled, "canary")["kind"] == "person"
        assert statuses(overruled)[second] == "upgraded"
    elif verdict == "passed":
        # It was told of whom it was asked.
        assert first in said["text"]
    else:
        # It is asked again by `resume`, and what its wave did is taken back at once.
        assert gate(report_of(fleet.orchestrate("resume", report["run"], "-o", "json", *HERE, exit_status=1)), "canary")
        back = report_of(fleet.orchestrate("rollback", report["run"], "--yes", "-o", "json", *HERE))
        assert statuses(back) == {first: "downgraded"}
        assert waves(back) == {"canary": "succeeded"}


def test_the_databases_agree_at_the_end(fleet: BigFleet) -> None:
    """After all of the above: who was brought up is, once; whoever was held back or taken back is where it began."""
    up = {name for name, tries in fleet.tries().items() if tries == 1}
    up.discard(pair(fleet, "command", "failed")[0])
    checker.assert_right(fleet.expected(upgraded=up))

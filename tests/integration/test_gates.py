"""Gates that are queries, and HTTPS, on real servers: each verdict, as the worker connects, and an end in time."""

from __future__ import annotations

import dataclasses
import http.server
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import URL

from orchestrator.gates import GateMeasurer
from orchestrator.outcomes import GateResult, Status, Verdict
from orchestrator.redaction import forget
from orchestrator.registry.variables import Variables
from orchestrator.strategy import GateRule, WaveRule
from orchestrator.tenants import Target
from orchestrator.testing import an_outcome
from tests.integration.database_targets import sqlite_target, target
from tests.services import binaries, fixtures
from tests.services.servers import connect_postgres

PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE
NAMES = ("acme", "globex", "hooli")
WELL = "SELECT count(*) = 0 FROM errors"


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Three targets of one kind, each with a table `errors`."""

    targets: dict[str, Target]
    #: takes a second for each time that it is evaluated
    sleep: str

    def run(self, name: str, statement: str) -> None:
        one = self.targets[name]
        engine = sqlalchemy.create_engine(one.url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            if one.schema:
                connection.exec_driver_sql(f'SET search_path TO "{one.schema}"')
            connection.exec_driver_sql(statement)
        engine.dispose()


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "sqlite":
        slow = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n) = 0"
        yield made(Fleet({name: sqlite_target(tmp_path / f"{name}.db") for name in NAMES}, slow))
        return
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_database")
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            for name in NAMES:
                connection.exec_driver_sql(f'CREATE SCHEMA "tenant_{name}"')
        engine.dispose()
        yield made(Fleet({name: target(name, url, schema=f"tenant_{name}") for name in NAMES}, "pg_sleep(60) IS NULL"))
        return
    databases = [fixtures.fresh_mariadb(request.getfixturevalue("mariadb_url")) for _ in NAMES]
    urls = [one.__enter__() for one in databases]
    yield made(Fleet({name: target(name, url) for name, url in zip(NAMES, urls, strict=True)}, "SLEEP(60) = 0"))
    for one in databases:
        one.__exit__(None, None, None)


def made(fleet: Fleet) -> Fleet:
    for name in NAMES:
        fleet.run(name, "CREATE TABLE errors (customer VARCHAR(40))")
    return fleet


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    yield
    forget()


def measurer(
    rule: GateRule, targets: dict[str, Target], caps: dict[str, int] | None = None, **environ: str
) -> GateMeasurer:
    root = Path("/")
    return GateMeasurer(
        rules=[WaveRule(name="canary", gate=rule)],
        variables=Variables(root, environ),
        targets=targets,
        root=root,
        environment={"ORCHESTRATE_RUN": "r-1"},
        server_caps=caps,
    )


def measure(rule: GateRule, targets: dict[str, Target], names: Sequence[str] = NAMES, **environ: str) -> GateResult:
    done = [an_outcome(name, status=Status.UPGRADED) for name in names]
    return measurer(rule, targets, **environ).measure("canary", rule.described(), done)


def each(sql: str, timeout: float = 20) -> GateRule:
    return GateRule(sql=sql, on="each", timeout=timeout)


# Each target that the wave brought up


def test_true_on_all_targets_passes(fleet: Fleet) -> None:
    result = measure(each(WELL), fleet.targets)

    assert (result.kind, result.verdict, result.text) == ("sql", PASSED, "true on 3 targets")


def test_false_on_one_target_fails_and_tells_which(fleet: Fleet) -> None:
    fleet.run("globex", "INSERT INTO errors VALUES ('Jane Doe')")

    result = measure(each(WELL), fleet.targets)
    others = measure(each(WELL), fleet.targets, ["acme", "hooli"])

    assert (result.verdict, result.text) == (FAILED, "false: globex, of 3 targets")
    assert others.verdict is PASSED


OTHER_ANSWERS = {
    "SELECT NULL": "the query gave NULL",
    "SELECT 1 WHERE 1 = 0": "the query gave no row",
    "SELECT 1 UNION ALL SELECT 1": "the query gave more than one value",
    "SELECT 1, 1": "the query gave more than one value",
    "SELECT 'Jane Doe'": "the query gave neither true nor false",
    "SELECT 7": "the query gave neither true nor false",
    "SELECT 0.5": "the query gave neither true nor false",
}


def test_another_answer_is_no_verdict(fleet: Fleet) -> None:
    results = {sql: measure(each(sql), fleet.targets) for sql in OTHER_ANSWERS}

    assert {result.verdict for result in results.values()} == {INCONCLUSIVE}
    ending = ": acme, globex, hooli, of 3 targets"
    assert {sql: result.text for sql, result in results.items()} == {
        sql: said + ending for sql, said in OTHER_ANSWERS.items()
    }


def test_an_error_on_one_target_is_no_verdict(fleet: Fleet) -> None:
    fleet.run("hooli", "DROP TABLE errors")

    result = measure(each(WELL), fleet.targets)

    assert result.verdict is INCONCLUSIVE
    assert "errors" in result.text
    assert result.text.endswith(": hooli, of 3 targets")


def test_what_is_false_counts_more_than_what_nobody_knows(fleet: Fleet) -> None:
    fleet.run("hooli", "DROP TABLE errors")
    fleet.run("globex", "INSERT INTO errors VALUES ('Jane Doe')")

    assert measure(each(WELL), fleet.targets).text == "false: globex, of 3 targets"


def test_a_target_that_is_no_longer_registered_is_no_verdict(fleet: Fleet) -> None:
    result = measure(each(WELL), fleet.targets, [*NAMES, "acme", "gone"])

    assert (result.verdict, result.text) == (INCONCLUSIVE, "is no longer registered: gone, of 4 targets")


def test_a_wave_that_brought_up_nobody_has_nothing_against_it(fleet: Fleet) -> None:
    assert measure(each(WELL), fleet.targets, []).verdict is PASSED


def test_a_gate_cannot_write(fleet: Fleet) -> None:
    result = measure(each("INSERT INTO errors VALUES ('x')"), fleet.targets)

    assert result.verdict is INCONCLUSIVE
    assert measure(each(WELL), fleet.targets).verdict is PASSED


def test_colons_and_percent_signs_are_sent_as_they_are(fleet: Fleet) -> None:
    assert measure(each("SELECT '10%' = '10%' AND ':x' = ':x'"), fleet.targets).verdict is PASSED
    assert measure(each("SELECT '${WORD}' = 'it'"), fleet.targets, WORD="it").verdict is PASSED


def test_a_query_without_an_end_is_ended_in_time(fleet: Fleet) -> None:
    begin = time.monotonic()

    result = measure(each(f"SELECT {fleet.sleep}", timeout=1), fleet.targets)

    assert result.verdict is INCONCLUSIVE
    assert result.text == "no answer within 1 s: acme, globex, hooli, of 3 targets"
    assert time.monotonic() - begin < 3


def sessions_of(fleet: Fleet) -> Callable[[], int]:
    """Counts the queries of gates that go on, by the server's word; for a file, by the threads that are here."""
    one = fleet.targets["acme"]
    if one.backend == "sqlite":
        return lambda: sum(thread.name.startswith("gate-") for thread in threading.enumerate())
    engine = sqlalchemy.create_engine(one.url, poolclass=sqlalchemy.NullPool)
    on_postgresql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'orchestrate/r-1/%%'"
    on_mariadb = "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(60)%%'"
    query = on_postgresql if one.backend == "postgresql" else on_mariadb

    def count() -> int:
        with engine.connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    return count


def reached(expected: int, count: Callable[[], int]) -> bool:
    until = time.monotonic() + 10
    while count() != expected:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_closing_ends_the_queries_on_the_server(fleet: Fleet) -> None:
    rule = each(f"SELECT {fleet.sleep}", timeout=50)
    one = measurer(rule, fleet.targets)
    count = sessions_of(fleet)
    done = [an_outcome(name, status=Status.UPGRADED) for name in NAMES]
    results: list[GateResult] = []
    thread = threading.Thread(target=lambda: results.append(one.measure("canary", rule.described(), done)))
    thread.start()
    assert reached(3, count)
    begin = time.monotonic()

    one.close()
    thread.join()

    assert time.monotonic() - begin < 5
    assert results[0].verdict is INCONCLUSIVE
    assert results[0].text == "ended before it answered: acme, globex, hooli, of 3 targets"
    assert reached(0, count)


def test_no_more_are_asked_at_once_than_a_server_admits(mariadb_database: URL) -> None:
    targets = {name: target(name, mariadb_database) for name in NAMES}
    rule = each("SELECT SLEEP(0.4) = 0")
    one = measurer(rule, targets, {"*": 1})
    done = [an_outcome(name, status=Status.UPGRADED) for name in NAMES]
    begin = time.monotonic()

    assert one.measure("canary", rule.described(), done).verdict is PASSED
    assert time.monotonic() - begin > 1.2


def test_the_role_of_a_target_asks(postgres_url: URL, postgres_database: URL) -> None:
    role = f"reader_{postgres_database.database}"
    with connect_postgres(postgres_url) as admin:
        admin.execute(f'CREATE ROLE "{role}"')
        try:
            one = target("acme", postgres_database, role=role)
            assert measure(each(f"SELECT current_user = '{role}'"), {"acme": one}, ["acme"]).verdict is PASSED
        finally:
            admin.execute(f'DROP ROLE "{role}"')


# One database


def test_one_database_is_asked_once(fleet: Fleet) -> None:
    url = fleet.targets["acme"].url.render_as_string(hide_password=False)
    rule = GateRule(sql="SELECT ${ANSWER}", url="${ERRORS_URL}", timeout=20)

    said = {
        answer: (result.verdict, result.text)
        for answer in ("1", "0", "NULL")
        for result in [measure(rule, {}, ERRORS_URL=url, ANSWER=answer)]
    }

    assert said == {"1": (PASSED, "true"), "0": (FAILED, "false"), "NULL": (INCONCLUSIVE, "the query gave NULL")}


def test_a_server_that_is_not_there_is_no_verdict_and_no_secret() -> None:
    rule = GateRule(sql="SELECT 1", url="postgresql+psycopg://u:${PW}@127.0.0.1:1/d", timeout=5)

    result = measure(rule, {}, PW="hunter22-hunter22")

    assert result.verdict is INCONCLUSIVE
    assert "hunter22" not in result.text
    assert "refused" in result.text.lower()


# HTTPS


class _Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_service_must_prove_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [binaries.openssl(), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-days", "1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("localhost", 0), _Well) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        rule = GateRule(http=f"https://localhost:{server.server_address[1]}/", timeout=10)
        try:
            stranger = measure(rule, {})
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            known = measure(rule, {})
        finally:
            server.shutdown()
            thread.join()
    assert stranger.verdict is INCONCLUSIVE
    assert stranger.text.startswith("the service cannot be reached: [SSL: CERTIFICATE_VERIFY_FAILED]")
    assert (known.verdict, known.text) == (PASSED, "answered with status 204")

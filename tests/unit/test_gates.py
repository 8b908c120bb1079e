"""Gates that are commands and HTTP services: each verdict, and an end to everything that takes too long."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.gates import GateMeasurer
from orchestrator.outcomes import GateResult, Status, Verdict
from orchestrator.redaction import forget, remember
from orchestrator.registry.variables import Variables
from orchestrator.strategy import GateRule, Growth, WaveRule
from orchestrator.testing import an_outcome

PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE
FACTS = {"ORCHESTRATE_RUN": "r-1", "ORCHESTRATE_PROJECT": "billing", "ORCHESTRATE_REVISION": "r002"}
DONE = (an_outcome("acme", status=Status.UPGRADED), an_outcome("globex", status=Status.UPGRADED))


def measurer(rule: GateRule, root: Path, **environ: str) -> GateMeasurer:
    variables = Variables(root, environ)
    rules = [WaveRule(name="canary", gate=rule)]
    return GateMeasurer(rules=rules, variables=variables, targets={}, root=root, environment=FACTS)


def measure(rule: GateRule, root: Path, **environ: str) -> GateResult:
    return measurer(rule, root, **environ).measure("canary", rule.described(), DONE)


def script(root: Path, text: str) -> GateRule:
    file = root / "smoke"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return GateRule(command=("./smoke",), timeout=20)


def close_when(ready: Callable[[], bool], one: GateMeasurer) -> threading.Thread:
    def close() -> None:
        until = time.monotonic() + 10
        while not ready() and time.monotonic() < until:
            time.sleep(0.01)
        one.close()

    thread = threading.Thread(target=close)
    thread.start()
    return thread


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Killed, and not yet collected by whoever has taken it over.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while is_alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    yield
    forget()


# Which gate is asked


def test_a_gate_that_is_another_one_by_now_is_not_asked(tmp_path: Path) -> None:
    planned = script(tmp_path, "touch asked")
    changed = dataclasses.replace(planned, command=("./smoke", "--quick"))
    expected = "the gate of wave canary has changed in tenants.yaml since the plan was made"

    result = measurer(changed, tmp_path).measure("canary", planned.described(), DONE)
    other = measurer(planned, tmp_path).measure("rest", planned.described(), DONE)

    assert (result.verdict, result.text) == (INCONCLUSIVE, expected)
    assert (other.verdict, other.text) == (INCONCLUSIVE, expected.replace("canary", "rest"))
    assert not (tmp_path / "asked").exists()


def test_waves_that_grew_out_of_one_share_its_gate(tmp_path: Path) -> None:
    rule = script(tmp_path, "echo $ORCHESTRATE_WAVE")
    rules = [WaveRule(name="ramp", growth=Growth.EXPONENTIAL, gate=rule)]
    one = GateMeasurer(rules=rules, variables=Variables(tmp_path, {}), targets={}, root=tmp_path, environment={})

    result = one.measure("ramp-12", rule.described(), DONE)

    assert (result.kind, result.verdict, result.text) == ("command", PASSED, "ended with status 0: ramp-12")
    assert (result.measurements, result.at is not None) == (1, True)


# Commands


@pytest.mark.parametrize(
    ("text", "verdict", "said"),
    [
        ("exit 0", PASSED, "ended with status 0"),
        ("echo; echo ' all well '; echo", PASSED, "ended with status 0: all well"),
        ("echo one; echo two >&2; exit 1", FAILED, "ended with status 1: one · two"),
        ("echo one; echo two; echo three; exit 125", FAILED, "ended with status 125: one … three"),
        ("exit 75", INCONCLUSIVE, "ended with status 75"),
        ("exit 126", INCONCLUSIVE, "ended with status 126"),
        ("kill -9 $$", INCONCLUSIVE, "was killed by signal 9"),
        ("exec 1>&- 2>&-; sleep 0.2; exit 3", FAILED, "ended with status 3"),
    ],
)
def test_the_status_of_a_command_is_the_verdict(tmp_path: Path, text: str, verdict: Verdict, said: str) -> None:
    result = measure(script(tmp_path, text), tmp_path)

    assert (result.kind, result.verdict, result.text) == ("command", verdict, said)


def test_a_command_that_cannot_be_started_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("exit 0")

    absent = measure(GateRule(command=("./absent", "${SECRET_WORD}")), tmp_path, SECRET_WORD="hunter22-hunter22")
    plain = measure(GateRule(command=("./plain",)), tmp_path)
    null = measure(GateRule(command=("true", "a\0b")), tmp_path)

    assert (absent.verdict, absent.text) == (
        INCONCLUSIVE,
        "`./absent` cannot be started: No such file or directory",
    )
    assert (plain.verdict, plain.text) == (INCONCLUSIVE, "`./plain` cannot be started: Permission denied")
    assert (null.verdict, null.text) == (INCONCLUSIVE, "`true` cannot be started: its arguments hold a null byte")


def test_a_variable_that_is_gone_by_now_is_no_verdict(tmp_path: Path) -> None:
    result = measure(GateRule(command=("true", "${GONE}")), tmp_path)

    assert (result.verdict, result.text) == (
        INCONCLUSIVE,
        "variable `GONE` is not set; export GONE, or write ${GONE:-default}",
    )


def test_a_command_knows_its_run_and_its_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "kept")
    names = ("RUN", "WAVE", "PROJECT", "REVISION", "COUNTS")
    shown = " ".join(f'"$ORCHESTRATE_{name}"' for name in names)
    rule = script(tmp_path, f'printf "%s\\n" {shown} "$FROM_OUTSIDE" "$1" > facts; cat > names; pwd > folder')
    rule = dataclasses.replace(rule, command=("./smoke", "${WHICH}; exit 1"))

    assert measure(rule, tmp_path, WHICH="both").verdict is PASSED

    facts = (tmp_path / "facts").read_text().splitlines()
    assert facts == ["r-1", "canary", "billing", "r002", '{"upgraded": 2}', "kept", "both; exit 1"]
    assert (tmp_path / "names").read_text() == "acme\nglobex\n"
    assert (tmp_path / "folder").read_text().strip() == str(tmp_path.resolve())


def test_a_command_need_not_read_the_names_of_ten_thousand_targets(tmp_path: Path) -> None:
    rule = script(tmp_path, "exit 0")
    done = [an_outcome(f"tenant-{number}", status=Status.UPGRADED) for number in range(10_000)]

    assert measurer(rule, tmp_path).measure("canary", rule.described(), done).verdict is PASSED


def test_a_command_that_prints_without_end_costs_no_memory_and_tells_both_ends(tmp_path: Path) -> None:
    rule = script(tmp_path, "echo first; yes middle | head -c 50000000; echo; echo last; exit 2")

    assert measure(rule, tmp_path).text == "ended with status 2: first … last"


def test_what_a_command_prints_is_short_and_holds_no_secret(tmp_path: Path) -> None:
    rule = script(tmp_path, 'echo "using $1 at postgresql://u:hunter22@h/d"; printf "%0500d" 7; exit 1')
    rule = dataclasses.replace(rule, command=("./smoke", "${API_TOKEN}"))

    text = measure(rule, tmp_path, API_TOKEN="tok-9f8e7d6c").text

    assert "tok-9f8e7d6c" not in text
    assert "hunter22" not in text
    assert "using *** at postgresql://u:***@h/d" in text
    assert len(text) < 300


def test_no_piece_of_a_secret_is_told_where_much_was_left_out(tmp_path: Path) -> None:
    remember("half-a-secret-word")
    # What is kept of the end begins in the middle of the secret.
    printed = "ok\n" * 1365 + "\n" + "x" * 5000 + "half-a-secret-word" + "y" * 4085 + "\nbad\n"
    (tmp_path / "printed").write_text(printed)
    assert measure(script(tmp_path, "cat printed"), tmp_path).text == "ended with status 0: ok … bad"
    (tmp_path / "printed").write_text(printed.removesuffix("\nbad\n") + "y" * 5)
    assert measure(script(tmp_path, "cat printed"), tmp_path).text == "ended with status 0: ok"


def test_a_command_does_not_outlive_a_runner_that_is_killed(tmp_path: Path) -> None:
    script(tmp_path, "sleep 60 & echo $! > child; echo $$ > parent.new; mv parent.new parent; wait")
    asking = textwrap.dedent("""
        import pathlib
        from orchestrator.gates import GateMeasurer
        from orchestrator.registry.variables import Variables
        from orchestrator.strategy import GateRule, WaveRule
        rule, here = GateRule(command=("./smoke",)), pathlib.Path.cwd()
        rules, variables = [WaveRule(name="canary", gate=rule)], Variables(here, {})
        one = GateMeasurer(rules=rules, variables=variables, targets={}, root=here, environment={})
        one.measure("canary", rule.described(), [])
    """)
    with subprocess.Popen([sys.executable, "-c", asking], cwd=tmp_path) as runner:
        while not (tmp_path / "parent").exists():
            assert runner.poll() is None
            time.sleep(0.01)
        runner.kill()

    assert gone(int((tmp_path / "parent").read_text()))
    assert gone(int((tmp_path / "child").read_text()))


def test_a_command_without_an_end_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    rule = dataclasses.replace(
        script(tmp_path, "trap '' TERM INT\nsleep 600 & echo $! > child\necho $$ > parent\nwait"), timeout=0.5
    )
    begin = time.monotonic()

    result = measure(rule, tmp_path)

    assert (result.verdict, result.text) == (INCONCLUSIVE, "no answer within 0.5 s")
    assert time.monotonic() - begin < 5
    assert gone(int((tmp_path / "parent").read_text()))
    assert gone(int((tmp_path / "child").read_text()))


def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    rule = script(tmp_path, "sleep 5 &\necho done; exit 0")
    begin = time.monotonic()

    assert measure(rule, tmp_path).text == "ended with status 0: done"
    assert time.monotonic() - begin < 3


def test_closing_ends_a_command_at_once_and_no_other_is_run(tmp_path: Path) -> None:
    rule = script(tmp_path, "echo $$ > parent.new; mv parent.new parent; sleep 600")
    one = measurer(rule, tmp_path)
    closing = close_when((tmp_path / "parent").exists, one)
    begin = time.monotonic()

    result = one.measure("canary", rule.described(), DONE)

    closing.join()
    assert (result.verdict, result.text) == (INCONCLUSIVE, "ended before it answered")
    assert time.monotonic() - begin < 10
    pid = int((tmp_path / "parent").read_text())
    assert gone(pid)
    assert one.measure("canary", rule.described(), DONE).text == "ended before it answered"
    assert int((tmp_path / "parent").read_text()) == pid


def test_whoever_has_closed_leaves_no_command_behind(tmp_path: Path) -> None:
    rule = script(tmp_path, "echo $$ > parent.new; mv parent.new parent; exec sleep 600")
    one = measurer(rule, tmp_path)
    thread = threading.Thread(target=lambda: one.measure("canary", rule.described(), DONE))
    thread.start()
    while not (tmp_path / "parent").exists():
        time.sleep(0.01)

    one.close()

    assert not is_alive(int((tmp_path / "parent").read_text()))
    thread.join()


# HTTP


class Service:
    """Answers by path with a status, headers and a body; what it was asked it notes."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], Any]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.hanging = threading.Event()
        self.released = threading.Event()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append((self.path, dict(self.headers)))
                if self.path == "/hang":
                    service.hanging.set()
                    service.released.wait(20)
                    return
                if self.path == "/drip":
                    self.drip()
                    return
                status, headers, body = service.answers.get(self.path, (404, {}, None))
                payload = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload)

            def drip(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not service.released.wait(0.05):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        service.hanging.set()
                service.released.set()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.close()


@pytest.mark.parametrize(
    ("status", "expected", "verdict"),
    [
        (200, None, PASSED),
        (204, None, PASSED),
        (304, None, FAILED),
        (404, None, FAILED),
        (503, None, FAILED),
        (503, 503, PASSED),
        (200, 503, FAILED),
    ],
)
def test_the_status_of_an_answer_is_the_verdict(
    service: Service, tmp_path: Path, status: int, expected: int | None, verdict: Verdict
) -> None:
    service.answers["/health"] = (status, {}, b"")

    result = measure(GateRule(http=f"{service.url}/health", status=expected), tmp_path)

    assert (result.kind, result.verdict, result.text) == ("http", verdict, f"answered with status {status}")


@pytest.mark.parametrize(
    ("body", "path", "verdict", "said"),
    [
        ({"ok": True}, "ok", PASSED, "`ok` is true"),
        ({"ok": False}, "ok", FAILED, "`ok` is false"),
        ({"checks": [{"ok": False}, {"ok": True}]}, "checks.1.ok", PASSED, "`checks.1.ok` is true"),
        (True, "0", INCONCLUSIVE, "the answer has no `0`"),
        ([], "0", INCONCLUSIVE, "the answer has no `0`"),
        ([True], "-1", INCONCLUSIVE, "the answer has no `-1`"),
        ([True], "first", INCONCLUSIVE, "the answer has no `first`"),
        ({"ok": {}}, "ok.deep", INCONCLUSIVE, "the answer has no `ok.deep`"),
        ({"ok": "Jane Doe"}, "ok", INCONCLUSIVE, "`ok` is neither true nor false"),
        ({"ok": 1}, "ok", INCONCLUSIVE, "`ok` is neither true nor false"),
        ({"ok": None}, "ok", INCONCLUSIVE, "`ok` is neither true nor false"),
        (b"<html>", "ok", INCONCLUSIVE, "the answer is not JSON"),
        (b"\xff\xfe\xfd", "ok", INCONCLUSIVE, "the answer is not JSON"),
        (b"[" * 200_000, "ok", INCONCLUSIVE, "the answer is not JSON"),
        (b'"' + b"x" * 1_100_000 + b'"', "ok", INCONCLUSIVE, "the answer is larger than 1024 KiB"),
    ],
)
def test_a_value_in_the_answer_is_the_verdict(
    service: Service, tmp_path: Path, body: Any, path: str, verdict: Verdict, said: str
) -> None:
    service.answers["/health"] = (200, {}, body)

    result = measure(GateRule(http=f"{service.url}/health", path=path), tmp_path)

    assert (result.verdict, result.text) == (verdict, said)


def test_the_body_of_an_expected_error_is_looked_into(service: Service, tmp_path: Path) -> None:
    service.answers["/health"] = (503, {}, {"drained": True})

    assert measure(GateRule(http=f"{service.url}/health", status=503, path="drained"), tmp_path).verdict is PASSED


def test_a_service_that_is_not_there_is_no_verdict_and_nothing_of_its_address_is_told(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/health?key=${{KEY}}"
        result = measure(GateRule(http=url), tmp_path, KEY="hunter22")

    assert (result.verdict, result.text) == (
        INCONCLUSIVE,
        "the service cannot be reached: Connection refused",
    )


def test_a_service_that_speaks_something_else_is_no_verdict(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        result = measure(GateRule(http=f"http://127.0.0.1:{server.getsockname()[1]}/"), tmp_path)
        thread.join()

    assert (result.verdict, result.text) == (INCONCLUSIVE, "the service cannot be read: BadStatusLine")


def test_headers_go_to_their_own_host_only(service: Service, tmp_path: Path) -> None:
    other = Service()
    other.answers["/b"] = (200, {}, {"ok": True})
    service.answers["/a"] = (302, {"Location": f"{other.url}/b"}, b"")
    try:
        rule = GateRule(http=f"{service.url}/a", path="ok", headers={"Authorization": "Bearer ${TOKEN}"})
        assert measure(rule, tmp_path, TOKEN="tok-123456").verdict is PASSED
        assert service.asked[0][1]["Authorization"] == "Bearer tok-123456"
        assert "Authorization" not in other.asked[0][1]
    finally:
        other.close()


def test_redirects_in_a_circle_fail_the_gate(service: Service, tmp_path: Path) -> None:
    service.answers["/a"] = (302, {"Location": "/a"}, b"")

    result = measure(GateRule(http=f"{service.url}/a"), tmp_path)

    assert (result.verdict, result.text) == (FAILED, "answered with status 302")


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_an_answer_that_does_not_come_is_no_verdict(service: Service, tmp_path: Path, path: str) -> None:
    begin = time.monotonic()

    result = measure(GateRule(http=f"{service.url}{path}", path="ok", timeout=0.5), tmp_path)

    assert (result.verdict, result.text) == (INCONCLUSIVE, "no answer within 0.5 s")
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_closing_hangs_up(service: Service, tmp_path: Path, path: str) -> None:
    rule = GateRule(http=f"{service.url}{path}", path="ok", timeout=20)
    one = measurer(rule, tmp_path)
    closing = close_when(service.hanging.is_set, one)
    begin = time.monotonic()

    result = one.measure("canary", rule.described(), DONE)

    closing.join()
    assert (result.verdict, result.text) == (INCONCLUSIVE, "ended before it answered")
    assert time.monotonic() - begin < 5
    if path == "/drip":
        assert service.released.wait(5)  # the server noticed

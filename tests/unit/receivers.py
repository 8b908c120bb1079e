"""A web service that takes notifications, or does to them what services do on a bad day."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.events import RunStarted
from orchestrator.notifications import Message, Moment, Receiver
from orchestrator.notifications.programs import Program
from orchestrator.notifications.stories import Story
from orchestrator.testing import a_plan
from tests.services import binaries

#: answers that are no status
DROP, HANG, DRIP = "drop", "hang", "drip"


@dataclasses.dataclass(frozen=True)
class Taken:
    """One request that arrived."""

    path: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data)
        return found


@dataclasses.dataclass
class Service:
    """Answers with what it is told to, then with 200; knows what it was sent."""

    port: int = 0
    scheme: str = "http"
    #: statuses, or one of the words above
    answers: list[int | str] = dataclasses.field(default_factory=list)
    #: headers of every answer
    sends: dict[str, str] = dataclasses.field(default_factory=dict)
    taken: list[Taken] = dataclasses.field(default_factory=list)
    #: lets everything that hangs go on
    released: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    @property
    def events(self) -> list[str]:
        return [one.body["event"] for one in self.taken]


class _Handler(http.server.BaseHTTPRequestHandler):
    told: Service

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.taken.append(Taken(self.path, dict(self.headers), data))
        self._answer(self.told.answers.pop(0) if self.told.answers else 200)

    def do_GET(self) -> None:
        self.told.taken.append(Taken(self.path, dict(self.headers), b"{}"))
        self._answer(200)

    def _answer(self, answer: int | str) -> None:
        if answer == DROP:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif answer == HANG:
            self.told.released.wait(60)
        elif answer == DRIP:
            with contextlib.suppress(OSError):
                while not self.told.released.wait(0.05):
                    self.wfile.write(b"H")
        else:
            self.send_response(int(answer))
            for name, value in self.told.sends.items():
                self.send_header(name, value)
            self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its own signature
        pass


@contextlib.contextmanager
def service(certificate: Path | None = None) -> Iterator[Service]:
    """One on a free port, over TLS where there is a certificate."""
    told = Service(scheme="http" if certificate is None else "https")
    server = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"told": told}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about."""


def self_signed(folder: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, which nobody vouches for."""
    file = folder / "server.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=here -addext"
    arguments = [*words.split(), "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", str(folder / "only.pem")]
    subprocess.run([binaries.openssl(), *arguments], check=True, capture_output=True)
    file.write_text(file.read_text() + (folder / "only.pem").read_text())
    return file


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


STARTED = RunStarted(run="r-20261122-120000-4f2a", plan=a_plan("acme", "globex"))
#: one notification
SOME = Story(STARTED, "ann").message(Moment.STARTED, STARTED, "id-1")


def send(receiver: Receiver, seconds: float = 5.0, message: Message | None = None) -> None:
    receiver.send(message or SOME, seconds)


def program(folder: Path, text: str, *arguments: str) -> Program:
    file = folder / "page-oncall"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return Program(name="`./page-oncall`", arguments=("./page-oncall", *arguments), folder=folder)


def is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False

"""One server of each kind for a test session, started when the first test of any worker asks for it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import URL, make_url

from tests.services import servers

#: folder in which all workers of one session find each other's servers
FOLDER = "ORCHESTRATE_TEST_SESSION"
OWNER = "ORCHESTRATE_TEST_SESSION_OWNER"
ROOT = Path(__file__).parents[2]

#: keepers that this process started: they outlive their tests on purpose
_keepers: list[subprocess.Popen[bytes]] = []


def open_session() -> None:
    """Called once, by the process that the workers are children of."""
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="orchestrate-session-")
    os.environ[OWNER] = str(os.getpid())


def close_session() -> None:
    """Stop what was started; harmless for anyone but the owner."""
    if os.environ.get(OWNER) != str(os.getpid()):
        for keeper in _keepers:
            keeper.returncode = 0  # it outlives this worker on purpose, which Python would warn of
        return
    folder = Path(os.environ.pop(FOLDER))
    del os.environ[OWNER]
    pids = [int(file.read_text()) for file in folder.glob("*.pid")]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    _wait_for_servers(folder, pids)
    shutil.rmtree(folder, ignore_errors=True)


def server(kind: str) -> URL:
    """The administrator's URL of the `postgres` or `mariadb` of this session."""
    given = os.environ.get(f"ORCHESTRATE_TEST_{kind.upper()}")
    if given:
        return make_url(given)
    folder = Path(os.environ[FOLDER])
    answer = folder / f"{kind}.json"
    with (folder / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            _start(kind, folder, answer)
    content = json.loads(answer.read_text())
    if "problem" in content:
        raise RuntimeError(content["problem"])
    return make_url(content["url"])


def _start(kind: str, folder: Path, answer: Path) -> None:
    command = [sys.executable, "-m", "tests.services.keeper", kind, str(answer), os.environ[OWNER]]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    _keepers.append(process)
    (folder / f"{kind}.pid").write_text(str(process.pid))
    end = time.monotonic() + 120
    while not answer.exists():
        if time.monotonic() > end:
            process.terminate()
            answer.write_text(json.dumps({"problem": f"{kind} did not start within two minutes"}))
        time.sleep(0.05)


def _wait_for_servers(folder: Path, pids: list[int]) -> None:
    for keeper in _keepers:
        keeper.wait(timeout=30)
    end = time.monotonic() + 30
    while any(servers.alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)

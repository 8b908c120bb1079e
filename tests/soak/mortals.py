"""Database servers of the harness's own, to be killed and started again on the same data."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pymysql
from sqlalchemy import URL

from tests.services import servers

_CONNECT: dict[str, Callable[[URL], object]] = {
    "postgresql": servers.connect_postgres,
    "mariadb": servers.connect_mariadb,
}
_START = {"postgresql": servers.postgres, "mariadb": servers.mariadb}


@dataclasses.dataclass(kw_only=True)
class Mortal:
    """One server."""

    url: URL
    engine: str
    pid: int
    #: how it was started, and where, as whom
    command: list[str]
    folder: Path
    user: str | None
    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        os.kill(self.pid, signal.SIGKILL)
        # Nobody starts where somebody of that number, a zombie even, still stands.
        os.waitpid(self.pid, 0) if self.process is None else self.process.wait()

    def start(self, seconds: float = 60) -> None:
        """Start it again; whatever still holds the old one's memory or files is waited for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._launch()
            if self._answers(deadline):
                return
        raise RuntimeError(f"{self.engine} did not start again; see {self.folder / 'log'}")

    def stop(self) -> None:
        """For good."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _launch(self) -> None:
        account = pwd.getpwnam(self.user) if self.user else None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **({"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}),  # type: ignore[call-overload]
            )
        self.pid = self.process.pid

    def _answers(self, deadline: float) -> bool:
        assert self.process is not None
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                connection = _CONNECT[self.engine](self.url)
            except (psycopg.OperationalError, pymysql.err.OperationalError):
                time.sleep(0.05)
            else:
                connection.close()  # type: ignore[attr-defined]
                return True
        return False


@contextlib.contextmanager
def mortal(engine: str) -> Iterator[Mortal]:
    """A server that may be killed, gone with the block."""
    with _START[engine]() as url:
        pid = _child(str(url.port))
        folder = Path(f"/proc/{pid}/cwd").readlink()
        owner = pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid).pw_name
        command = [part.decode() for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if part]
        made = Mortal(
            url=url,
            engine=engine,
            pid=pid,
            # The account is there from the first start on.
            command=[part for part in command if not part.startswith("--init-file")],
            folder=folder,
            user=owner if os.geteuid() == 0 else None,
        )
        try:
            yield made
        finally:
            made.stop()


def _child(port: str) -> int:
    """Our own child that listens on that port, by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            if parent == os.getpid() and (f"port={port}" in words):
                return int(folder.name)
    raise LookupError(f"no server of ours listens on port {port}")

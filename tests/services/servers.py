"""Throwaway servers: started on a free loopback port in a temporary folder, stopped by their process id.

Nothing of theirs is kept, so they are stopped at once rather than orderly.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pymysql
from sqlalchemy import URL

from tests.services import binaries

#: every character that a URL must escape and that `%` interpolation trips over; tests look for `hush` in outputs
PASSWORD = "hush/pass@word%1"
ADMINISTRATOR = "fleet_admin"


class Server:
    """One throwaway server, which can die and come back with all that it had committed."""

    def __init__(self, url: URL, command: Sequence[str | Path], folder: Path, user: str | None, stop: int) -> None:
        self.url = url
        self._command, self._folder, self._user, self._stop = command, folder, user, stop
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its main process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return when it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **running_as(self._user),
            )  # fmt: skip
        connect = connect_postgres if self.url.get_backend_name() == "postgresql" else connect_mariadb
        _wait(self._process, self._folder, lambda: connect(self.url).close())

    def kill(self) -> None:
        """SIGKILL, to all of its processes at once."""
        family = [self.pid, *children(self.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        while any(alive(pid) for pid in family):
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it for good, at once rather than orderly."""
        if self._process is None:
            return
        self._process.send_signal(self._stop)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def postgres() -> Iterator[URL]:
    """A PostgreSQL server, as the URL of its administrator."""
    with postgres_server() as server:
        yield server.url


@contextlib.contextmanager
def mariadb() -> Iterator[URL]:
    """A MariaDB server, as the URL of its administrator."""
    with mariadb_server() as server:
        yield server.url


@contextlib.contextmanager
def postgres_server(**changed: object) -> Iterator[Server]:
    """A PostgreSQL server with some settings of its own."""
    programs = binaries.postgres_folder()
    user = binaries.unprivileged("postgres")
    with service_folder("postgres", user) as folder:
        secret = folder / "secret"
        write_as(secret, PASSWORD, user)
        initdb = [programs / "initdb", "-D", folder / "data", "-U", ADMINISTRATOR, f"--pwfile={secret}"]
        initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        _run(initdb, folder, user)
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 200,
            "max_locks_per_transaction": 256,
            "shared_buffers": "64MB",
            "log_min_messages": "fatal",
            **changed,
        }
        flags = [flag for key, value in settings.items() for flag in ("-c", f"{key}={value}")]
        url = URL.create("postgresql+psycopg", ADMINISTRATOR, PASSWORD, "127.0.0.1", port, "postgres")
        command = [programs / "postgres", "-D", folder / "data", *flags]
        with _served(Server(url, command, folder, user, signal.SIGQUIT)) as server:
            yield server


@contextlib.contextmanager
def mariadb_server(**changed: object) -> Iterator[Server]:
    """A MariaDB server with some settings of its own."""
    program = binaries.mariadb_server()
    scripts = binaries.mariadb_scripts(program)
    user = binaries.unprivileged("mysql")
    with service_folder("mariadb", user) as folder:
        data = folder / "data"
        # A server that starts removes what looks like a temporary table of its own: not from other servers' folder.
        temporary = f"--tmpdir={data}"
        data.mkdir()
        if user:
            shutil.chown(data, user)
        system = "".join(script.read_text() + "\n" for script in scripts)
        _run(
            [program, "--no-defaults", "--bootstrap", f"--datadir={data}", temporary, "--skip-name-resolve"],
            folder,
            user,
            text=f"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL;\n{system}",
        )
        start = folder / "start.sql"
        account = f"'{ADMINISTRATOR}'@'%'"
        write_as(
            start,
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION;\n",
            user,
        )
        port = free_port()
        flags = [f"--datadir={data}", f"--init-file={start}", "--bind-address=127.0.0.1", f"--port={port}"]
        flags += [
            temporary,
            "--socket=server.sock",
            "--pid-file=server.pid",
            "--skip-name-resolve",
            "--max-connections=200",
        ]
        flags += ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--innodb-doublewrite=0"]
        flags += ["--character-set-server=utf8mb4", "--skip-log-bin"]
        flags += [f"--{name.replace('_', '-')}={value}" for name, value in changed.items()]
        url = URL.create("mysql+pymysql", ADMINISTRATOR, PASSWORD, "127.0.0.1", port, "mysql")
        with _served(Server(url, [program, "--no-defaults", *flags], folder, user, signal.SIGKILL)) as server:
            yield server


def connect_postgres(url: URL, *, database: str | None = None) -> psycopg.Connection[tuple[object, ...]]:
    """A raw connection in autocommit mode."""
    return psycopg.connect(
        host=url.host,
        port=url.port or 5432,
        user=url.username,
        password=url.password,
        dbname=database or url.database or "postgres",
        autocommit=True,
        connect_timeout=10,
    )


def connect_mariadb(url: URL, *, database: str | None = None) -> pymysql.Connection[pymysql.cursors.Cursor]:
    """A raw connection in autocommit mode."""
    return pymysql.connect(
        host=url.host or "127.0.0.1",
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        database=database or url.database or None,
        autocommit=True,
        connect_timeout=10,
        # Else it reads all certificates of the machine for each connection: tests make thousands.
        ssl_disabled=url.host in ("127.0.0.1", "localhost", None),
    )


@contextlib.contextmanager
def service_folder(kind: str, user: str | None) -> Iterator[Path]:
    """A folder for a service's files, which the user owns that it runs as."""
    folder = Path(tempfile.mkdtemp(prefix=f"orchestrate-{kind}-"))
    if user:
        shutil.chown(folder, user)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_as(path: Path, text: str, user: str | None) -> None:
    """Write a file that nobody but that user reads."""
    path.touch(mode=0o600)
    path.write_text(text)
    if user:
        shutil.chown(path, user)


def _run(command: Sequence[str | Path], folder: Path, user: str | None, text: str = "") -> None:
    done = subprocess.run(
        command, cwd=folder, input=text, capture_output=True, text=True, check=False, **running_as(user)
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


@contextlib.contextmanager
def _served(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def children(parent: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            after_name = file.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent:
                found.append(int(file.parent.name))
    return found


def running_as(user: str | None) -> dict[str, object]:
    """Arguments that start a process as that user."""
    return {"user": user, "group": _group(user), "extra_groups": []} if user else {}


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], folder: Path, connect: Callable[[], None], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return connect()
        except (psycopg.OperationalError, pymysql.err.OperationalError) as error:
            if process.poll() is not None or time.monotonic() > end:
                log = (folder / "log").read_text(errors="replace")[-4000:]
                raise RuntimeError(f"the server did not start ({error}); its log ends with:\n{log}") from error
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

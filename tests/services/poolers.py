"""Throwaway PgBouncers before the tests' PostgreSQL."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator

import psycopg
from sqlalchemy import URL

from tests.services import binaries, servers


@contextlib.contextmanager
def pgbouncer(server: URL, *, mode: str, pool_size: int) -> Iterator[URL]:
    """The server's URL through a pooler in `transaction` or `session` mode; every database has a pool of that size."""
    program = binaries.pgbouncer()
    user = binaries.unprivileged("postgres")
    port = servers.free_port()
    with servers.service_folder("pgbouncer", user) as folder:
        accounts = folder / "accounts"
        password = (server.password or "").replace('"', '""')
        servers.write_as(accounts, f'"{server.username}" "{password}"\n', user)
        settings = folder / "pgbouncer.ini"
        servers.write_as(
            settings,
            f"""[databases]
* = host={server.host} port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {accounts}
pool_mode = {mode}
default_pool_size = {pool_size}
max_client_conn = 1000
server_login_retry = 0
query_wait_timeout = 60
log_connections = 0
log_disconnections = 0
""",
            user,
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, settings], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **servers.running_as(user),
            )  # fmt: skip
        url = server.set(port=port, host="127.0.0.1")
        try:
            _wait(url, process, log_of=lambda: (folder / "log").read_text(errors="replace"))
            yield url
        finally:
            process.kill()
            process.wait()


def _wait(url: URL, process: subprocess.Popen[bytes], log_of: Callable[[], str], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return servers.connect_postgres(url).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PgBouncer did not start ({error}); its log:\n{log_of()[-4000:]}") from error
        time.sleep(0.05)

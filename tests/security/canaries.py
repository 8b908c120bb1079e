"""A fleet of which every password is a canary, and the commands that are run on it while somebody looks for it."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from psycopg import sql
from sqlalchemy import URL

from tests import histories
from tests.acceptance.fleets import Done, inherited
from tests.security import secrets
from tests.services.servers import connect_mariadb, connect_postgres

#: files in which a secret may stand: those that the user wrote it into
WRITTEN_BY_USER = ("tenants.yaml", ".env", "secret.txt", "wrong.txt", "token.txt")
#: what the service that names tenants asks for
TOKEN = f"{secrets.MARK}token/+={secrets.MARK}~1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canary:
    """A project in which every secret is one that is searched for."""

    folder: Path
    #: password of the roles on the servers
    password: str
    #: one that no server knows
    wrong: str
    postgres: URL
    mariadb: URL
    http: str
    #: bodies of the notifications that arrived
    bodies: list[bytes] = dataclasses.field(default_factory=list)
    #: whether the ledger is on PostgreSQL
    ledger: bool = True
    commands: list[Done] = dataclasses.field(default_factory=list)
    seen: list[str] = dataclasses.field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CANARY_PASSWORD": self.password,
            "WRONG_PASSWORD": self.wrong,
            "CANARY_PASSWORD_HEX": f"{secrets.MARK}-header",
            "WHOLE_URL": self.postgres.render_as_string(hide_password=False),
            "WRONG_HOST": f"{secrets.MARK}0",
            "UNESCAPED_URL": f"postgresql://app:{self.wrong}@127.0.0.1/db",
        }

    def run(self, program: str, *arguments: str, **variables: str) -> Done:
        """Run a command, and look at the arguments of every process of this machine meanwhile."""
        command = [str(Path(sys.executable).parent / program), *arguments]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**inherited(), **self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        watching = threading.Thread(target=self._watch, args=(process,))
        watching.start()
        output, errors = process.communicate(timeout=120)
        watching.join()
        text, complaints = output.decode(errors="replace"), errors.decode(errors="replace")
        done = Done(command=(program, *arguments), exit_status=process.returncode, output=text, errors=complaints)
        self.commands.append(done)
        return done

    def leaks(self) -> list[str]:
        """Every place in which a secret was seen, and the command or the file."""
        known = (self.password, self.wrong)
        said = [
            f"{' '.join(done.command)}: {hit}"
            for done in self.commands
            for hit in secrets.found(done.output + "\n" + done.errors, *known)
        ]
        kept = [f"{path}: {hit}" for path in self.files() for hit in secrets.found(path.read_bytes(), *known)]
        sent = [f"notification: {hit}" for body in self.bodies for hit in secrets.found(body, *known)]
        return [*said, *kept, *sent, *(f"argument: {one}" for one in self.seen), *self._in_ledger()]

    def told(self) -> str:
        """The leaks, for a test that fails."""
        return "\n".join(self.leaks())

    def files(self) -> list[Path]:
        """Every file below the project that the user did not write a secret into."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        # An env.py that is no Python holds a piece of a secret as well.
        return [path for path in found if path.name not in WRITTEN_BY_USER and path.suffix not in (".py", ".pyc")]

    def _in_ledger(self) -> Iterator[str]:
        """The rows of the ledger on PostgreSQL, as text."""
        if not self.ledger:
            return
        with contextlib.closing(connect_postgres(self.postgres)) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            assert len(tables) > 3, tables
            for (table,) in tables:
                query = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier("public", str(table)))
                for (row,) in connection.execute(query).fetchall():
                    yield from (f"ledger {table}: {hit}" for hit in secrets.found(str(row), self.password, self.wrong))

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            for one in Path("/proc").iterdir():
                if one.name.isdigit():
                    with contextlib.suppress(OSError):
                        line = (one / "cmdline").read_bytes()
                        if secrets.MARK.encode() in line:
                            self.seen.append(line.replace(b"\0", b" ").decode(errors="replace"))
            time.sleep(0.1)


@contextlib.contextmanager
def canary(folder: Path, postgres: URL, mariadb: URL) -> Iterator[Canary]:
    """A project of four tenants on three kinds of database, with accounts of its own on the two servers."""
    password, wrong = secrets.secret("right"), secrets.secret("wrong")
    account = f"canary_{uuid.uuid4().hex[:8]}"
    with (
        _postgres(postgres, account, password) as mine,
        _mariadb(mariadb, account, password) as theirs,
        _http() as (site, bodies),
    ):
        folder.mkdir(parents=True)
        histories.write(folder, size=3)
        _write_secrets(folder, password, wrong)
        made = Canary(
            folder=folder, password=password, wrong=wrong, postgres=mine, mariadb=theirs, http=site, bodies=bodies
        )
        (folder / "tenants.yaml").write_text(registry(made))
        (folder / "tenants.yaml").chmod(0o600)
        yield made


def registry(made: Canary) -> str:
    """Secrets by variable, by file, by command, literally, in a header, and in the ledger's URL."""
    postgres, mariadb = made.postgres, made.mariadb
    place, other = f"{postgres.host}:{postgres.port}", f"{mariadb.host}:{mariadb.port}"
    literal = made.postgres.render_as_string(hide_password=False)
    return f"""\
version: 1
project: canary
defaults:
  url: "postgresql+psycopg://{postgres.username}:${{CANARY_PASSWORD}}@{place}/{postgres.database}"
  schema: "tenant_{{tenant}}"
profiles:
  maria: {{url: "mysql+pymysql://{mariadb.username}:${{file:secret.txt}}@{other}/{mariadb.database}", schema: null}}
tenants:
  variable: {{}}
  literal: {{url: {json.dumps(literal, ensure_ascii=False)}, schema: tenant_literal}}
  command:
    url: "postgresql+psycopg://{postgres.username}@{place}/{postgres.database}"
    password: {{command: ["cat", "secret.txt"]}}
  arguments:
    url: "postgresql+psycopg://{postgres.username}@{place}/{postgres.database}"
    connect_args: {{password: "${{CANARY_PASSWORD}}"}}
  whole: {{url: "${{WHOLE_URL}}"}}
  maria: {{profile: maria}}
  file: {{url: "sqlite:///file.db", schema: null}}
sources:
  - {{type: http, url: "{made.http}", headers: {{Authorization: "Bearer ${{file:token.txt}}"}}}}
strategies:
  gated:
    waves:
      - name: first
        size: 1
        gate: {{sql: "SELECT true", url: "postgresql+psycopg://{postgres.username}:${{WRONG_PASSWORD}}@{place}/x"}}
      - {{name: second, size: 1, gate: {{command: ["sh", "-c", "cat token.txt secret.txt; exit 75"]}}}}
      - name: third
        gate: {{http: "{made.http}refused/${{file:token.txt}}?key=${{file:token.txt}}",
          headers: {{Authorization: "Bearer ${{file:token.txt}}"}}}}
notifications:
  - {{on: [started, finished], webhook: "{made.http}taken", headers: {{X-Key: "${{CANARY_PASSWORD_HEX}}"}},
      secret: "${{CANARY_PASSWORD}}"}}
  - {{on: [started, finished], webhook: "{made.http}refused/${{file:token.txt}}?key=${{file:token.txt}}",
      headers: {{Authorization: "Bearer ${{file:token.txt}}"}}}}
  - {{on: finished, webhook: "{made.http}taken", headers: {{X-Password: "${{WRONG_PASSWORD}}"}}}}
  - {{on: finished, webhook: "https://${{CANARY_PASSWORD}}@127.0.0.1/"}}
  - {{on: finished, exec: ["sh", "-c", "cat token.txt secret.txt >&2; exit 3"]}}
  - {{on: finished, apprise: "json://user:${{WRONG_HOST}}@127.0.0.1:1/${{WRONG_HOST}}"}}
ledger: "postgresql+psycopg://{postgres.username}:${{CANARY_PASSWORD}}@{place}/{postgres.database}"
"""


def _write_secrets(folder: Path, password: str, wrong: str) -> None:
    for name, content in (("secret.txt", password), ("wrong.txt", wrong), ("token.txt", TOKEN)):
        (folder / name).write_text(content)
        (folder / name).chmod(0o600)


@contextlib.contextmanager
def _postgres(server: URL, account: str, password: str) -> Iterator[URL]:
    with contextlib.closing(connect_postgres(server)) as connection:
        role, secret = sql.Identifier(account), sql.Literal(password)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(role, secret))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        try:
            yield server.set(username=account, password=password, database=account)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


@contextlib.contextmanager
def _mariadb(server: URL, account: str, password: str) -> Iterator[URL]:
    with contextlib.closing(connect_mariadb(server)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (account, password))
        cursor.execute(f"CREATE DATABASE `{account}`")
        cursor.execute(f"GRANT ALL ON `{account}%%`.* TO %s@'%%'", (account,))
        try:
            yield server.set(username=account, password=password, database=account)
        finally:
            cursor.execute(f"DROP DATABASE `{account}`")
            cursor.execute(f"DROP DATABASE IF EXISTS `{account}_2`")
            cursor.execute("DROP USER %s@'%%'", (account,))


class _Directory(http.server.BaseHTTPRequestHandler):
    """A service that names one tenant to whoever has the token; one of its paths answers nonsense.

    Notifications can be posted to one of its paths.
    """

    bodies: list[bytes]

    def do_GET(self) -> None:
        status = 200 if self.headers["Authorization"] == f"Bearer {TOKEN}" else 403
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"{not json" if self.path == "/nonsense" else b'["directory"]')

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200 if self.path == "/taken" else 403)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its own signature
        pass


@contextlib.contextmanager
def _http() -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and what is posted to it."""
    bodies: list[bytes] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Directory,), {"bodies": bodies}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

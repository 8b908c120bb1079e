"""Sources of tenants: each kind working, failing, empty and short, and what the file lays over their rows."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import registry
from orchestrator.errors import RegistryError
from tests.unit.registries import Folder, by_name

DEFAULTS = 'defaults: {url: "sqlite:///{tenant}.db"}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Folder(tmp_path)


def source(**keys: Any) -> str:
    return DEFAULTS + "sources: " + json.dumps([keys]) + "\n"


Make = Callable[[Folder, Any], dict[str, Any]]


def make_command(folder: Folder, rows: Any) -> dict[str, Any]:
    script = folder.write(f"#!/bin/sh\ncat <<'END'\n{json.dumps(rows)}\nEND\n", "list-tenants")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"type": "command", "run": ["./list-tenants"]}


def make_python(folder: Folder, rows: Any) -> dict[str, Any]:
    name = f"fleet_{folder.path.name}"
    folder.write(f"def everyone():\n    return iter({rows!r})\n", f"{name}.py")
    return {"type": "python", "call": f"{name}:everyone"}


def make_sql(folder: Folder, rows: Any) -> dict[str, Any]:
    with contextlib.closing(sqlite3.connect(folder.path / "fleet.db")) as connection:
        connection.execute("CREATE TABLE tenants (name TEXT, label_region TEXT)")
        for row in rows:
            name, region = (row, None) if isinstance(row, str) else (row["name"], row.get("label_region"))
            connection.execute("INSERT INTO tenants VALUES (?, ?)", (name, region))
        connection.commit()
    return {
        "type": "sql",
        "url": "sqlite:///fleet.db",
        "query": "SELECT * FROM tenants WHERE ':x' = ':x' AND '1%' > ''",
    }


def make_flask(folder: Folder, rows: Any) -> dict[str, Any]:
    name = f"app_{folder.path.name}"
    folder.write(
        "from flask import Flask\n"
        "def create_app():\n"
        "    app = Flask(__name__)\n"
        "    app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:////srv/{tenant}.db'\n"
        "    return app\n"
        f"def everyone():\n    return {rows!r}\n",
        f"{name}.py",
    )
    return {"type": "flask", "app": f"{name}:create_app", "tenants": f"{name}:everyone"}


KINDS = [make_command, make_python, make_sql, make_flask]


@pytest.mark.parametrize("make", KINDS)
def test_a_source_gives_tenants(folder: Folder, make: Make) -> None:
    keys = make(folder, ["acme", {"name": "globex", "label_region": "eu"}])
    loaded = folder.load(source(**keys, labels={"from": "afar"}, min=2))
    assert [tenant.name for tenant in loaded.tenants] == ["acme", "globex"]
    assert by_name(loaded)["globex"].labels == {"from": "afar", "region": "eu"}
    assert loaded.tenants[0].place == f"source `{keys['type']}`"


@pytest.mark.parametrize("make", KINDS)
def test_an_empty_source_is_an_error_unless_it_may_be(folder: Folder, make: Make) -> None:
    keys = make(folder, [])
    (problem,) = folder.problems(source(**keys))
    assert problem.startswith(
        f"tenants.yaml:3:11: source `{keys['type']}` gave no tenants; mend it, or write `allow_empty"
    )
    assert folder.load(source(**keys, allow_empty=True, min=5)).targets == ()


@pytest.mark.parametrize("make", KINDS)
def test_a_short_source_is_an_error(folder: Folder, make: Make) -> None:
    keys = make(folder, ["acme", "globex"])
    (problem,) = folder.problems(source(**keys, min=3))
    assert "gave 2 tenants, fewer than its `min: 3`" in problem


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"type": "command", "run": ["./nothing-here"]}, "`./nothing-here` cannot be started: No such file"),
        ({"type": "command", "run": ["false"]}, "`false` ended with status 1; run it by hand"),
        ({"type": "command", "run": ["echo", "secret-output"]}, "the answer is not JSON (line 1, column 1)"),
        ({"type": "command", "run": ["echo", "{}"]}, "the answer holds no list of tenants"),
        ({"type": "command", "run": ["sleep", "9"], "timeout": "300ms"}, "no answer within 0.3 s"),
        ({"type": "python", "call": "no_such_module_here:f"}, "there is no module `no_such_module_here`"),
        ({"type": "python", "call": "json:nothing"}, "module `json` has no `nothing`"),
        ({"type": "python", "call": "os:sep"}, "`os:sep` cannot be called"),
        ({"type": "python", "call": "os:getcwd"}, "returned no list of tenants"),
        ({"type": "python", "call": "time:sleep"}, "failed: TypeError"),
        ({"type": "sql", "url": "sqlite:///nowhere.db", "query": "SELECT 1"}, "source `sql`"),
        ({"type": "sql", "url": "sqlite://", "query": "SELECT 1"}, "in memory"),
        ({"type": "schemas", "url": "postgresql://h/d", "match": "tenants"}, "`match` needs exactly one `*`"),
        ({"type": "schemas", "url": "sqlite:///x.db", "match": "a*"}, "SQLite has neither schemas nor a server"),
        ({"type": "http", "url": "ftp://h/x"}, "the address is no HTTP URL"),
        ({"type": "http", "url": "file:///etc/passwd"}, "the address is no HTTP URL"),
        ({"type": "http", "url": "${NOPE}"}, "variable `NOPE` is not set"),
        ({"type": "flask", "app": "no_such_application:create"}, "no module `no_such_application`"),
    ],
)
def test_a_failing_source_is_an_error_at_its_line(folder: Folder, keys: dict[str, Any], words: str) -> None:
    (problem,) = folder.problems(source(**keys))
    assert problem.startswith(f"tenants.yaml:3:11: source `{keys['type']}`: ")
    assert words in problem
    assert "secret-output" not in problem
    assert not (folder.path / "nowhere.db").exists()


@pytest.mark.parametrize("query", ["SELEC name FROM tenants", "DELETE FROM tenants RETURNING name", "SELECT nothing"])
def test_a_query_that_fails_is_what_is_to_be_mended(folder: Folder, query: str) -> None:
    with contextlib.closing(sqlite3.connect(folder.path / "inventory.db")) as connection:
        connection.executescript("CREATE TABLE tenants (name); INSERT INTO tenants VALUES ('acme')")
    (problem,) = folder.problems(source(type="sql", url="sqlite:///inventory.db", query=query))
    assert problem.endswith("; mend its `query`, which can only read")
    with contextlib.closing(sqlite3.connect(folder.path / "inventory.db")) as connection:
        assert connection.execute("SELECT name FROM tenants").fetchall() == [("acme",)]


def test_a_command_that_takes_too_long_ends_with_its_children(folder: Folder) -> None:
    folder.write("#!/bin/sh\nsleep 60 &\necho $! > child\nwait\n", "slow").chmod(0o755)
    (problem,) = folder.problems(source(type="command", run=["./slow"], timeout="1s"))
    assert "no answer within 1 s" in problem
    child = int((folder.path / "child").read_text())
    for _ in range(500):
        if not _is_running(child):
            break
        time.sleep(0.01)
    assert not _is_running(child)


def _is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"name": "a", "urll": "x"}], "row `a`: unknown key `urll`; did you mean `url`?"),
        ([{"nam": "a"}], "row 1 has no `name`"),
        (["ok", 7], "row 2 is neither a name nor a mapping"),
        (["../etc"], "row 1: '../etc' cannot be the name of a tenant"),
        (["a", "a"], "row `a` comes twice"),
        ([{"name": "a", "database": "x"}, {"name": "a"}], "row `a` comes twice"),
        ([{"name": "a", "database": 7}], "`database` is no key of a database"),
        ([{"name": "a", "window": "soon"}], "row `a`: `window`: `soon` is no window; write it like"),
        ([{"name": "a", "window": "Sat {label.zone}"}], "row `a`: `window`: `Sat {label.zone}` is no window"),
        ([{"name": "a", "state": "gone"}], "row `a`: `state`: `state` cannot be `gone`"),
        ([{"name": "a", "labels": "x"}], "row `a`: `labels` is no mapping"),
        ([{"name": "a", "label_x": []}], "row `a`: label `x` is not text"),
        ([{"name": "a", "url": "nonsense-s3cret"}], "row `a`: not a database URL"),
        ([{"name": "a", "url": "postgresql://h/d", "schema": "x; DROP"}], "row `a`: schema `x; DROP` is not allowed"),
        ([{"name": "a", "url": "postgresql://h/d", "schema": "public"}], "row `a`: schema `public` comes out of"),
        ([{"name": "a", "profile": "nope"}], "row `a`: unknown profile `nope`"),
    ],
)
def test_a_wrong_row_is_named(folder: Folder, rows: Any, words: str) -> None:
    (problem,) = folder.problems(source(**make_command(folder, rows)))
    assert words in problem
    assert "s3cret" not in problem


def test_every_wrong_row_is_named(folder: Folder) -> None:
    rows = [{"name": "a", "x": 1}, {"name": "b", "y": 1}, "fine"]
    assert len(folder.problems(source(**make_command(folder, rows)))) == 2


def test_what_a_row_says_is_taken_as_it_is(folder: Folder) -> None:
    rows = [{"name": "a", "label_x": "${HOME}", "owner": "{tenant}", "connect_args": {"y": "${file:/etc/passwd}"}}]
    target = folder.load(source(**make_command(folder, rows))).targets[0]
    assert target.labels == {"x": "${HOME}"}
    assert target.tenant.owner == "{tenant}"
    assert target.connect_args == {"y": "${file:/etc/passwd}"}


def test_rows_may_give_several_databases_of_one_tenant(folder: Folder) -> None:
    rows = [
        {"name": "a", "database": "core", "label_region": "eu", "url": "sqlite:///core.db"},
        {"name": "a", "database": "analytics", "url": "sqlite:///analytics.db", "alembic": "analytics"},
    ]
    targets = folder.load(source(**make_command(folder, rows))).targets
    assert [(one.name, one.section, one.after) for one in targets] == [
        ("a/core", "alembic", ()),
        ("a/analytics", "analytics", ("a/core",)),
    ]
    assert targets[0].labels == {"region": "eu"}


def test_the_file_is_laid_over_a_row_of_the_same_name(folder: Folder) -> None:
    keys = make_command(folder, [{"name": "acme", "labels": {"a": 1, "b": True}, "role": "x"}, "globex"])
    loaded = folder.load(
        source(**keys, profile="p", labels={"a": "0", "c": "0"})
        + 'profiles: {p: {url: "postgresql://h/{tenant}", version_table: from_profile}}\n'
        + "tenants: {zeta: , acme: {state: suspended, labels: {b: mine}}}"
    )
    acme = by_name(loaded)["acme"]
    assert [tenant.name for tenant in loaded.tenants] == ["zeta", "acme", "globex"]
    assert acme.labels == {"a": "1", "b": "mine", "c": "0"}
    assert (acme.version_table, acme.role, acme.tenant.state.value) == ("from_profile", "x", "suspended")
    assert by_name(loaded)["zeta"].backend == "sqlite"


def test_two_sources_with_one_name_are_an_error(folder: Folder) -> None:
    one, two = make_command(folder, ["acme", "x"]), make_python(folder, ["acme"])
    (problem,) = folder.problems(DEFAULTS + "sources:\n  - " + json.dumps(one) + "\n  - " + json.dumps(two))
    assert problem.startswith("tenants.yaml:5:5: source `python` gives `acme`, which source `command` gives as well")


def test_after_may_name_a_tenant_of_a_source(folder: Folder) -> None:
    keys = make_command(folder, ["shared"])
    loaded = folder.load(source(**keys) + "tenants: {acme: {after: [shared]}}")
    assert by_name(loaded)["acme"].after == ("shared",)
    (problem,) = folder.problems(source(**keys) + "tenants: {acme: {after: [shard]}}")
    assert "did you mean `shared`?" in problem


def test_a_tenant_of_a_source_without_a_url_is_told_at_the_source(folder: Folder) -> None:
    text = source(**make_command(folder, ["acme"])).removeprefix(DEFAULTS)
    assert folder.problems(text)[0].startswith("tenants.yaml:2:11: tenant `acme` has no `url`")


def test_nobody_is_asked_when_the_file_is_broken(folder: Folder) -> None:
    folder.write("#!/bin/sh\ntouch asked\necho '[\"a\"]'\n", "spy").chmod(0o755)
    (problem,) = folder.problems(source(type="command", run=["./spy"]) + "protected: 7")
    assert "`protected`" in problem
    assert not (folder.path / "asked").exists()


# --- http ---------------------------------------------------------------------------------------------------------


class Service:
    """A server whose answers are set by path; it notes what it was asked, and with which token."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], Any]] = {}
        self.asked: list[tuple[str, str | None]] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append((self.path, self.headers.get("Authorization")))
                status, headers, body = service.answers.get(self.path, (404, {}, None))
                payload = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    made = Service()
    yield made
    made.close()


def http_source(service: Service, path: str = "/tenants", **keys: Any) -> str:
    return source(type="http", url=service.url + path, headers={"Authorization": "Bearer ${TOKEN}"}, **keys)


def test_a_service_gives_tenants_page_by_page(folder: Folder, service: Service) -> None:
    service.answers["/tenants"] = (200, {}, {"tenants": ["a", {"name": "b"}], "next": "/more?page=2"})
    service.answers["/more?page=2"] = (200, {}, {"tenants": ["c"], "next": None})
    loaded = folder.load(http_source(service, min=3), {"TOKEN": "t0ken"})
    assert [tenant.name for tenant in loaded.tenants] == ["a", "b", "c"]
    assert service.asked == [("/tenants", "Bearer t0ken"), ("/more?page=2", "Bearer t0ken")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((503, {}, "t0ken"), "the service answered with status 503"),
        ((200, {}, b"<html>t0ken"), "the answer is not JSON"),
        ((200, {}, {"tenants": "t0ken"}), "the answer holds no list of tenants"),
        ((200, {}, {"tenants": [], "next": 7}), "`next` of the answer is no URL"),
        ((200, {}, {"tenants": ["a"], "next": "/tenants"}), "its pages go in a circle"),
        ((200, {}, {"tenants": ["a"], "next": "file:///etc/passwd"}), "the address is no HTTP URL"),
        ((302, {"Location": "file:///etc/passwd"}, ""), "the service answered with status 302"),
        ((200, {}, []), "gave no tenants"),
        ((200, {}, ["a"]), "fewer than its `min: 2`"),
    ],
)
def test_a_service_that_fails(folder: Folder, service: Service, answer: Any, words: str) -> None:
    service.answers["/tenants"] = answer
    (problem,) = folder.problems(http_source(service, min=2), {"TOKEN": "t0ken"})
    assert words in problem
    assert "t0ken" not in problem


def test_a_service_that_is_not_there(folder: Folder) -> None:
    (problem,) = folder.problems(source(type="http", url="http://127.0.0.1:9/x?token=s3cret", timeout="5s"))
    assert "the service cannot be reached" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize("way", ["redirect", "next"])
def test_a_token_goes_to_its_own_host_only(folder: Folder, service: Service, way: str) -> None:
    elsewhere = f"http://localhost:{service.port}/moved"
    service.answers["/moved"] = (200, {}, ["b"])
    redirect = (302, {"Location": elsewhere}, "")
    service.answers["/tenants"] = redirect if way == "redirect" else (200, {}, {"tenants": ["a"], "next": elsewhere})
    folder.load(http_source(service), {"TOKEN": "t0ken"})
    assert service.asked == [("/tenants", "Bearer t0ken"), ("/moved", None)]


def test_a_token_follows_a_redirect_on_its_own_host(folder: Folder, service: Service) -> None:
    service.answers["/tenants"] = (302, {"Location": "/moved"}, "")
    service.answers["/moved"] = (200, {}, ["b"])
    folder.load(http_source(service), {"TOKEN": "t0ken"})
    assert service.asked[-1] == ("/moved", "Bearer t0ken")


# --- flask --------------------------------------------------------------------------------------------------------

APPLICATION = """
from flask import Flask, current_app

def create_app():
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql://u:p%40w@h/{main}"
    app.config["SQLALCHEMY_BINDS"] = {binds}
    app.config["FLEET"] = ["acme", {{"name": "globex", "labels": {{"region": "eu"}}}}]
    return app

def fleet():
    return current_app.config["FLEET"]
"""


def flask_source(folder: Folder, main: str = "shop", binds: str = "{}", **keys: Any) -> str:
    name = f"shop_{folder.path.name}"
    folder.write(APPLICATION.format(main=main, binds=binds), f"{name}.py")
    keys = {key: value.replace("MODULE", name) if isinstance(value, str) else value for key, value in keys.items()}
    return source(type="flask", app=f"{name}:create_app", **keys)


BINDS = '{"analytics": "postgresql://u@h/analytics", "audit": "postgresql://u@h/audit"}'


def test_an_application_is_one_tenant(folder: Folder) -> None:
    (target,) = folder.load(flask_source(folder)).targets
    assert (target.name, target.url.database, target.url.password) == ("shop", "shop", "p@w")
    assert target.app is not None
    assert target.app.endswith(":create_app")
    assert target.bind is None


def test_binds_of_an_application_are_its_databases(folder: Folder) -> None:
    targets = folder.load(flask_source(folder, binds=BINDS, name="store")).targets
    assert [(one.name, one.bind, one.section, one.url.database) for one in targets] == [
        ("store/default", None, "alembic", "shop"),
        ("store/analytics", "analytics", "analytics", "analytics"),
        ("store/audit", "audit", "alembic", "audit"),
    ]


def test_each_bind_may_be_a_tenant(folder: Folder) -> None:
    targets = folder.load(flask_source(folder, binds=BINDS, each="bind")).targets
    assert [(one.name, one.bind) for one in targets] == [
        ("shop", None),
        ("analytics", "analytics"),
        ("audit", "audit"),
    ]


@pytest.mark.parametrize("tenants", [["acme", "globex"], "MODULE:fleet"])
def test_an_application_may_serve_many_tenants(folder: Folder, tenants: Any) -> None:
    binds = '{"analytics": "postgresql://u@h/{tenant}_analytics"}'
    targets = folder.load(flask_source(folder, main="{tenant}", binds=binds, tenants=tenants)).targets
    assert [(one.name, one.url.database, one.after) for one in targets] == [
        ("acme/default", "acme", ()),
        ("acme/analytics", "acme_analytics", ("acme/default",)),
        ("globex/default", "globex", ()),
        ("globex/analytics", "globex_analytics", ("globex/default",)),
    ]


def test_the_file_is_laid_over_the_binds_of_an_application(folder: Folder) -> None:
    text = flask_source(folder, binds=BINDS) + "tenants: {shop: {databases: {audit: {version_table: mine}}}}"
    targets = by_name(folder.load(text))
    assert (targets["shop/audit"].version_table, targets["shop/audit"].url.database) == ("mine", "audit")


def test_an_application_whose_tenants_share_one_database_is_refused(folder: Folder) -> None:
    (problem,) = folder.problems(flask_source(folder, tenants=["acme", "globex"]))
    assert problem.startswith("tenants.yaml:3:11: `acme`, `globex` are at one place: h:5432/shop")


def test_tenants_and_each_exclude_each_other(folder: Folder) -> None:
    (problem,) = folder.problems(flask_source(folder, each="bind", tenants=["a"]))
    assert "`tenants` and `each` exclude each other" in problem


def test_an_application_that_cannot_be_made(folder: Folder) -> None:
    name = f"bad_{folder.path.name}"
    folder.write("def create_app():\n    raise RuntimeError('postgresql://u:s3cret@h/d')\n", f"{name}.py")
    (problem,) = folder.problems(source(type="flask", app=f"{name}:create_app"))
    assert "RuntimeError" in problem
    assert "s3cret" not in problem


def test_a_source_may_end_the_interpreter_only_in_its_dreams(folder: Folder) -> None:
    name = f"exit_{folder.path.name}"
    folder.write("import sys\ndef everyone():\n    sys.exit(3)\n", f"{name}.py")
    (problem,) = folder.problems(source(type="python", call=f"{name}:everyone"))
    assert "failed: SystemExit: 3" in problem


def test_a_callable_that_never_returns_is_left_behind(folder: Folder) -> None:
    name = f"hang_{folder.path.name}"
    folder.write("import threading\ndef everyone():\n    threading.Event().wait(3)\n", f"{name}.py")
    (problem,) = folder.problems(source(type="python", call=f"{name}:everyone", timeout="200ms"))
    assert "no answer within 0.2 s" in problem


def test_registry_errors_carry_their_problems(folder: Folder) -> None:
    folder.write("version: 1\n" + source(type="command", run=["false"]))
    with pytest.raises(RegistryError) as caught:
        registry.load(folder.settings(), environ=dict(os.environ))
    assert [problem.place for problem in caught.value.problems] == ["tenants.yaml:3:11"]

"""A password with every hostile character in every URL: all commands and many failures show it nowhere."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import uuid
from collections.abc import Iterator

import click
import pytest
from sqlalchemy import URL

from orchestrator.cli import commands
from tests import histories
from tests.security import canaries, secrets
from tests.security.canaries import Canary

#: whether every command is run in every form
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
FORMS = (("-o", "text", "-v"), ("-o", "json", "-v"), ("-o", "jsonl", "-v"))

READING = [
    "tenants list",
    "tenants show variable",
    "tenants check",
    "status",
    "plan",
    "plan head --sql",
    "runs list",
    "runs show",
    "runs show --target variable",
    "runs audit",
    "runs watch",
    "runs report",
    "pause",
    "doctor",
    "doctor --notify",
    "completion bash",
]
WRITING = [
    "init --help",
    "upgrade --all --dry-run",
    "upgrade --all --provision --keep-going --report first.json --report first.html --metrics first.prom",
    "stamp head -t variable --yes --executor inline",
    "downgrade -1 -t literal,maria,file --yes --report second.xml --report second.md --executor inline",
    "plan --out saved.json --keep-going",
    "plan --diff saved.json",
    "upgrade --plan saved.json --executor inline",
    "rollback --dry-run",
    "rollback --yes --executor inline",
    "resume --executor inline",
    "retry --executor inline",
    "abort",
    "plan --strategy gated",
    "upgrade --all --strategy gated --keep-going --on-pause exit --executor inline",
    "continue --on-pause exit --executor inline",
    "skip --target variable --reason asked",
    "runs budget --max-failures 9",
    "continue --executor inline",
    "abort",
    "runs reconcile",
    "runs prune --keep 50 --yes",
    "upgrade --all --keep-going --executor inline",
    "revision -m compared --autogenerate -t variable",
    "revision -m another",
]
EXPECTED_TO_FAIL = (
    *("orchestrate abort", "orchestrate pause", "orchestrate skip", "orchestrate revision"),
    *("orchestrate doctor --notify", "alembic "),
)
BY_HAND = ["upgrade head", "current -v", "downgrade -1", "upgrade head --sql"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postgres_url: URL, mariadb_url: URL) -> Iterator[Canary]:
    with canaries.canary(tmp_path_factory.mktemp("canary") / "project", postgres_url, mariadb_url) as one:
        yield one


#: a piece of a secret where YAML, a URL or a template would cut it
PIECE = secrets.MARK
#: nothing is waited for: what fails here goes on failing
AT_ONCE = "strategies: {default: {retries: {busy: [], server: [], lost: 0}}}\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """URLs of the servers, as a registry has them."""

    postgres: str
    mariadb: str
    #: host and port
    postgres_server: str
    mariadb_server: str
    user: str

    @classmethod
    def of(cls, made: Canary) -> Places:
        postgres, mariadb = (f"{url.host}:{url.port}" for url in (made.postgres, made.mariadb))
        account, database = made.postgres.username, made.postgres.database
        return cls(
            postgres=f"postgresql+psycopg://{account}:${{CANARY_PASSWORD}}@{postgres}/{database}",
            mariadb=f"mysql+pymysql://{account}:${{CANARY_PASSWORD}}@{mariadb}/{database}",
            postgres_server=f"{account}:${{WRONG_PASSWORD}}@{postgres}",
            mariadb_server=f"{account}:${{WRONG_PASSWORD}}@{mariadb}",
            user=str(account),
        )


def refused(places: Places, wrong: str) -> list[str]:
    """Tenants that the registry does not take."""
    raw = json.dumps(wrong, ensure_ascii=False)[1:-1]
    urls = [
        f"postgresql://app:{raw}@127.0.0.1/db",
        f"mysql://app:{raw}@127.0.0.1/db",
        "${UNESCAPED_URL}",
        "postgresql://app@127.0.0.1:${WRONG_PASSWORD}/db",
        f"postgresql://app@127.0.0.1:{PIECE}/db",
        f"postgresql://app:{PIECE}@{PIECE}@127.0.0.1/db",
        "postgresql://app@127.0.0.1/${WRONG_PASSWORD}",
        "postgresql+nope://app:${WRONG_PASSWORD}@127.0.0.1/db",
        "oracle://app:${WRONG_PASSWORD}@127.0.0.1/db",
        "${WRONG_PASSWORD}://app@127.0.0.1/db",
        "postgresql://app@127.0.0.1/db?password=${WRONG_PASSWORD}",
        f"postgresql://app@127.0.0.1/db?sslpassword={PIECE}",
        f"mysql://app@127.0.0.1/db?odbc_connect=PWD={PIECE}",
        f"postgresql://app:x${{{PIECE}!}}y@127.0.0.1/db",
    ]
    keys = [
        'schema: "${WRONG_PASSWORD}"',
        'role: "${WRONG_PASSWORD}"',
        'version_table: "${WRONG_PASSWORD}"',
        'search_path: ["${WRONG_PASSWORD}"]',
        'alembic: "${WRONG_PASSWORD}"',
        f"password: !{PIECE} x",
        f"password: &{PIECE} x",
        f"password: *{PIECE} ",
        f"password: [{PIECE}]",
        f"password: {{{PIECE}: 1}}",
        f"connect_args: {{password: !{PIECE} x}}",
        f"connect_args: [{PIECE}]",
    ]
    return [f'{{url: "{url}"}}' for url in urls] + [f'{{url: "{places.postgres}", {key}}}' for key in keys]


def unreachable(places: Places) -> dict[str, str]:
    """Tenants whose connection fails, each for another reason."""
    postgres, mariadb = places.postgres, places.mariadb
    urls = {
        "wrong-postgresql": f"postgresql+psycopg://{places.postgres_server}/x",
        "wrong-psycopg2": f"postgresql+psycopg2://{places.postgres_server}/y",
        "wrong-mariadb": f"mysql+pymysql://{places.mariadb_server}/x",
        "unknown-host": "postgresql+psycopg://app:${WRONG_PASSWORD}@no-such-host.invalid/x",
        "unknown-host-psycopg2": "postgresql+psycopg2://app:${WRONG_PASSWORD}@no-such-host.invalid/y",
        "unknown-host-mariadb": "mysql+pymysql://app:${WRONG_PASSWORD}@no-such-host.invalid/x",
        "closed-port": "postgresql+psycopg://app:${WRONG_PASSWORD}@127.0.0.1:1/x",
        "closed-port-mariadb": "mysql+pymysql://app:${WRONG_PASSWORD}@127.0.0.1:1/x",
        "no-database": postgres.rpartition("/")[0] + "/no_such_database",
        "no-database-mariadb": mariadb.rpartition("/")[0] + "/no_such_database",
        "no-file": "sqlite:///no/such/file.db",
    }
    arguments = {
        "unknown-argument": f'url: "{postgres}1", connect_args: {{nonsense: "${{WRONG_PASSWORD}}"}}',
        "unfit-argument": f'url: "{postgres}2", connect_args: {{connect_timeout: "${{WRONG_PASSWORD}}"}}',
        "unfit-sslmode": f'url: "{postgres}3", connect_args: {{sslmode: "${{WRONG_PASSWORD}}"}}',
        "unfit-options": f'url: "{postgres}4", connect_args: {{options: "-c ${{WRONG_PASSWORD}}"}}',
        "argument-mariadb": f'url: "{mariadb}5", connect_args: {{nonsense: "${{WRONG_PASSWORD}}"}}',
        "argument-sqlite": 'url: "sqlite:///file.db", connect_args: {password: "${WRONG_PASSWORD}"}',
        "prints-wrong": f'url: "{postgres}6", password: {{command: ["cat", "wrong.txt"]}}',
        "prints-and-fails": (
            f'url: "{postgres}7", password: {{command: ["sh", "-c", "cat wrong.txt; cat wrong.txt >&2; exit 3"]}}'
        ),
        "no-such-command": f'url: "{postgres}8", password: {{command: ["no-such-program", "${{WRONG_PASSWORD}}"]}}',
        "silent-command": f'url: "{postgres}9", password: {{command: ["true"]}}',
    }
    return {name: f'{{url: "{url}"}}' for name, url in urls.items()} | {
        name: f"{{{keys}}}" for name, keys in arguments.items()
    }


def sources(places: Places, site: str) -> list[str]:
    """Sources that fail."""
    return [
        f'{{type: http, url: "{site}", headers: {{Authorization: "${{WRONG_PASSWORD:-x}}"}}}}',
        f'{{type: http, url: "{site}", headers: {{"X-Token": "a\\n${{WRONG_PASSWORD}}"}}}}',
        f'{{type: http, url: "{site}nonsense", headers: {{Authorization: "Bearer ${{file:token.txt}}"}}}}',
        f'{{type: http, url: "http://app:{PIECE}@127.0.0.1:1/"}}',
        '{type: http, url: "${WRONG_PASSWORD}"}',
        f'{{type: sql, url: "postgresql://{places.postgres_server}/x", query: "SELECT 1"}}',
        f'{{type: sql, url: "{places.postgres}", query: "SELECT \'${{WRONG_HOST}}\' FROM nope"}}',
        f'{{type: schemas, url: "mysql://{places.mariadb_server}/x", match: "t_*"}}',
        '{type: command, run: ["sh", "-c", "cat wrong.txt; cat wrong.txt >&2; exit 1"]}',
        '{type: command, run: ["cat", "wrong.txt"]}',
        '{type: python, call: "directory:tenants"}',
    ]


#: what each revision may use
REVISION = """
import os, sys, logging, warnings
url = op.get_bind().engine.url.render_as_string(hide_password=False)
secret = op.get_bind().engine.url.password
quoted = "'" + secret.replace("'", "''") + "'"
"""
#: revisions that fail with the secret at hand
REVISIONS = {
    "raises-url": "raise RuntimeError(url)",
    "raises-password": "raise ValueError(secret)",
    "raises-key": "{}[secret]",
    "exits": "raise SystemExit(secret)",
    "sql-with-password": 'op.execute(sa.text("ALTER ROLE nobody_here PASSWORD " + quoted.replace(":", chr(92) + ":")))',
    "sql-with-url": 'op.execute(sa.text("SELECT :one FROM nope").bindparams(one=url))',
    "sql-with-literal": 'op.get_bind().exec_driver_sql("SELECT CAST(" + quoted.replace("%", "%%") + " AS integer)")',
    "cause": """
try:
    raise KeyError(url)
except KeyError as first:
    try:
        raise ValueError(secret) from first
    except ValueError as second:
        raise RuntimeError("see above") from second
""",
    "context": "try:\n    raise KeyError(url)\nexcept KeyError:\n    raise RuntimeError('while')",
    "note": "error = RuntimeError('noted')\nerror.add_note(url)\nerror.add_note(repr({'x': secret}))\nraise error",
    "group": "raise ExceptionGroup(secret, [ValueError(url), ExceptionGroup('more', [KeyError(secret)])])",
    "driver": "import psycopg\npsycopg.connect('host=127.0.0.1 password=' + secret)",
    "driver-address": "import psycopg2\npsycopg2.connect('postgresql://app:' + secret + '@127.0.0.1/db')",
    "interpolates": "from alembic import context\ncontext.config.set_main_option('sqlalchemy.url', url)",
    "warns": "warnings.warn(url)\nraise RuntimeError('after a warning')",
    "prints": """
print(url)
print(repr(secret), file=sys.stderr)
print(dict(os.environ))
logging.getLogger("alembic").warning("at %s", url)
logging.getLogger("orchestrator.x").error(secret)
logging.getLogger("alembic").info("with", extra={"password": secret})
sys.stdout.write(url[:30])
sys.stdout.write(url[30:])
raise RuntimeError("printed")
""",
    "dies": "print(url, flush=True)\nsys.stderr.write(secret)\nos._exit(9)",
}
#: put in front of env.py
ENVIRONMENTS = {
    "env-raises": "import os\nraise RuntimeError(os.environ['WHOLE_URL'])\n",
    "env-prints": "import os\nfrom alembic import context\nprint(dict(os.environ), context.config.attributes)\n1 / 0\n",
    "env-no-python": f'url = "postgresql://app:{PIECE}@h" +\n',
}


def test_no_command_shows_it(made: Canary) -> None:
    """Every command of the command line, in each form of output, and plain Alembic on our env.py."""
    forms = itertools.cycle(FORMS)
    for line in [*WRITING, *READING]:
        for form in FORMS if THOROUGH and line in READING else [next(forms)]:
            plain = any(word in line for word in ("completion", "--help", "--sql"))
            made.run("orchestrate", *line.split(), *([] if plain else form))
    for line in BY_HAND:
        made.run("alembic", *line.split())
    made.run(
        "orchestrate",
        _ORCHESTRATE_COMPLETE="bash_complete",
        COMP_WORDS="orchestrate upgrade -t ",
        COMP_CWORD="3",
    )

    upgraded = next(done for done in made.commands if "first.json" in done.command)
    assert json.loads((made.folder / "first.json").read_text())["counts"]["upgraded"] >= 6, f"{upgraded}"
    events = [json.loads(body)["event"] for body in made.bodies]
    assert {"started", "finished", "trial"} == set(events), events
    complaints = [done for done in made.commands if "not delivered to `sh`: it ended with status 3: ***" in done.errors]
    assert len(complaints) >= 6
    assert all("no notification: tenants.yaml:" in done.errors for done in complaints)
    assert all("not delivered to apprise json: Apprise could not send it" in done.errors for done in complaints)
    # Plain Alembic stops at the tenant on MariaDB that a downgrade has left behind; nothing is there to abort or to
    # pause, and the one to skip is done already.
    failed = [f"{done}" for done in made.commands if done.exit_status not in (0, 4, 5)]
    assert [one for one in failed if not one.startswith(EXPECTED_TO_FAIL)] == []
    assert not made.leaks(), made.told()


def test_a_saved_plan_holds_none(made: Canary) -> None:
    """Places, SQL and reasons of tenants on every kind of database, in a file that goes from one machine to another."""
    saved = made.run("orchestrate", "plan", "--provision", "--keep-going", "--out", "provisioned.json")
    compared = made.run("orchestrate", "plan", "--diff", "provisioned.json", "-v")
    ran = made.run("orchestrate", "upgrade", "--plan", "provisioned.json", "--executor", "inline", "-v")
    assert (saved.exit_status, compared.exit_status, ran.exit_status) == (0, 0, 0), f"{saved}\n{compared}\n{ran}"
    document = json.loads((made.folder / "provisioned.json").read_text())
    # In `test_no_command_shows_it` they have been migrated already.
    assert len(document["settled"]) + sum(len(wave["jobs"]) for wave in document["waves"]) >= 6
    assert not made.leaks(), made.told()


def test_no_mistake_in_the_registry_shows_it(made: Canary) -> None:
    tenants = refused(Places.of(made), made.wrong)
    below = _project(made, "refused", dict(zip(map("t{}".format, range(100)), tenants, strict=False)))

    done = below.run("orchestrate", "status", "-v")

    assert done.exit_status == 2
    first = 1 + next(
        n for n, line in enumerate((below.folder / "tenants.yaml").read_text().splitlines()) if "t0:" in line
    )
    silent = [line for line in range(first, first + len(tenants)) if f"tenants.yaml:{line}:" not in done.errors]
    assert not silent, f"{silent}\n{done}"
    assert not below.leaks(), below.told()


@pytest.mark.parametrize("line", ["{url: x, password: 'K4nary", "{password: K4nary: K4nary}", "{password: @K4nary}"])
def test_no_syntax_error_shows_it(made: Canary, line: str) -> None:
    below = _project(made, "syntax", {"acme": line})
    done = below.run("orchestrate", "status", "-v")
    assert done.exit_status == 2, f"{done}"
    assert not below.leaks(), below.told()


def test_no_failing_source_shows_it(made: Canary) -> None:
    failing = sources(Places.of(made), made.http)
    below = _project(made, "sources", {}, more="sources:\n" + "".join(f"  - {one}\n" for one in failing))

    done = below.run("orchestrate", "tenants", "list", "-v")

    assert done.exit_status == 2
    assert len(done.errors.splitlines()) == len(failing), f"{done}"
    assert not below.leaks(), below.told()


def test_no_failing_connection_shows_it(made: Canary) -> None:
    tenants = unreachable(Places.of(made))
    below = _project(made, "unreachable", tenants)

    status = below.run("orchestrate", "status", "-v", "-o", "json")
    upgrade = below.run("orchestrate", "upgrade", "--all", "--keep-going", "-v", "--report", "report.json")
    below.run("orchestrate", "doctor", "-v")
    below.run("alembic", "upgrade", "head")

    assert (status.exit_status, upgrade.exit_status) == (1, 1), f"{status}\n{upgrade}"
    outcomes = json.loads((below.folder / "report.json").read_text())["outcomes"]
    assert {
        outcome["target"]
        for outcome in outcomes
        if outcome["status"] in ("failed", "not_provisioned", "skipped", "deferred")
    } == set(tenants)
    assert not below.leaks(), below.told()


def test_no_failing_revision_shows_it(made: Canary) -> None:
    places = Places.of(made)
    names = [*REVISIONS, *ENVIRONMENTS]
    tenants = {name: f'{{url: "{places.postgres}", schema: "c_{name}", alembic: {name}}}' for name in names}
    tenants["maria"] = f'{{url: "{places.mariadb}_2", alembic: raises-url}}'
    below = _project(made, "revisions", tenants)
    config = below.folder / "alembic.ini"
    for number, name in enumerate(names):
        scripts, prefix = f"chains/{name}", f"c{number}r"
        env = ENVIRONMENTS.get(name, "") + histories.ENV
        histories.write(below.folder, size=1, env=env, scripts=scripts, prefix=prefix)
        body = REVISION + REVISIONS.get(name, "pass")
        histories.write_revision(below.folder / scripts / "versions", f"{prefix}002", f"{prefix}001", "breaks", body)
        config.write_text(config.read_text() + f"\n[{name}]\nscript_location = %(here)s/{scripts}\n")

    done = below.run("orchestrate", "upgrade", "--all", "--keep-going", "--provision", "-v", "--report", "report.json")
    shown = below.run("orchestrate", "runs", "show", "-v", "-o", "json")
    below.run("orchestrate", "runs", "show", "--target", "prints", "-v")
    below.run("orchestrate", "upgrade", "-t", "group", "--executor", "inline", "-v")
    below.run("alembic", "-n", "note", "upgrade", "head")

    assert (done.exit_status, shown.exit_status) == (1, 0), f"{done}\n{shown}"
    outcomes = json.loads((below.folder / "report.json").read_text())["outcomes"]
    assert {outcome["target"] for outcome in outcomes if outcome["status"] in ("failed", "lost")} == set(tenants), (
        f"{done}"
    )
    assert not below.leaks(), below.told()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://app:${WRONG_PASSWORD}@127.0.0.1:1/x",
        "postgresql://{server}/x",
        "postgresql://app:{raw}@127.0.0.1/x",
        "mysql://app:${WRONG_PASSWORD}@127.0.0.1/x",
        "postgresql://app@127.0.0.1/x?password=${WRONG_PASSWORD}",
    ],
)
def test_no_ledger_out_of_reach_shows_it(made: Canary, address: str) -> None:
    raw = json.dumps(made.wrong, ensure_ascii=False)[1:-1]
    address = address.replace("{raw}", raw).replace("{server}", Places.of(made).postgres_server)
    below = _project(made, "ledger", {"acme": '{url: "sqlite:///file.db"}'}, more=f'ledger: "{address}"\n')

    done = below.run("orchestrate", "upgrade", "--all", "-v")
    from_variable = below.run(
        "orchestrate", "runs", "list", "-v", ORCHESTRATE_LEDGER=f"postgresql://a:{made.wrong}@h/x"
    )

    assert done.exit_status in (2, 70, 1), f"{done}"
    assert from_variable.exit_status in (2, 70, 1), f"{from_variable}"
    assert not below.leaks(), below.told()


def test_every_command_is_run() -> None:
    """A command that is added is added here as well."""
    run = {tuple(line.split()) for line in [*READING, *WRITING]}
    missing = [path for path in _paths(commands, ()) if not any(line[: len(path)] == path for line in run)]
    assert missing == []


def _paths(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from _paths(below, (*path, name))


def _project(made: Canary, name: str, tenants: dict[str, str], *, more: str = "") -> Canary:
    """A project of its own, in which something is wrong."""
    folder = made.folder.parent / f"{name}-{uuid.uuid4().hex[:6]}"
    histories.write(folder, size=1)
    for secret in ("secret.txt", "wrong.txt", "token.txt"):
        (folder / secret).write_bytes((made.folder / secret).read_bytes())
        (folder / secret).chmod(0o600)
    (folder / "file.db").touch()
    (folder / "directory.py").write_text(
        "import os\ndef tenants():\n    raise RuntimeError('no ' + os.environ['WHOLE_URL'])\n"
    )
    listed = "".join(f"  {tenant}: {keys}\n" for tenant, keys in tenants.items())
    (folder / "tenants.yaml").write_text(f"version: 1\n{AT_ONCE}tenants:\n{listed}{more}")
    (folder / "tenants.yaml").chmod(0o600)
    return dataclasses.replace(made, folder=folder, commands=[], seen=[], ledger=False)

"""What tenants.yaml means."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from orchestrator import registry
from orchestrator.errors import RegistryError
from orchestrator.plans import Retries
from orchestrator.strategy import Budget, Size
from orchestrator.tenants import PasswordCommand, State, Transaction
from tests.unit.registries import Folder, by_name


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_profiles_mix_kinds_of_databases_in_one_fleet(folder: Folder) -> None:
    targets = by_name(
        folder.load(
            """
defaults:
  url: "postgresql+psycopg://app:${DB_PASSWORD}@db.internal/saas"
  schema: "tenant_{tenant}"
  search_path: [extensions, public]
  role: migrator
  connect_args: {sslmode: verify-full}
  labels: {tier: standard}
  timeouts: {lock: 1s, statement: 15m}
profiles:
  maria: {url: "mysql+pymysql://app:${DB_PASSWORD}@maria1.internal/{tenant}", schema: null}
tenants:
  shared: {schema: public, shared: true}
  acme: {labels: {region: eu, tier: enterprise}, timeouts: {lock: 500ms}}
  globex: {profile: maria}
  initech:
    databases:
      core: {url: "sqlite:///var/initech.db", schema: null}
      analytics: {url: "postgresql://h:6543/analytics", alembic: analytics, schema: null}
""",
            {"DB_PASSWORD": "a@b/c%d#e?f:g é"},
        )
    )
    acme = targets["acme"]
    assert (acme.url.password, acme.schema, acme.search_path) == (
        "a@b/c%d#e?f:g é",
        "tenant_acme",
        ("extensions", "public"),
    )
    assert acme.labels == {"tier": "enterprise", "region": "eu"}
    assert (acme.timeouts.lock, acme.timeouts.statement, acme.timeouts.job) == (0.5, 900.0, 7200.0)
    assert targets["shared"].schema == "public"
    globex = targets["globex"]
    assert globex.location == "maria1.internal:3306/globex"
    # What was written for PostgreSQL means nothing to MariaDB or SQLite.
    assert (globex.search_path, globex.role, globex.connect_args) == ((), None, {})
    core = targets["initech/core"]
    assert core.url.database == str(folder.path / "var/initech.db")
    assert (core.search_path, core.role, core.after) == ((), None, ())
    analytics = targets["initech/analytics"]
    assert (analytics.section, analytics.server, analytics.after) == ("analytics", "h:6543", ("initech/core",))
    assert analytics.role == "migrator"


def test_tenants_are_kept_in_order_with_all_that_is_said_of_them(folder: Folder) -> None:
    loaded = folder.load(
        """
project: billing
environment: production
protected: true
defaults: {url: "sqlite:///{tenant}.db"}
tenants:
  zeta: {after: [alpha], transaction: revision}
  alpha:
  hooli: {state: quarantined, reason: "restoring a backup", owner: ops, until: 2026-12-01}
"""
    )
    assert (loaded.project, loaded.environment, loaded.protected) == ("billing", "production", True)
    assert [tenant.name for tenant in loaded.tenants] == ["zeta", "alpha", "hooli"]
    assert by_name(loaded)["zeta"].after == ("alpha",)
    assert by_name(loaded)["zeta"].transaction is Transaction.REVISION
    hooli = loaded.tenants[2]
    assert (hooli.state, hooli.reason, hooli.owner) == (State.QUARANTINED, "restoring a backup", "ops")
    assert hooli.until == datetime.date(2026, 12, 1)
    assert hooli.place == "tenants.yaml:10:3"


def test_defaults_of_the_file(folder: Folder) -> None:
    loaded = folder.load('tenants: {acme: {url: "sqlite:///a.db"}}')
    assert (loaded.project, loaded.environment, loaded.protected) == (folder.path.name, "default", False)
    assert loaded.ledger == f"sqlite:///{folder.path}/.orchestrate/ledger.db"
    assert loaded.strategies["default"].concurrency is None
    assert loaded.notes == ()


def test_databases_of_defaults_are_those_of_every_tenant(folder: Folder) -> None:
    targets = by_name(
        folder.load(
            """
defaults:
  databases:
    core: {url: "sqlite:///{tenant}-{database}.db"}
    analytics: {url: "sqlite:///{label.region}/{tenant}-{database}.db", alembic: analytics}
tenants:
  acme: {labels: {region: eu}, databases: {analytics: {version_table: mine}}}
  globex: {labels: {region: us}}
"""
        )
    )
    assert list(targets) == ["acme/core", "acme/analytics", "globex/core", "globex/analytics"]
    assert targets["acme/analytics"].url.database == str(folder.path / "eu/acme-analytics.db")
    assert targets["acme/analytics"].version_table == "mine"
    assert targets["globex/analytics"].version_table == "alembic_version"


def test_after_waits_for_every_database_of_another_tenant(folder: Folder) -> None:
    targets = by_name(
        folder.load(
            """
tenants:
  shared: {databases: {a: {url: "sqlite:///a"}, b: {url: "sqlite:///b"}}}
  acme: {after: [shared], databases: {c: {url: "sqlite:///c"}, d: {url: "sqlite:///d"}}}
"""
        )
    )
    assert targets["acme/c"].after == ("shared/a", "shared/b")
    assert targets["acme/d"].after == ("shared/a", "shared/b", "acme/c")


def test_null_unsets_what_is_inherited(folder: Folder) -> None:
    target = by_name(
        folder.load(
            """
defaults:
  url: "postgresql://db/{tenant}"
  role: migrator
  labels: {tier: standard, region: eu}
  timeouts: {lock: 9s}
tenants:
  acme: {role: null, labels: {tier: null}, timeouts: {lock: null}}
"""
        )
    )["acme"]
    assert (target.role, target.labels, target.timeouts.lock) == (None, {"region": "eu"}, 1.0)


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("<${A:-y}>", {}, "<y>"),
        ("<${A:-y}>", {"A": ""}, "<y>"),
        ("<${A}>", {"A": ""}, "<>"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("${file:secret}", {}, "s3cret"),
        ("{tenant}-{{tenant}}", {}, "acme-{tenant}"),
        ("{label.region}", {}, "eu"),
        ("a\nadmin: ${A}", {"A": "1\nb: 2"}, "a\nadmin: 1\nb: 2"),
    ],
)
def test_variables_and_placeholders(folder: Folder, written: str, environ: dict[str, str], expected: str) -> None:
    folder.write("s3cret\n", "secret")
    text = written.replace("\n", "\\n")
    loaded = folder.load(
        f'defaults: {{connect_args: {{x: "{text}"}}, labels: {{region: eu}}}}\ntenants: {{acme: {{url: "sqlite:///a"}}}}',
        environ,
    )
    assert loaded.targets[0].connect_args == {"x": expected}


def test_a_whole_url_may_be_a_variable(folder: Folder) -> None:
    target = folder.load("tenants: {acme: {url: '${URL}'}}", {"URL": "postgres://u:p%40@h/d"}).targets[0]
    assert (target.url.drivername, target.url.password, target.location) == ("postgresql+psycopg", "p@", "h:5432/d")


def test_variables_fill_every_part_of_a_url(folder: Folder) -> None:
    environ = {"U": "us er", "H": "db.example", "P": "6000", "D": "saas", "M": "require"}
    url = (
        folder.load("tenants: {acme: {url: 'postgresql://${U}@${H}:${P}/${D}_eu?sslmode=${M}'}}", environ)
        .targets[0]
        .url
    )
    assert (url.username, url.host, url.port, url.database) == ("us er", "db.example", 6000, "saas_eu")
    assert url.query == {"sslmode": "require"}


def test_variables_fill_scalars_that_are_no_text(folder: Folder) -> None:
    loaded = folder.load(
        """
servers: {"h:5432": {concurrency: "${N}"}}
defaults: {timeouts: {lock: "${T}"}}
tenants: {acme: {url: "postgresql://h/d"}}
""",
        {"N": "3", "T": "2s"},
    )
    assert loaded.server_caps == {"h:5432": 3}
    assert loaded.targets[0].timeouts.lock == 2.0


def test_passwords_by_text_and_by_command(folder: Folder) -> None:
    targets = by_name(
        folder.load(
            """
defaults: {url: "postgresql://app@db/{tenant}", password: {command: [token, "{tenant}"], ttl: 10m}}
tenants:
  acme:
  globex: {password: "${PW}"}
""",
            {"PW": "x@/"},
        )
    )
    assert targets["acme"].password == PasswordCommand(command=("token", "acme"), ttl=600.0)
    assert (targets["globex"].password, targets["globex"].url.password) == (None, "x@/")


def test_an_asynchronous_driver_is_replaced_and_said_once(folder: Folder) -> None:
    loaded = folder.load('defaults: {url: "postgresql+asyncpg://h/{tenant}"}\ntenants: {a: , b: }')
    assert {target.url.drivername for target in loaded.targets} == {"postgresql+psycopg"}
    assert loaded.notes == ("driver asyncpg is asynchronous; its synchronous sibling is used instead",)


def test_server_caps_go_by_the_names_that_targets_have(folder: Folder) -> None:
    loaded = folder.load(
        """
servers:
  "db.internal:5432": {concurrency: 4}
  "localhost:5432": {concurrency: 2}
  "typo:5432": {concurrency: 2}
tenants:
  a: {url: "postgresql://DB.internal/a"}
  b: {url: "postgresql://127.0.0.1/b"}
"""
    )
    assert (loaded.server_caps["DB.internal:5432"], loaded.server_caps["127.0.0.1:5432"]) == (4, 2)
    assert loaded.notes == ("servers: `typo:5432` is no server of any tenant; write it as host:port",)


def test_a_sqlite_ledger_in_ci_is_said(folder: Folder) -> None:
    assert "PostgreSQL" in folder.load("tenants: {}", {"CI": "true"}).notes[0]
    text = 'tenants: {}\nledger: "postgresql://u:${PW}@db/ledger"'
    loaded = folder.load(text, {"CI": "true", "PW": "p@ss"})
    assert loaded.notes == ()
    assert loaded.ledger == "postgresql+psycopg://u:p%40ss@db/ledger"
    assert "p%40ss" not in repr(loaded)
    assert folder.load(text, {"PW": "x"}, ledger="sqlite:////tmp/l.db").ledger == "sqlite:////tmp/l.db"


def test_strategies(folder: Folder) -> None:
    careful = folder.load(
        """
strategies:
  careful:
    max_failures: 2%
    concurrency: 12
    deadline: 2h
    freeze: ["2026-12-24"]
    waves:
      - {name: canary, size: 1, strict: true, window: "Sat 02:00-04:00 Europe/Berlin"}
      - {name: internal, selector: "tier=internal", pause: until-continued, gate: {command: ["./smoke"]}}
      - {name: early, size: 10%, max_failures: 3, gate: {sql: "SELECT 1", on: each, timeout: 30s, interval: 5s}}
      - {name: rest, growth: exponential, order_by: region, concurrency: 4}
"""
    ).strategies["careful"]
    assert (careful.concurrency, careful.max_failures) == (12, Budget(percent=2.0))
    assert [wave.name for wave in careful.waves] == ["canary", "internal", "early", "rest"]
    assert careful.waves[2].max_failures == Budget(count=3)
    assert careful.waves[1].pause == "until-continued"
    assert careful.deadline == 7200.0


def test_what_one_strategy_says_may_be_written_in_several_ways(folder: Folder) -> None:
    strategy = folder.load(
        """
strategies:
  careful:
    window: [Sat, "22:00-06:00 ${ZONE}"]
    freeze: [2026-12-24, 2026-12-27/2027-01-03]
    sweep: true
    waves:
      - {name: half, size: "${SHARE}", pause: "${PAUSE:-1h}"}
      - {name: eu, selector: region=eu, size: 60%}
      - {name: ramp, growth: exponential, gate: {http: "https://h/${PLACE}", status: 204, headers: {A: "Bearer ${T}"}}}
  quick: {freeze: 2026-12-24}
""",
        {"ZONE": "Europe/Berlin", "SHARE": "50%", "PLACE": "health?key=hunter22", "T": "s3cr3t-t0k3n"},
    ).strategies
    careful = strategy["careful"]
    assert careful.window == ("Sat", "22:00-06:00 Europe/Berlin")
    assert (careful.freeze, careful.sweep) == (("2026-12-24", "2026-12-27/2027-01-03"), True)
    assert (careful.waves[0].size, careful.waves[0].pause) == (Size(percent=50.0), 3600.0)
    gate = careful.waves[2].gate
    assert gate is not None
    assert (gate.http, gate.status, gate.headers) == ("https://h/${PLACE}", 204, {"A": "Bearer ${T}"})
    assert strategy["quick"].freeze == ("2026-12-24",)


def test_windows_of_tenants(folder: Folder) -> None:
    rows = [{"name": "row", "window": ["Sun", "Mon 01:00-02:00"]}, {"name": "bare"}]
    folder.write(f"def everyone():\n    return {rows!r}\n", "windows_of_rows.py")
    loaded = folder.load(
        """
defaults: {url: "sqlite:///{tenant}.db", window: "02:00-04:00 {label.zone}", labels: {zone: UTC}}
profiles:
  at_night: {window: ["Mon-Fri 22:00-24:00", "${EXTRA}"]}
sources:
  - {type: python, call: "windows_of_rows:everyone"}
tenants:
  berlin: {labels: {zone: Europe/Berlin}}
  night: {profile: at_night}
  own: {window: Sat}
  always: {window: null}
  ever: {window: []}
""",
        {"EXTRA": "Sat"},
    )
    assert {tenant.name: tenant.window for tenant in loaded.tenants} == {
        "berlin": ("02:00-04:00 Europe/Berlin",),
        "night": ("Mon-Fri 22:00-24:00", "Sat"),
        "own": ("Sat",),
        "always": (),
        "ever": (),
        "row": ("Sun", "Mon 01:00-02:00"),
        "bare": ("02:00-04:00 UTC",),
    }


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{}", Retries()),
        ("", Retries()),
        ("{busy: [90s, 1h]}", Retries(busy=(90.0, 3600.0))),
        ("{busy: [], server: [], lost: 0}", Retries(busy=(), server=(), lost=0)),
        ('{server: ["${SECONDS_UP:-500ms}"], lost: 5}', Retries(server=(0.5,), lost=5)),
    ],
)
def test_retries(folder: Folder, written: str, read: Retries) -> None:
    strategy = folder.load(f"strategies: {{s: {{concurrency: 3, retries: {written}}}}}").strategies["s"]
    assert strategy.retries == read
    assert (strategy.strict, strategy.window, strategy.deadline) == (False, (), None)
    assert folder.load("strategies: {s: {concurrency: 3}}").strategies["s"].retries == Retries()


def test_ten_thousand_tenants(folder: Folder) -> None:
    tenants = "".join(f"  t{number}: {{labels: {{region: eu}}}}\n" for number in range(10_000))
    loaded = folder.load(f'defaults: {{url: "postgresql://h/saas", schema: "tenant_{{tenant}}"}}\ntenants:\n{tenants}')
    assert len({target.schema for target in loaded.targets}) == 10_000


def test_what_is_not_registered_is_found_by_template(folder: Folder) -> None:
    for name in ("acme", "globex", "stray"):
        folder.write("", f"var/{name}.db")
    folder.write("", "var/notes.txt")
    loaded = folder.load('defaults: {url: "sqlite:///var/{tenant}.db"}\ntenants: {acme: , globex: }')
    assert [place.endswith("/var/stray.db") for place in registry.unregistered(loaded)] == [True]


@pytest.mark.parametrize(
    "settings",
    [
        'connect_args: {application_name: "migrate-{tenant}"}',
        'connect_args: {options: {name: "{tenant}"}}',
        'connect_args: {application_name: "${NOT_SET}"}',
        'connect_args: {application_name: "${file:nope.key}"}',
        'password: {command: [get, "{tenant}"]}',
        'password: {command: [get, "${NOT_SET}"]}',
    ],
)
def test_what_differs_by_tenant_or_is_not_there_stops_nobody(folder: Folder, settings: str) -> None:
    loaded = folder.load(
        "profiles:\n"
        f'  each: {{url: "postgresql://app@127.0.0.1:1/{{tenant}}", {settings}}}\n'
        "tenants:\n"
        '  acme: {url: "sqlite:///acme.db"}\n'
    )
    assert [target.name for target in loaded.targets] == ["acme"]
    assert registry.unregistered(loaded) == []


def test_arguments_and_a_password_for_all_lead_to_what_is_not_registered(folder: Folder) -> None:
    loaded = folder.load(
        'defaults: {url: "postgresql://app@127.0.0.1:1/{tenant}",'
        ' connect_args: {application_name: "by {{${WHO}}}"}, password: {command: [get, "${WHO}"]}}\n'
        "tenants: {acme: }",
        {"WHO": "somebody"},
    )
    (pattern,) = loaded.patterns
    assert pattern.connect_args["application_name"] == "by {somebody}"
    assert pattern.password is not None
    assert pattern.password.command == ("get", "somebody")


def test_whose_runs_they_are_is_known_without_the_fleet(folder: Folder) -> None:
    text = (
        "version: 1\nproject: billing\nenvironment: '${STAGE}'\nledger: 'sqlite:///runs.db'\n"
        "defaults: {url: 'postgresql://u:${NOT_SET_HERE}@h/{tenant}'}\ntenants: {acme: {labls: {}}}\n"
        "sources: [{type: command, run: ['false']}]\n"
    )
    folder.write(text)
    identity = registry.identify(folder.settings(), environ={"STAGE": "production"})
    assert (identity.project, identity.environment) == ("billing", "production")
    assert identity.ledger == f"sqlite:///{folder.path}/runs.db"
    with pytest.raises(RegistryError, match=r"tenants.yaml:3:14: variable `STAGE` is not set"):
        registry.identify(folder.settings(), environ={})

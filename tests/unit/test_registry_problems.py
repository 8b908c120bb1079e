"""Every mistake in tenants.yaml: refused with its place, its cause and its remedy, all in one go."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import registry
from orchestrator.errors import Problem, RegistryError
from tests.unit.registries import Folder

URL = 'url: "sqlite:///{}.db"'
TEMPLATE = 'url: "sqlite:///{tenant}.db"'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def tenants(*lines: str) -> str:
    return "tenants:\n" + "\n".join(f"  {line}" for line in lines)


def waves(text: str) -> str:
    return f"strategies: {{s: {{waves: [{text}]}}}}"


def gate(text: str) -> str:
    return waves(f"{{name: a, gate: {text}}}")


BROKEN = [
    # --- keys and types
    ("defaults: {labls: {a: b}}", "2:12", "unknown key `labls`", "did you mean `labels`?"),
    (tenants("acme: {timeouts: {lok: 1s}}"), "3:21", "unknown key `lok`", "did you mean `lock`?"),
    ("sources: [{type: sql, url: x, qeury: y}]", "2:31", "unknown key `qeury`", "did you mean `query`?"),
    ("sources: [{type: sqll}]", "2:11", "unknown type `sqll` of source", "did you mean `sql`?"),
    ("sources: [{url: x}]", "2:11", "a source without `type`", "add `type:`"),
    ("strategies: {s: {waves: [{name: a, siez: 1}]}}", "2:36", "unknown key `siez`", "did you mean `size`?"),
    ("protected: yes", "2:12", "`yes` is read as true or false by YAML", "write true or false"),
    ("tenants: [acme]", "2:10", "`tenants` must be a mapping of keys", "write it like"),
    (tenants("acme: {state: actve}"), "3:17", "`state` cannot be `actve`", "did you mean `active`?"),
    (tenants("acme: {until: soon}"), "3:17", "`until`: not a date", "write it like 2026-12-01"),
    (tenants(f"acme: {{{URL}, reason: restoring}}"), "3:42", "`reason` is about a state, and there is none", "`state:"),
    (tenants(f"acme: {{{URL}, until: 2026-12-01}}"), "3:41", "`until` is about a state, and there is none", "is over"),
    (tenants("acme: {timeouts: {lock: 1 parsec}}"), "3:27", "`lock`: not a duration", "write it like 500ms"),
    (tenants("acme: {timeouts: {lock: 0}}"), "3:27", "`lock`: a duration is more than nothing", "10s"),
    ('servers: {"h:1": {concurrency: 0}}', "2:32", "`concurrency`: must be at least 1", ""),
    ("strategies: {s: {max_failures: many}}", "2:32", "`max_failures`: not a number of failures", "3 or 2%"),
    ("strategies: {s: {concurrency: fast}}", "2:31", "`concurrency`: not a number of jobs", "8, or auto"),
    ("strategies: {s: {retries: {busi: []}}}", "2:28", "unknown key `busi`", "did you mean `busy`?"),
    ("strategies: {s: {retries: {busy: [soon]}}}", "2:35", "not a duration", "write it like 500ms"),
    ("strategies: {s: {retries: {server: 5s}}}", "2:36", "`server` must be a list", ""),
    ("strategies: {s: {retries: {lost: -1}}}", "2:34", "`lost`: not a whole number", "8"),
    ("strategies: {s: {waves: [{name: a, size: 0%}]}}", "2:42", "`size`: not a size", "10 or 10%"),
    ("strategies: {s: {waves: [{name: a, selector: 'a==='}]}}", "2:46", "`selector`: label selector", ""),
    # --- waves
    (waves("{name: a}, {name: b}"), "2:26", "takes the rest, but others follow", "`size`"),
    (waves("{name: a, growth: linear}, {name: b}"), "2:44", "`a` grows until it has all", "put it last"),
    (waves("{name: a, size: 2%, growth: linear}"), "2:42", "begin with a number of tenants", "`size: 10`"),
    (waves("{name: a, growth: fast}"), "2:44", "`growth` cannot be `fast`", "exponential or linear"),
    (waves("{name: a, size: 1}, {name: a}"), "2:53", "two waves are called `a`", "rename one"),
    (
        waves("{name: a-7, size: 1}, {name: a, growth: linear}"),
        "2:55",
        "wave `a` grows into `a-1`, `a-2`",
        "rename one",
    ),
    (
        waves("{name: a, selector: x=y, growth: linear}, {name: a-1}"),
        "2:75",
        "and another is `a-1`",
        "rename one",
    ),
    (waves("{name: a, size: 60%}, {name: b, size: 40.5%}"), "2:64", "more than 100 % of the tenants", "lower one"),
    (
        waves("{name: a, size: 60%, selector: x=y}, {name: b, size: 60%, selector: x=y}"),
        "2:79",
        "more than 100 % of `x=y`",
        "lower one",
    ),
    (waves("{name: a, order_by: '?'}"), "2:46", "`order_by` is not written as it should be", "reference"),
    (waves("{name: a, pause: soon}"), "2:43", "`pause`: not a pause", "10m, or until-continued"),
    # --- windows and freezes
    (tenants(f"acme: {{{URL}, window: 'Sat 2-4'}}"), "3:42", "`window`: `Sat 2-4` is no window", "write it like"),
    (
        tenants(f"acme: {{{URL}, window: ['Sat', '02:00-04:00 Europe/Berln']}}"),
        "3:50",
        "unknown time zone `Europe/Berln`",
        "`Europe/Berlin`",
    ),
    (tenants(f"acme: {{{URL}, window: '${{HOURS}}'}}"), "3:42", "variable `HOURS` is not set", "export HOURS"),
    (
        f"defaults: {{{TEMPLATE}, window: '02:00-04:00 {{label.zone}}'}}\n" + tenants("acme: {labels: {zone: Moon}}"),
        "2:50",
        "tenant `acme`: `window`: unknown time zone `Moon`",
        "write it like",
    ),
    (f"defaults: {{{TEMPLATE}, window: Sunday 8}}\n" + tenants("a:", "b:"), "2:50", "`Sunday 8` is no window", "write"),
    ("strategies: {s: {window: 1:30}}", "2:26", "`1:30` is read as a number by YAML", "quote it"),
    ("strategies: {s: {window: '02:00-02:00'}}", "2:26", "`window`: `02:00-02:00` begins when it ends", "00:00-24:00"),
    (waves("{name: a, window: [Sat, Caturday]}"), "2:50", "`window`: `Caturday` is no window", "write it like"),
    ("strategies: {s: {freeze: [Christmas]}}", "2:27", "`freeze`: `Christmas` is no day", "2026-12-24"),
    ("strategies: {s: {freeze: 2027-01-03/2026-12-20}}", "2:26", "ends before it begins", "2026-12-24"),
    ("strategies: {s: {freeze: ['${HOLIDAYS}']}}", "2:27", "variable `HOLIDAYS` is not set", "export HOLIDAYS"),
    # --- gates
    (gate("{}"), "2:42", "a gate is one of", "keep one"),
    (gate("{command: [x], http: 'https://h/'}"), "2:42", "a gate is one of", "keep one"),
    (gate("{sql: SELECT 1}"), "2:48", "`sql` without a database", "`on: each`"),
    (gate("{sql: SELECT 1, on: each, url: 'sqlite:///x'}"), "2:73", "exclude each other", "keep one"),
    (gate("{sql: SELECT 1, on: 'postgresql://a:b@h/d'}"), "2:62", "`on`: only `each` can stand here", "under `url`"),
    (gate("{sql: SELECT 1, url: 'oracle://h/d'}"), "2:63", "unknown kind of database `oracle`", "postgresql"),
    (gate("{sql: SELECT 1, url: '${ERRORS_URL}'}"), "2:63", "variable `ERRORS_URL` is not set", "export ERRORS_URL"),
    (gate("{command: [x], on: each}"), "2:61", "`on` belongs to a gate with `sql`", "remove it"),
    (gate("{command: [x], status: 204}"), "2:65", "`status` belongs to a gate with `http`", "remove it"),
    (gate("{sql: SELECT 1, on: each, path: a.b}"), "2:74", "`path` belongs to a gate with `http`", "remove it"),
    (gate("{command: [x, '${TOKEN}']}"), "2:56", "variable `TOKEN` is not set", "export TOKEN"),
    (gate("{command: [x, '{tenant}']}"), "2:56", "placeholder `{tenant}` outside `defaults`", "write the name itself"),
    (gate("{command: []}"), "2:52", "`command` must not be empty", "name at least one"),
    (gate("{http: 'h.internal/health'}"), "2:49", "the address is no HTTP URL", "https://host/path"),
    (gate("{http: 'https://u:secret@h/'}"), "2:49", "the address holds a user", "`Authorization`"),
    (gate("{http: 'https://h/', status: 99}"), "2:71", "`status`: not a status of HTTP", "204"),
    (gate("{http: 'https://h/', path: checks..ok}"), "2:69", "`path` is no path into JSON", "checks.0.ok"),
    (gate("{http: 'https://h/', headers: {X: '${TOKEN}'}}"), "2:76", "variable `TOKEN` is not set", "export TOKEN"),
    (gate("{command: [x], timeout: soon}"), "2:66", "`timeout`: not a duration", "500ms"),
    # --- YAML
    ("tenants: {a: {}\n", "3:1", "not valid YAML", "brackets"),
    ("project: a\nproject: b", "3:1", "duplicate key `project`, first written in line 2", "keep one"),
    (tenants(f"acme: {{{URL}}}", f"acme: {{{URL}}}"), "4:3", "duplicate key `acme`, first written in line 3", ""),
    ("defaults: &d {role: x}", "2:11", "anchor `&d`", "remove it"),
    (
        tenants("acme: {url: 'postgresql://h/d', password: 12}"),
        "3:45",
        "`password` must be text, or a mapping",
        "quote",
    ),
    (tenants("acme: {url: 'postgresql://h/d', password: 012}"), "3:45", "`password` is read as a number", "quote it"),
    (tenants("acme: {url: 'postgresql://h/d', password: ''}"), "3:45", "`password` must not be empty", "`null`"),
    ("project: *d", "2:10", "alias `*d`", "repeat the value"),
    ("project: !!python/object/apply:os.system x", "2:10", "tag `!!python/object/apply:os.system`", "remove it"),
    ("project: !x y", "2:10", "tag `!x`", "remove it"),
    ("project: !!str 12", "2:10", "tag `!!str`", "quote"),
    ("defaults: {<<: {role: x}}", "2:12", "merge keys", "repeat"),
    ("--- \nversion: 1", "2:1", "a second YAML document", "keep one"),
    ("project: " + "[" * 60 + "]" * 60, "2:49", "nested too deep", "at most"),
    ("? [a, b]\n: c", "2:3", "a mapping or list is no key", "write a name"),
    # --- what YAML 1.1 misreads
    (tenants(f"no: {{{URL}}}"), "3:3", "`no` is read as true or false by YAML", 'quote it: "no"'),
    (tenants(f"012: {{{URL}}}"), "3:3", "`012` is read as a number by YAML", 'quote it: "012"'),
    (tenants(f"2026-01-01: {{{URL}}}"), "3:3", "`2026-01-01` is read as a date by YAML", "quote it"),
    (tenants(f"42: {{{URL}}}"), "3:3", "`42` is read as a number", "quote it"),
    (tenants(f"null: {{{URL}}}"), "3:3", "`null` is read as", "quote it"),
    (tenants("acme: {labels: {region: no}}"), "3:27", "`no` is read as true or false by YAML", 'quote it: "no"'),
    (tenants("acme: {labels: {shard: 012}}"), "3:26", "`012` is read as a number by YAML", 'quote it: "012"'),
    (tenants("acme: {labels: {shard: 12}}"), "3:26", "`shard` must be text, and `12` is not", 'quote it: "12"'),
    (tenants("acme: {labels: {at: 1:30}}"), "3:23", "`1:30` is read as a number by YAML", 'quote it: "1:30"'),
    (tenants("acme: {schema: 1_000}"), "3:18", "`1_000` is read as a number by YAML", "quote it"),
    (tenants("acme: {after: [off]}"), "3:18", "`off` is read as true or false by YAML", "quote it"),
    (tenants("acme: {connect_args: {a: yes}}"), "3:28", "`a`: it is read as true or false", "quote it"),
    # --- names
    (tenants('"a/b": {}'), "3:3", "`a/b` cannot be a name here", "letters"),
    (tenants('"../x": {}'), "3:3", "`../x` cannot be a name here", "letters"),
    (
        tenants(f"Acme: {{{URL.format('a')}}}", f"acme: {{{URL.format('b')}}}"),
        "4:3",
        "`Acme` and `acme` differ",
        "rename",
    ),
    (tenants("acme: {databases: {A: {url: 'sqlite:///a'}, a: {url: 'sqlite:///b'}}}"), "3:47", "differ in upper", ""),
    # --- variables and placeholders
    (tenants("acme: {url: '${NOPE}'}"), "3:15", "variable `NOPE` is not set", "export NOPE"),
    (tenants("acme: {url: '${file:nope}'}"), "3:15", "file `nope` cannot be read: No such file", "create it"),
    (tenants("acme: {url: '${no good}'}"), "3:15", "`${…}` holds no variable", "write ${NAME}"),
    ("defaults: {url: 'sqlite:///{tennant}'}\n" + tenants("a:"), "2:17", "placeholder `{tennant}`", "`tenant`"),
    ("defaults: {url: 'sqlite:///{database}'}\n" + tenants("a:"), "2:17", "has no `databases`", "{tenant}"),
    ("defaults: {url: 'sqlite:///{label.x}'}\n" + tenants("a:"), "2:17", "tenant `a` has no such label", ""),
    (
        "defaults: {url: 'sqlite:///{label.x}'}\n" + tenants("a: {labels: {x: ../../etc}}"),
        "2:17",
        "`{label.x}` cannot be part",
        "letters",
    ),
    (tenants("acme: {url: 'sqlite:///{tenant}'}"), "3:15", "placeholder `{tenant}` outside `defaults`", ""),
    ("project: '${NOPE}'", "2:10", "variable `NOPE` is not set", ""),
    ("ledger: '${NOPE}'", "2:9", "variable `NOPE` is not set", ""),
    # --- URLs
    (tenants("acme: {}"), "3:3", "tenant `acme` has no `url`", "add one"),
    (tenants("acme: {databases: {core: {}}}"), "3:22", "database `core` of tenant `acme` has no `url`", ""),
    (tenants("acme: {url: nonsense}"), "3:15", "not a database URL", "driver://"),
    (tenants("acme: {url: 'oracle://h/d'}"), "3:15", "unknown kind of database `oracle`", "known are"),
    (tenants("acme: {url: 'postgresql+nope://h/d'}"), "3:15", "no such driver", "postgresql://"),
    (tenants("acme: {url: 'postgresql://u:p@x@h/d'}"), "3:15", "an @ stands in the host", "%40"),
    (tenants("acme: {url: 'postgresql://h'}"), "3:15", "names no database", "/DATABASE"),
    (tenants("acme: {url: 'postgresql://h:x/d'}"), "3:15", "not a database URL", ""),
    (tenants("acme: {url: 'postgresql://h:99999/d'}"), "3:15", "the port", "65535"),
    (tenants("acme: {url: 'mysql://h/d?password=x'}"), "3:15", "secret in its query string (`password`)", "`password`"),
    (tenants("acme: {url: 'postgresql://h/d?sslpassword=x'}"), "3:15", "secret in its query string", ""),
    (tenants("acme: {url: 'postgresql://h/d?auth_token=x'}"), "3:15", "secret in its query string", ""),
    (tenants("acme: {url: 'sqlite://'}"), "3:15", "in memory", "sqlite:///path"),
    (tenants("acme: {url: 'sqlite:///:memory:'}"), "3:15", "in memory", "sqlite:///path"),
    (tenants("acme: {url: 'sqlite:///file:x?uri=true'}"), "3:15", "`file:` URI", "plain path"),
    (tenants("acme: {url: 'postgresql:///d?port=1,2'}"), "3:15", "the port", "65535"),
    (tenants("acme: {url: 'postgresql://h/d?host=x'}"), "3:15", "`host` in the query string", "//host:port"),
    (tenants("acme: {url: 'postgresql://h/d?dbname=x'}"), "3:15", "`dbname` in the query string", "//host:port"),
    (tenants("acme: {url: 'postgresql://h/d', connect_args: {host: x}}"), "3:49", "`host` in `connect_args`", "`url`"),
    # --- identifiers
    (tenants("acme: {url: 'postgresql://h/d', schema: 'a b'}"), "3:43", "schema `a b` is not allowed", "letters"),
    (tenants("acme: {url: 'postgresql://h/d', schema: 'x\"; DROP'}"), "3:43", "is not allowed", "letters"),
    (tenants('acme: {url: "postgresql://h/d", schema: "a\\0b"}'), "3:43", "schema `a\\x00b` is not allowed", ""),
    (tenants(f"acme: {{url: 'postgresql://h/d', schema: {'s' * 64}}}"), "3:43", "is 64 bytes long", "63"),
    (tenants("acme: {url: 'postgresql://h/d', schema: pg_x}"), "3:43", "belongs to PostgreSQL", ""),
    (tenants("acme: {url: 'postgresql://h/d', schema: Information_Schema}"), "3:43", "belongs to PostgreSQL", ""),
    (tenants("acme: {url: 'postgresql://h/d', version_table: 'v;'}"), "3:50", "version_table `v;` is not allowed", ""),
    (tenants("acme: {url: 'postgresql://h/d', role: 'r\"'}"), "3:41", 'role `r"` is not allowed', ""),
    (tenants("acme: {url: 'postgresql://h/d', search_path: ['$user']}"), "3:48", "schema `$user` is not allowed", ""),
    (tenants(f"acme: {{url: 'mysql://h/{'d' * 65}'}}"), "3:15", "is 65 characters long", "64"),
    (tenants("acme: {url: 'mysql://h/mysql'}"), "3:15", "belongs to the server", ""),
    (tenants("acme: {url: 'mysql://h/d', schema: x}"), "3:38", "`schema` on MariaDB or MySQL", "schema: null"),
    (tenants("acme: {url: 'sqlite:///d', role: x}"), "3:36", "`role` on SQLite", "role: null"),
    (
        "defaults: {url: 'postgresql://h/d', schema: '{tenant}'}\n" + tenants("public: {}"),
        "2:45",
        "schema `public` comes out of a template",
        "shared: true",
    ),
    # --- between tenants
    (tenants("a: {url: 'sqlite:///x'}", "b: {url: 'sqlite:///./y/../x'}"), "4:3", "`a`, `b` are at one place", "own"),
    (
        tenants("a: {url: 'postgresql://localhost/d'}", "b: {url: 'postgresql://127.0.0.1:5432/d', schema: public}"),
        "4:3",
        "`a`, `b` are at one place: localhost:5432/d",
        "",
    ),
    (
        "defaults: {url: 'postgresql://h/d', schema: '{tenant}', version_table_schema: ops}\n" + tenants("a:", "b:"),
        "5:3",
        "`a`, `b` have one version table, `alembic_version`",
        "version_table",
    ),
    (tenants("a: {url: 'sqlite:///a', after: [bb]}", "b: {url: 'sqlite:///b'}"), "3:35", "names `bb`, which is no", ""),
    (
        tenants("a: {url: 'sqlite:///a', after: [b]}", "b: {url: 'sqlite:///b', after: [a]}"),
        "",
        "`after` goes in a circle",
        "remove one",
    ),
    (tenants("a: {url: 'sqlite:///a', profile: eu}"), "3:36", "unknown profile `eu`", "add it under `profiles`"),
    (tenants("a: {url: 'sqlite:///a', alembic: analitics}"), "3:36", "no section `analitics`", "`analytics`"),
]


@pytest.mark.parametrize(("text", "place", "cause", "remedy"), BROKEN, ids=[f"{b[2][:40]}" for b in BROKEN])
def test_one_mistake_is_one_problem(folder: Folder, text: str, place: str, cause: str, remedy: str) -> None:
    problems = folder.problems(text)
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"tenants.yaml:{place}" + (": " if place else ""))
    assert cause in problems[0]
    assert remedy in problems[0].partition("; ")[2]


def test_all_mistakes_come_in_one_go_and_in_file_order(folder: Folder) -> None:
    problems = folder.problems(
        """
servers: {"h:5432": {concurency: 4}}
tenants:
  acme: {labls: {a: b}}
  globex: {url: "sqlite://"}
  hooli: {url: "sqlite:///h.db", after: [nobody], profile: eu}
sources:
  - {type: command}
strategies: {s: {max_failures: x}}
"""
    )
    assert [problem.split(":")[1] for problem in problems] == ["3", "5", "6", "7", "9", "10"]
    assert "nobody" not in "".join(problems)  # a source that was not read might know it


def test_who_is_no_tenant_is_told_beside_mistakes_elsewhere(folder: Folder) -> None:
    problems = folder.problems(f"{tenants('a: {url: sqlite:///a.db, after: [nobody]}')}\n{waves('{name: a, siez: 1}')}")
    assert [problem.split(":")[1] for problem in problems] == ["3", "4"]
    unread = folder.problems(f"{tenants('a: {url: sqlite:///a.db, after: [nobody]}', 'b: {labls: {}}')}")
    assert "nobody" not in "".join(unread)


def test_a_mistake_that_tenants_inherit_is_told_a_few_times_only(folder: Folder) -> None:
    problems = folder.problems(
        "defaults: {url: 'postgresql://h/d', schema: '{tenant}-{label.x}'}\n"
        + tenants(*(f"t{number}:" for number in range(50)))
    )
    assert len(problems) == 11
    assert "40 more tenants are wrong here" in "".join(problems)
    missing = folder.problems("defaults: {url: '${NOPE}'}\n" + tenants(*(f"t{number}:" for number in range(50))))
    assert len(missing) == 1


def test_a_fleet_that_is_wrong_throughout_is_told_in_a_few_lines() -> None:
    rows = [Problem(place="tenants.yaml:3:5", text=f"row {number}") for number in range(10_000)]
    tenants_of_file = [Problem(place=f"tenants.yaml:{number}:3", text="no url") for number in range(10, 1010)]
    error = RegistryError([*rows, *tenants_of_file])
    lines = str(error).splitlines()
    assert lines[9:11] == ["tenants.yaml:3:5: row 9", "tenants.yaml:10:3: no url"]
    assert len(lines) == 51
    assert lines[-1] == "and 10,950 more; mend these first"
    assert len(error.problems) == 11_000


@pytest.mark.parametrize(
    "content", [b"", b"- a\n", b"version: 2\ntenants: {}\n", b"\xff\xfe\x00", b"a: \x01\n", b"\t- x"]
)
def test_files_that_are_no_registry(folder: Folder, content: bytes) -> None:
    folder.settings  # noqa: B018
    folder.write("")
    (folder.path / "tenants.yaml").write_bytes(content)
    with pytest.raises(RegistryError) as caught:
        registry.load(folder.settings(), environ={})
    assert all(problem.place.startswith("tenants.yaml") for problem in caught.value.problems)


def test_a_file_that_is_too_large(folder: Folder) -> None:
    with (folder.path / "tenants.yaml").open("wb") as file:
        file.truncate(33 * 1024 * 1024)
    with pytest.raises(RegistryError, match="larger than 32 MiB"):
        registry.load(folder.settings(), environ={})


def test_an_alias_bomb_is_refused_before_it_is_walked(folder: Folder) -> None:
    lines = ["a: &a [x, x]"] + [
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(9)
    ]
    problems = folder.problems("\n".join(lines))
    assert any("alias `*a`" in problem for problem in problems)


def test_a_version_in_quotes_is_told_to_lose_them(folder: Folder) -> None:
    folder.write("version: '1'\n")
    with pytest.raises(RegistryError, match="`version` cannot be text; write 1 without quotes"):
        registry.load(folder.settings(), environ={})


def test_aliases_come_in_one_go_with_other_mistakes_and_make_none(folder: Folder) -> None:
    problems = folder.problems(
        """
defaults: {url: &place "sqlite:///{tenant}.db"}
profiles: {eu: &eu {url: *place, labels: {region: eu}}}
tenants:
  acme: {profile: eu, labls: {a: b}}
  globex: {url: "sqlite:///globex.db", labels: &labels {tier: free}}
  hooli: {url: "sqlite:///hooli.db", labels: *labels}
  acme: {}
"""
    )
    assert [problem.split(":", 3)[1] for problem in problems] == ["3", "4", "4", "6", "7", "8", "9"]


def test_what_was_found_before_the_text_breaks_off_is_told_as_well(folder: Folder) -> None:
    problems = folder.problems("tenants:\n  acme: !!map {}\n  acme: {}\n  globex: {a: [}\n")
    assert [problem.split(":", 3)[1] for problem in problems] == ["3", "4", "5"]


SECRET = "c4n@ry/S3cr%t#?:é"


@pytest.mark.parametrize(
    "entry",
    [
        "{url: '${PW}'}",
        "{url: 'postgresql://u:${PW}@h'}",
        "{url: 'postgresql://u:p@h:${PW}/d'}",
        "{url: 'postgresql://u:p@h/${PW}'}",
        "{url: 'postgresql://u:p@${PW}/d'}",
        "{url: '${PW}://h/d'}",
        "{url: 'postgresql://h/d', schema: '${PW}'}",
        "{url: 'postgresql://h/d', role: '${PW}'}",
        "{url: 'postgresql://h/d', search_path: ['${PW}']}",
        "{url: 'postgresql://h/d', version_table: '${PW}'}",
        "{url: 'postgresql://h/d', timeouts: {lock: '${PW}'}}",
        "{url: 'postgresql://h/d', alembic: '${PW}', profile: x}",
        "{url: 'postgresql://u:c4n@ry/S3cr%t#?:é@h/d'}",
        "{url: 'postgresql://c4n@ry/S3cr%t#?:é'}",
        "{url: 'postgresql://h/d?password=c4n@ry/S3cr%t#?:é'}",
        "{url: 'c4n@ry/S3cr%t#?:é'}",
        "{url: 'postgresql://h/d', password: 0431543}",
        "{url: 'postgresql://h/d', password: 1431543}",
        "{url: 'postgresql://h/d', password: [1431543]}",
        "{url: 'postgresql://h/d', connect_args: {sslpassword: 0431543}}",
    ],
)
def test_no_problem_shows_a_secret(folder: Folder, entry: str) -> None:
    shown = "\n".join(folder.problems(tenants(f"acme: {entry}"), {"PW": SECRET}))
    assert "S3cr" not in shown
    assert "c4n" not in shown
    assert "431543" not in shown


def test_nothing_printable_of_a_registry_shows_a_secret(folder: Folder) -> None:
    loaded = folder.load(
        "ledger: 'postgresql://u:${PW}@h/l'\n"
        + tenants("acme: {url: 'postgresql://u:${PW}@h/d', connect_args: {sslpassword: '${PW}'}}"),
        {"PW": SECRET},
    )
    assert loaded.targets[0].url.password == SECRET
    assert "S3cr" not in repr(loaded) + str(loaded) + loaded.targets[0].location

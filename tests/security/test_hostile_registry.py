"""Attacks on tenants.yaml: refused with file and line, whatever they try, and never with an error of ours."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import registry
from orchestrator.errors import RegistryError
from tests.unit.registries import Folder

HEAD = 'version: 1\ndefaults: {url: "sqlite:///{tenant}.db"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.write("")
    made.settings()
    return made


def load(folder: Folder, content: bytes | str, environ: dict[str, str] | None = None) -> list[str]:
    """What is wrong with a whole file."""
    file = folder.write("")
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        registry.load(folder.settings(), environ=environ or {})
    except RegistryError as error:
        return [str(problem) for problem in error.problems]
    return []


ATTACKS = {
    "calls-python": (HEAD + 'project: !!python/object/apply:os.system ["touch pwned"]\n', 3),
    "makes-an-object": (HEAD + "project: !!python/object/new:subprocess.Popen [[touch, pwned]]\n", 3),
    "names-python": (HEAD + "project: !!python/name:os.system\n", 3),
    "a-module": (HEAD + "project: !!python/module:os\n", 3),
    "full-tag": (HEAD + "project: !<tag:yaml.org,2002:python/object/apply:os.system> [x]\n", 3),
    "tag-directive": (
        "%TAG !x! tag:yaml.org,2002:python/\n---\n" + HEAD + "project: !x!object/apply:os.system [x]\n",
        5,
    ),
    "tag-on-a-key": (HEAD + "!!python/tuple project: x\n", 3),
    "set": (HEAD + "tenants: !!set {a, b}\n", 3),
    "binary": (HEAD + "project: !!binary aGVsbG8=\n", 3),
    "merge": (HEAD + "tenants: {a: {<<: {schema: x}}}\n", 3),
    "merge-by-alias": (HEAD + "profiles: {x: &x {role: a}}\ntenants: {a: {<<: *x}}\n", 3),
    "alias-of-itself": (HEAD + "tenants: &t {a: *t}\n", 3),
    "unknown-alias": (HEAD + "tenants: {a: *nobody}\n", 3),
    "duplicate-tenant": (HEAD + "tenants:\n  a: {}\n  b: {}\n  a: {schema: x}\n", 6),
    "duplicate-by-escape": (HEAD + 'tenants:\n  a: {}\n  "\\x61": {}\n', 5),
    "duplicate-at-the-top": (HEAD + "tenants: {}\nprotected: true\nprotected: false\n", 5),
    "second-document": (HEAD + "---\ntenants: {}\n", 3),
    "tab": (HEAD + "tenants:\n\ta: {}\n", 4),
    "nul": (HEAD.encode() + b"project: a\0b\n", 3),
    "nul-escaped": (HEAD + 'tenants: {"a\\0b": {}}\n', 3),
    "escape-character": (HEAD.encode() + b"project: \x1b[31m\n", 3),
    "unclosed": (HEAD + "tenants: {a: {\n", 4),
    "name-with-newline": (HEAD + 'tenants: {"a\\nadmin: true": {}}\n', 3),
    "name-with-escape": (HEAD + 'tenants: {"a\\x1b[2J": {}}\n', 3),
    "name-from-right-to-left": (HEAD + 'tenants: {"a\\u202Eb": {}}\n', 3),
    "name-as-path": (HEAD + 'tenants: {"../../etc/passwd": {}}\n', 3),
    "name-as-placeholder": (HEAD + 'tenants: {"{tenant}": {}}\n', 3),
    "name-as-variable": (HEAD + 'tenants: {"${HOME}": {}}\n', 3),
    "label-as-path": (
        'version: 1\ndefaults: {url: "sqlite:///{label.x}.db"}\ntenants: {a: {labels: {x: "../../etc/passwd"}}}\n',
        2,
    ),
    "label-name": (HEAD + 'tenants: {a: {labels: {"x\\ny": "1"}}}\n', 3),
    "unknown-variable": (HEAD + 'project: "${NO_SUCH_VARIABLE}"\n', 3),
    "variable-in-variable": (HEAD + 'project: "${${A}}"\n', 3),
    "file-outside": (HEAD + 'project: "${file:/no/such/file}"\n', 3),
    "endless-file": (HEAD + 'project: "${file:/dev/zero}"\n', 3),
    "folder-for-file": (HEAD + 'project: "${file:/}"\n', 3),
    "callable-of-ours": (HEAD + 'sources: [{type: python, call: "os:system; x"}]\n', 3),
    "no-number": (HEAD + "servers: {h: {concurrency: .inf}}\n", 3),
    "no-number-either": (HEAD + "servers: {h: {concurrency: .nan}}\n", 3),
    "far-too-much": (HEAD + f"servers: {{h: {{concurrency: {'9' * 5000}}}}}\n", 3),
    "sexagesimal": (HEAD + "servers: {h: {concurrency: 1:30}}\n", 3),
    "day-that-is-none": (HEAD + "tenants: {a: {state: quarantined, until: 2026-02-31}}\n", 3),
    "for-ever": (HEAD + "defaults: {timeouts: {lock: 9e999s}}\n", 3),
    "pattern-without-end": (HEAD + f"tenants: {{a: {{after: ['{'a' * 5000}!']}}}}\n", 3),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_where_it_stands(folder: Folder, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)
    content, line = ATTACKS[name]

    problems = load(folder, content)

    assert any(problem.startswith(f"tenants.yaml:{line}:") for problem in problems), problems
    assert all(problem.isprintable() for problem in problems), problems
    assert not (folder.path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe" + HEAD.encode("utf-16-le"),
        b"\xfe\xff" + HEAD.encode("utf-16-be"),
        HEAD.encode() + b"project: \xe4\n",
        HEAD.encode() + b"project: \xed\xa0\x80\n",  # half of a surrogate pair
        HEAD.encode() + b"project: \xc0\xae\n",  # an over-long dot
        b"\0" * 100,
        bytes(range(256)),
    ],
)
def test_what_is_no_utf_8_is_refused(folder: Folder, content: bytes) -> None:
    problems = load(folder, content)
    assert problems
    assert all(problem.startswith("tenants.yaml") for problem in problems)


def test_a_byte_order_mark_is_no_part_of_the_first_key(folder: Folder) -> None:
    assert load(folder, b"\xef\xbb\xbf" + HEAD.encode() + b"tenants: {a: {}}\n") == []


@pytest.mark.parametrize(
    "content",
    [
        HEAD + "project: " + "[" * 100_000,
        HEAD + "project: " + "{a: " * 100_000,
        HEAD + "\n".join("  " * depth + "- " for depth in range(2_000)),
        HEAD + "project: &a [x]\n" + "\n".join(f"p{n}: *a" for n in range(200_000)),
        HEAD + "project: " + '"' + "\\u0041" * 200_000 + "\n",
        HEAD + "? " * 50_000,
    ],
    ids=["lists", "mappings", "indented", "aliases", "open-string", "keys"],
)
def test_a_bomb_is_refused_at_once(folder: Folder, content: str) -> None:
    assert load(folder, content)


@pytest.mark.parametrize(
    "value", ["x\nprotected: false\nadmin: true", "x\r\n  b: {}", "a: b", "*a", "!!python/x y", "{}"]
)
def test_a_value_of_the_environment_adds_no_key(folder: Folder, value: str) -> None:
    folder.write(HEAD + 'project: "${VALUE}"\nprotected: true\ntenants: {a: {labels: {x: "${VALUE}"}}}\n')
    loaded = registry.load(folder.settings(), environ={"VALUE": value})
    assert (loaded.project, loaded.protected, len(loaded.tenants)) == (value, True, 1)


# Wrong types

WHOLE: dict[str, Any] = {
    "version": 1,
    "project": "p",
    "environment": "e",
    "protected": False,
    "defaults": {
        "url": "postgresql://u@h/d",
        "schema": "{tenant}",
        "search_path": ["shared"],
        "version_table": "v",
        "version_table_schema": "{tenant}",
        "role": "r",
        "connect_args": {"sslmode": "require"},
        "timeouts": {"connect": "1s", "lock": "1s", "statement": "1s", "tenant_lock": "1s", "job": "1s"},
        "password": {"command": ["true"], "ttl": "1m"},
        "transaction": "target",
        "alembic": "alembic",
        "labels": {"tier": "x"},
        "databases": {"core": {"schema": "{tenant}_core"}},
    },
    "profiles": {"eu": {"role": "x"}},
    "servers": {"h:5432": {"concurrency": 3}},
    "tenants": {
        "a": {"profile": "eu", "state": "quarantined", "reason": "x", "owner": "x", "until": "2026-12-01"},
        "b": {"after": ["a"], "shared": True, "databases": {"core": {"role": "z"}}},
    },
    "sources": [{"type": "command", "run": ["true"], "name": "x", "timeout": "1s", "min": 0, "allow_empty": True}],
    "strategies": {
        "careful": {
            "concurrency": 3,
            "max_failures": "2%",
            "retries": {"busy": ["1s"], "server": ["1s"], "lost": 1},
            "waves": [{"name": "canary", "size": 1}, {"name": "rest", "gate": {"command": ["true"]}}],
        }
    },
    "ledger": "sqlite:///l.db",
}
WRONG: list[Any] = [12, 1.5, True, "", "\0", "\x1b[2J", "${X", [], [[]], [None], {"x": {"y": 1}}, 10**400, "x" * 10_000]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in below:
        yield from paths(item, (*path, key))


def replaced(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    whole = copy.deepcopy(WHOLE)
    at: Any = whole
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return whole


def at(path: tuple[Any, ...]) -> Any:
    found: Any = WHOLE
    for key in path:
        found = found[key]
    return found


@pytest.mark.parametrize("path", list(paths(WHOLE)), ids=lambda path: ".".join(map(str, path)))
def test_a_value_of_the_wrong_type_is_refused_with_its_place(folder: Folder, path: tuple[Any, ...]) -> None:
    # A source that is asked would only be slow here; what is wrong with its keys shows before.
    kinds = {dict: "mapping", list: "list"}
    for value in WRONG:
        problems = load(folder, json.dumps(replaced(path, value), indent=1))
        assert all(re.match(r"tenants\.yaml:\d+:\d+: ", problem) for problem in problems), problems
        assert all(problem.isprintable() and len(problem) < 800 for problem in problems), problems
        if (
            kinds.get(type(value)) != kinds.get(type(at(path)))
            and isinstance(value, dict | list)
            and value not in ([],)
        ):
            assert problems, f"{value!r} is taken for {path}"


# Who may read it

LITERAL = 'version: 1\ntenants: {a: {url: "postgresql://app:hush-hush@h/d"}}\n'


@pytest.mark.parametrize(
    "text",
    [
        LITERAL,
        'version: 1\ntenants: {a: {url: "postgresql://h/d", password: hush}}\n',
        'version: 1\ntenants: {a: {url: "postgresql://h/d", connect_args: {sslpassword: hush}}}\n',
        'version: 1\ntenants: {}\nledger: "postgresql://app:hush@h/d"\n',
    ],
)
def test_a_password_that_everybody_can_read_is_told(folder: Folder, text: str) -> None:
    file = folder.write(text)
    file.chmod(0o644)
    loaded = registry.load(folder.settings(), environ={})
    assert loaded.exposure is not None
    assert re.match(r"tenants\.yaml:[23]:\d+: a password stands here, and everybody", loaded.exposure)
    assert loaded.notes == (loaded.exposure,)
    assert "hush" not in loaded.exposure
    file.chmod(0o640)
    assert registry.load(folder.settings(), environ={}).exposure is None


@pytest.mark.parametrize(
    "text",
    [
        'version: 1\ntenants: {a: {url: "postgresql://app:${PW}@h/d"}}\n',
        'version: 1\ntenants: {a: {url: "postgresql://app@h/d", password: "${file:pw}"}}\n',
        'version: 1\ntenants: {a: {url: "postgresql://app@h/d", password: {command: ["token"]}}}\n',
        'version: 1\ntenants: {a: {url: "sqlite:///x.db"}}\n',
    ],
)
def test_a_file_without_a_password_may_be_read_by_everybody(folder: Folder, text: str) -> None:
    folder.write("secret", "pw")
    folder.write(text).chmod(0o644)
    assert registry.load(folder.settings(), environ={"PW": "hush"}).exposure is None

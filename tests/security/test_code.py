"""What the code of the package may not do, read from its syntax tree: no shell, no unsafe loader, no SQL by hand."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "orchestrator"
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

_SQL = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|SET|USE|GRANT|REVOKE|TRUNCATE|PRAGMA|SHOW|KILL|LOCK|RESET|CALL)\s"
)
#: what may stand in SQL: names through a dialect's quoting, numbers made by `int`, and placeholders
_SAFE = re.compile(r"int\(.*\)|[\w.]*(?:_QUOTE|_quote|_escaped|quoting|quote_identifier|_quoted)\(.*\)|.*placeholder")
#: what else does, and why that is safe
ALLOWED = {
    ("databases/journal_policies.py", "statement.object.replace('%%', '%')"): "as the revision's own statement has it",
    ("databases/journal_tables.py", "_COLUMNS"): "a constant",
    ("databases/journal_tables.py", "self._sql_name"): "quoted when the table is made known",
    ("databases/journal_tables.py", "self.name"): "quoted when the table is made known",
    ("databases/journal_tables.py", "mine"): "a placeholder",
    ("databases/journal_tables.py", "', '.join([row] * len(entries))"): "placeholders",
    ("databases/journal_tables.py", "columns"): "definitions that are constants",
    ("databases/journal_tables.py", "self._form.suffix"): "a constant of the dialect",
    ("databases/journal_tables.py", "literal"): "a revision id with its quotes doubled",
    ("databases/journal_tables.py", "later"): "a constant or nothing",
    ("databases/mysql.py", "', '.join(settings)"): "names that are constants, with numbers",
    ("databases/mysql.py", "table"): "quoted where it is put together",
    ("databases/mysql.py", "JOURNAL"): "a constant",
    ("databases/postgresql.py", "path"): "names that were quoted one by one",
    ("databases/postgresql.py", "more"): "names that were quoted one by one, as a literal",
    ("databases/postgresql.py", "date_style"): "a constant, or nothing",
    ("databases/postgresql.py", "value"): "what the server itself said of a setting",
    ("databases/postgresql.py", "owner"): "a constant with a quoted role, or nothing",
    ("databases/postgresql_heads.py", "place.position"): "a number",
    ("databases/postgresql_heads.py", "place.version_table"): "quoted where it is put together",
    ("databases/sqlite.py", "schema"): "a name that SQLite itself gave, quoted",
    ("databases/version_guards.py", "self._table"): "quoted where it is put together",
    ("ledger/migrations/versions/r0002_leases.py", "_REFUSAL"): "a constant",
    ("ledger/versions.py", "_LOCK_WAIT_S"): "a constant",
}


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield name, node, ast.unparse(node.func)


def test_nothing_is_evaluated_or_executed() -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "commands.getoutput"}
    assert [(name, node.lineno, called) for name, node, called in calls() if called in forbidden] == []


def test_no_command_goes_through_a_shell() -> None:
    through = [
        (name, node.lineno)
        for name, node, _ in calls()
        for keyword in node.keywords
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]
    assert through == []


def test_yaml_is_only_parsed_into_events() -> None:
    """No object is constructed by the library at all; its safe loader only tells what stands in the text."""
    used = {(name, called) for name, _, called in calls() if called.startswith("yaml.")}
    assert {called for _, called in used} <= {"yaml.parse"}
    assert {name for name, _ in used} <= {"registry/documents.py"}
    loaders = {ast.unparse(node) for tree in TREES.values() for node in ast.walk(tree) if _is_loader(node)}
    assert loaders <= {"yaml.SafeLoader", "yaml.CSafeLoader"}


def _is_loader(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr.endswith("Loader") and ast.unparse(node).startswith("yaml.")


def test_only_the_pipe_to_worker_processes_is_pickled() -> None:
    names = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
    importing = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and names & {alias.name for alias in node.names})
        or (isinstance(node, ast.ImportFrom) and node.module in names)
    }
    assert importing <= {"executors/serving.py", "executors/processes.py"}


def test_certificates_are_always_checked() -> None:
    unsafe = {"ssl._create_unverified_context", "ssl.CERT_NONE"}
    assert [
        (name, ast.unparse(node))
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in unsafe
    ] == []


def test_what_is_put_into_sql_is_quoted() -> None:
    unsafe = [
        f"{name}:{line}: {{{expression}}} in {text!r}"
        for name, tree in TREES.items()
        for line, text, expressions in _sql(tree)
        for expression in expressions
        if not _SAFE.fullmatch(expression) and (name, expression) not in ALLOWED
    ]
    assert unsafe == []


def test_no_exception_to_the_rule_has_outlived_its_code() -> None:
    found = {(name, expression) for name, tree in TREES.items() for _, _, every in _sql(tree) for expression in every}
    assert set(ALLOWED) - found == set()


def _sql(tree: ast.AST) -> Iterator[tuple[int, str, list[str]]]:
    """Line, text and expressions of each string that is put together and reads like SQL."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = [ast.unparse(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add) and _text(node.left):
            text, values = str(_text(node.left)), [ast.unparse(node.right)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            text = str(_text(node.func.value) or "")
            values = [ast.unparse(one) for one in (*node.args, *(keyword.value for keyword in node.keywords))]
        else:
            continue
        if values and _SQL.match(text):
            yield node.lineno, text, values


def _text(node: ast.AST) -> object:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("f'SET search_path TO {schema}'", ["schema"]),
        ("'DROP SCHEMA %s' % schema", ["schema"]),
        ("'USE ' + name", ["name"]),
        ("'CREATE DATABASE {}'.format(name)", ["name"]),
        ("f'set aside {count} of them'", []),
    ],
)
def test_the_search_for_sql_finds_what_it_should(source: str, caught: list[str]) -> None:
    assert [expression for _, _, every in _sql(ast.parse(source)) for expression in every] == caught


def test_what_holds_a_secret_prints_none() -> None:
    """Fields that may hold secrets have a type that does not print them."""
    from orchestrator.databases.engines import Access
    from orchestrator.tenants import Hidden, Target

    for record in (Target, Access):
        field = record.__dataclass_fields__["connect_args"]
        assert field.default_factory is Hidden, record

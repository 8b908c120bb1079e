"""What a revision's file says about how it will run, read before anything of it does."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import sys
from collections.abc import Iterable

#: modules whose helpers do not commit behind our back
_KNOWN = frozenset({"alembic", "sqlalchemy", "typing_extensions", *sys.stdlib_module_names})
#: commits, or brings in statements that the file does not show
_COMMITTING = frozenset(
    {"autocommit_block", "commit", "open", "read", "read_text", "read_bytes", "import_module", "run_path", "exec"}
)
_AROUND_US = frozenset({"raw_connection", "driver_connection", "dbapi_connection", "cursor", "create_engine"})
_COMMIT_TEXT = re.compile(r"\bAUTOCOMMIT\b|(?:^|;)\s*(?:COMMIT|END|BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_LOCK_TABLES = re.compile(r"(?:^|;)\s*LOCK\s+TABLES?\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What matters to a journal."""

    #: may commit before its end, so that a crash does not undo all of it
    may_commit: bool
    #: rebuilds tables even where they could be altered, whatever the database, at these lines
    rebuilds: tuple[int, ...] = ()
    #: locks tables by hand, at these lines
    locks_tables: tuple[int, ...] = ()
    #: sends statements that do not pass SQLAlchemy's connection, at these lines
    goes_around: tuple[int, ...] = ()
    #: commits by the driver's own method, which nothing else hears of, at these lines
    commits_around: tuple[int, ...] = ()
    #: hands a whole script to SQLite's driver, which commits what came before, at these lines
    runs_script: tuple[int, ...] = ()


@functools.lru_cache(maxsize=1024)
def traits_of(source: bytes) -> Traits:
    """What the file shows without being run; a file that cannot be read may do anything."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return Traits(may_commit=True)
    return Traits(
        may_commit=any(_may_commit(node) for node in nodes),
        # A file that asks which database it is on may rebuild on that one only.
        rebuilds=() if any(_name(node) == "dialect" for node in nodes) else _lines(filter(_rebuilds, nodes)),
        locks_tables=_lines(node for node in nodes if _says(node, _LOCK_TABLES)),
        goes_around=_lines(filter(_goes_around, nodes)),
        commits_around=_lines(filter(_commits_around, nodes)),
        runs_script=_lines(node for node in nodes if _name(node) == "executescript"),
    )


def _lines(nodes: Iterable[ast.AST]) -> tuple[int, ...]:
    return tuple(sorted({getattr(node, "lineno", 0) for node in nodes}))


def _may_commit(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(_is_foreign(alias.name) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or _is_foreign(node.module or "")
    return _name(node) in _COMMITTING or _says(node, _COMMIT_TEXT)


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in _KNOWN


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _says(node: ast.AST, pattern: re.Pattern[str]) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.search(node.value) is not None


def _commits_around(node: ast.AST) -> bool:
    """`op.get_bind().connection.commit()`; of a name it cannot be told whose connection it is."""
    if not (isinstance(node, ast.Attribute) and node.attr == "commit" and isinstance(node.value, ast.Attribute)):
        return False
    owner = node.value.value
    return _name(node.value) == "connection" and isinstance(owner, ast.Call) and _name(owner.func) == "get_bind"


def _goes_around(node: ast.AST) -> bool:
    """`….cursor()` and its like; a variable may have any name."""
    if isinstance(node, ast.Attribute):
        return node.attr in _AROUND_US
    return isinstance(node, ast.Call) and _name(node.func) == "create_engine"


def _rebuilds(node: ast.AST) -> bool:
    """`batch_alter_table(…, recreate="always")`."""
    if not (isinstance(node, ast.Call) and _name(node.func) == "batch_alter_table"):
        return False
    asked = [keyword.value for keyword in node.keywords if keyword.arg == "recreate"]
    return any(isinstance(value, ast.Constant) and value.value == "always" for value in asked)

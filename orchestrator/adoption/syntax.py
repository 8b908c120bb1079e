"""Questions about Python syntax: what a piece of code reads, binds and changes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Compound: TypeAlias = ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.With | ast.AsyncWith

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPOUNDS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
#: importing one of these changes nothing, so an import of it that nobody uses any longer can go
_DISPOSABLE = frozenset(sys.stdlib_module_names) | {"sqlalchemy", "alembic", "flask", "greenlet"}


def used(node: ast.AST) -> set[str]:
    """Names that the code reads from around it."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    inner = _used_by_children(node)
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        return (inner - parameters(node) - _bound_in_body(node)) | _used_by_signature(node)
    if isinstance(node, _COMPREHENSIONS):
        return inner - {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and _stores(name)}
    if isinstance(node, ast.AugAssign):
        return inner | ({node.target.id} if isinstance(node.target, ast.Name) else set())
    return inner


def used_by(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that several pieces of code read."""
    return {name for node in nodes for name in used(node)}


def bound(node: ast.AST) -> set[str]:
    """Names that a statement gives a value to, in its own scope."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Name):
        return {node.id} if _stores(node) else set()
    if isinstance(node, ast.ExceptHandler) and node.name:
        return {node.name} | bound_by(node.body)
    if isinstance(node, (ast.Lambda, *_COMPREHENSIONS)):
        return set()
    return bound_by(ast.iter_child_nodes(node))


def bound_by(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that several statements give a value to."""
    return {name for node in nodes for name in bound(node)}


def changed(node: ast.AST) -> set[str]:
    """Names that a statement binds, or whose values it changes: by an index, an attribute or a method."""
    names = bound(node)
    for child in walk_scope(node):
        if isinstance(child, ast.Subscript | ast.Attribute) and not isinstance(child.ctx, ast.Load):
            names.add(root(child) or "")
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            names.add(root(child.value.func) or "")
    return names - {""}


def parameters(node: Function | ast.Lambda) -> set[str]:
    """Names of a function's parameters."""
    arguments = node.args
    several = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in several if argument is not None}


def root(node: ast.AST) -> str | None:
    """`rec` for `rec["transaction"].commit`; None where it does not begin with a name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """Every call in the code."""
    return (child for child in ast.walk(node) if isinstance(child, ast.Call))


def walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is in it, without the bodies of functions and classes in it."""
    yield node
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from walk_scope(child)


def blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The lists of statements directly inside a compound statement."""
    found = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    found += [handler.body for handler in getattr(statement, "handlers", [])]
    return [block for block in found if block]


def is_disposable(statement: ast.Import | ast.ImportFrom) -> bool:
    """Whether the import has no effect besides its names."""
    if isinstance(statement, ast.ImportFrom):
        return statement.level == 0 and (statement.module or "").partition(".")[0] in _DISPOSABLE
    return all(alias.name.partition(".")[0] in _DISPOSABLE for alias in statement.names)


def text_of(node: ast.AST | None) -> str | None:
    """Value of a string literal."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def first_line_of(statement: ast.stmt) -> int:
    """Number of the statement's first line, decorators included."""
    decorators: Sequence[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _used_by_children(node: ast.AST) -> set[str]:
    return {name for child in ast.iter_child_nodes(node) for name in used(child)}


def _used_by_signature(node: Function | ast.Lambda) -> set[str]:
    defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
    return used_by([*defaults, *getattr(node, "decorator_list", [])])


def _bound_in_body(node: Function | ast.Lambda) -> set[str]:
    if isinstance(node, ast.Lambda):
        return set()
    declared = {
        name for child in ast.walk(node) if isinstance(child, ast.Global | ast.Nonlocal) for name in child.names
    }
    return bound_by(node.body) - declared


def _stores(name: ast.Name) -> bool:
    return not isinstance(name.ctx, ast.Load)

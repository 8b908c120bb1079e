"""What an env.py prepares before it migrates, and which of that still serves once it migrates by target."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from orchestrator.adoption import syntax
from orchestrator.adoption.edits import SourceText
from orchestrator.adoption.shapes import Shape, sets_url

CURRENT_APP = "current_app"
#: assignments may call these and still be left out when nobody reads what they assign
_READING = frozenset({"os", "config", "context", "alembic"})


class ApplicationState:
    """What an env.py of Flask-Migrate takes from the running application while it is being imported.

    A worker has no running application then: each target brings its own. So these statements go.
    """

    def __init__(self, shape: Shape) -> None:
        imports = [node for node in shape.tree.body if isinstance(node, ast.ImportFrom)]
        self.is_there = any(node.module == "flask" and CURRENT_APP in syntax.bound(node) for node in imports)
        #: names whose values come from the application
        self.names: set[str] = set()
        self.statements: list[ast.stmt] = []
        self._calling: set[str] = {CURRENT_APP}
        candidates = [node for node in shape.tree.body if node not in shape.replaced and node not in imports]
        while self.is_there and any(self._takes(node) for node in candidates if node not in self.statements):
            pass

    def _takes(self, statement: ast.stmt) -> bool:
        """Note the statement if it needs the application; whether anything new was learnt."""
        reads, binds = syntax.used(statement), syntax.bound(statement)
        if isinstance(statement, syntax.FUNCTIONS) and not reads & self.names:
            news = bool(reads & self._calling) and statement.name not in self._calling
            self._calling |= binds if news else set()
            return news
        if not (reads & (self.names | self._calling) or binds & self.names):
            return False
        self.statements.append(statement)
        self.names |= binds
        return True

    def without(self, statements: Iterable[ast.stmt]) -> tuple[list[ast.stmt], set[str]]:
        """The statements that do not need what the application gave at import, and the names that the others bind."""
        kept, lost = [], set(self.names)
        for statement in statements:
            if syntax.used(statement) & lost:
                lost |= syntax.bound(statement)
            else:
                kept.append(statement)
        return kept, lost


def obsolete(shape: Shape, state: ApplicationState) -> list[ast.stmt]:
    """Top-level statements that go: what migrates, what needs the application, what sets the one URL."""
    setters = [node for node in shape.tree.body if node not in shape.replaced and sets_url(node)]
    return [node for node in shape.tree.body if node in (*shape.replaced, *state.statements, *setters)]


def remove(source: SourceText, gone: Sequence[ast.stmt], code: str) -> list[ast.stmt]:
    """Take statements out of the source, and with them all that only they needed; gives what remains."""
    gone, needed = list(gone), syntax.used_by(ast.parse(code).body)
    remaining = [node for node in source.tree.body if node not in gone]
    while unused := [node for node in remaining if _serves_only(node, gone, remaining, needed)]:
        gone += unused
        remaining = [node for node in remaining if node not in unused]
    for node in gone:
        source.remove(node)
    for node in remaining:
        if isinstance(node, ast.Import | ast.ImportFrom):
            _trim(source, node, _orphans(node, gone, remaining, needed))
    return remaining


def _serves_only(node: ast.stmt, gone: list[ast.stmt], remaining: list[ast.stmt], needed: set[str]) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom) or not _is_passive(node):
        return False
    names = syntax.bound(node)
    others = syntax.used_by(other for other in remaining if other is not node) | needed
    return bool(names & syntax.used_by(gone)) and not names & others


def _is_passive(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return all(syntax.root(call.func) in _READING for call in syntax.calls(node))
    return isinstance(node, syntax.FUNCTIONS) and not node.decorator_list


def _orphans(
    node: ast.Import | ast.ImportFrom, gone: list[ast.stmt], remaining: list[ast.stmt], needed: set[str]
) -> set[str]:
    """Imported names that only the removed statements used."""
    if not syntax.is_disposable(node):
        return set()
    return (syntax.bound(node) & syntax.used_by(gone)) - syntax.used_by(remaining) - needed


def _trim(source: SourceText, node: ast.Import | ast.ImportFrom, orphans: set[str]) -> None:
    kept = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) not in orphans]
    if not kept:
        source.remove(node)
    elif len(kept) < len(node.names):
        trimmed = (
            ast.Import(names=kept)
            if isinstance(node, ast.Import)
            else ast.ImportFrom(module=node.module, names=kept, level=node.level)
        )
        source.replace(node, ast.unparse(trimmed) + "\n")

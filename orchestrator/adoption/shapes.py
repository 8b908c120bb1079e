"""How an env.py is built: where it configures Alembic, what it does on the way there, and what of that must be kept."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.adoption import syntax
from orchestrator.errors import Problem

#: keywords of `context.configure` that say where to connect, which the target knows
CONNECTING = frozenset(
    {"connection", "url", "dialect_opts", "dialect_name", "literal_binds", "output_buffer", "as_sql", "starting_rev"}
)
_LOGGERS = frozenset({"print", "log", "logger", "logging", "LOG", "LOGGER", "_log", "_logger", "warnings"})
_OPENING = frozenset({"connect", "begin", "begin_transaction", "begin_nested"})
_CLOSING = frozenset({"close", "commit", "rollback", "begin", "begin_twophase", "invalidate", "connect", "run_sync"})
_HARMLESS = frozenset({"isinstance", "hasattr", "asyncio"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a statement of env.py is reached."""

    #: name of the function, None at the top level
    function: str | None = None
    #: names that exist only there
    local: frozenset[str] = frozenset()
    #: statements that have run by then, in order
    before: tuple[ast.stmt, ...] = ()
    #: name of the object that was connected
    engine: str | None = None
    #: loop variable that holds the key of one of several databases
    key: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One call of `context.configure`."""

    call: ast.Call
    way: Way

    @property
    def keywords(self) -> list[ast.keyword]:
        """Keywords that do not say where to connect."""
        return [keyword for keyword in self.call.keywords if keyword.arg not in CONNECTING]

    @property
    def connection(self) -> str | None:
        """Name of the variable that holds the connection."""
        value = self._value("connection") or next(iter(self.call.args), None)
        return value.id if isinstance(value, ast.Name) else None

    @property
    def url(self) -> str | None:
        """Name of the variable that holds the URL."""
        value = self._value("url")
        return value.id if isinstance(value, ast.Name) else None

    @property
    def is_offline(self) -> bool:
        """Whether it writes SQL instead of connecting."""
        return self._value("connection") is None and bool(self._value("url") or self._value("dialect_name"))

    @property
    def is_hidden(self) -> bool:
        """Whether what it connects to is somewhere in a dictionary that is unpacked."""
        unpacks = any(keyword.arg is None for keyword in self.call.keywords)
        return unpacks and not (self.call.args or self._value("connection") or self._value("url"))

    def _value(self, name: str) -> ast.expr | None:
        return next((keyword.value for keyword in self.call.keywords if keyword.arg == name), None)


class Shape:
    """The parts of an env.py that migrate, told apart from the parts that prepare."""

    def __init__(self, tree: ast.Module, place: str) -> None:
        self.place = place
        self.tree = tree
        self.problems: list[Problem] = []
        self.configurations: list[Configuration] = []
        #: calls of `context.run_migrations`
        self.runs: list[tuple[ast.Call, Way]] = []
        #: statement that imports Alembic's context, and how env.py writes it: `context`, `alembic.context`
        self.context_import, self.context = self._context()
        self.functions = _migrating(tree, self.context)
        #: top-level statements that the loop over targets replaces
        self.replaced = [statement for statement in tree.body if self.is_structural(statement)]
        self._leaves: list[tuple[ast.stmt, Way]] = []
        self._read()

    def is_structural(self, node: ast.AST) -> bool:
        """Whether the code migrates, or calls code that does."""
        names_function = isinstance(node, syntax.FUNCTIONS) and node.name in self.functions
        return names_function or bool(self.functions & syntax.used(node)) or _migrates(node, self.context)

    def check_dropped(self, kept: Iterable[ast.stmt]) -> None:
        """Add a problem for each statement that would be lost though it does something."""
        kept_already = set(kept)
        connections = {configuration.connection for configuration in self.configurations} | {"connection"}
        for leaf, way in self._leaves:
            if leaf not in kept_already:
                self._check_leaf(leaf, way, connections - {None})

    def add_problem(self, node: ast.AST, text: str) -> None:
        """Say what cannot be carried, and where it stands."""
        self.problems.append(Problem(place=f"{self.place}:{getattr(node, 'lineno', 1)}", text=text))

    def _context(self) -> tuple[ast.stmt, str]:
        for node in self.tree.body:
            for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
                name = _name_of_context(node, alias)
                if name is not None:
                    return node, name
        self.add_problem(self.tree, "it does not import `context` from alembic")
        return ast.Pass(), "context"

    def _read(self) -> None:
        for statement in self.replaced:
            local = frozenset() if isinstance(statement, syntax.FUNCTIONS) else frozenset(syntax.bound(statement))
            self._walk([statement], Way(local=local))
        if not self.configurations:
            self.add_problem(self.tree, "it never calls `context.configure`")

    def _walk(self, statements: Sequence[ast.stmt], way: Way) -> None:
        for place, statement in enumerate(statements):
            if isinstance(statement, ast.If):
                self._check_switch(statement, way, statements[place + 1 :])
            if not self.is_structural(statement):
                self._leaves.append((statement, way))
                way = dataclasses.replace(way, before=(*way.before, statement))
            elif isinstance(statement, syntax.FUNCTIONS):
                self._walk(statement.body, _inside(statement, way))
            elif isinstance(statement, syntax.COMPOUNDS):
                self._enter(statement, way)
            elif isinstance(statement, ast.Match | ast.ClassDef):
                self.add_problem(statement, f"`{_head(statement)}` decides how to migrate")
            else:
                self._note_calls(statement, way)

    def _enter(self, statement: syntax.Compound, way: Way) -> None:
        match statement:
            case ast.With() | ast.AsyncWith():
                way = self._opened(statement, way)
            case ast.For() | ast.AsyncFor() | ast.While():
                way = self._looped(statement, way)
        for block in syntax.blocks(statement):
            self._walk(block, way)

    def _opened(self, statement: ast.With | ast.AsyncWith, way: Way) -> Way:
        for item in statement.items:
            call = item.context_expr
            function = call.func if isinstance(call, ast.Call) else None
            if isinstance(function, ast.Attribute) and function.attr in _OPENING:
                if isinstance(function.value, ast.Name) and item.optional_vars is not None:
                    way = dataclasses.replace(way, engine=function.value.id)
            elif not (isinstance(function, ast.Name) and function.id == "open"):
                self.add_problem(statement, f"it migrates inside `{_head(statement)}`")
        return way

    def _looped(self, statement: ast.For | ast.AsyncFor | ast.While, way: Way) -> Way:
        if isinstance(statement, ast.For) and isinstance(statement.target, ast.Tuple) and _is_items(statement.iter):
            key = statement.target.elts[0]
            return dataclasses.replace(way, key=key.id if isinstance(key, ast.Name) else None)
        self.add_problem(statement, f"it migrates in a loop of its own, `{_head(statement)}`")
        return way

    def _check_switch(self, statement: ast.If, way: Way, following: Sequence[ast.stmt]) -> None:
        """A choice between two ways to connect is ours to make; a choice whether to migrate at all is not."""
        returns = any(isinstance(node, ast.Return) for node in syntax.walk_scope(statement))
        ways = [statement.body, statement.orelse or (following if returns else [])]
        migrating = [any(self.is_structural(inner) for inner in block) for block in ways]
        foreign = syntax.used(statement.test) - way.local - _HARMLESS - {self.context.partition(".")[0]}
        if foreign and any(migrating) and not all(migrating):
            self.add_problem(statement, f"`{_head(statement)}` decides whether to migrate")

    def _note_calls(self, statement: ast.stmt, way: Way) -> None:
        for call in syntax.calls(statement):
            if _is_call_of(call, self.context, "configure"):
                self.configurations.append(Configuration(call=call, way=way))
                if self.configurations[-1].is_hidden:
                    self.add_problem(call, f"`{_head(statement)}` does not show what it connects to")
            elif _is_call_of(call, self.context, "run_migrations"):
                self.runs.append((call, way))

    def _check_leaf(self, leaf: ast.stmt, way: Way, connections: set[str | None]) -> None:
        if isinstance(leaf, syntax.COMPOUNDS):
            for block in syntax.blocks(leaf):
                for inner in block:
                    self._check_leaf(inner, way, connections)
        elif _touches(leaf, connections) or not _can_go(leaf, way, self.context):
            self.add_problem(leaf, f"`{_head(leaf)}` would be lost")


def sets_url(statement: ast.stmt) -> bool:
    """Whether all that a statement does is to set `sqlalchemy.url`."""
    if isinstance(statement, syntax.COMPOUNDS):
        return all(sets_url(inner) for block in syntax.blocks(statement) for inner in block)
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    function, arguments = statement.value.func, statement.value.args
    name = function.attr if isinstance(function, ast.Attribute) else ""
    position = {"set_main_option": 0, "set_section_option": 1}.get(name, -1)
    return 0 <= position < len(arguments) and syntax.text_of(arguments[position]) == "sqlalchemy.url"


def _migrating(tree: ast.Module, context: str) -> set[str]:
    """Names of functions, nested ones too, that migrate or call one that does."""
    functions = [node for node in ast.walk(tree) if isinstance(node, syntax.FUNCTIONS)]
    found = {node.name for node in functions if _migrates(node, context)}
    while True:
        more = {node.name for node in functions if found & (_used_inside(node))} - found
        if not more:
            return found
        found |= more


def _used_inside(node: syntax.Function) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}


def _migrates(node: ast.AST, context: str) -> bool:
    return any(
        _is_call_of(call, context, "configure") or _is_call_of(call, context, "run_migrations")
        for call in syntax.calls(node)
    )


def _name_of_context(node: ast.stmt, alias: ast.alias) -> str | None:
    """How the code writes Alembic's context once it has imported this name."""
    if isinstance(node, ast.ImportFrom):
        is_context = node.module == "alembic" and node.level == 0 and alias.name == "context"
        return (alias.asname or alias.name) if is_context else None
    if alias.name == "alembic.context" and alias.asname:
        return alias.asname
    return f"{alias.asname or 'alembic'}.context" if alias.name in ("alembic", "alembic.context") else None


def _is_call_of(call: ast.Call, owner: str, method: str) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == method and ast.unparse(call.func.value) == owner


def _is_items(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "items"


def _inside(function: syntax.Function, way: Way) -> Way:
    local = syntax.parameters(function) | syntax.bound_by(function.body)
    return dataclasses.replace(way, function=function.name, local=way.local | local)


def _touches(leaf: ast.stmt, connections: set[str | None]) -> bool:
    """Whether a statement does something with the connection, other than to open or close it."""
    stored = (node for node in ast.walk(leaf) if isinstance(node, ast.Attribute | ast.Subscript))
    if any(not isinstance(node.ctx, ast.Load) and syntax.root(node) in connections for node in stored):
        return True
    concerned = (call for call in syntax.calls(leaf) if connections & syntax.used(call))
    return any(not _is_housekeeping(call, connections) for call in concerned)


def _is_housekeeping(call: ast.Call, connections: set[str | None]) -> bool:
    if isinstance(call.func, ast.Attribute) and syntax.root(call.func) in connections:
        return call.func.attr in _CLOSING
    return syntax.root(call.func) in _HARMLESS | _LOGGERS


def _can_go(leaf: ast.stmt, way: Way, context: str) -> bool:
    """Whether leaving a statement out loses nothing, now that what it prepares is no longer needed."""
    if isinstance(leaf, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Delete):
        return syntax.changed(leaf) <= way.local
    if isinstance(leaf, ast.Import | ast.ImportFrom):
        return syntax.is_disposable(leaf)
    if isinstance(leaf, ast.Expr):
        return _is_idle(leaf.value, way, context) or sets_url(leaf)
    return isinstance(
        leaf, (*syntax.FUNCTIONS, ast.Pass, ast.Raise, ast.Assert, ast.Return, ast.Break, ast.Continue, ast.Global)
    )


def _is_idle(value: ast.expr, way: Way, context: str) -> bool:
    if isinstance(value, ast.Constant):
        return True
    name = syntax.root(value)
    return name != context.partition(".")[0] and (name in _LOGGERS or name in _HARMLESS or name in way.local)


def _head(statement: ast.stmt) -> str:
    return ast.unparse(statement).partition("\n")[0].rstrip(":")


def online_and_offline(shape: Shape) -> Iterator[Configuration]:
    """The call that connects, then the one that writes SQL; one stands in for the other where there is none."""
    for wanted in (False, True):
        same = [one for one in shape.configurations if one.is_offline is wanted]
        for other in same[1:]:
            if _signature(other) != _signature(same[0]):
                shape.add_problem(other.call, "this `context.configure` differs from the one before it")
        yield (same or shape.configurations)[0]


def _signature(configuration: Configuration) -> list[str]:
    return sorted(ast.unparse(keyword) for keyword in configuration.keywords)

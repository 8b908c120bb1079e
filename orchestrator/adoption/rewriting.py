"""An env.py that migrates one database, turned into one that migrates every target; all else in it stays."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import textwrap
from collections.abc import Sequence

from orchestrator.adoption import preparations, syntax
from orchestrator.adoption.edits import SourceText
from orchestrator.adoption.preparations import CURRENT_APP, ApplicationState
from orchestrator.adoption.shapes import Configuration, Shape, online_and_offline
from orchestrator.errors import Problem

WIDTH = 110
IMPORT = "from orchestrator import environment"
LOOP = """\
for target in {environment}.targets({context}):
    with target.outcome():
        run_migrations_offline(target) if {context}.is_offline_mode() else run_migrations_online(target)
"""
_OF_MODULES = frozenset({"__file__", "__name__", "__doc__", "__package__", "__spec__"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The new text of an env.py, and what of it now belongs into tenants.yaml."""

    text: str
    version_table: str | None = None
    version_table_schema: str | None = None
    #: it asked for a transaction per revision
    per_revision: bool = False
    is_flask: bool = False
    notes: tuple[str, ...] = ()


class NotCarried(Exception):  # noqa: N818 - says what happened to the rewriting
    """Some of an env.py has to be changed by hand."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclasses.dataclass(kw_only=True)
class _Findings:
    """What `context.configure` was told that is not for it to say any longer."""

    version_table: str | None = None
    version_table_schema: str | None = None
    per_revision: bool = False
    metadata_of_application: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    """What one of the two functions consists of."""

    keywords: list[str]
    #: lines that give local names their values, and whether they need the connection
    lines: list[str]
    needs_connection: bool
    connection: str
    #: arguments of `context.run_migrations`
    arguments: str
    kept: list[ast.stmt]


def rewrite(text: str, place: str) -> Rewritten:
    """Replace what migrates by the loop over targets; raises `NotCarried` with every line that stands in the way."""
    text = text.removeprefix("\ufeff")
    source = SourceText(text if text.endswith("\n") else text + "\n")
    shape = Shape(source.tree, place)
    _raise_for(shape)
    rewriter = _Rewriter(source, shape)
    return rewriter.rewritten()


class _Rewriter:
    """One rewriting, from the shape to the text."""

    def __init__(self, source: SourceText, shape: Shape) -> None:
        self.source = source
        self.shape = shape
        self.state = ApplicationState(shape)
        self.findings = _Findings()
        self.literals = _literals(source.tree)
        is_taken = "environment" in syntax.bound_by(source.tree.body)
        self.environment = "orchestrate_environment" if is_taken else "environment"

    def rewritten(self) -> Rewritten:
        online, offline = [self._body(one, index) for index, one in enumerate(online_and_offline(self.shape))]
        self.shape.check_dropped([*online.kept, *offline.kept])
        _raise_for(self.shape)
        text = self._assemble(self._code(online, offline))
        findings = self.findings
        return Rewritten(
            text=text,
            version_table=findings.version_table,
            version_table_schema=findings.version_table_schema,
            per_revision=findings.per_revision,
            is_flask=self.state.is_there,
            notes=tuple(dict.fromkeys(findings.notes)),
        )

    # -- what the two functions are made of

    def _body(self, configuration: Configuration, index: int) -> _Body:
        is_offline, stands_in = bool(index), bool(index) is not configuration.is_offline
        wanted = [keyword for keyword in configuration.keywords if self._is_ours_to_pass(keyword)]
        if stands_in:
            wanted = [keyword for keyword in wanted if not syntax.used(keyword.value) & configuration.way.local]
        arguments = self._arguments(configuration)
        needed = syntax.used_by([*(keyword.value for keyword in wanted), *arguments]) & configuration.way.local
        given = self._given(configuration, is_offline=is_offline)
        kept = self._kept(configuration, needed - set(given))
        reads = (needed | syntax.used_by(kept)) & set(given)
        lines = [given[name] for name in given if name in reads and given[name]]
        connected = {configuration.connection or "connection", configuration.way.engine}
        return _Body(
            keywords=[self._keyword(keyword) for keyword in wanted],
            lines=[*lines, *(self._statement(statement) for statement in kept)],
            needs_connection=bool(reads & connected),
            connection=configuration.connection or "connection",
            arguments=", ".join(self.source.segment(argument) for argument in arguments),
            kept=kept,
        )

    def _given(self, configuration: Configuration, *, is_offline: bool) -> dict[str, str]:
        """Local names whose values the target knows, each with the line that gets it; "" where none is needed."""
        given: dict[str, str] = {}
        if configuration.way.key:
            key = 'target.bind or ""' if self.state.is_there else 'target.name.rpartition("/")[2]'
            given[configuration.way.key] = f"{configuration.way.key} = {key}"
        if is_offline:
            if configuration.url:
                given[configuration.url] = f"{configuration.url} = target.url.render_as_string(hide_password=False)"
            return given
        connection = configuration.connection or "connection"
        given[connection] = ""
        if configuration.way.engine and configuration.way.engine != connection:
            given[configuration.way.engine] = f"{configuration.way.engine} = {connection}.engine"
        return given

    def _kept(self, configuration: Configuration, needed: set[str]) -> list[ast.stmt]:
        """Statements of the function that the kept keywords depend on, in order."""
        way = configuration.way
        before, lost = self.state.without(way.before)
        kept: list[ast.stmt] = []
        given = {configuration.connection, configuration.url, way.engine, way.key}
        for statement in reversed(before):
            imports = isinstance(statement, ast.Import | ast.ImportFrom) and not syntax.is_disposable(statement)
            if imports or syntax.changed(statement) & needed:
                kept.insert(0, statement)
                needed |= (syntax.used(statement) & way.local) - given
        for name in sorted((needed & lost) | (needed - syntax.bound_by(kept))):
            self.shape.add_problem(configuration.call, f"`{name}` has its value in `{way.function}` only")
        return kept

    def _is_ours_to_pass(self, keyword: ast.keyword) -> bool:
        """Whether the keyword stays in `context.configure`; notes what goes elsewhere."""
        match keyword.arg:
            case "version_table" | "version_table_schema":
                self._note_version_table(keyword)
                return False
            case "transaction_per_migration" if isinstance(keyword.value, ast.Constant):
                self.findings.per_revision |= bool(keyword.value.value)
                return False
            case "include_schemas" if not (isinstance(keyword.value, ast.Constant) and not keyword.value.value):
                self.findings.notes.append(
                    f"{self.shape.place}:{keyword.value.lineno}: `include_schemas` is kept; with a schema per tenant "
                    "it is refused, because comparing all schemas would propose to drop the other tenants' tables"
                )
            case _:
                pass
        self._check_application(keyword)
        return True

    def _note_version_table(self, keyword: ast.keyword) -> None:
        value = keyword.value
        literal = self.literals.get(value.id) if isinstance(value, ast.Name) else syntax.text_of(value)
        if literal is not None:
            setattr(self.findings, keyword.arg or "", literal)
        elif not (isinstance(value, ast.Constant) and value.value is None):
            self.shape.add_problem(value, f"`{ast.unparse(keyword)}` is computed; tenants.yaml needs its value")

    def _check_application(self, keyword: ast.keyword) -> None:
        if not syntax.used(keyword.value) & self.state.names:
            return
        if keyword.arg == "target_metadata":
            self.findings.metadata_of_application = True
        else:
            self.shape.add_problem(keyword.value, f"`{ast.unparse(keyword)}` needs an application when env.py is read")

    def _arguments(self, configuration: Configuration) -> list[ast.expr | ast.keyword]:
        same = [call for call, way in self.shape.runs if way.function == configuration.way.function]
        call = next(iter(same or [call for call, _ in self.shape.runs]), None)
        return [] if call is None else [*call.args, *call.keywords]

    def _keyword(self, keyword: ast.keyword) -> str:
        if keyword.arg == "target_metadata" and self.findings.metadata_of_application:
            return "target_metadata=target_metadata"
        value = self.source.segment(keyword.value)
        if keyword.arg is not None:
            return f"{keyword.arg}={value}"
        return f"**({value} if {CURRENT_APP} else {{}})" if CURRENT_APP in syntax.used(keyword.value) else f"**{value}"

    def _statement(self, statement: ast.stmt) -> str:
        """Source of a kept statement; only the targets of an application have what Flask-Migrate was told."""
        value = statement.value if isinstance(statement, ast.Assign) else None
        if isinstance(statement, ast.Assign) and isinstance(value, ast.Attribute) and value.attr == "configure_args":
            taken = f"dict({self.source.segment(value)}) if {CURRENT_APP} else {{}}"
            return f"{' = '.join(self.source.segment(name) for name in statement.targets)} = {taken}"
        text = self.source.statement(statement)
        return text + "\n" if isinstance(statement, syntax.FUNCTIONS) else text

    # -- the text

    def _code(self, online: _Body, offline: _Body) -> str:
        context = self.shape.context
        metadata = "target_metadata = None  # taken from each target's application\n\n\n"
        return (
            (metadata if self.findings.metadata_of_application else "")
            + _online(online, context)
            + "\n\n"
            + _offline(offline, context)
            + "\n\n"
            + LOOP.format(environment=self.environment, context=context)
        )

    def _assemble(self, code: str) -> str:
        source = self.source
        remaining = preparations.remove(source, preparations.obsolete(self.shape, self.state), code)
        for node in remaining:
            for call in syntax.calls(node):
                if _is_file_config(call):
                    source.add_keyword(call, "disable_existing_loggers=False")
        name = "" if self.environment == "environment" else f" as {self.environment}"
        source.insert_after(self.shape.context_import, f"{IMPORT}{name}\n")
        text = source.edited().rstrip("\n") + "\n\n\n" + code
        self._check_names(text)
        return text

    def _check_names(self, text: str) -> None:
        """A name that nothing defines any longer would fail on the first tenant: better to leave the file alone."""
        before, after = _undefined(self.source.tree), _undefined(ast.parse(text))
        for name in sorted(after - before):
            self.shape.add_problem(self.source.tree, f"`{name}` would no longer be defined")
        _raise_for(self.shape)


def _online(body: _Body, context: str) -> str:
    outside = [] if body.needs_connection else body.lines
    inside = body.lines if body.needs_connection else []
    configure = _configure(context, [f"connection={body.connection}", *body.keywords])
    run = _run(context, body.arguments)
    connected = "\n".join([*inside, configure, run])
    lines = [*outside, f"with target.connect() as {body.connection}:", textwrap.indent(connected, "    ")]
    return "def run_migrations_online(target):\n" + textwrap.indent("\n".join(lines), "    ") + "\n"


def _offline(body: _Body, context: str) -> str:
    configure = _configure(context, ["url=target.url", "literal_binds=True", *body.keywords])
    lines = "\n".join([*body.lines, configure, _run(context, body.arguments)])
    return "def run_migrations_offline(target):\n" + textwrap.indent(lines, "    ") + "\n"


def _configure(context: str, keywords: list[str]) -> str:
    line = f"{context}.configure(**target.options({', '.join(keywords)}))"
    if len(line) <= WIDTH and "\n" not in line:
        return line
    indented = "".join(f"        {keyword},\n" for keyword in keywords)
    return f"{context}.configure(\n    **target.options(\n{indented}    )\n)"


def _run(context: str, arguments: str) -> str:
    return f"with {context}.begin_transaction():\n    {context}.run_migrations({arguments})"


def _raise_for(shape: Shape) -> None:
    if shape.problems:
        raise NotCarried(sorted(set(shape.problems)))


def _literals(tree: ast.Module) -> dict[str, str]:
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and len(node.targets) == 1]
    texts = {ast.unparse(node.targets[0]): syntax.text_of(node.value) for node in assigned}
    return {name: text for name, text in texts.items() if text is not None}


def _is_file_config(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else syntax.root(call.func)
    return name == "fileConfig" and not any(keyword.arg == "disable_existing_loggers" for keyword in call.keywords)


def _undefined(tree: ast.Module) -> set[str]:
    return syntax.used_by(tree.body) - syntax.bound_by(tree.body) - set(dir(builtins)) - _OF_MODULES

"""A read-only view of the revision scripts: what exists, and which way leads from here to there."""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import inspect
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationStep, RevisionStep, StampStep
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import MultipleHeads
from alembic.util import CommandError

from orchestrator.errors import ScriptsError, SettingsError
from orchestrator.outputs import printed_aside
from orchestrator.plans import Command, Files, Route
from orchestrator.redaction import scrub

#: width of `version_num` in the version table that Alembic creates
LONGEST_REVISION = 32
#: names in a revision file whose values are texts
_TEXTS = frozenset({"revision", "down_revision", "branch_labels", "depends_on"})
_RELATIVE = re.compile(r"^(?:.+)?[+-]\d+$")


class Scripts:
    """The revisions of one section of alembic.ini, loaded and checked once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.section = config.config_ini_section
        self.directory = _load(config)
        self._nodes = {script.revision: script for script in self.directory.walk_revisions()}
        self._check_ids()
        self._check_functions()
        self.route = functools.lru_cache(maxsize=None)(self._route)
        #: the same question comes up for each target of a fleet
        self.leads = functools.lru_cache(maxsize=64)(self._leads)

    @property
    def heads(self) -> tuple[str, ...]:
        """Heads of all branches, those that another branch depends on left out, sorted."""
        return tuple(sorted(self.directory.get_heads(consider_depends_on=True)))

    def knows(self, heads: Sequence[str]) -> bool:
        """Whether every one of these ids has a file."""
        return all(head in self._nodes for head in heads)

    def is_relative(self, asked: str) -> bool:
        """Whether a revision is counted from where a target is: `+1`, `-2`, `branch@+1`, `ae10+2`."""
        return asked not in self._nodes and bool(_RELATIVE.match(asked))

    def resolve(self, asked: str) -> tuple[str, ...]:
        """Concrete ids for `head`, `heads`, `base`, a branch label, a partial or whole id; () for base.

        Raises `ScriptsError` for an unknown id, for a relative one, and for `head` where there are several heads.
        """
        if self.is_relative(asked):
            raise ScriptsError(f"`{asked}` depends on where a target is; it has no single revision")
        with _scripts_errors(self.section):
            scripts = self.directory.get_revisions(asked)
        return self._only_heads([script.revision for script in scripts if script is not None])

    def reached(self, heads: Sequence[str]) -> frozenset[str]:
        """Every revision that a target with these version rows has behind it, itself included."""
        seen: set[str] = set()
        waiting = [head for head in heads if head in self._nodes]
        while waiting:
            revision = waiting.pop()
            if revision not in seen:
                seen.add(revision)
                waiting.extend(_down(self._nodes[revision]))
        return frozenset(seen)

    def has_reached(self, heads: Sequence[str], wanted: Sequence[str]) -> bool:
        """Whether a target with these version rows is at, or beyond, what is wanted."""
        return self.reached(heads).issuperset(wanted)

    def steps(self, command: Command, route: Route, found: Sequence[str]) -> list[RevisionStep | StampStep]:
        """What Alembic runs for a route."""
        revision_map = self.directory.revision_map
        if command is Command.STAMP:
            return list(self.directory._stamp_revs(route.wanted or "base", tuple(found)))
        build = MigrationStep.upgrade_from_script if command is Command.UPGRADE else MigrationStep.downgrade_from_script
        return [build(revision_map, self._nodes[revision]) for revision in route.path]

    def route_to(self, found: tuple[str, ...], wanted: tuple[str, ...]) -> Route:
        """The way up from these heads to concrete ones."""
        with _scripts_errors(self.section):
            steps = self.directory._upgrade_revs(wanted, found)  # type: ignore[arg-type]
        return Route(path=_path(steps), wanted=wanted)

    def between(self, higher: Sequence[str], lower: Sequence[str]) -> tuple[str, ...]:
        """Revisions that the first heads have behind them and the second do not, as they are taken from one to the
        other: the latest first on the way down, the earliest first on the way up.
        """
        down = self.reached(higher) - self.reached(lower)
        up = self.reached(lower) - self.reached(higher)
        ordered = [revision for revision in self._nodes if revision in (down or up)]
        return tuple(ordered if down else reversed(ordered))

    def _leads(self, lower: tuple[str, ...], path: tuple[str, ...], higher: tuple[str, ...]) -> bool:
        """Whether these files allow going up from the first heads to the last by this path, in this order."""
        if not self.knows((*lower, *path, *higher)):
            return False
        behind = set(self.reached(lower))
        for revision in path:
            if not behind.issuperset(_down(self._nodes[revision])):
                return False
            behind.add(revision)
        return behind.issuperset(self.reached(higher))

    def irreversible(self, revision: str) -> str | None:
        """Why a revision cannot be taken back, None when it can as far as its file says."""
        tree = ast.parse(Path(self._nodes[revision].path).read_bytes())
        function = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "downgrade"), None)
        if function is None:
            return None if hasattr(self._nodes[revision].module, "downgrade") else "it has no function `downgrade`"
        body = [node for node in function.body if not _is_text(node)]
        if body and isinstance(body[0], ast.Raise):
            return "its `downgrade` raises"
        return None

    def source(self, revision: str) -> bytes:
        """What a revision's file says."""
        return Path(self._nodes[revision].path).read_bytes()

    def digests(self, revisions: Iterable[str]) -> Files:
        """SHA-256 of env.py and of the files of these revisions."""
        ids = sorted(set(revisions))
        try:
            env = (Path(self.directory.dir) / "env.py").read_bytes()
            return Files(env=_sha256(env), revisions={one: _sha256(self.source(one)) for one in ids})
        except OSError as error:
            raise ScriptsError(
                f"{error.filename}: {error.strerror}; what is run cannot be told without this file"
            ) from None

    def title(self, revision: str) -> str:
        """First line of the revision's message."""
        script = self._nodes.get(revision)
        return script.doc if script else ""

    @functools.cached_property
    def uses_environment(self) -> bool:
        """Whether env.py takes its targets from `orchestrator.environment`."""
        return uses_environment(Path(self.directory.dir) / "env.py")

    def _route(self, command: Command, found: tuple[str, ...], asked: str) -> Route:
        """The way to what was asked for; a relative `asked` is counted from `found`.

        Raises `ScriptsError` when there is no way, for example up from another branch.
        """
        if command is Command.UPGRADE:
            return self._up(found, asked)
        if command is Command.DOWNGRADE:
            return self._down(found, asked)
        return Route(path=(), wanted=self.resolve(asked))

    def _up(self, found: tuple[str, ...], asked: str) -> Route:
        self._refuse_direction(asked, "-", "downgrade")
        if not self.is_relative(asked):
            wanted = self.resolve(asked)
            if self.has_reached(found, wanted):
                return Route(path=(), wanted=wanted, past=bool(set(self._only_heads(found)) - set(wanted)))
        with _scripts_errors(self.section):
            steps = self.directory._upgrade_revs(asked, found)  # type: ignore[arg-type]
        path = _path(steps)
        return Route(path=path, wanted=self._only_heads([*found, *path]))

    def _down(self, found: tuple[str, ...], asked: str) -> Route:
        self._refuse_direction(asked, "+", "upgrade")
        if not self.is_relative(asked) and asked != "base" and "@" not in asked:
            wanted = self.resolve(asked)
            if not self.has_reached(found, wanted):
                return Route(path=(), wanted=wanted, past=True)
        with _scripts_errors(self.section):
            steps = self.directory._downgrade_revs(asked, found)  # type: ignore[arg-type]
        path = _path(steps)
        return Route(path=path, wanted=self._only_heads(self.reached(found) - set(path)))

    def _refuse_direction(self, asked: str, sign: str, other: str) -> None:
        if self.is_relative(asked) and sign in asked.rpartition("@")[2]:
            raise ScriptsError(f"`{asked}` goes the other way; use `orchestrate {other} {asked}`")

    def _only_heads(self, revisions: Sequence[str] | frozenset[str]) -> tuple[str, ...]:
        """Those of the revisions that no other of them has behind it: what the version table will hold."""
        behind: set[str] = set()
        for revision in revisions:
            if revision in self._nodes:
                behind |= self.reached(_down(self._nodes[revision]))
        return tuple(sorted(set(revisions) - behind))

    def _check_ids(self) -> None:
        for revision, script in self._nodes.items():
            if not revision:
                raise ScriptsError(f"{script.path}: the revision id is empty; give the file an id")
            if len(revision) > LONGEST_REVISION:
                raise ScriptsError(
                    f"{script.path}: revision id `{revision}` has {len(revision)} characters; the version table holds "
                    f"{LONGEST_REVISION}: give it a shorter id"
                )

    def _check_functions(self) -> None:
        """Alembic looks for them when it comes to the revision, with the targets' databases open."""
        for script in self._nodes.values():
            if not callable(getattr(script.module, "upgrade", None)):
                raise ScriptsError(f"{script.path} has no function `upgrade`; no tenant can be taken past it")
            for name in ("upgrade", "downgrade"):
                _refuse_deferred(script.path, name, getattr(script.module, name, None))


def load_config(path: Path, section: str, x: Sequence[str] = ()) -> Config:
    """Alembic's configuration for one section, with `-x` as its command line would give it."""
    config = Config(
        str(path),
        toml_file=str(path.parent / "pyproject.toml"),
        ini_section=section,
        cmd_opts=argparse.Namespace(x=list(x)),
    )
    if not config.file_config.has_section(section) and not config.toml_alembic_config:
        raise SettingsError(f"{path.name}: no section [{section}]; it has {_sections(config)}")
    return config


def uses_environment(env_py: Path) -> bool:
    """Whether an env.py imports `orchestrator.environment`; False for a classic one."""
    try:
        tree = ast.parse(env_py.read_bytes())
    except (OSError, SyntaxError) as error:
        raise ScriptsError(
            f"{env_py}: {type(error).__name__}: {error}; every migration starts from this file"
        ) from None
    return any(_imports_environment(node) for node in ast.walk(tree))


def _imports_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "orchestrator.environment" or (
            node.module == "orchestrator" and any(alias.name == "environment" for alias in node.names)
        )
    return isinstance(node, ast.Import) and any(alias.name == "orchestrator.environment" for alias in node.names)


def _sections(config: Config) -> str:
    return ", ".join(f"[{name}]" for name in config.file_config.sections()) or "none"


def _load(config: Config) -> ScriptDirectory:
    """All revision files, imported and linked; every mistake in them becomes a `ScriptsError` that names the file."""
    # What files print while they are imported must not get into somebody's JSON.
    with _scripts_errors(config.config_ini_section), warnings.catch_warnings(), printed_aside():
        warnings.filterwarnings("error", message="Revision .* is present more than once")
        warnings.filterwarnings("ignore", message="Revision .* referenced from .* is not present")
        directory = ScriptDirectory.from_config(config)
        try:
            directory.get_heads()
        except TypeError as error:
            raise ScriptsError(_ill_typed(directory) or f"[{config.config_ini_section}]: {error}") from error
        return directory


def _ill_typed(directory: ScriptDirectory) -> str | None:
    """Where a revision says with something else than text what it is or follows; Alembic does not say."""
    for path in sorted(file for folder in directory._version_locations for file in Path(folder).glob("*.py")):
        for node in ast.parse(path.read_bytes()).body:
            name = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if not isinstance(name, ast.Name) or name.id not in _TEXTS or not isinstance(value, ast.Constant):
                continue
            if value.value is None and name.id == "revision":
                return f"{path}:{node.lineno}: `revision` is None; give the file an id"
            if not isinstance(value.value, str | None):
                return f"{path}:{node.lineno}: `{name.id}` is {value.value!r}; it has to be text, put it in quotes"
    return None


def _refuse_deferred(path: str, name: str, function: object) -> None:
    """A coroutine or a generator does nothing when Alembic calls it, and would pass for a success."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if inspect.isfunction(function) and any(is_kind(function) for is_kind in kinds):
        raise ScriptsError(
            f"{path}:{function.__code__.co_firstlineno}: `{name}` is asynchronous or a generator, and nothing of it "
            "would run; make it a plain function without `await` and `yield`"
        )


@contextmanager
def _scripts_errors(section: str) -> Iterator[None]:
    """Say in one sentence what Alembic, and the files that it imports, raise in many ways."""
    try:
        with refusing_exits(section):
            yield
    except SyntaxError as error:
        # What cannot be text of a program at all has no place of its own.
        place = f"{error.filename}:{error.lineno}: " if error.filename else _where(error)
        raise ScriptsError(f"{place}{error.msg}; mend the revision file") from None
    except KeyError as error:
        raise ScriptsError(
            f"[{section}]: revision {error} is named by another one as its `down_revision` or `depends_on`, but no "
            "file has it; restore the file, or mend the name"
        ) from None
    except UserWarning as error:
        raise ScriptsError(f"[{section}]: {error}; give one of the files another id") from None
    except CommandError as error:
        raise ScriptsError(scrub(f"[{section}]: {_sentence(error)}")) from None
    except ScriptsError:
        raise
    except AttributeError as error:
        raise ScriptsError(scrub(f"[{section}]: {_lack(error)}")) from None
    except Exception as error:  # noqa: BLE001 - a file may raise anything
        # Without its cause, whose text is as it was raised.
        raise ScriptsError(scrub(f"[{section}]: {_where(error)}{type(error).__name__}: {error}")) from None


@contextmanager
def refusing_exits(section: str) -> Iterator[None]:
    """Raise `ScriptsError` for a `sys.exit` of env.py or of a revision: it would pass for a success of the command."""
    try:
        yield
    except SystemExit as error:
        raise ScriptsError(
            f"[{section}]: {_where(error)}`sys.exit` ends the command half-way; take it out of the file"
        ) from None


def _sentence(error: CommandError) -> str:
    cause = error.__cause__
    if isinstance(cause, MultipleHeads):
        heads = ", ".join(cause.heads)
        return (
            f"there are several heads ({heads}), so `{cause.argument}` is not one revision; ask for `heads`, for "
            "`BRANCH@head`, or join them with `alembic merge heads`"
        )
    return f"{error}{_remedy(str(error))}"


def _remedy(message: str) -> str:
    if "Can't locate revision" in message:
        return "; `alembic history` shows the ids that exist"
    if "No 'script_location'" in message:
        return "; `orchestrate init` writes one"
    return ""


def _lack(error: AttributeError) -> str:
    """Alembic takes `upgrade` and `downgrade` out of a revision's module when it makes a step of it."""
    file = getattr(error.obj, "__file__", None)
    if file is None or error.name not in ("upgrade", "downgrade"):
        return f"{_where(error)}AttributeError: {error}"
    return f"{file} has no function `{error.name}`, so this revision cannot be taken that way; nothing was done"


def _where(error: BaseException) -> str:
    """The innermost of the files that Alembic loads, env.py and revisions: it gives their modules such names."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module == "alembic.util.pyfiles" and "path" in frame.f_locals:
            place = f"{frame.f_locals['path']}: "
        elif module.endswith("_py"):
            place = f"{frame.f_code.co_filename}:{line}: "
    return place


def _is_text(node: ast.stmt) -> bool:
    """A docstring or `...`."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _path(steps: Sequence[RevisionStep]) -> tuple[str, ...]:
    return tuple(step.revision.revision for step in steps)


def _down(script: Script) -> tuple[str, ...]:
    """What must have run before a revision: its down revisions and what it depends on."""
    return tuple(script._all_down_revisions)

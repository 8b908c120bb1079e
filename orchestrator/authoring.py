"""New revision files: empty ones, and those that Alembic writes by comparing models with one tenant."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import Script
from alembic.util import CommandError

from orchestrator import applications, classic, logs
from orchestrator.environment import HANDOVER, Handover, Purpose, compared
from orchestrator.errors import ScriptsError
from orchestrator.outputs import printed_aside
from orchestrator.revisions import Scripts, refusing_exits
from orchestrator.tenants import Target


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RevisionOptions:
    """Alembic's own options for a new revision; None for Alembic's default."""

    head: str | None = None
    splice: bool = False
    branch_label: str | None = None
    version_path: str | None = None
    rev_id: str | None = None
    depends_on: str | None = None

    def keywords(self) -> dict[str, Any]:
        """Keywords of `alembic.command.revision`."""
        given = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in given.items() if value is not None}


def write_revision(scripts: Scripts, message: str, options: RevisionOptions, app: str | None = None) -> list[Path]:
    """Write an empty revision file."""
    with _raised_as_ours(scripts.section), applications.active(app):
        return _paths(command.revision(_quiet(scripts.config), message=message, **options.keywords()))


def template_needs_application(scripts: Scripts) -> bool:
    """Whether script.py.mako uses Flask's `current_app`, as Flask-Migrate's template for several databases does."""
    template = Path(scripts.directory.dir) / "script.py.mako"
    return template.is_file() and "current_app" in template.read_text(encoding="utf-8")


def autogenerate(scripts: Scripts, message: str, targets: Sequence[Target], options: RevisionOptions) -> list[Path]:
    """Write what differs between the models and one tenant; no file where nothing differs.

    Raises `ScriptsError` when the tenant is not at head: the difference would hold what is still to be run.
    """
    config = _quiet(scripts.config)
    chosen = compared(targets, scripts.directory.dir)
    config.attributes[HANDOVER] = Handover(targets=tuple(chosen), purpose=Purpose.COMPARE)
    prepared = (
        contextlib.nullcontext()
        if scripts.uses_environment
        else classic.prepared(config, chosen[0], f"orchestrate/revision/{chosen[0].name}", writing=False)
    )
    try:
        with _raised_as_ours(scripts.section, chosen[0]), prepared, applications.active(chosen[0].app), logs.guarded():
            written = command.revision(
                config,
                message=message,
                autogenerate=True,
                process_revision_directives=_drop_empty(len(chosen)),
                **options.keywords(),
            )
    finally:
        del config.attributes[HANDOVER]
    return _paths(written)


def _drop_empty(databases: int) -> Callable[[object, object, list[Any]], None]:
    """A hook that writes no revision that would change nothing; it is called once for each database compared."""

    def drop(_context: object, _revision: object, directives: list[Any]) -> None:
        compared_so_far = directives[0].upgrade_ops_list if directives else []
        if len(compared_so_far) == databases and all(operations.is_empty() for operations in compared_so_far):
            directives.clear()

    return drop


def _quiet(config: Config) -> Config:
    """Alembic prints what it writes; our caller does, once, in the form that was asked for."""
    config.cmd_opts.quiet = True  # type: ignore[union-attr]
    config.messaging_opts = {"quiet": True}
    return config


def _paths(written: Script | list[Script | None] | None) -> list[Path]:
    scripts = written if isinstance(written, list) else [written]
    return [Path(script.path) for script in scripts if script is not None]


@contextlib.contextmanager
def _raised_as_ours(section: str, target: Target | None = None) -> Iterator[None]:
    try:
        # What env.py and revisions print must not get into somebody's JSON.
        with refusing_exits(section), printed_aside():
            yield
    except CommandError as error:
        message = str(error)
        if target is not None and "not up to date" in message:
            message = f"{target.name} is not at head; run `orchestrate upgrade -t {target.tenant.name}` first"
        raise ScriptsError(f"[{section}]: {message}") from error

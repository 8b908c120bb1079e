"""Plans in files: the options that name them, what may not stand beside them, and what they are held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import deferred, documents, options
from orchestrator.cli.options import Common, Decorator, Planning, Targeting
from orchestrator.cli.render import wrapped
from orchestrator.cli.terminals import Line, Mood
from orchestrator.errors import UsageError
from orchestrator.reports import files

if TYPE_CHECKING:
    from orchestrator.differences import Difference
    from orchestrator.plans import Plan

DIFF_FORMAT = "orchestrate.plan_diff/1"
_HEADING = "Saved plans"
_FILE = click.Path(dir_okay=False, path_type=Path)
#: parameters that ask for a plan, which a saved one has done already
_ASKING = frozenset(
    {"revision", *(field.name for record in (Targeting, Planning) for field in dataclasses.fields(record))}
)


def _check_folder(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"{value}: the folder does not exist", ctx, param)
    return value


def _check_digest(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else f"sha256:{deferred.plan_files.parse_digest(value)}"
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


out_option: Decorator = options.option(
    "--out", heading=_HEADING, metavar="FILE", type=_FILE, callback=_check_folder, help="Also write the plan to FILE."
)
diff_option: Decorator = options.option(
    "--diff", heading=_HEADING, metavar="FILE", type=_FILE, help="What has changed since the plan in FILE was made."
)
check_option: Decorator = options.option(
    "--check", heading=_HEADING, is_flag=True, help="With --diff: exit with 5 when something has changed."
)
plan_option: Decorator = options.option(
    "--plan", "plan_file", heading=_HEADING, metavar="FILE", type=_FILE, help="Run the plan in FILE, if it still holds."
)
approve_option: Decorator = options.option(
    "--approve-digest",
    "approved",
    heading=_HEADING,
    metavar="DIGEST",
    envvar="ORCHESTRATE_APPROVED_DIGEST",
    callback=_check_digest,
    help="Run the plan of this digest and no other.",
)


def refuse_beside(flag: str) -> None:
    """Refuse arguments that ask for a plan beside a saved one, which says itself what was asked."""
    ctx = click.get_current_context()
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in _ASKING and source is click.core.ParameterSource.COMMANDLINE:
            name = parameter.opts[-1] if isinstance(parameter, click.Option) else "REVISION"
            raise UsageError(f"{flag} FILE says what was asked for when the plan was made: leave out {name}")


def write(path: Path, document: dict[str, Any]) -> None:
    """Put the plan in the file, whole or not at all."""
    files.write(path, deferred.plan_files.text(document), option="--out")


def show_changes(common: Common, path: Path, then: Plan, now: Plan | None, changes: Sequence[Difference]) -> None:
    """Answer with what has changed since a plan was saved."""
    rows = [change.to_json() for change in changes]
    digest = None if now is None else now.digest
    document = {"format": DIFF_FORMAT, "then": then.digest, "now": digest, "differences": rows}
    lines = _lines(path, then, changes, common.screen.width)
    documents.answer(common, document=document, rows=rows, lines=lines)


def _lines(path: Path, then: Plan, changes: Sequence[Difference], width: int) -> Iterator[Line]:
    if not changes:
        yield Line(f"nothing has changed since {path}: {then.digest}", Mood.GOOD)
        return
    yield Line(f"since {path}:", Mood.STRONG)
    for change in changes:
        yield from wrapped(change.text, width)

"""`orchestrate revision`."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, documents, options, suggestions
from orchestrator.cli.groups import Command
from orchestrator.cli.terminals import Line, Mood
from orchestrator.errors import UsageError

_REVISION = "Revision"


@click.command("revision", cls=Command)
@options.option(
    "-m", "--message", heading=_REVISION, metavar="TEXT", required=True, help="What it does, in a few words."
)
@options.option("--autogenerate", heading=_REVISION, is_flag=True, help="Fill it in by comparing models and a tenant.")
@options.option(
    "-t",
    "--tenant",
    heading=_REVISION,
    metavar="NAME",
    shell_complete=suggestions.tenants,
    help="The tenant to compare with.  [default: the first]",
)
@options.option("--head", heading=_REVISION, metavar="REVISION", help="What it follows, where there are several heads.")
@options.option("--splice", heading=_REVISION, is_flag=True, help="Let it follow a revision that is no head.")
@options.option("--branch-label", heading=_REVISION, metavar="LABEL", help="Name of the branch that it begins.")
@options.option("--version-path", heading=_REVISION, metavar="DIR", help="Folder for the file.")
@options.option("--rev-id", heading=_REVISION, metavar="ID", help="Its id, instead of a random one.")
@options.option("--depends-on", heading=_REVISION, metavar="REVISION", help="A revision that must be there first.")
@options.common
def command(message: str, *, autogenerate: bool, tenant: str | None, **chosen: str | bool | None) -> None:
    """Write a new revision file; with --autogenerate nothing is written where nothing differs."""
    if tenant is not None and not autogenerate:
        raise UsageError("-t names the tenant that --autogenerate compares with: add --autogenerate or leave -t out")
    common = options.current()
    project = options.open_project(common) if autogenerate else options.open_records(common)
    paths = project.revise(
        message,
        autogenerate=autogenerate,
        selection=deferred.selectors.Selection(names=(tenant,)) if tenant else None,
        options=deferred.authoring.RevisionOptions(**chosen),  # type: ignore[arg-type]  # click's values have its types
    )
    names = [str(path) for path in paths]
    documents.answer(
        common,
        document={"format": "orchestrate.revision/1", "files": names},
        rows=({"file": name} for name in names),
        lines=[Line(name) for name in names],
    )
    if not names:
        common.screen.say("no difference found; nothing was written", Mood.GOOD)

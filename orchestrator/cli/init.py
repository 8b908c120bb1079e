"""`orchestrate init`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from orchestrator.cli import confirm, deferred, documents, options
from orchestrator.cli.groups import Command
from orchestrator.cli.render import counted
from orchestrator.cli.terminals import Line, Mood

_MOODS = {"+": Mood.GOOD, "-": Mood.BAD, "@": Mood.FAINT}


@click.command("init", cls=Command)
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@options.option("--yes", heading="Output", is_flag=True, help="Write what is shown, without asking.")
@options.common
def command(directory: Path, *, yes: bool) -> None:
    """Start a project in DIRECTORY, or adopt the Alembic environment that is there.

    It shows every change and asks before it writes; revisions are left alone. Without a terminal it needs --yes.
    """
    common = options.current()
    proposal = deferred.adoption.propose(directory, Path(common.config) if common.config else None)
    files = [os.path.relpath(change.path, directory) for change in proposal.changes]
    document = {
        "format": "orchestrate.init/1",
        "files": files,
        "diff": proposal.diff(),
        "notes": list(proposal.notes),
        "complete": proposal.complete,
    }
    documents.answer(common, document=document, rows=[document], lines=_colored(proposal.diff()))
    for note in proposal.notes:
        common.screen.say(note, None if proposal.complete else Mood.WARNING)
    if proposal.is_empty:
        return
    confirm.consent(f"write {counted(len(files), 'file')}", yes=yes)
    proposal.apply()
    common.screen.say(f"wrote {', '.join(files)}; next: orchestrate tenants check", Mood.GOOD)


def _colored(diff: str) -> Iterator[Line]:
    return (Line(line, _MOODS.get(line[:1])) for line in diff.splitlines())

"""The command line: `main` starts it, `commands` is the group that `flask tenants` reuses."""

from __future__ import annotations

import click

from orchestrator.cli import options, terminals
from orchestrator.cli.groups import LazyGroup

_SUMMARIES = {
    "init": "Start a project, or adopt an Alembic environment.",
    "tenants": "Show and check the registry.",
    "status": "Show who is at which revision.",
    "plan": "Show what an upgrade would do.",
    "upgrade": "Bring targets up to a revision.",
    "downgrade": "Take targets back to a revision.",
    "stamp": "Record a revision without running it.",
    "resume": "Go on with a run where it stopped.",
    "retry": "Do what failed in a run once more.",
    "rollback": "Take back what a run did.",
    "pause": "Let a live run start nothing more for now.",
    "continue": "Let a run go on that waits for somebody.",
    "skip": "Leave one target of a run alone.",
    "abort": "End a run for good.",
    "revision": "Write a new revision file.",
    "runs": "Show what was run, and what became of it.",
    "doctor": "Check everything that a run needs.",
    "completion": "Print the completion script of a shell.",
}

_EPILOG = (
    "Exit codes: 0 done or nothing due, 1 failures, 2 usage or settings, 3 refused, 4 paused, "
    "5 --check found something due, 70 internal error, 130 interrupted."
)


@click.group(
    "orchestrate",
    cls=LazyGroup,
    package=__name__,
    summaries=_SUMMARIES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="alembic-orchestrator", prog_name="orchestrate", message="%(prog)s %(version)s")
@options.common
def commands() -> None:
    """Migrate every tenant's database with Alembic: all of them, in parallel, provably."""


def main() -> None:
    """Run the command line; the console script `orchestrate`."""
    terminals.open_closed_streams()
    commands.main(prog_name="orchestrate")

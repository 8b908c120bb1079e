"""The command line: `main` starts it, `commands` is the group that `flask tenants` reuses."""

from __future__ import annotations

import click

from orchestrator.cli import options
from orchestrator.cli.groups import LazyGroup

_NAMES = (
    "init",
    "tenants",
    "status",
    "plan",
    "upgrade",
    "downgrade",
    "stamp",
    "revision",
    "runs",
    "doctor",
    "completion",
)

_EPILOG = (
    "Exit codes: 0 done or nothing due, 1 failures, 2 usage or settings, 3 refused, 4 paused, "
    "5 --check found something due, 70 internal error, 130 interrupted."
)


@click.group(
    "orchestrate",
    cls=LazyGroup,
    modules={name: f"{__name__}.{name}" for name in _NAMES},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="alembic-orchestrator", prog_name="orchestrate", message="%(prog)s %(version)s")
@options.common
def commands() -> None:
    """Migrate every tenant's database with Alembic: all of them, in parallel, provably."""


def main() -> None:
    """Run the command line; the console script `orchestrate`."""
    commands.main(prog_name="orchestrate")

"""`orchestrate pause`."""

from __future__ import annotations

import click

from orchestrator.cli import options
from orchestrator.cli.asking import answer
from orchestrator.cli.groups import Command


@click.command("pause", cls=Command)
@options.run_argument
@options.common
def command(run: str | None) -> None:
    """Let the live RUN start nothing more until somebody types `orchestrate continue`.

    What is at work ends properly. On a terminal the run waits; elsewhere it ends with exit code 4 and can be continued
    from anywhere. It stays paused when its runner dies.
    """
    common = options.current()
    answer(common, options.open_records(common).control.pause(run))

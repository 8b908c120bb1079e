"""`orchestrate completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from orchestrator.cli import options
from orchestrator.cli.groups import Command

_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_ORCHESTRATE_COMPLETE"


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(_SHELLS))
@options.common
def command(shell: str) -> None:
    """Print the script that completes `orchestrate` in SHELL.

    For bash: orchestrate completion bash > ~/.local/share/bash-completion/completions/orchestrate
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root()
    options.current().screen.raw(found(root.command, {}, "orchestrate", _VARIABLE).source())

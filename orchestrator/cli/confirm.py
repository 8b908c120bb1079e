"""Consent before anything is written: a question on a terminal, a flag without one, a name where it is protected."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, terminals
from orchestrator.errors import Refused, UsageError


def environment(given: str | None, *, name: str, protected: bool) -> None:
    """Refuse a write to a protected environment that was not named, and to any that was named wrongly."""
    deferred.registry.refuse_unconfirmed(name, given, protected=protected, flag="--confirm ")


def consent(question: str, *, yes: bool) -> None:
    """Ask, unless `--yes` has answered; without a terminal there is nobody to ask."""
    if yes:
        return
    if not terminals.is_interactive():
        raise UsageError(f"{question}: there is no terminal to ask on; pass --yes to say so")
    if not click.confirm(f"{terminals.visible(question)}?", default=False, err=True):
        raise Refused("not confirmed; nothing was written")

"""The group behind `flask tenants`: `orchestrate` itself, run inside the application's context."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flask import Flask

#: key of the application's configuration that names its alembic.ini
CONFIG = "ORCHESTRATE_CONFIG"
_VARIABLES = ("ORCHESTRATE_CONFIG", "ALEMBIC_CONFIG")
#: Flask-Migrate keeps its settings in this folder
_PLACES = ("alembic.ini", "migrations/alembic.ini")
#: how far above the application's own folder its project may begin
_PARENTS = 3


class ApplicationGroup(click.Group):
    """Stands in for `orchestrate` until one of its commands is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands of `orchestrate`."""
        return _orchestrate().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of `orchestrate`."""
        return _orchestrate().get_command(ctx, cmd_name)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Hand over to `orchestrate` with the application's context pushed and its alembic.ini as the default."""
        ctx = _orchestrate().make_context(info_name, args, parent=parent, **extra)
        if not ctx.resilient_parsing:
            with ctx.scope(cleanup=False):
                self._enter(ctx)
        return ctx

    def _enter(self, ctx: click.Context) -> None:
        from flask.cli import ScriptInfo  # noqa: PLC0415 - `flask --help` of an application must stay fast

        from orchestrator.cli.options import META  # noqa: PLC0415 - as above

        app = ctx.ensure_object(ScriptInfo).load_app()
        ctx.with_resource(app.app_context())
        config = config_of(app)
        if config is not None:
            ctx.meta.setdefault(META, {}).setdefault("config", str(config))


def config_of(app: Flask) -> Path | None:
    """The application's alembic.ini: as configured, else found near it; None where the environment names one."""
    if any(os.environ.get(variable) for variable in _VARIABLES):
        return None
    root = Path(app.root_path)
    configured = app.config.get(CONFIG)
    if configured:
        return Path(configured) if Path(configured).is_file() else root / configured
    folders = (Path.cwd(), root, *list(root.parents)[:_PARENTS])
    return next((folder / place for place in _PLACES for folder in folders if (folder / place).is_file()), None)


def _orchestrate() -> click.Group:
    from orchestrator.cli import commands  # noqa: PLC0415 - the command line is imported when one of its commands is

    return commands


tenants = ApplicationGroup("tenants", help="Migrate every tenant's database: the commands of `orchestrate`.")

"""`orchestrate tenants list|show|check`."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, documents, options, suggestions
from orchestrator.cli.groups import Command, Group
from orchestrator.cli.render import counted
from orchestrator.cli.render_tenants import tenant_lines, tenants_document, tenants_lines
from orchestrator.cli.terminals import Line, Mood
from orchestrator.errors import ExitCode


@click.group("tenants", cls=Group)
@options.common
def command() -> None:
    """Show and check the tenants of the registry. Nothing is written."""


@command.command("list", cls=Command, short_help="List the targets of the registry.")
@options.targeting
@options.common
def show_all(targeting: options.Targeting) -> None:
    """List the targets, all of them unless told otherwise."""
    common = options.current()
    project = options.open_project(common)
    targets = project.select(targeting.selection(project))
    registry = project.registry
    document = tenants_document(targets, project=registry.project, environment=registry.environment)
    documents.answer(common, document=document, rows=document["targets"], lines=tenants_lines(targets))


@command.command("show", cls=Command, short_help="Show all that is known about one tenant.")
@click.argument("name", shell_complete=suggestions.tenants)
@options.common
def show_one(name: str) -> None:
    """Show all that is known about the tenant NAME."""
    common = options.current()
    project = options.open_project(common)
    targets = project.select(deferred.selectors.Selection(listed=(name,)))
    registry = project.registry
    document = tenants_document(targets, project=registry.project, environment=registry.environment)
    documents.answer(common, document=document, rows=document["targets"], lines=tenant_lines(targets))


@command.command("check", cls=Command, short_help="Check the registry, and look for forgotten tenants.")
@options.common
def check() -> None:
    """Check the registry and its sources, and look for databases and schemas that belong to no tenant.

    Exits 2 when the registry is wrong, and 1 when something matches its templates but is not registered.
    """
    common = options.current()
    project = options.open_project(common)
    registry = project.registry
    forgotten = project.unregistered()
    numbers = f"{counted(len(registry.tenants), 'tenant')}, {counted(len(registry.targets), 'target')}"
    lines = [Line(f"{registry.path.name}: {numbers}, no mistakes", Mood.GOOD)]
    if forgotten:
        lines.append(Line(f"{counted(len(forgotten), 'place')} like a tenant's, but not registered:", Mood.WARNING))
        lines += [Line(f"  {place}", Mood.WARNING) for place in forgotten]
    document = {
        "format": "orchestrate.tenants_check/1",
        "project": registry.project,
        "environment": registry.environment,
        "tenants": len(registry.tenants),
        "targets": len(registry.targets),
        "unregistered": forgotten,
    }
    documents.answer(common, document=document, rows=({"unregistered": place} for place in forgotten), lines=lines)
    if forgotten:
        click.get_current_context().exit(ExitCode.FAILURES)

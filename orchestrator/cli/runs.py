"""`orchestrate runs list|show`."""

from __future__ import annotations

import click

from orchestrator.cli import deferred, documents, options, rolling, suggestions
from orchestrator.cli.groups import Command, Group
from orchestrator.cli.render_report import report_lines
from orchestrator.cli.render_runs import run_row, runs_lines, story_document, story_lines
from orchestrator.errors import UsageError


@click.group("runs", cls=Group)
@options.common
def command() -> None:
    """Show what was run, and what became of it, from the ledger alone."""


@command.command("list", cls=Command, short_help="List the latest runs.")
@options.option(
    "--last", heading="Output", metavar="N", type=click.IntRange(min=1), default=20, help="How many.  [default: 20]"
)
@options.common
def show_all(last: int) -> None:
    """List the latest runs, newest first."""
    common = options.current()
    project = options.open_records(common)
    ledger = project.ledger_if_any()
    runs = [] if ledger is None else list(ledger.runs(limit=last))
    rows = [run_row(run) for run in runs]
    documents.answer(common, document={"format": "orchestrate.runs/1", "runs": rows}, rows=rows, lines=runs_lines(runs))


@command.command("show", cls=Command, short_help="Show the report of a run, or one target's story in it.")
@click.argument("run", required=False, shell_complete=suggestions.runs)
@options.option(
    "--target",
    heading="Output",
    metavar="NAME",
    shell_complete=suggestions.tenants,
    help="Show every try on this target, and its log.",
)
@options.common
def show_one(run: str | None, target: str | None) -> None:
    """Show the report of RUN, the latest unless named; the beginning of its id is enough."""
    common = options.current()
    project = options.open_records(common)
    report = project.report(run)
    if target is None:
        documents.answer(
            common,
            document=report.to_json(),
            rows=(outcome.to_json() for outcome in report.outcomes),
            lines=report_lines(report, rolling.view(common)),
        )
        return
    outcome = next((outcome for outcome in report.outcomes if outcome.target == target), None)
    ledger = project.ledger_if_any()
    if outcome is None or ledger is None:
        raise UsageError(f"run {report.run} has no target `{target}`; see `orchestrate runs show {report.run} -v`")
    attempts = ledger.attempts(report.run, target)
    records = list(deferred.logs.read(project.settings.log_file, run=report.run, target=target))
    document = story_document(report, outcome, attempts, records)
    documents.answer(common, document=document, rows=[document], lines=story_lines(document, width=common.screen.width))

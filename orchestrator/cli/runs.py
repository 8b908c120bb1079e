"""`orchestrate runs list|show|watch|report|audit|reconcile|prune`."""

from __future__ import annotations

import datetime

import click

from orchestrator.cli import asking, confirm, deferred, documents, live, options, rolling, suggestions, watching
from orchestrator.cli.groups import Command, Group, Reporting
from orchestrator.cli.render_records import (
    audit_lines,
    audit_row,
    pruned_lines,
    reconciled_document,
    reconciled_lines,
)
from orchestrator.cli.render_report import report_lines
from orchestrator.cli.render_runs import run_row, runs_lines, story_document, story_lines
from orchestrator.errors import ExitCode, UsageError
from orchestrator.outcomes import Report


@click.group("runs", cls=Group)
@options.common
def command() -> None:
    """Show what was run and what became of it, and look after the ledger."""


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


@command.command("audit", cls=Command, short_help="Show who did what, and when.")
@options.option(
    "--last", heading="Output", metavar="N", type=click.IntRange(min=1), default=50, help="How many.  [default: 50]"
)
@options.common
def audit(last: int) -> None:
    """Show who did what and when, latest first. These rows are never changed, and `prune` leaves them."""
    common = options.current()
    entries = options.open_records(common).runs.audit(last)
    rows = [audit_row(entry) for entry in entries]
    document = {"format": "orchestrate.audit/1", "entries": rows}
    documents.answer(common, document=document, rows=rows, lines=audit_lines(entries))


@command.command("reconcile", cls=Command, short_help="Write down where every target really is.")
@options.common
def reconcile() -> None:
    """Read the version table of every target and write down what it says.

    For a ledger that was lost, is from yesterday's backup, or knows nothing of what was done by hand. Runs whose runner
    died are settled. No target is written to. Exits 1 when a target could not be read.
    """
    common = options.current()
    project = options.open_project(common)
    with common.screen.waiting(rolling.reading(project)):
        done = project.runs.reconcile()
    outcomes = project.report(done.run.id).outcomes
    document = reconciled_document(done, outcomes)
    lines = reconciled_lines(document, live.view(common))
    documents.answer(common, document=document, rows=document["differing"], lines=lines)
    if document["unreadable"]:
        click.get_current_context().exit(ExitCode.FAILURES)


def _age(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime.timedelta | None:
    if value is None:
        return None
    try:
        return datetime.timedelta(seconds=deferred.registry.read_duration(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is {error}", ctx, param) from error


@command.command("prune", cls=Command, short_help="Delete old runs from the ledger.")
@options.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=0),
    default=20,
    heading="Deleting",
    help="Keep so many of the latest runs.  [default: 20]",
)
@options.option(
    "--older-than", metavar="AGE", callback=_age, heading="Deleting", help="Only runs of before that, such as 90d."
)
@options.option("--yes", is_flag=True, heading="Deleting", help="Delete without asking.")
@options.common
def prune(keep: int, older_than: datetime.timedelta | None, *, yes: bool) -> None:
    """Delete old runs, with their outcomes and attempts, and name them.

    The latest runs stay, so does every run that is open, and so do the audit table and the tenants themselves. It asks
    first; without a terminal it needs --yes.
    """
    common = options.current()
    project = options.open_records(common)
    confirm.consent(_question(keep, older_than), yes=yes)
    deleted = project.runs.prune(keep=keep, older_than=older_than)
    document = {"format": "orchestrate.pruned/1", "runs": list(deleted)}
    documents.answer(common, document=document, rows=({"run": run} for run in deleted), lines=pruned_lines(deleted))


def _question(keep: int, older_than: datetime.timedelta | None) -> str:
    now = datetime.datetime.now(datetime.UTC)
    age = f" of before {now - older_than:%Y-%m-%d %H:%M} UTC" if older_than else ""
    return f"delete the closed runs{age} but the latest {keep:,} from the ledger"


@command.command("show", cls=Reporting, short_help="Show the report of a run, or one target's story in it.")
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
        _answer(common, report)
        return
    outcome = next((outcome for outcome in report.outcomes if outcome.target == target), None)
    ledger = project.ledger_if_any()
    if outcome is None or ledger is None:
        raise UsageError(f"run {report.run} has no target `{target}`; see `orchestrate runs show {report.run} -v`")
    attempts = ledger.attempts(report.run, target)
    records = list(deferred.logs.read(project.settings.log_file, run=report.run, target=target))
    document = story_document(report, outcome, attempts, records)
    documents.answer(common, document=document, rows=[document], lines=story_lines(document, width=common.screen.width))


@command.command("watch", cls=Reporting, short_help="Follow a run from another terminal or machine.")
@options.run_argument
@options.common
def watch(run: str | None) -> None:
    """Show how far RUN is until it ends, then its report, and exit with its exit code.

    Without RUN it is the live one, else the latest that is open, else the latest. Only the ledger is read. Ctrl-C ends
    the watching; the run goes on.
    """
    common = options.current()
    project = options.open_records(common)
    click.get_current_context().exit(watching.watch(common, project, run))


@command.command("report", cls=Reporting, short_help="Write the report of a run, in any form.")
@click.argument("run", required=False, shell_complete=suggestions.runs)
@options.common
def report(run: str | None) -> None:
    """Write the report of RUN, the latest unless named; the beginning of its id is enough.

    To standard output as text, or with -o as JSON, and to each --report FILE in the form of its ending: .html is a page
    for people, .xml is JUnit, .md is Markdown, .json has everything. It is made from the ledger, at any later time.
    """
    common = options.current()
    _answer(common, options.open_records(common).report(run))


def _answer(common: options.Common, report: Report) -> None:
    documents.answer(
        common,
        document=report.to_json(),
        rows=(outcome.to_json() for outcome in report.outcomes),
        lines=report_lines(report, live.view(common)),
        report=report,
    )


@command.command("budget", cls=Command, short_help="Let a run tolerate more failures, or fewer.")
@options.run_argument
@options.option(
    "--max-failures", heading="Rolling out", metavar="N|N%", required=True, help="Stop starting when more have failed."
)
@options.option("--wave", heading="Rolling out", metavar="NAME", help="In that wave, instead of in the whole run.")
@options.confirming
@options.common
def budget(run: str | None, max_failures: str, wave: str | None, confirm: str | None) -> None:
    """Change how many failures RUN tolerates, by default the run that is open.

    A live run heeds it at once. One that has halted goes on with it by `orchestrate resume`. A percent is of the jobs
    of the run, or of the wave.
    """
    common = options.current()
    asked = options.open_project(common).control.budget(max_failures, run, wave=wave, confirm=confirm)
    asking.answer(common, asked)

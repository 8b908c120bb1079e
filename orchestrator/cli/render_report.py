"""The report of a run as text: head, counters, causes, and what to type next; short at any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.cli.progress import duration
from orchestrator.cli.render import INDENT, blocks, goal_text, heads_text
from orchestrator.cli.render_causes import (
    View,
    failure_groups,
    failure_paragraphs,
    left_alone_groups,
    left_alone_paragraph,
)
from orchestrator.cli.terminals import Line, Mood
from orchestrator.outcomes import DONE, FAILING, Outcome, Report, RunStatus, Status

_OPEN = frozenset({RunStatus.INTERRUPTED, RunStatus.HALTED, RunStatus.PAUSED, RunStatus.RUNNING})
_MOODS = {RunStatus.SUCCEEDED: Mood.GOOD, RunStatus.FAILED: Mood.BAD, RunStatus.HALTED: Mood.BAD}


def report_lines(report: Report, view: View) -> Iterator[Line]:
    """The whole report; the same for a run that has just ended and for one from the ledger."""
    failures = failure_groups(report.outcomes)
    left_alone = left_alone_groups(report.outcomes)
    return blocks(
        [
            [*_head(report), *_counters(report)],
            *failure_paragraphs(failures, view),
            left_alone_paragraph(left_alone, view),
            list(_next(report, failures, view)),
        ]
    )


def closing_lines(report: Report, view: View) -> Iterator[Line]:
    """The first line and the last ones: how it ended, and what to type next."""
    yield from _head(report)
    yield from _next(report, failure_groups(report.outcomes), view)


def _head(report: Report) -> Iterator[Line]:
    what = goal_text(report.command, report.revision)
    mood = _MOODS.get(report.status, Mood.WARNING)
    yield Line(f"run {report.run}: {what} {report.status.value} in {duration(report.duration_s)}", mood)


def _counters(report: Report) -> Iterator[Line]:
    counts = {Status(name): number for name, number in report.counts.items() if number}
    width = max((len(f"{number:,}") for number in counts.values()), default=1)
    for status, number in counts.items():
        mood = Mood.GOOD if status in DONE else Mood.BAD if status in FAILING else Mood.WARNING
        yield Line(f"{INDENT}{number:>{width},}  {status.value.replace('_', ' ')}", mood)
    if not counts:
        yield Line(f"{INDENT}no targets")


def _next(report: Report, failures: Sequence[Sequence[Outcome]], view: View) -> Iterator[Line]:
    if failures:
        name = failures[0][0].target
        yield Line(f"look closer: orchestrate runs show {report.run} --target {name}")
    # Never `--all`: the run may have been about a few targets only.
    again = view.again or f"{_command(report)}, for the targets that are left"
    if report.status in _OPEN:
        yield Line(f"to go on: {again}")
    elif failures and any(outcome.status is Status.DEFERRED for outcome in report.outcomes):
        yield Line(f"once mended: {again}")  # `--failed` would leave out what was put off because of them
    elif failures:
        command = "orchestrate upgrade" if report.command == "upgrade" else _command(report)
        yield Line(f"once mended: {command} --failed")


def _command(report: Report) -> str:
    """The command line up to its targets; what was counted from many starting points went to many places."""
    if len(report.revision) > 1 or (report.command == "upgrade" and not report.revision):
        return f"the same {report.command}"
    return f"orchestrate {report.command} {heads_text(report.revision)}"

"""The report of a run as text: head, counters, causes, and what to type next; short at any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.cli.progress import duration
from orchestrator.cli.render import INDENT, blocks, goal_text
from orchestrator.cli.render_causes import (
    View,
    failure_groups,
    failure_paragraphs,
    left_alone_groups,
    left_alone_paragraph,
)
from orchestrator.cli.terminals import Line, Mood
from orchestrator.outcomes import DONE, FAILING, Outcome, Report, RunStatus, Status

#: what a later `resume` takes up
_LEFT = frozenset({Status.NOT_STARTED, Status.DEFERRED})
_ENDED_BADLY = frozenset({RunStatus.FAILED, RunStatus.HALTED, RunStatus.INTERRUPTED, RunStatus.ABORTED})
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
            list(_next(report, failures)),
        ]
    )


def closing_lines(report: Report) -> Iterator[Line]:
    """The first line and the last ones: how it ended, and what to type next."""
    yield from _head(report)
    yield from _next(report, failure_groups(report.outcomes))


def _head(report: Report) -> Iterator[Line]:
    what = goal_text(report.command, report.revision)
    mood = _MOODS.get(report.status, Mood.WARNING)
    yield Line(f"run {report.run}: {what} {_ending(report)}", mood)
    if report.parent is not None:
        yield Line(f"{INDENT}takes back {report.parent}")


def _ending(report: Report) -> str:
    """`succeeded in 12 s`; a run that nobody has ended took no time yet."""
    status = report.status.value
    if report.status is RunStatus.RUNNING:
        return f"{status} since {report.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if report.status is RunStatus.INTERRUPTED and not report.duration_s:
        return f"{status}: its runner died"
    return f"{status} in {duration(report.duration_s)}"


def _counters(report: Report) -> Iterator[Line]:
    counts = {Status(name): number for name, number in report.counts.items() if number}
    width = max((len(f"{number:,}") for number in counts.values()), default=1)
    for status, number in counts.items():
        mood = Mood.GOOD if status in DONE else Mood.BAD if status in FAILING else Mood.WARNING
        yield Line(f"{INDENT}{number:>{width},}  {status.value.replace('_', ' ')}", mood)
    if not counts:
        yield Line(f"{INDENT}no targets")


def _next(report: Report, failures: Sequence[Sequence[Outcome]]) -> Iterator[Line]:
    if failures:
        name = failures[0][0].target
        yield Line(f"look closer: orchestrate runs show {report.run} --target {name}")
    yield from (Line(text) for text in _ways_on(report))
    changed = any(outcome.status is Status.UPGRADED for outcome in report.outcomes)
    if changed and report.status in _ENDED_BADLY:
        yield Line(f"to take it back: orchestrate rollback {report.run}")


def _ways_on(report: Report) -> Iterator[str]:
    """What finishes the run: `retry` for what failed, `resume` for what has not been done."""
    if report.command == "reconcile":
        yield from ["once mended: orchestrate runs reconcile"] if report.failures else []
        return
    match report.status:
        case RunStatus.RUNNING:
            yield f"to stop it: orchestrate abort {report.run}"
        case RunStatus.INTERRUPTED | RunStatus.PAUSED:
            yield f"to go on: orchestrate resume {report.run}"
            if any(outcome.status is Status.FAILED for outcome in report.outcomes):
                yield f"for what failed, once mended: orchestrate retry {report.run}"
        case RunStatus.HALTED | RunStatus.FAILED:
            yield from _ways_to_mend(report)
        case _:
            pass


def _ways_to_mend(report: Report) -> Iterator[str]:
    left = any(outcome.status in _LEFT for outcome in report.outcomes)
    if report.failures:
        yield f"once mended: orchestrate retry {report.run}"
    if left:
        rest = "then, for the rest" if report.failures else "to go on"
        yield f"{rest}: orchestrate resume {report.run}"

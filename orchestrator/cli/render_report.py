"""The report of a run as text: head, counters, causes, and what to type next; short at any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.cli.render import INDENT, blocks, headed_table, shortened, wrapped
from orchestrator.cli.render_causes import View, failure_paragraphs, left_alone_paragraph
from orchestrator.cli.terminals import Line, Mood
from orchestrator.outcomes import DONE, FAILING, Outcome, Report, RunStatus, Status
from orchestrator.reports.advice import ending, next_steps, stop_text
from orchestrator.reports.causes import failure_groups, left_alone_groups
from orchestrator.reports.words import goal_text, typed

#: characters of a gate's answer in a line of 80
_GATE_LENGTH = 40
_MOODS = {RunStatus.SUCCEEDED: Mood.GOOD, RunStatus.FAILED: Mood.BAD, RunStatus.HALTED: Mood.BAD}


def report_lines(report: Report, view: View) -> Iterator[Line]:
    """The whole report; the same for a run that has just ended and for one from the ledger."""
    failures = failure_groups(report.outcomes)
    left_alone = left_alone_groups(report.outcomes)
    return blocks(
        [
            [*_head(report), *_stop(report, view), *_counters(report)],
            list(_waves(report)),
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
    yield Line(f"run {report.run}: {what} {ending(report)}", mood)
    if report.parent is not None:
        yield Line(f"{INDENT}takes back {report.parent}")


def _counters(report: Report) -> Iterator[Line]:
    counts = {Status(name): number for name, number in report.counts.items() if number}
    width = max((len(f"{number:,}") for number in counts.values()), default=1)
    for status, number in counts.items():
        mood = Mood.GOOD if status in DONE else Mood.BAD if status in FAILING else Mood.WARNING
        yield Line(f"{INDENT}{number:>{width},}  {status.value.replace('_', ' ')}", mood)
    if not counts:
        yield Line(f"{INDENT}no targets")


def _stop(report: Report, view: View) -> Iterator[Line]:
    """Why nothing more was started."""
    text = stop_text(report)
    if text is not None:
        yield from wrapped(text, view.width, mood=_MOODS.get(report.status, Mood.WARNING))


def _waves(report: Report) -> Iterator[Line]:
    """How each wave ended, where there is more to tell than of the run itself."""
    if len(report.waves) < 2 and not any(wave.gate for wave in report.waves):
        return
    cells = [("wave", "targets", "outcome", "gate")]
    for wave in report.waves:
        gate = "" if wave.gate is None else shortened(f"{wave.gate.verdict}: {wave.gate.text}", _GATE_LENGTH)
        cells.append((wave.name, f"{sum(wave.counts.values()):,}", wave.status.replace("_", " "), gate))
    yield from headed_table(cells, right=frozenset({1}))


def _next(report: Report, failures: Sequence[Sequence[Outcome]]) -> Iterator[Line]:
    if failures:
        name = typed(failures[0][0].target)
        yield Line(f"look closer: orchestrate runs show {report.run} --target {name}")
    yield from (Line(text) for text in next_steps(report))

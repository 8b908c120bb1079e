"""Who is at which revision: each distinct place once, with its number of targets, and the odd ones by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.render import blocks, counted, headed_table, heads_text, some, wrapped
from orchestrator.cli.render_causes import View, grouped
from orchestrator.cli.terminals import Line, Mood

if TYPE_CHECKING:
    from orchestrator.standings import StatusReport, StatusRow


def status_lines(report: StatusReport, view: View) -> Iterator[Line]:
    """A block per Alembic section, then what could not be read and why."""
    sections = grouped(report.rows, lambda row: row.found.target.section)
    several = len(sections) > 1
    place = " ".join(part for part in (report.project, report.environment) if part)
    parts: list[Sequence[Line]] = [[Line(f"{place}: {counted(len(report.rows), 'target')}", Mood.STRONG)]]
    parts += [list(_section(rows, report, view, several=several)) for rows in sections]
    parts.append(list(_unreadable(report.rows, view)))
    parts.append([_verdict(report)])
    return blocks(parts)


def _section(rows: Sequence[StatusRow], report: StatusReport, view: View, *, several: bool) -> Iterator[Line]:
    section = rows[0].found.target.section
    named = f" of [{section}]" if several else ""
    yield Line(f"head{named}: {heads_text(report.wanted.get(section, ()))}")
    yield from _every(rows) if view.verbose else _collapsed(rows, view)


def _collapsed(rows: Sequence[StatusRow], view: View) -> Iterator[Line]:
    cells = [("targets", "revision", "state", "")]
    for group in grouped(rows, _place):
        is_usual = state_text(group[0]) == "at head"
        names = "" if is_usual else some([row.found.target.name for row in group], view.names)
        cells.append((f"{len(group):,}", _revision(group[0]), state_text(group[0]), names))
    return headed_table(cells, right=frozenset({0}))


def _every(rows: Sequence[StatusRow]) -> Iterator[Line]:
    cells = [("target", "revision", "state", "place")]
    cells += [(row.found.target.name, _revision(row), state_text(row), row.found.target.location) for row in rows]
    return headed_table(cells)


def _place(row: StatusRow) -> tuple[object, ...]:
    return (row.found.heads, row.standing, row.behind_by, row.state)


def _revision(row: StatusRow) -> str:
    return ", ".join(row.found.heads) or "-"


def state_text(row: StatusRow) -> str:
    """`at head`, `behind by 3`, `unversioned, quarantined`."""
    text = row.standing.value.replace("_", " ")
    if row.behind_by:
        text = f"{text}, {row.behind_by} to go"
    return text if row.state.value == "active" else f"{text}, {row.state.value}"


def _unreadable(rows: Sequence[StatusRow], view: View) -> Iterator[Line]:
    failed = [row for row in rows if row.found.failure is not None]
    for group in grouped(
        failed, lambda row: row.found.failure and (row.found.failure.fingerprint or row.found.failure)
    ):
        failure = group[0].found.failure
        assert failure is not None
        yield from wrapped(
            f"{len(group):,} {state_text(group[0])}: {failure.message}", view.width, indent="", mood=Mood.BAD
        )
        if failure.advice:
            yield from wrapped(f"-> {failure.advice}", view.width)
        yield from wrapped(some([row.found.target.name for row in group], view.names), view.width)


def _verdict(report: StatusReport) -> Line:
    if not report.due:
        return Line("nothing is due", Mood.GOOD)
    return Line(f"{counted(len(report.due), 'target')} not at head; `orchestrate plan` shows what is due", Mood.WARNING)

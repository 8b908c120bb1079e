"""What failed and what was left alone as text: one paragraph per cause and never one per target."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from orchestrator.cli.render import FIRST_NAMES, INDENT, counted, shortened, some, wrapped
from orchestrator.cli.terminals import Line, Mood
from orchestrator.outcomes import Outcome
from orchestrator.reports.causes import LOST, cause_text, failure_groups, grouped, left_alone_groups

__all__ = [
    "PARAGRAPHS",
    "View",
    "failure_groups",
    "failure_paragraphs",
    "grouped",
    "left_alone_groups",
    "left_alone_paragraph",
]

#: paragraphs of each sort; `-v` shows them all
PARAGRAPHS = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How much to show, and how wide."""

    width: int = 80
    verbose: bool = False

    @property
    def paragraphs(self) -> int:
        """Paragraphs of each sort."""
        return 1_000_000 if self.verbose else PARAGRAPHS

    @property
    def names(self) -> int:
        """Names in each paragraph."""
        return 1_000_000 if self.verbose else FIRST_NAMES


def failure_paragraphs(groups: Sequence[Sequence[Outcome]], view: View) -> Iterator[list[Line]]:
    """One paragraph per cause, and a line for the causes that have none."""
    for group in groups[: view.paragraphs]:
        yield [*_failure(group, view), *_names(group, view)]
    yield list(_left_out(groups, view, "cause"))


def left_alone_paragraph(groups: Sequence[Sequence[Outcome]], view: View) -> list[Line]:
    """All reasons in one paragraph."""
    lines = [line for group in groups[: view.paragraphs] for line in _reason(group, view)]
    return [*lines, *_left_out(groups, view, "reason")]


def _failure(group: Sequence[Outcome], view: View) -> Iterator[Line]:
    first = group[0]
    failure = first.failure
    if failure is None:
        text = first.reason.text if first.reason else LOST
        yield Line(f"{len(group):,} {first.status.value}", Mood.BAD)
        yield from wrapped(text, view.width)
        return
    yield Line(f"{len(group):,} {first.status.value}: {cause_text(failure)}", Mood.BAD)
    yield from wrapped(shortened(failure.message, 2 * view.width), view.width)
    if failure.statement:
        yield Line(INDENT + shortened(failure.statement, view.width - len(INDENT)), Mood.FAINT)
    if failure.advice:
        yield from wrapped(f"-> {failure.advice}", view.width)


def _reason(group: Sequence[Outcome], view: View) -> Iterator[Line]:
    head = f"{len(group):,} {group[0].status.value.replace('_', ' ')}"
    reasons = [outcome.reason for outcome in group if outcome.reason]
    if not reasons:
        yield Line(head, Mood.WARNING)
        yield from _names(group, view)
        return
    head = f"{head}, {reasons[0].code.replace('_', ' ')}"
    if len({reason.text for reason in reasons}) == 1:
        yield from wrapped(f"{head}: {reasons[0].text}", view.width, indent="", mood=Mood.WARNING)
        yield from _names(group, view)
        return
    yield Line(f"{head}:", Mood.WARNING)
    told = group if len(group) <= view.names else group[:1]
    for outcome in told:
        yield from wrapped(f"{outcome.target}: {outcome.reason.text if outcome.reason else ''}", view.width)
    if len(group) > len(told):
        yield Line(f"{INDENT}and {len(group) - len(told):,} more like it")


def _names(group: Sequence[Outcome], view: View) -> Iterator[Line]:
    return wrapped(some([outcome.target for outcome in group], view.names), view.width)


def _left_out(groups: Sequence[Sequence[Outcome]], view: View, noun: str) -> Iterator[Line]:
    rest = groups[view.paragraphs :]
    if rest:
        targets = counted(sum(map(len, rest)), "target")
        yield Line(f"{counted(len(rest), 'other ' + noun)} for {targets}; -v shows them", Mood.FAINT)

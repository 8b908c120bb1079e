"""A plan as text: each distinct path once, with how many targets take it, and the odd ones by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.render import (
    INDENT,
    blocks,
    counted,
    goal_text,
    heads_text,
    path_text,
    shortened,
    some,
    table,
    wrapped,
)
from orchestrator.cli.render_causes import (
    View,
    failure_groups,
    failure_paragraphs,
    grouped,
    left_alone_groups,
    left_alone_paragraph,
)
from orchestrator.cli.terminals import Line, Mood
from orchestrator.outcomes import DONE
from orchestrator.reports.words import duration

if TYPE_CHECKING:
    from orchestrator.plans import Job, Plan, Wave


#: distinct paths that are shown; `-v` shows them all
PATHS = 8
#: a path that this part of the jobs takes, or fewer, is odd
FEW = 0.02


def plan_lines(plan: Plan, view: View) -> Iterator[Line]:
    """Head, paths, what is left alone and why, and how it would roll out."""
    jobs = list(plan.jobs)
    return blocks(
        [
            [_head(plan, jobs)],
            [*_paths(jobs, view), *_unchanged(plan)],
            *failure_paragraphs(failure_groups(plan.settled), view),
            left_alone_paragraph(left_alone_groups(plan.settled), view),
            list(_terms(plan, jobs, view)),
        ]
    )


def _head(plan: Plan, jobs: Sequence[Job]) -> Line:
    place = " ".join(part for part in (plan.project, plan.environment) if part)
    total = counted(len(jobs) + len(plan.settled), "target")
    what = goal_text(plan.command.value, plan.revision)
    return Line(f"{place}: {what}, {len(jobs):,} of {total} to do", Mood.STRONG)


def _paths(jobs: Sequence[Job], view: View) -> Iterator[Line]:
    """The paths that most take, then the odd ones."""
    groups = grouped(jobs, lambda job: (job.section, job.found, job.wanted, job.path))
    shown = groups if view.verbose else groups[:PATHS]
    few = max(1, int(len(jobs) * FEW))
    odd = [group for group in shown[1:] if len(group) <= few]
    for group in shown[: len(shown) - len(odd)]:
        yield from path_lines(group, view)
    if odd:
        yield Line("few come from elsewhere:", Mood.WARNING)
    for group in odd:
        yield from path_lines(group, view)
    rest = groups[len(shown) :]
    if rest:
        targets = counted(sum(map(len, rest)), "target")
        yield Line(f"{counted(len(rest), 'other path')} for {targets}; -v shows them", Mood.FAINT)


def path_lines(jobs: Sequence[Job], view: View) -> Iterator[Line]:
    """One path, and who takes it."""
    first = jobs[0]
    steps = f": {path_text(first.path)}" if first.path else ""
    new = sum(job.provision for job in jobs)
    created = f"; {new:,} created first" if new else ""
    text = f"{counted(len(jobs), 'target')} from {heads_text(first.found)} to {heads_text(first.wanted)}"
    yield from wrapped(text + steps + created, view.width, indent="")
    yield from wrapped(some([job.target for job in jobs], view.names), view.width, mood=Mood.FAINT)


def _unchanged(plan: Plan) -> Iterator[Line]:
    fine = [outcome for outcome in plan.settled if outcome.status in DONE]
    for group in grouped(fine, lambda outcome: outcome.reason and outcome.reason.code):
        code = group[0].reason.code.replace("_", " ") if group[0].reason else "nothing to do"
        yield Line(f"{counted(len(group), 'target')} unchanged, {code}", Mood.GOOD)


def _terms(plan: Plan, jobs: Sequence[Job], view: View) -> Iterator[Line]:
    if not jobs:
        yield Line("nothing to do")
        return
    waves = [wave for wave in plan.waves if wave.jobs]
    if len(waves) == 1 and not _details(waves[0], is_last=True):
        yield Line(f"strategy {plan.strategy}: {waves[0].concurrency} at once, {_budget(plan.max_failures)} allowed")
    else:
        yield Line(f"strategy {plan.strategy}: {counted(len(waves), 'wave')}, {_budget(plan.max_failures)} allowed")
        yield from _waves(waves, view)
    for text in _limits(plan):
        yield from wrapped(text, view.width, indent="")
    if plan.command == "upgrade" or view.verbose:
        yield Line(f"digest {plan.digest}", Mood.FAINT)


def _waves(waves: Sequence[Wave], view: View) -> Iterator[Line]:
    """A line for each wave, and below it what comes with it."""
    rows = [
        (
            f"wave {wave.name}",
            counted(len(wave.jobs), "target"),
            f"{wave.concurrency} at once",
            f"{_budget(wave.max_failures)} allowed",
        )
        for wave in waves
    ]
    for wave, row in zip(waves, table(rows, right=frozenset({1, 2})), strict=True):
        yield Line(row)
        details = _details(wave, is_last=wave is waves[-1])
        if details:
            yield from wrapped("; ".join(details), view.width, indent=INDENT * 2, mood=Mood.FAINT)


def _details(wave: Wave, *, is_last: bool) -> list[str]:
    details = []
    if wave.window:
        details.append(f"only {', '.join(wave.window)}")
    if wave.order_by:
        details.append(f"in the order of label {wave.order_by}")
    if wave.strict:
        details.append("never more at once than failures left plus one")
    # Behind the last wave only a gate is waited for.
    pause = None if is_last and wave.gate is None else wave.pause
    then = [] if pause is None else [f"pause {_span(pause)}"]
    if wave.gate is not None:
        then.append(f"gate: {wave.gate.kind} {shortened(wave.gate.text, 120)}")
    return [*details, *([f"then {', '.join(then)}"] if then else [])]


def _limits(plan: Plan) -> Iterator[str]:
    if plan.freeze:
        yield f"starts nothing on {', '.join(plan.freeze)}"
    if plan.deadline is not None:
        yield f"starts nothing more {_span(plan.deadline)} after it began"
    if plan.sweep is not None:
        yield "takes in tenants that join meanwhile"


def _span(seconds: float | str) -> str:
    """`10m`, `until-continued`."""
    return seconds if isinstance(seconds, str) else duration(seconds).removesuffix("00s").removesuffix("00m")


def _budget(max_failures: int | None) -> str:
    return "any number of failures" if max_failures is None else counted(max_failures, "failure")

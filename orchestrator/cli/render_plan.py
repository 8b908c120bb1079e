"""A plan as text: each distinct path once, with how many targets take it, and the odd ones by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.render import blocks, counted, goal_text, headed_table, heads_text, path_text, some, wrapped
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

if TYPE_CHECKING:
    from orchestrator.plans import Job, Plan


def plan_lines(plan: Plan, view: View) -> Iterator[Line]:
    """Head, paths, what is left alone and why, and how it would roll out."""
    jobs = list(plan.jobs)
    return blocks(
        [
            [_head(plan, jobs)],
            [*_paths(jobs, view), *_unchanged(plan)],
            *failure_paragraphs(failure_groups(plan.settled), view),
            left_alone_paragraph(left_alone_groups(plan.settled), view),
            list(_terms(plan, view)),
        ]
    )


def _head(plan: Plan, jobs: Sequence[Job]) -> Line:
    place = " ".join(part for part in (plan.project, plan.environment) if part)
    total = counted(len(jobs) + len(plan.settled), "target")
    what = goal_text(plan.command.value, plan.revision)
    return Line(f"{place}: {what}, {len(jobs):,} of {total} to do", Mood.STRONG)


def _paths(jobs: Sequence[Job], view: View) -> Iterator[Line]:
    for group in grouped(jobs, lambda job: (job.found, job.wanted, job.path)):
        yield from path_lines(group, view)


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


def _terms(plan: Plan, view: View) -> Iterator[Line]:
    if not any(plan.jobs):
        yield Line("nothing to do")
        return
    if len(plan.waves) == 1:
        at_once = plan.waves[0].concurrency
        yield Line(f"strategy {plan.strategy}: {at_once} at once, {_budget(plan.max_failures)} allowed")
    else:
        rows = [("wave", "targets", "at once", "allowed")]
        rows += [
            (wave.name, f"{len(wave.jobs):,}", str(wave.concurrency), _budget(wave.max_failures)) for wave in plan.waves
        ]
        yield from headed_table(rows, right=frozenset({1, 2, 3}))
    if view.verbose:
        yield Line(plan.digest, Mood.FAINT)


def _budget(max_failures: int | None) -> str:
    return "any number of failures" if max_failures is None else counted(max_failures, "failure")

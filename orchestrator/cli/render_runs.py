"""Runs from the ledger: a line each, and the story of one target in one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.cli.render import goal_text, headed_table, heads_text, shortened, table, wrapped
from orchestrator.cli.terminals import Line, Mood
from orchestrator.outcomes import Outcome, Report, RunStatus, Status, format_time

if TYPE_CHECKING:
    from orchestrator.ledger.protocol import Attempt, Run

#: unlike a halted run, which needs mending first
_STOPPED = frozenset({RunStatus.INTERRUPTED, RunStatus.PAUSED})


def runs_lines(runs: Sequence[Run]) -> Iterator[Line]:
    """A line per run, and what to type about those that stopped."""
    if not runs:
        yield Line("no runs yet")
        return
    cells = [("run", "command", "status", "targets", "outcomes")]
    for run in runs:
        counts = ", ".join(f"{number:,} {status.replace('_', ' ')}" for status, number in run.counts.items() if number)
        cells.append((run.id, _what(run), run.status.value, f"{run.size:,}", counts))
    yield from headed_table(cells, right=frozenset({3}))
    for run in runs:
        if run.status in _STOPPED:
            held = run.status is RunStatus.PAUSED and run.counts.get(Status.NOT_STARTED.value, 0) > 0
            verb = "continue" if held or run.finished_at is None else "resume"
            verb = "resume" if run.status is RunStatus.INTERRUPTED else verb
            yield Line(f"run {run.id} is {run.status.value}; to go on: orchestrate {verb} {run.id}", Mood.WARNING)
        elif run.status is RunStatus.HALTED:
            yield Line(f"run {run.id} is halted; see why: orchestrate runs show {run.id}", Mood.WARNING)


def _what(run: Run) -> str:
    """`downgrade to r006, takes back r-20261122-…`."""
    what = goal_text(run.command.value, run.revision)
    return f"{what}, takes back {run.parent}" if run.parent else what


def run_row(run: Run) -> dict[str, Any]:
    """One run as JSON."""
    return {
        "run": run.id,
        "parent": run.parent,
        "command": run.command.value,
        "revision": list(run.revision),
        "project": run.project,
        "environment": run.environment,
        "operator": run.operator,
        "strategy": run.strategy,
        "plan_digest": run.plan_digest,
        "status": run.status.value,
        "exit_code": None if run.exit_code is None else int(run.exit_code),
        "started_at": format_time(run.started_at),
        "finished_at": format_time(run.finished_at),
        "targets": run.size,
        "counts": dict(run.counts),
    }


def story_document(
    report: Report, outcome: Outcome, attempts: Sequence[Attempt], records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that is known about one target in one run."""
    return {
        "format": "orchestrate.story/1",
        "run": report.run,
        "command": report.command,
        "outcome": outcome.to_json(),
        "attempts": [
            {
                "number": attempt.number,
                "started_at": format_time(attempt.started_at),
                "finished_at": format_time(attempt.finished_at),
                "outcome": attempt.outcome.to_json() if attempt.outcome else None,
            }
            for attempt in attempts
        ],
        "log": [dict(record) for record in records],
    }


def story_lines(story: Mapping[str, Any], *, width: int) -> Iterator[Line]:
    """The story as text: where the target was and is, what went wrong, each try, its log."""
    outcome = story["outcome"]
    yield Line(f"{outcome['target']} in run {story['run']}: {outcome['status'].replace('_', ' ')}", Mood.STRONG)
    yield from (Line(text) for text in table(_places(outcome)))
    if outcome["reason"]:
        yield from wrapped(outcome["reason"]["text"], width)
    if outcome["failure"]:
        yield Line()
        yield from _failure(outcome["failure"], width)
    for attempt in story["attempts"]:
        yield Line()
        yield from _attempt(attempt)
    if story["log"]:
        yield Line()
        yield Line("log", Mood.STRONG)
        yield from (Line(_record(record)) for record in story["log"])


def _places(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    places = [(word, outcome[word]) for word in ("from", "to", "at")]
    known = [(word, heads_text(heads)) for word, heads in places if heads is not None]
    if outcome["applied"]:
        known.append(("applied", " ".join(outcome["applied"])))
    return known or [("at", "unknown")]


def _failure(failure: Mapping[str, Any], width: int) -> Iterator[Line]:
    cause = " ".join(part for part in (failure["code"], failure["type"]) if part)
    where = f" in revision {failure['revision']}" if failure["revision"] else ""
    yield Line(cause + where, Mood.BAD)
    yield from wrapped(failure["message"], width)
    if failure["statement"]:
        yield from (Line(f"  {line}", Mood.FAINT) for line in failure["statement"].splitlines())
    if failure["advice"]:
        yield from wrapped(f"-> {failure['advice']}", width)


def _attempt(attempt: Mapping[str, Any]) -> Iterator[Line]:
    outcome = attempt["outcome"]
    ended = outcome["status"].replace("_", " ") if outcome else "never ended: its runner died, or is still at it"
    yield Line(f"try {attempt['number']}, {attempt['started_at']}: {ended}")
    if outcome and outcome["failure"]:
        yield Line(f"  {shortened(outcome['failure']['message'])}")


def _record(record: Mapping[str, Any]) -> str:
    """One record of the log, without what the story has said already; `-o json` has all of it."""
    words = [record.get("time"), record.get("level"), record.get("revision"), record.get("message")]
    exception = record.get("exception")
    raised = f" ({exception.get('type')})" if isinstance(exception, dict) else ""
    return "  " + " ".join(str(word) for word in words if word) + raised

"""How a run ended, in words, and what to type next: the same in every form of its report."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.outcomes import Report, RunStatus, Status
from orchestrator.reports.words import duration

#: what a later `resume` takes up
_LEFT = frozenset({Status.NOT_STARTED, Status.DEFERRED})
_ENDED_BADLY = frozenset({RunStatus.FAILED, RunStatus.HALTED, RunStatus.INTERRUPTED, RunStatus.ABORTED})


def ending(report: Report) -> str:
    """`succeeded in 12 s`; a run that nobody has ended took no time yet."""
    status = report.status.value
    if report.status is RunStatus.RUNNING:
        return f"{status} since {report.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if report.status is RunStatus.INTERRUPTED and not report.duration_s:
        return f"{status}: its runner died"
    return f"{status} in {duration(report.duration_s)}"


def next_steps(report: Report) -> Iterator[str]:
    """`once mended: orchestrate retry …`, a sentence and what to type in each."""
    yield from ways_on(report)
    changed = any(outcome.status is Status.UPGRADED for outcome in report.outcomes)
    if changed and report.status in _ENDED_BADLY:
        yield f"to take it back: orchestrate rollback {report.run}"


def ways_on(report: Report) -> Iterator[str]:
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

"""How a run ended, in words, and what to type next: the same in every form of its report."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.outcomes import Report, RunStatus, Status, Verdict, WaveSummary
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


def stop_text(report: Report) -> str | None:
    """Why the run started nothing more: what its targets that never began were told, or the gate that failed."""
    told = (one.reason for one in report.outcomes if one.status is Status.NOT_STARTED)
    reason = next((reason for reason in told if reason is not None), None)
    if reason is not None:
        return reason.text
    failed = next((wave for wave in report.waves if _is_gate(wave, Verdict.FAILED)), None)
    return f"the gate of wave {failed.name} failed: {failed.gate.text}" if failed and failed.gate else None


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
            yield from _ways_to_go_on(report)
            if any(outcome.status is Status.FAILED for outcome in report.outcomes):
                yield f"for what failed, once mended: orchestrate retry {report.run}"
        case RunStatus.HALTED | RunStatus.FAILED:
            yield from _ways_to_mend(report)
        case _:
            pass


def _ways_to_go_on(report: Report) -> Iterator[str]:
    """A run that waits for a person is continued, the others are resumed."""
    waits = any(one.reason is not None and one.reason.code == "paused" for one in report.outcomes)
    asked = any(_is_gate(wave, Verdict.INCONCLUSIVE) for wave in report.waves)
    if report.status is RunStatus.PAUSED and (waits or asked):
        yield f"to go on: orchestrate continue {report.run}"
        if asked:
            yield f"to ask the gate once more: orchestrate resume {report.run}"
        return
    yield f"to go on: orchestrate resume {report.run}"


def _is_gate(wave: WaveSummary, verdict: Verdict) -> bool:
    return wave.gate is not None and wave.gate.verdict is verdict


def _ways_to_mend(report: Report) -> Iterator[str]:
    left = any(outcome.status in _LEFT for outcome in report.outcomes)
    if report.failures:
        yield f"once mended: orchestrate retry {report.run}"
    if left:
        rest = "then, for the rest" if report.failures else "to go on"
        yield f"{rest}: orchestrate resume {report.run}"
    elif any(_is_gate(wave, Verdict.FAILED) for wave in report.waves):
        yield f"to ask the gate once more: orchestrate resume {report.run}"

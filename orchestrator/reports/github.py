"""What a run tells GitHub Actions: annotations on the run's page, and the summary of the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.outcomes import FAILING, Outcome, Report, RunStatus, Status
from orchestrator.redaction import scrub
from orchestrator.reports import advice, causes, markdown, words, workflow

#: GitHub shows no more errors of one step
ANNOTATIONS = 10
#: GitHub takes no longer summary of one step
SUMMARY_BYTES = 1024 * 1024
MESSAGE_LENGTH = 400
NAMES = 5


def annotated(report: Report) -> Iterator[str]:
    """An error for each cause of failure, a warning for what is left to do; a run that went well says nothing.

    Targets that were left alone are a cause where the run ended badly because of them.
    """
    blamed = (outcome for outcome in report.outcomes if causes.is_blamed(outcome, report))
    groups = [*causes.failure_groups(report.outcomes), *causes.left_alone_groups(blamed)]
    told = groups if len(groups) <= ANNOTATIONS else groups[: ANNOTATIONS - 1]
    for group in told:
        yield _error(group)
    rest = groups[len(told) :]
    if rest:
        title = f"{words.counted(len(rest), 'other cause')} for {words.counted(sum(map(len, rest)), 'target')}"
        yield workflow.command("error", f"orchestrate runs show {report.run} -v", title=_text(title))
    left = {status: report.counts[status] for status in (Status.DEFERRED, Status.NOT_STARTED)}
    if report.status is RunStatus.PAUSED or any(left.values()):
        yield _warning(report, left)


def summarise(report: Report, file: Path) -> bool:
    """Add the report to the summary of the step; False when there is no room for it."""
    text = "\n" + markdown.render(report) + "\n"
    there = file.stat().st_size if file.exists() else 0
    if there + len(text.encode()) > SUMMARY_BYTES:
        return False
    with file.open("a", encoding="utf-8") as summary:
        summary.write(text)
    return True


def _error(group: Sequence[Outcome]) -> str:
    first = group[0]
    failure = first.failure
    title = f"{len(group):,} {first.status.value.replace('_', ' ')}"
    names = words.some([outcome.target for outcome in group], NAMES)
    if first.status not in FAILING:
        title += f": {first.reason.code.replace('_', ' ')}" if first.reason else ""
        told = [first.reason.text] if first.reason else []
    elif failure is None:
        told = [first.reason.text if first.reason else causes.LOST]
    else:
        title += f": {causes.cause_text(failure)}"
        told = [failure.message, *([f"-> {failure.advice}"] if failure.advice else [])]
    lines = [words.shortened(scrub(line), MESSAGE_LENGTH) for line in [*told, names]]
    return workflow.command("error", "\n".join(words.visible(line) for line in lines), title=_text(title))


def _warning(report: Report, left: dict[Status, int]) -> str:
    numbers = ", ".join(f"{number:,} {status.value.replace('_', ' ')}" for status, number in left.items() if number)
    title = f"run {report.status.value}" + (f": {numbers}" if numbers else "")
    message = "\n".join(_text(step) for step in advice.ways_on(report))
    return workflow.command("warning", message or _text(report.run), title=_text(title))


def _text(text: str) -> str:
    return words.visible(words.shortened(scrub(text), MESSAGE_LENGTH))

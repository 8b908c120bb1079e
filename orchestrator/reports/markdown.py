"""The report as Markdown: what a pull request, a chat or a workflow's summary shows; short at any size.

All text from elsewhere stands in code, where Markdown looks for no links, no images and no names to notify.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.outcomes import Outcome, Report, Status
from orchestrator.redaction import scrub
from orchestrator.reports import advice, causes, figures, words

#: causes and reasons that are told, waves, and names in each
GROUPS, WAVES, NAMES = 10, 50, 10
NAME_LENGTH, MESSAGE_LENGTH, STATEMENT_LENGTH = 200, 400, 800


def render(report: Report) -> str:
    """The whole report; each part is left out where there is nothing to tell."""
    parts = [
        [*_head(report)],
        [*_counters(report)],
        [*_waves(report)],
        [*_failures(report)],
        [*_left_alone(report)],
        [*_next(report)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def nothing(text: str) -> str:
    """One sentence."""
    return f"{code(text)}\n"


def code(text: str, limit: int = NAME_LENGTH) -> str:
    """The text as code within a line, also in a table."""
    shown = words.visible(words.shortened(scrub(text), limit)) or " "
    fence = _fence(shown, least=1)
    # A blank at each side keeps backticks at the ends apart from the fence; Markdown takes it away again.
    inner = f" {shown} " if "`" in (shown[0], shown[-1]) else shown
    return f"{fence}{inner}{fence}".replace("|", "\\|")


def block(lines: Iterable[str]) -> Iterator[str]:
    """Lines as a block of code."""
    shown = [words.visible(line) for line in lines]
    fence = _fence("\n".join(shown), least=3)
    yield f"{fence}text"
    yield from shown
    yield fence


def _fence(text: str, *, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _head(report: Report) -> Iterator[str]:
    yield f"## {code(words.goal_text(report.command, report.revision))} {advice.ending(report)}"
    yield ""
    place = " ".join(code(part) for part in (report.project, report.environment) if part)
    facts = [place] if place else []
    facts += [f"run {code(report.run)}", f"exit code {int(report.exit_code)}"]
    facts += [f"by {code(report.operator)}", f"strategy {code(report.strategy)}"]
    if report.parent:
        facts.append(f"takes back {code(report.parent)}")
    yield " · ".join(facts)
    why = advice.stop_text(report)
    if why:
        yield ""
        yield from block([words.shortened(scrub(why), MESSAGE_LENGTH)])


def _counters(report: Report) -> Iterator[str]:
    counts = {name.replace("_", " "): number for name, number in report.counts.items() if number}
    if not counts:
        yield "No targets."
        return
    yield f"| {' | '.join(counts)} |"
    yield f"|{' ---: |' * len(counts)}"
    yield f"| {' | '.join(f'{number:,}' for number in counts.values())} |"


def _waves(report: Report) -> Iterator[str]:
    spans = figures.spans(report)
    if len(spans) < 2 and not any(span.gate for span in spans):
        return
    yield "| wave | status | targets | time | gate |"
    yield "| --- | --- | --- | ---: | --- |"
    for span in spans[:WAVES]:
        counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in span.counts.items() if number)
        took = words.duration(span.seconds) if span.started_at else ""
        gate = f"{span.gate.verdict}: {code(span.gate.text)}" if span.gate else ""
        yield f"| {code(span.name)} | {span.status.replace('_', ' ')} | {counts} | {took} | {gate} |"
    if len(spans) > WAVES:
        yield ""
        yield f"and {words.counted(len(spans) - WAVES, 'more wave')}"


def _failures(report: Report) -> Iterator[str]:
    groups = causes.failure_groups(report.outcomes)
    if groups:
        yield "### What failed, by cause"
    for group in groups[:GROUPS]:
        first = group[0]
        cause = f": {code(causes.cause_text(first.failure))}" if first.failure else ""
        yield ""
        yield f"**{len(group):,} {first.status.value}**{cause}"
        yield ""
        yield from block(_told(first))
        yield ""
        yield _names(group)
    yield from _rest(groups, "cause", report)


def _told(outcome: Outcome) -> Iterator[str]:
    failure = outcome.failure
    if failure is None:
        yield words.shortened(scrub(outcome.reason.text if outcome.reason else causes.LOST), MESSAGE_LENGTH)
        return
    yield words.shortened(scrub(failure.message), MESSAGE_LENGTH)
    if failure.statement:
        yield words.shortened(scrub(failure.statement), STATEMENT_LENGTH)
    if failure.advice:
        yield f"-> {words.shortened(scrub(failure.advice), MESSAGE_LENGTH)}"


def _left_alone(report: Report) -> Iterator[str]:
    groups = causes.left_alone_groups(report.outcomes)
    if groups:
        yield "### Left alone"
        yield ""
    for group in groups[:GROUPS]:
        reason = group[0].reason
        status = group[0].status.value.replace("_", " ")
        told = f", {code(reason.code)}: {code(reason.text, MESSAGE_LENGTH)}" if reason else ""
        yield f"- **{len(group):,} {status}**{told}; {_names(group)}"
    yield from _rest(groups, "reason", report)


def _names(group: Sequence[Outcome]) -> str:
    shown = ", ".join(code(outcome.target) for outcome in group[:NAMES])
    rest = len(group) - NAMES
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def _rest(groups: Sequence[Sequence[Outcome]], noun: str, report: Report) -> Iterator[str]:
    rest = groups[GROUPS:]
    if rest:
        targets = words.counted(sum(map(len, rest)), "target")
        yield ""
        others = words.counted(len(rest), f"other {noun}")
        yield f"{others} for {targets}: {code(f'orchestrate runs show {report.run} -v')}"


def _next(report: Report) -> Iterator[str]:
    steps = [scrub(step) for step in advice.next_steps(report)]
    failed = next((outcome for outcome in report.outcomes if outcome.status is Status.FAILED), None)
    if failed:
        steps.insert(0, f"look closer: orchestrate runs show {report.run} --target {words.typed(failed.target)}")
    if steps:
        yield "### What to type next"
        yield ""
        yield from block(words.shortened(step, MESSAGE_LENGTH) for step in steps)

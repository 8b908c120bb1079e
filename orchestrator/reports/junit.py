"""The report as JUnit XML, which every CI server reads: a suite for each wave, a case for each target."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from orchestrator.outcomes import DONE, Outcome, Report, Status
from orchestrator.redaction import scrub
from orchestrator.reports import causes, figures, words

WITHOUT_WAVE = "without a wave"
MESSAGE_LENGTH = 500
#: of each of perhaps ten thousand failures; `runs show` has it whole
STATEMENT_LENGTH = 2_000
#: legal characters of Unicode that XML does not allow
_NOT_IN_XML = re.compile("[\ufffe\uffff]")


def render(report: Report) -> str:
    """The suites of a report; a lost target is an error, a failed one a failure, one that was left alone is skipped."""
    spans = {span.name: span for span in figures.spans(report)}
    by_suite: dict[str | None, list[Outcome]] = {name: [] for name in spans}
    for outcome in report.outcomes:
        by_suite.setdefault(outcome.wave, []).append(outcome)
    goal = words.goal_text(report.command, report.revision)
    place = " ".join(part for part in (report.project, report.environment) if part)
    root = ElementTree.Element("testsuites", name=_text(f"{place}: {goal}" if place else goal))
    for name, outcomes in by_suite.items():
        if outcomes:
            root.append(_suite(report, outcomes, spans.get(name or "")))
    _sum_up(root, root.iterfind("testsuite/testcase"), seconds=report.duration_s)
    return _written(root)


def nothing(text: str) -> str:
    """No suite, and so nothing that failed."""
    root = ElementTree.Element("testsuites", name=_text(text))
    _sum_up(root, (), seconds=0)
    return _written(root)


def _suite(report: Report, outcomes: Sequence[Outcome], span: figures.Span | None) -> ElementTree.Element:
    started = (span.started_at if span else None) or report.started_at
    suite = ElementTree.Element(
        "testsuite", name=_text(span.name) if span else WITHOUT_WAVE, timestamp=f"{started:%Y-%m-%dT%H:%M:%S}"
    )
    told = {"run": report.run, "status": span.status if span else report.status.value}
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in told.items():
        ElementTree.SubElement(properties, "property", name=name, value=_text(value))
    suite.extend(_case(outcome, report) for outcome in outcomes)
    _sum_up(suite, suite.iterfind("testcase"), seconds=span.seconds if span else 0)
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    return suite


def _case(outcome: Outcome, report: Report) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        name=_text(outcome.target),
        classname=_text(outcome.server or outcome.tenant),
        time=_seconds((outcome.duration_ms or 0) / 1000),
    )
    if outcome.status in DONE:
        return case
    if outcome.status in (Status.FAILED, Status.LOST):
        case.append(_failure(outcome))
        return case
    reason = f"{outcome.reason.code}: {outcome.reason.text}" if outcome.reason else outcome.status.value
    if not causes.is_blamed(outcome, report):
        ElementTree.SubElement(case, "skipped", message=_text(_short(reason)))
        return case
    # The run ended badly because of it, so a green list of cases would be a riddle.
    failure = ElementTree.SubElement(case, "failure", message=_text(_short(reason)), type=outcome.status.value)
    failure.text = _text(reason)
    return case


def _failure(outcome: Outcome) -> ElementTree.Element:
    tag = "error" if outcome.status is Status.LOST else "failure"
    failure = outcome.failure
    if failure is None:
        text = outcome.reason.text if outcome.reason else causes.LOST
        element = ElementTree.Element(tag, message=_text(_short(text)), type=outcome.status.value)
        element.text = _text(text)
        return element
    cause = causes.cause_text(failure)
    element = ElementTree.Element(tag, message=_text(_short(failure.message)), type=_text(cause))
    statement = failure.statement and words.shortened(failure.statement, STATEMENT_LENGTH)
    parts = (cause, failure.message, statement, failure.advice and f"-> {failure.advice}")
    element.text = _text("\n\n".join(part for part in parts if part))
    return element


def _sum_up(
    element: ElementTree.Element, cases: collections.abc.Iterable[ElementTree.Element], *, seconds: float
) -> None:
    children = [child.tag for case in cases for child in (*case, case)]
    numbers: Mapping[str, int] = collections.Counter(children)
    element.set("tests", str(numbers.get("testcase", 0)))
    element.set("failures", str(numbers.get("failure", 0)))
    element.set("errors", str(numbers.get("error", 0)))
    element.set("time", _seconds(seconds))


def _seconds(seconds: float) -> str:
    return f"{max(0.0, seconds):.3f}"


def _short(text: str) -> str:
    return words.shortened(scrub(text), MESSAGE_LENGTH)


def _text(text: str) -> str:
    """Text that XML allows: control characters are written as escapes."""
    lines = (words.visible(line) for line in scrub(text).splitlines())
    return _NOT_IN_XML.sub("\ufffd", "\n".join(lines))


def _written(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"

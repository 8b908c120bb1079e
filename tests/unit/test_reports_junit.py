"""JUnit XML as CI servers read it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from orchestrator import reports
from orchestrator.errors import ExitCode
from orchestrator.outcomes import Reason, Report, RunStatus, Status
from tests import report_samples as samples

#: of Jenkins' schema junit-10: attributes that must be there, those that may, and children
RULES = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp", "hostname", "id", "package"},
        {"properties", "testcase"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "testcase": ({"name"}, {"time", "classname"}, {"skipped", "error", "failure"}),
    "skipped": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "failure": (set(), {"type", "message"}, set()),
}
TIME = re.compile(r"\d+\.\d{3}")


def parsed(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(reports.render(report, ".xml").encode())


def check(element: ElementTree.Element) -> None:
    demanded, allowed, children = RULES[element.tag]
    assert demanded <= set(element.keys()) <= demanded | allowed
    assert {child.tag for child in element} <= children
    assert TIME.fullmatch(element.get("time", "0.000"))
    if element.tag in ("testsuites", "testsuite"):
        assert int(element.get("tests", "")) == len(list(element.iter("testcase")))
        assert int(element.get("failures", "")) == len(list(element.iter("failure")))
        assert int(element.get("errors", "")) == len(list(element.iter("error")))
    for child in element:
        check(child)


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_every_report_keeps_to_the_rules(name: str) -> None:
    report = samples.SAMPLES[name]()
    root = parsed(report)

    check(root)
    assert len(list(root.iter("testcase"))) == len(report.outcomes)
    assert all(len(case) <= 1 for case in root.iter("testcase"))


def test_a_suite_is_a_wave_and_a_case_a_target() -> None:
    root = parsed(samples.halted())

    assert root.get("name") == "billing production: upgrade to r0008"
    assert [suite.get("name") for suite in root] == ["canary", "early", "rest", "without a wave"]
    canary = root[0]
    assert (canary.get("timestamp"), canary.get("time")) == ("2026-11-22T07:31:00", "1.300")
    assert {one.get("name"): one.get("value") for one in canary.iter("property")} == {
        "run": samples.RUN,
        "status": "succeeded",
    }
    case = canary.find("testcase")
    assert case is not None
    assert (case.get("name"), case.get("classname"), case.get("time")) == ("canary-0", "db1.internal:5432", "0.045")


def test_failed_is_a_failure_lost_an_error_and_the_rest_skipped() -> None:
    root = parsed(samples.halted())
    told = {case.get("name"): case[0] for case in root.iter("testcase") if len(case)}

    assert told["tenant-017"].tag == "failure"
    assert told["tenant-017"].get("type") == "23505 UniqueViolation in revision r0007"
    assert "CREATE UNIQUE INDEX" in (told["tenant-017"].text or "")
    assert "-> Remove the duplicate rows" in (told["tenant-017"].text or "")
    assert told["tenant-077"].tag == "error"
    assert told["hooli"].tag == "skipped"
    assert told["hooli"].get("message") == "quarantined: restoring a backup (ops, until 2026-12-01)"
    assert {told[name].tag for name in ("rest-0000", "m-0")} == {"skipped"}
    # the run fails because of it
    assert told["newcomer"].tag == "failure"


def test_what_makes_no_run_fail_is_no_failure() -> None:
    ahead = samples.outcome("acme", Status.SKIPPED, reason=Reason(code="unknown_revision", text="is at r099"))
    good = parsed(samples.report([ahead], RunStatus.SUCCEEDED, exit_code=ExitCode.OK))
    bad = parsed(samples.report([ahead], RunStatus.FAILED, exit_code=ExitCode.FAILURES))

    assert [child.tag for child in good.iterfind(".//testcase/*")] == ["skipped"]
    assert [child.tag for child in bad.iterfind(".//testcase/*")] == ["failure"]


def test_control_characters_are_legal_xml_and_can_be_seen() -> None:
    text = reports.render(samples.hostile(), ".xml")

    assert all(character == "\n" or character.isprintable() for character in text)
    assert r"\x00\x1b[31m" in text
    assert "]]&gt;&lt;failure/&gt;" in text


def test_nothing_done_is_no_suite() -> None:
    root = ElementTree.fromstring(reports.nothing("nothing to resume", ".xml"))

    check(root)
    assert list(root) == []

"""Markdown and what GitHub Actions is told: short, and never what somebody's text makes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator import reports
from orchestrator.errors import ExitCode
from orchestrator.outcomes import Reason, RunStatus, Status
from orchestrator.reports import github, markdown, workflow
from tests import report_samples as samples


def test_a_halted_run_is_told_in_the_order_of_an_operators_questions() -> None:
    text = reports.render(samples.halted(), ".md")
    places = [
        text.index(words)
        for words in (
            "## `upgrade to r0008` halted in 10m45s",
            f"`billing` `production` · run `{samples.RUN}` · exit code 1 · by `deploy@ci-7` · strategy `careful`",
            "wave early has more failures than it may",
            "| upgraded | failed | lost | skipped | deferred | not provisioned | not started |",
            "| 116 | 8 | 1 | 2 | 14 | 1 | 860 |",
            "| `canary` | succeeded | 5 upgraded | 1.3 s | passed: `./smoke ended with 0` |",
            "| `rest` | not started | 860 not started |  |  |",
            "**7 failed**: `23505 UniqueViolation in revision r0007`",
            "-> Remove the duplicate rows of this tenant, then run `orchestrate retry`.",
            "`tenant-017`, `tenant-031`",
            "**1 lost**",
            "- **14 deferred**, `server_down`: `maria2.internal:3306 is down: connection refused`; `m-0`",
            "`m-9` and 4 more",
            f"look closer: orchestrate runs show {samples.RUN} --target tenant-017",
            f"to take it back: orchestrate rollback {samples.RUN}",
        )
    ]

    assert places == sorted(places)


def test_one_wave_without_a_gate_has_no_table() -> None:
    text = reports.render(samples.all_well(), ".md")

    assert text.count("| --- |") == 0
    assert "### " not in text


@pytest.mark.parametrize("size", [1, 360])
def test_a_summary_of_ten_thousand_is_some_kilobytes(size: int) -> None:
    assert len(reports.render(samples.hostile(size), ".md").encode()) < 60_000
    assert len(reports.render(samples.ten_thousand(), ".md").encode()) < 10_000


def outside_code(text: str) -> str:
    """The Markdown without its code, as CommonMark finds it."""
    text = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", text)


def test_hostile_text_stands_in_code_only() -> None:
    text = reports.render(samples.hostile(), ".md")
    plain = outside_code(text)

    assert "alert" in text
    assert not re.search(
        r"[<\[\]`@#]|https?:|www\.|evil|alert|owned|aaa", re.sub(r"^#+ ", "", plain, flags=re.MULTILINE)
    )
    assert all(character == "\n" or character.isprintable() or character == "\ufffe" for character in text)


@pytest.mark.parametrize("text", ["`", "``", "a`b", "`a`", "a``b`", "|", "a|`b", "  ", "x\ny"])
def test_code_can_hold_anything(text: str) -> None:
    written = markdown.code(text)

    assert outside_code(f"a {written} b") == "a  b"
    assert "\n" not in written
    assert "|" not in written.replace("\\|", "")


def test_a_cause_is_one_error() -> None:
    told = list(github.annotated(samples.halted()))

    assert told[0] == (
        "::error title=7 failed%3A 23505 UniqueViolation in revision r0007::"
        'could not create unique index "uq_users_email"%0A'
        "-> Remove the duplicate rows of this tenant, then run `orchestrate retry`.%0A"
        "tenant-017, tenant-031, tenant-044, tenant-058, tenant-073 and 2 more"
    )
    assert [line.split(" ")[0] for line in told] == ["::error", "::error", "::error", "::error", "::warning"]
    assert told[-1] == (
        "::warning title=run halted%3A 14 deferred%2C 860 not started::"
        f"once mended: orchestrate retry {samples.RUN}%0Athen, for the rest: orchestrate resume {samples.RUN}"
    )


@pytest.mark.parametrize(("exit_code", "says"), [(ExitCode.FAILURES, True), (ExitCode.OK, False)])
def test_targets_that_were_left_alone_are_an_error_where_the_run_ended_badly_because_of_them(
    exit_code: ExitCode, says: bool
) -> None:
    odd = [
        samples.outcome("acme", Status.SKIPPED, reason=Reason(code="unversioned", text="has tables but no version")),
        samples.outcome("hooli", Status.SKIPPED, reason=Reason(code="quarantined", text="restoring a backup")),
    ]
    told = list(github.annotated(samples.report(odd, RunStatus.FAILED, exit_code=exit_code)))

    assert told == ["::error title=1 skipped%3A unversioned::has tables but no version%0Aacme"] * says


def test_a_good_run_says_nothing() -> None:
    assert list(github.annotated(samples.all_well())) == []


def test_a_paused_run_warns() -> None:
    waits = samples.outcome("acme", Status.DEFERRED, reason=Reason(code="window", text="its window opens at 22:00"))
    paused = samples.report([waits], RunStatus.PAUSED, exit_code=ExitCode.PAUSED)

    assert list(github.annotated(paused)) == [
        f"::warning title=run paused%3A 1 deferred::to go on: orchestrate resume {samples.RUN}"
    ]


def test_there_are_at_most_ten_errors_and_the_last_counts_the_rest() -> None:
    told = list(github.annotated(samples.hostile()))

    assert len(told) == 10
    assert "title=19 other causes for 19 targets::" in told[-1]


def test_no_text_is_a_command_of_its_own() -> None:
    for line in github.annotated(samples.hostile()):
        assert line.isprintable()
        assert re.match(r"::(error|warning) title=[^:,]*::", line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::error::owned", r"\x3a:error::owned"),
        ("  ::add-mask::a", r"  \x3a:add-mask::a"),
        ("said ##[group]x, ##[endgroup]", r"said \x23#[group]x, \x23#[endgroup]"),
        ("###[x", r"#\x23#[x"),
        ("a::b::c # [x]", "a::b::c # [x]"),
    ],
)
def test_text_in_a_log_is_no_command(text: str, shown: str) -> None:
    assert workflow.inert(text) == shown


def test_the_summary_is_added_while_there_is_room(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("# before\n")

    assert github.summarise(samples.halted(), file)
    assert file.read_text().startswith("# before\n\n## `upgrade to r0008` halted")

    file.write_bytes(b"x" * (github.SUMMARY_BYTES - 100))
    assert not github.summarise(samples.halted(), file)
    assert file.stat().st_size == github.SUMMARY_BYTES - 100

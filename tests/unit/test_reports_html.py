"""The page of a report: complete, small, and with nothing in it that could run."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest

from orchestrator import reports
from orchestrator.outcomes import Outcome, Report, RunStatus, Status
from tests import report_samples as samples

LIMIT = 400_000
#: elements that run nothing and fetch nothing
INERT = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body main header section article footer h1 h2 h3 p dl div dt dd ul li b code pre "
        "span svg path rect figure figcaption details summary table thead tbody tr th td",
    )
)


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


def page(report: Report) -> Page:
    return Page(reports.render(report, ".html"))


@pytest.fixture(scope="module")
def halted() -> Page:
    return page(samples.halted())


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_nothing_in_it_can_run_or_be_fetched(name: str) -> None:
    for tag, attributes in page(samples.SAMPLES[name]()).tags:
        assert tag in INERT
        assert not [key for key in attributes if key.startswith("on") or key in ("style", "src", "href", "srcset")]


def test_the_policy_allows_the_one_style_sheet_and_nothing_else() -> None:
    text = reports.render(samples.all_well(), ".html")
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    policies = [tag[1]["content"] for tag in Page(text).tags if tag[1].get("http-equiv") == "Content-Security-Policy"]

    assert policies == [
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'none'; base-uri 'none'; form-action 'none'"
    ]
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_hostile_text_is_only_ever_text() -> None:
    text = reports.render(samples.hostile(), ".html")
    shown = Page(text).text

    for hostile in samples.HOSTILE[:8]:
        assert " ".join(hostile.split()) in shown
    assert "49" not in text.split("<style>")[0]
    assert all(character.isprintable() or character == "\n" or character == "\ufffe" for character in text)


def test_the_banner_says_how_it_ended_and_what_to_type(halted: Page) -> None:
    for words_ in (
        "upgrade to r0008 halted in 10m45s",
        "wave early has more failures than it may: 9, and 0 are tolerated",
        f"run {samples.RUN}",
        "exit code 1: something failed",
        "billing · production",
        "operator deploy@ci-7",
        "strategy careful",
        f"once mended: orchestrate retry {samples.RUN}",
        f"then, for the rest: orchestrate resume {samples.RUN}",
        f"to take it back: orchestrate rollback {samples.RUN}",
    ):
        assert words_ in halted.text


def test_a_wave_shows_when_it_ran_its_gate_and_the_pause_behind_it(halted: Page) -> None:
    bars = [attributes for tag, attributes in halted.tags if tag == "rect" and attributes.get("class") == "pause"]

    assert "canary succeeded 5 upgraded in 1.3 s; gate passed (command): ./smoke ended with 0;" in halted.text
    assert "10m01s until the next wave" in halted.text
    assert "rest not started 860 not started" in halted.text
    assert len(bars) == 1
    assert float(bars[0]["width"] or 0) == pytest.approx(1000 * 600.7 / 645, abs=2)


def test_times_of_a_wave_are_those_of_its_targets_where_the_report_has_none() -> None:
    report = samples.halted()
    waves = tuple(dataclasses.replace(wave, started_at=None, finished_at=None) for wave in report.waves)

    assert "5 upgraded in 0.8 s" in page(dataclasses.replace(report, waves=waves)).text


def test_failures_stand_by_cause_with_advice_and_every_name(halted: Page) -> None:
    text = halted.text
    assert "7 failed: 23505 UniqueViolation in revision r0007" in text
    assert "in wave early, on db1.internal:5432, db2.internal:5432, maria1.internal:3306" in text
    assert 'CREATE UNIQUE INDEX "uq_users_email" ON users (email)' in text
    assert "Remove the duplicate rows of this tenant, then run orchestrate retry ." in text
    assert "tenant-017, tenant-031, tenant-044, tenant-058, tenant-073 and 2 more" in text
    assert "tenant-073, tenant-090, tenant-101" in text
    assert text.index("7 failed") < text.index("1 failed: 55P03") < text.index("Where they are now")
    assert "1 lost" in text
    assert "the worker died; the next run reads the version first" in text


def test_what_was_left_alone_has_its_reasons(halted: Page) -> None:
    assert "hooli restoring a backup (ops, until 2026-12-01)" in halted.text
    assert "14 deferred, server down maria2.internal:3306 is down: connection refused" in halted.text
    assert "1 not provisioned, absent its schema does not exist newcomer" in halted.text


def test_targets_stand_where_they_were_read_or_found(halted: Page) -> None:
    assert "r0006 883 r0008 116 not there 1 r0007 1 unknown 1" in halted.text


def squares(one: Page, status: str) -> int:
    """Squares of a status: dashes of six on a pitch of eight."""
    paths = [attributes["d"] or "" for tag, attributes in one.tags if tag == "path" and attributes["class"] == status]
    return sum((int(length) + 2) // 8 for data in paths if data != "m0 4h14" for length in re.findall(r"h(\d+)", data))


@pytest.mark.parametrize("name", ["all_well", "halted", "ten_thousand"])
def test_each_target_is_one_square(name: str) -> None:
    report = samples.SAMPLES[name]()
    one = page(report)

    assert {status: squares(one, status) for status in report.counts} == report.counts


def test_no_two_squares_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    outcomes = [samples.outcome(f"t{n:04}", list(Status)[n * 7 % 10]) for n in range(3000)]
    for tag, attributes in page(samples.report(outcomes)).tags:
        x = y = 0
        for move in re.finditer(r"m(-?\d+) (-?\d+)h(\d+)", attributes.get("d") or "" if tag == "path" else ""):
            x, y = x + int(move[1]), y + int(move[2])
            if attributes["d"] != "m0 4h14":
                cells = {(x + step, y) for step in range(0, int(move[3]), 8)}
                assert not cells & taken
                taken |= cells
            x += int(move[3])

    assert len(taken) == 3000


def test_very_many_servers_share_a_picture() -> None:
    outcomes = [samples.outcome(f"t{n}", server=f"db{n}:5432") for n in range(500)]
    outcomes.append(samples.outcome("bad", Status.FAILED, server="db499:5432", failure=samples.UNIQUE))
    shown = page(samples.report(outcomes, RunStatus.FAILED))

    assert [tag for tag, _ in shown.tags].count("figure") == 40
    assert "461 other servers 461" in shown.text
    assert "db499:5432 2 1 failed or lost" in shown.text


def test_a_name_is_quoted_where_it_is_typed_to_a_shell() -> None:
    failed = samples.outcome("$(touch owned)", Status.FAILED, failure=samples.UNIQUE)

    assert "--target '$(touch owned)'" in page(samples.report([failed], RunStatus.FAILED)).text


def rename(outcome: Outcome, n: int, text: str) -> Outcome:
    failure = dataclasses.replace(samples.UNIQUE, message=text * 9, statement=text * 99, fingerprint=str(n))
    return dataclasses.replace(outcome, target=f"{text}{n}", status=Status.FAILED, failure=failure)


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(samples.ten_thousand(), id="some fail"),
        pytest.param(samples.ten_thousand(lambda n: True), id="all fail"),
        pytest.param(samples.ten_thousand(lambda n: n % 2 == 0), id="every other fails"),
        pytest.param(samples.hostile(360), id="hostile"),
        pytest.param(
            samples.report([rename(samples.outcome("x"), n, "<" * 60) for n in range(10_000)], RunStatus.FAILED),
            id="each for a reason of its own",
        ),
        pytest.param(
            samples.report(
                [samples.outcome(f"t{n}", list(Status)[n * 7 % 10], server="a" * 63) for n in range(10_000)]
            ),
            id="all statuses, side by side",
        ),
    ],
)
def test_ten_thousand_targets_take_at_most_400_kb(report: Report) -> None:
    text = reports.render(report, ".html")

    assert len(report.outcomes) >= 10_000
    assert len(text.encode()) <= LIMIT


def test_a_page_that_is_too_small_for_all_says_so_and_has_what_failed() -> None:
    report = samples.ten_thousand()
    shown = page(report).text

    assert re.search(r"[\d,]+ targets of 10,000, what failed first", shown)
    assert re.search(r"[\d,]+ more have no room on this page: orchestrate runs report", shown)
    for outcome in report.failures:
        assert shown.count(outcome.target) >= 2


def test_a_small_fleet_has_every_target() -> None:
    report = samples.all_well()
    shown = page(report).text

    assert "249 targets" in shown
    assert all(outcome.target in shown for outcome in report.outcomes)


def test_secrets_are_not_shown() -> None:
    leaking = dataclasses.replace(samples.UNIQUE, message="postgresql://app:hunter2@db/x failed")
    report = samples.report([samples.outcome("acme", Status.FAILED, failure=leaking)], RunStatus.FAILED)

    for ending in reports.FORMS:
        text = reports.render(report, ending)
        assert "hunter2" not in text
        assert "postgresql://app:***@db/x" in text


def test_a_report_without_anything_and_one_of_nothing() -> None:
    assert "No targets." in page(samples.report([])).text
    assert "nothing to resume" in Page(reports.nothing("nothing to resume", ".html")).text


def test_the_style_sheet_knows_every_status() -> None:
    style = reports.render(samples.report([]), ".html").split("<style>")[1].split("</style>")[0]

    for status in Status:
        assert f"path.{status} " in style
        assert f"rect.{status} " in style
        assert style.count(f"--{status}:") == 2  # by day and by night

"""`python -m benchmarks.report_page`: how long the page of a report of ten thousand targets takes to write and to open.

A browser takes seconds to start on its own, so it opens an empty page and the report in turns, several times; the
difference of the medians is what the report takes, and their ratio is what of it somebody notices.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator import reports
from tests import report_samples
from tests.services import browsers

ROUNDS = 5
EMPTY = "<!DOCTYPE html><title>empty</title><p>nothing</p>"


def main() -> None:
    """Measure and print."""
    report = report_samples.ten_thousand()
    began = time.perf_counter()
    text = reports.render(report, ".html")
    print(f"written in {time.perf_counter() - began:.2f} s, {len(text.encode()) / 1000:.0f} kB")
    with tempfile.TemporaryDirectory() as scratch:
        empty, page = Path(scratch, "empty.html"), Path(scratch, "report.html")
        empty.write_text(EMPTY)
        page.write_text(text)
        browsers.open_page(empty)  # what the machine reads once
        pairs = [(_seconds(lambda: open_seen(empty)), _seconds(lambda: open_seen(page))) for _ in range(ROUNDS)]
    without, with_report = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"browser with an empty page {without:6.2f} s")
    print(f"browser with the report    {with_report:6.2f} s")
    print(f"the report alone           {with_report - without:6.2f} s, {with_report / without:.2f} x an empty page")


def open_seen(page: Path) -> None:
    """Load the page, lay it out and paint it."""
    browsers.open_page(page, page.with_suffix(".png"))


def _seconds(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

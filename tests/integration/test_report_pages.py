"""The page of a report in a real browser: it complains of nothing, and nothing of it runs.

Pictures of each are left in build/reports, for people to look at.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import reports
from tests import report_samples as samples
from tests.services import browsers

PICTURES = Path(__file__).parents[2] / "build" / "reports"
PNG = b"\x89PNG\r\n\x1a\n"


def written(name: str, folder: Path) -> Path:
    page = folder / f"{name}.html"
    page.write_text(reports.render(samples.SAMPLES[name](), ".html"), encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        ("all_well", 1100, False),
        ("halted", 1100, True),
        ("halted", 390, False),
        ("ten_thousand", 1100, False),
        ("hostile", 1100, False),
    ],
)
def test_a_browser_has_nothing_to_complain_of(name: str, width: int, *, dark: bool, tmp_path: Path) -> None:
    picture = PICTURES / f"{name}-{width}{'-dark' if dark else ''}.png"
    picture.unlink(missing_ok=True)

    opened = browsers.open_page(written(name, tmp_path), picture, width=width, height=3000, dark=dark)

    assert opened.console == ()
    assert "</footer>" in opened.dom
    assert picture.read_bytes().startswith(PNG)


def test_whatever_slipped_in_would_be_refused_and_seen_here(tmp_path: Path) -> None:
    page = written("all_well", tmp_path)
    text = page.read_text()
    for place, spoilt in {
        "</style>": "</style><style>h1 { color: red }</style>",
        "<h1>": '<h1 style="color: red">',
        "<main>": '<main><script>document.body.remove()</script><img src="https://evil.example/x.png">'
        '<svg onload="document.body.remove()"></svg>',
    }.items():
        assert place in text
        text = text.replace(place, spoilt, 1)
    page.write_text(text)

    opened = browsers.open_page(page)

    for complaint in (
        "Applying inline style violates",
        "Executing inline script violates",
        "Executing inline event handler violates",
        "Loading the image 'https://evil.example/x.png' violates",
    ):
        assert any(complaint in said for said in opened.console), opened.console
    assert "</footer>" in opened.dom

"""A Chromium without a window: opens a page from disk and says what it complained of."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import tempfile
from pathlib import Path

from tests.services import binaries

#: a machine under load may take long to start a browser
PATIENCE = 120
_SAID = re.compile(r":CONSOLE[:(]\d+\)?\] (.*)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What came of opening a page."""

    #: the document as the browser has it in the end
    dom: str
    #: errors, warnings and messages of its console, violations of the page's policy among them
    console: tuple[str, ...]


def open_page(
    page: Path, picture: Path | None = None, *, width: int = 1100, height: int = 1600, dark: bool = False
) -> Opened:
    """Load the page and wait until it has; leave a PNG of its upper end where that is asked for."""
    words = ["--dump-dom", f"--window-size={width},{height}", "--hide-scrollbars"]
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        words.append(f"--screenshot={picture}")
    done = _run([*words, "--blink-settings=preferredColorScheme=0"] if dark else words, page)
    return Opened(dom=done.stdout, console=tuple(_SAID.findall(done.stderr)))


def _run(words: list[str], page: Path) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(prefix="orchestrate-browser-") as profile:
        command = [
            str(binaries.chromium()),
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            # Root has no sandbox, and the pages are our own.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            *words,
            page.absolute().as_uri(),
        ]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=PATIENCE
        )

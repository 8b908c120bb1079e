"""Keeps one server for a whole test session: `python -m tests.services.keeper KIND ANSWER OWNER_PID`.

It writes the server's URL (or why there is none) to the file ANSWER, and stops the server when the owner is gone,
however the owner went, or when it is told to by SIGTERM.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
from pathlib import Path

from tests.services import servers


def main(kind: str, answer: str, owner: str) -> None:
    """Serve until the owner is gone."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = {"postgres": servers.postgres, "mariadb": servers.mariadb}[kind]
    try:
        with start() as url:
            _answer(Path(answer), {"url": url.render_as_string(hide_password=False)})
            while not stop.wait(0.5) and servers.alive(int(owner)):
                pass
    except Exception as error:  # whatever it is, the tests that need the server must show it
        _answer(Path(answer), {"problem": f"{error}"})
        raise SystemExit(1) from error
    finally:
        if not servers.alive(int(owner)):
            shutil.rmtree(Path(answer).parent, ignore_errors=True)


def _answer(path: Path, content: dict[str, str]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content))
    draft.rename(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

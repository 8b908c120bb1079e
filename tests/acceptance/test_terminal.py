"""What a person sees of a run on a terminal of 80 by 24: it fits, it adds up, and it is what the databases say.

`make display TENANTS=10000` runs it on a large fleet.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import checker, histories
from tests.acceptance import fleets, terminals
from tests.acceptance.fleets import Fleet
from tests.acceptance.terminals import Terminal, counters

TENANTS = int(os.environ.get("ORCHESTRATE_TEST_TENANTS", "1000"))
PICTURES = 20
COLUMNS = 80
#: each frame clears below itself once
FRAME = "\x1b[J"
#: put before the last revision's own statements: it waits while that file is there
HOLD = """
    import pathlib
    import time

    while (pathlib.Path(__file__).parents[2] / "hold").exists():
        time.sleep(0.02)
"""


def a_fleet(folder: Path, count: int, *, size: int = 3, start: int = 0) -> Fleet:
    """Files whose last revision waits while the file `hold` is there, rolled out in four waves."""
    made = fleets.sqlite_fleet(folder, count=count, size=size, starts=(start,))
    registry = made.project.folder / "tenants.yaml"
    registry.write_text(registry.read_text() + STRATEGY)
    [last] = (made.project.folder / "alembic" / "versions").glob(f"r{size:03d}*.py")
    last.write_text(last.read_text().replace("def upgrade():\n", f"def upgrade():{HOLD}", 1))
    return made


STRATEGY = """
strategies:
  default:
    max_failures: 5
    waves:
      - {name: canary, size: 1}
      - {name: early, size: 10%}
      - {name: half, size: 40%}
      - {name: rest}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return a_fleet(tmp_path_factory.mktemp("terminal") / "project", TENANTS)


def at_head(fleet: Fleet) -> int:
    """How many databases are where they are wanted, asked one by one."""
    return sum(heads_of(member.url.database) == histories.revision_ids(fleet.size)[-1:] for member in fleet.members)


def heads_of(path: str | None) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return [version for (version,) in connection.execute("SELECT version_num FROM alembic_version")]
        except sqlite3.OperationalError:
            return []


@contextlib.contextmanager
def held(fleet: Fleet) -> Iterator[None]:
    """No job gets past its last revision."""
    hold = fleet.project.folder / "hold"
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


def settled_picture(terminal: Terminal) -> list[str]:
    """The screen once its counters stand still: every job at work has come to its last revision."""
    before: dict[str, int] = {}
    while True:
        lines = terminal.lines()
        if terminal.has_ended:
            return lines
        found = counters(lines) if any(" targets:" in line for line in lines) else {}
        if found and found == before:
            return lines
        before = found
        time.sleep(0.7)


def wait_until_done(terminal: Terminal, number: int) -> None:
    """Look on until so many are done; whatever moves must fit and add up as well."""
    while not terminal.has_ended:
        lines = terminal.lines()
        if any(" targets:" in line for line in lines) and assert_fits(lines, TENANTS)["done"] >= number:
            return
        time.sleep(0.05)


def assert_fits(lines: list[str], size: int, columns: int = COLUMNS) -> dict[str, int]:
    """Every line fits, and the counters add up to the fleet."""
    assert max(map(len, lines)) <= columns, lines
    found = counters(lines)
    assert found["targets"] == size
    assert sum(found.values()) - found["targets"] == size, lines
    return found


def keep(pictures: list[str], name: str) -> None:
    """For the eyes of whoever changes the picture."""
    folder = Path(__file__).parents[2] / "build" / "terminal"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(f"\n{'-' * COLUMNS}\n".join(pictures))


def test_the_picture_is_what_the_databases_say(fleet: Fleet, tmp_path: Path) -> None:
    seen, pictures = [], []
    with terminals.opened(tmp_path / "terminal", fleet.project, "upgrade", "--all") as terminal:
        terminal.wait_for("targets:")
        for number in range(PICTURES):
            wait_until_done(terminal, TENANTS * number // PICTURES)
            with held(fleet):
                lines = settled_picture(terminal)
                if terminal.has_ended:
                    break
                found = assert_fits(lines, TENANTS)
                pictures.append("\n".join(lines))
                seen.append((found["done"], at_head(fleet), found["running"]))
        status = terminal.wait_for_end()
        history, stream = terminal.history(), terminal.stream()
    keep(pictures, "upgrade")

    assert status == 0, history
    assert len(pictures) == PICTURES, "the run was over too soon to be looked at"
    for done, really, running in seen:
        assert abs(done - really) <= running, seen
    assert len({done for done, _, _ in seen}) > PICTURES / 2
    # The picture is gone; what stays is the report.
    assert "targets:" not in history
    assert re.search(rf"{TENANTS:,}  upgraded", history)
    frames = stream.text.count(FRAME)
    assert frames > len(pictures)
    assert frames <= 4 * stream.seconds + 4, f"{frames} frames in {stream.seconds:.1f} s"
    checker.assert_right(fleet.expected())


def test_a_failure_stays_above_and_the_picture_follows_the_size(tmp_path: Path) -> None:
    fleet = a_fleet(tmp_path / "project", 30, size=6, start=4)
    poisoned = fleet.members[7].name
    fleet.execute(poisoned, histories.POISON)
    with terminals.opened(tmp_path / "terminal", fleet.project, "upgrade", "--all", "--keep-going") as terminal:
        lines = terminal.wait_for(f"{poisoned} failed: 2067")
        with held(fleet):
            lines = settled_picture(terminal)
            assert assert_fits(lines, 30)["failed"] == 1
            for columns, rows in ((60, 16), (100, 20), (44, 24)):
                terminal.resize(columns, rows)
                time.sleep(1)
                resized = settled_picture(terminal)
                keep(["\n".join(resized)], f"failure-{columns}")
                assert len(resized) <= rows
                assert_fits(resized, 30, columns)
                assert sum(" targets:" in line for line in resized) == 1, resized
        status, history = terminal.wait_for_end(), terminal.history()

    assert status == 1, history
    assert histories.CUSTOMER not in history
    assert f"{poisoned} failed: 2067" in history
    assert "budget" not in history


def test_a_run_is_watched_from_another_terminal(tmp_path: Path) -> None:
    fleet = a_fleet(tmp_path / "project", 60)
    with contextlib.ExitStack() as stack:
        holding = stack.enter_context(contextlib.ExitStack())
        holding.enter_context(held(fleet))
        runner = stack.enter_context(terminals.opened(tmp_path / "runner", fleet.project, "upgrade", "--all"))
        runner.wait_for(" 1 running")
        watcher = stack.enter_context(terminals.opened(tmp_path / "watcher", fleet.project, "runs", "watch"))
        bored = stack.enter_context(terminals.opened(tmp_path / "bored", fleet.project, "runs", "watch"))
        bored.wait_for("the run goes on")
        bored.type("C-c")
        assert bored.wait_for_end() == 130
        assert "to look again: orchestrate runs watch r-" in bored.history()
        holding.close()
        for _ in range(3):
            with held(fleet):
                lines = settled_picture(watcher)
                if runner.has_ended or watcher.has_ended:
                    break
                found = assert_fits(lines, 60)
                assert abs(found["done"] - at_head(fleet)) <= found["running"], lines
                keep(["\n".join(lines)], "watch")
            time.sleep(0.5)
        assert runner.wait_for_end() == 0
        assert watcher.wait_for_end() == 0
        shown = watcher.history()

    assert "upgrade to r003 succeeded" in shown
    assert "60  upgraded" in shown
    checker.assert_right(fleet.expected())

"""The short form of the crash points: all points of an upgrade of one tenant by two revisions, inline.

Of the other commands each day takes a few. The long form, `make soak HARNESS=points`, takes all points of all commands.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest

from tests.soak import crash_points, grounds
from tests.soak.crash_points import Crash, Stage
from tests.soak.launching import Launcher, launcher

#: tests that share the points of one upgrade, so that processes share them as well
_PARTS = 4
#: of the other commands each day takes other points, and so many days take all
_DAYS = 132
_ONE = grounds.Size(tenants=1, revisions=2, starts=(0,))
_TWO = grounds.Size(tenants=2, revisions=6, starts=(0, 5))
_SCENARIOS = {scenario.name: scenario for scenario in crash_points.SCENARIOS}


@pytest.fixture(scope="module")
def commands() -> Iterator[Launcher]:
    with launcher() as started:
        yield started


def sweep(engine: str, size: grounds.Size, name: str, commands: Launcher, points: Iterator[int]) -> list[Crash]:
    with grounds.ground(engine, size) as ground:
        stage = Stage(ground=ground, launcher=commands)
        return list(crash_points.sweep(stage, _SCENARIOS[name], points))


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("engine", grounds.ENGINES)
def test_an_upgrade_that_dies_anywhere_is_resumed(engine: str, part: int, commands: Launcher) -> None:
    crashes = sweep(engine, _ONE, "upgrade", commands, crash_points.points(every=_PARTS, offset=part))

    assert [crash for crash in crashes if crash.problems] == []
    assert len(crashes) > 80 // _PARTS


@pytest.mark.parametrize("name", ["first upgrade", "resume", "retry", "rollback", "abort"])
def test_every_other_command_may_die_as_well(name: str, commands: Launcher) -> None:
    today = datetime.datetime.now(datetime.UTC).date().toordinal()
    crashes = sweep("sqlite", _TWO, name, commands, crash_points.points(every=_DAYS, offset=today))

    assert [crash for crash in crashes if crash.problems] == []
    assert crashes

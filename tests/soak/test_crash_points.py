"""The short form of the crash points: one tenant, two revisions, inline; every so many of the points a day.

The long form, `make soak HARNESS=points`, takes all points of all commands.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest

from tests.soak import crash_points, grounds
from tests.soak.crash_points import Scenario, Stage
from tests.soak.launching import Launcher, launcher

#: each day takes other points, and so many days take all
_EVERY = 11
_ONE = grounds.Size(tenants=1, revisions=2, starts=(0,))
_TWO = grounds.Size(tenants=2, revisions=6, starts=(0, 5))
_SCENARIOS = {scenario.name: scenario for scenario in crash_points.SCENARIOS}


@pytest.fixture(scope="module")
def commands() -> Iterator[Launcher]:
    with launcher() as started:
        yield started


def sweep(
    engine: str, size: grounds.Size, scenario: Scenario, commands: Launcher, *, every: int
) -> list[crash_points.Crash]:
    offset = datetime.datetime.now(datetime.UTC).date().toordinal()
    with grounds.ground(engine, size) as ground:
        stage = Stage(ground=ground, launcher=commands)
        return list(crash_points.sweep(stage, scenario, crash_points.points(every=every, offset=offset)))


@pytest.mark.parametrize("engine", grounds.ENGINES)
def test_an_upgrade_that_dies_anywhere_is_resumed(engine: str, commands: Launcher) -> None:
    crashes = sweep(engine, _ONE, _SCENARIOS["upgrade"], commands, every=_EVERY)

    assert [crash for crash in crashes if crash.problems] == []
    assert len(crashes) > 80 // _EVERY


@pytest.mark.parametrize("name", ["first upgrade", "resume", "retry", "rollback", "abort"])
def test_every_other_command_may_die_as_well(name: str, commands: Launcher) -> None:
    crashes = sweep("sqlite", _TWO, _SCENARIOS[name], commands, every=12 * _EVERY)

    assert [crash for crash in crashes if crash.problems] == []
    assert crashes

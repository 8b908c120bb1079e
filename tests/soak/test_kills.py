"""The short form of the random kills; the long form is `make soak`."""

from __future__ import annotations

import contextlib

import pytest

from tests.acceptance.fleets import Done
from tests.soak import grounds, kills, ledgers
from tests.soak.crash_points import KILLED
from tests.soak.mortals import mortal

_SEED = 20261122
_NO_RUN = ledgers.Book(runs={}, claims={}, unsettled=())
_HALTED = ledgers.Book(runs={"r-1": "halted"}, claims={}, unsettled=())


@pytest.mark.parametrize(
    ("command", "exit_status", "book", "remedies"),
    [
        (kills.UPGRADE, 0, _HALTED, []),
        (kills.UPGRADE, KILLED, _HALTED, [kills.RESUME]),
        (kills.RESUME, 1, _HALTED, [kills.RESUME, ("retry",)]),
        (kills.UPGRADE, KILLED, _NO_RUN, [kills.UPGRADE]),
        (kills.RESUME, 0, _NO_RUN, [kills.UPGRADE]),
        (kills.RESUME, 0, None, [kills.UPGRADE]),
        (kills.UPGRADE, 0, None, []),
    ],
)
def test_what_is_typed_after_a_command(
    command: tuple[str, ...], exit_status: int, book: ledgers.Book | None, remedies: list[tuple[str, ...]]
) -> None:
    """Where the one that was killed had opened no run, `resume` ends with 0 and has moved nobody."""
    done = Done(command=command, exit_status=exit_status, output="", errors="")
    assert kills._remedies(done, book) == remedies


@pytest.mark.parametrize("engine", grounds.ENGINES)
def test_whoever_is_killed_the_fleet_gets_there(engine: str) -> None:
    verdicts: list[kills.Verdict] = []
    with grounds.ground(engine, grounds.Size(tenants=10, revisions=5)) as ground:
        series = kills.Series(ground, _SEED, again=0.9)
        series.measure(runs=1)
        while sum(verdict.kills for verdict in verdicts) < 12:
            verdicts.append(series.kill(len(verdicts) + 1))

    assert [verdict for verdict in verdicts if verdict.problems] == []


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_a_killed_server_comes_back_to_the_right_fleet(engine: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(mortal(engine))
        ground = stack.enter_context(grounds.ground(engine, grounds.Size(tenants=10, revisions=5), server.url))
        series = kills.Series(ground, _SEED, server)
        series.measure(runs=1)
        verdict = series.kill(1)

    assert verdict.problems == []
    assert verdict.victim == "server"

"""How often a job is tried again at once: by what went wrong, with pauses that differ from job to job."""

from __future__ import annotations

import pytest

from orchestrator.databases import Ladder
from orchestrator.outcomes import Failure, FailureKind

LOCKED = ("55P03", FailureKind.TRANSIENT)
DEADLOCK = ("40P01", FailureKind.TRANSIENT)
CUT = ("08006", FailureKind.AMBIGUOUS)


def failure(code: str | None, kind: FailureKind, *, crowded: bool = False) -> Failure:
    return Failure(kind=kind, code=code, type="OperationalError", message="…", crowded=crowded)


def climbed(*met: tuple[str | None, FailureKind], settled: bool = True) -> tuple[list[float], list[float]]:
    """Pauses and shares of the lock timeout until the ladder ends, for a job that meets these failures in turn."""
    ladder = Ladder(jitter=lambda _low, _high: 1)
    pauses, shares = [], [ladder.lock_share]
    for number in range(100):
        pause = ladder.pause_after(failure(*met[number % len(met)]), settled=settled)
        if pause is None:
            assert ladder.tries == len(pauses) + 1
            return pauses, shares
        pauses.append(pause)
        shares.append(ladder.lock_share)
    raise AssertionError("the ladder has no end")


def test_a_locked_table_is_tried_six_times_with_growing_patience() -> None:
    assert climbed(LOCKED) == ([0.2, 0.5, 1.0, 2.0, 3.0], [0.2, 0.5, 1.0, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("code", ["40P01", "40001", "1213", "3058", "1020", "517"])
def test_conflicts_get_five_whole_tries(code: str) -> None:
    assert len(climbed((code, FailureKind.TRANSIENT))[0]) == 4


def test_a_lost_connection_gets_three_tries_once_the_version_is_known() -> None:
    assert len(climbed(CUT)[0]) == 2
    assert climbed(CUT, settled=False)[0] == []


@pytest.mark.parametrize("code", ["25006", "1290", "08001"])
def test_what_a_fail_over_may_mend_gets_one_more_try(code: str) -> None:
    assert len(climbed((code, FailureKind.PERMANENT))[0]) == 1


def test_what_nobody_knows_gets_one_more_try() -> None:
    assert len(climbed((None, FailureKind.TRANSIENT))[0]) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("tenant_locked", FailureKind.TRANSIENT),
        ("lock_lost", FailureKind.AMBIGUOUS),
        ("25P03", FailureKind.AMBIGUOUS),
        ("23505", FailureKind.PERMANENT),
        ("8", FailureKind.PERMANENT),
        ("53100", FailureKind.SERVER),
        ("42601", FailureKind.RUN),
        (None, FailureKind.PERMANENT),
    ],
)
def test_what_another_try_would_not_change_gets_none(code: str | None, kind: FailureKind) -> None:
    assert climbed((code, kind)) == ([], [0.2])


def test_a_crowded_server_is_left_alone_at_once() -> None:
    ladder = Ladder()
    assert ladder.pause_after(failure("53300", FailureKind.TRANSIENT, crowded=True), settled=True) is None


def test_failures_in_turn_do_not_go_on_for_ever() -> None:
    pauses, shares = climbed(LOCKED, DEADLOCK, CUT)
    assert len(pauses) <= 5 + 4 + 2
    assert shares[-1] == 1.0


def test_the_jitter_is_a_quarter() -> None:
    asked: list[tuple[float, float]] = []

    def longest(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    assert Ladder(jitter=longest).pause_after(failure(*LOCKED), settled=True) == pytest.approx(0.25)
    assert asked == [(0.75, 1.25)]

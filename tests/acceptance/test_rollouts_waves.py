"""Waves and budgets on three hundred PostgreSQL schemas: who is harmed is counted in the databases."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import checker, histories
from tests.acceptance import rollouts
from tests.acceptance.fleets import outcomes_of, report_of
from tests.acceptance.rollouts import BigFleet, Shards, members, statuses, waves

COUNT = 300
BROKEN = 'op.execute("SELECT nonsense FROM accounts")'
CAREFUL = """
  careful:
    concurrency: 4
    max_failures: 2%
    waves:
      - {name: canary, size: 1}
      - {name: early, size: 10%}
      - {name: rest}
"""


@pytest.fixture(scope="module")
def shards(postgres_url: URL) -> Iterator[Shards]:
    with rollouts.shards(postgres_url, count=COUNT, databases=3) as made:
        yield made


@pytest.fixture
def fleet(shards: Shards, tmp_path: Path) -> Iterator[BigFleet]:
    with rollouts.copied(shards, tmp_path / "project") as copy:
        yield copy


def test_a_broken_revision_harms_the_canary_alone(fleet: BigFleet) -> None:
    fleet.write(CAREFUL)
    histories.edit(fleet.project.folder, "r002", rollouts.COUNTED, f"{rollouts.COUNTED}\n    {BROKEN}")

    halted = report_of(fleet.orchestrate("upgrade", "--all", "--strategy", "careful", "-o", "json", exit_status=1))

    (canary,) = [name for name, status in statuses(halted).items() if status != "not_started"]
    assert fleet.tries() == {canary: 1}
    assert halted["status"] == "halted"
    assert halted["counts"]["failed"] == 1
    assert waves(halted) == {"canary": "failed", "early": "not_started", "rest": "not_started"}
    assert outcomes_of(halted)[canary]["failure"]["code"] == "42703"
    checker.assert_right(fleet.expected(upgraded=()))

    # It would halt again at once.
    refused = fleet.orchestrate("resume", exit_status=3)
    assert "max_failures 0 of wave canary" in refused.errors

    histories.edit(fleet.project.folder, "r002", BROKEN, "pass")
    retried = report_of(fleet.orchestrate("retry", "-o", "json", exit_status=1))
    assert retried["run"] == halted["run"]
    assert retried["counts"] == {**retried["counts"], "upgraded": 1, "not_started": COUNT - 1}
    checker.assert_right(fleet.expected(upgraded=[canary]))

    done = report_of(fleet.orchestrate("resume", "-o", "json"))
    assert done["run"] == halted["run"]
    assert done["status"] == "succeeded"
    assert done["counts"]["upgraded"] == COUNT
    assert waves(done) == dict.fromkeys(("canary", "early", "rest"), "succeeded")
    assert fleet.tries() == {**dict.fromkeys(fleet.names, 1), canary: 2}
    checker.assert_right(fleet.expected())


@pytest.mark.parametrize(
    ("poisoned", "concurrency", "strict"),
    [(9, 2, False), (60, 4, False), (60, 4, True)],
    ids=["few", "many", "strict"],
)
def test_a_budget_is_overdrawn_by_what_was_in_flight_at_most(
    fleet: BigFleet, poisoned: int, concurrency: int, strict: bool
) -> None:
    budget = int(COUNT * 0.02)
    sick = set(random.Random(1).sample(fleet.names, poisoned))
    fleet.execute(sick, rollouts.POISON)
    fleet.write(f"  default: {{concurrency: {concurrency}, max_failures: 2%, strict: {str(strict).lower()}}}")

    report = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", exit_status=1))

    failed = set(fleet.tries()) & sick
    assert budget + 1 <= len(failed) <= budget + 1 + (0 if strict else concurrency - 1)
    assert report["status"] == "halted"
    assert {name for name, status in statuses(report).items() if status == "failed"} == failed
    done = {name for name, status in statuses(report).items() if status == "upgraded"}
    assert done == set(fleet.tries()) - sick
    checker.assert_right(fleet.expected(upgraded=done))


PERCENTS = """
  default:
    waves:
      - {{name: first, size: {}%}}
      - {{name: second, size: {}%}}
      - {{name: third, size: 30%}}
"""


def planned(fleet: BigFleet) -> dict[str, str]:
    return members(fleet.orchestrate("plan", "--all", "--provision", "-o", "json").json)


def test_nobody_changes_waves_when_the_fleet_or_a_percentage_changes(fleet: BigFleet) -> None:
    strategy = PERCENTS.format(5, 10)
    fleet.write(strategy)
    before = planned(fleet)
    sizes = {wave: list(before.values()).count(wave) for wave in ("first", "second", "third", "rest")}
    assert 0 < sizes["first"] < sizes["second"] < sizes["third"], sizes

    joined = [f"n{number:03d}" for number in range(COUNT // 10)]
    fleet.write(strategy, tenants=[*fleet.names, *joined])
    larger = planned(fleet)
    assert set(larger) == {*before, *joined}
    assert {name: larger[name] for name in before} == before
    assert len({larger[name] for name in joined}) > 1

    left = set(random.Random(3).sample(fleet.names, COUNT // 10))
    fleet.write(strategy, tenants=[name for name in fleet.names if name not in left])
    assert planned(fleet) == {name: wave for name, wave in before.items() if name not in left}

    fleet.write(PERCENTS.format(15, 10))
    grown = planned(fleet)
    order = ["first", "second", "third", "rest"]
    assert all(order.index(grown[name]) <= order.index(before[name]) for name in before)
    # 5 and 10 are within the 15: all of them, and no others, are first now.
    early = {name for name, wave in before.items() if wave in ("first", "second")}
    assert {name for name, wave in grown.items() if wave == "first"} == early

"""The long forms: `python -m tests.faults [--rounds 100] [--seed 1] [NAME …]` prints the figures of each scenario."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.acceptance import fleets
from tests.faults import cuts, ledgers, orphans, outages, pooling, rivals
from tests.faults.stage import Figures, Stage
from tests.services import scratch, servers

KINDS = ("postgresql", "mariadb")
Scenario = Callable[[Stage, int], Figures]


def scenarios() -> dict[str, Scenario]:
    """By name; the number is `--rounds`, and says how often what is random or racy is done."""
    found: dict[str, Scenario] = {}
    for kind in KINDS:
        found |= {f"{name} {kind}": _of(scenario, kind) for name, scenario in _OF_BOTH.items()}
    return found | _OF_POSTGRESQL


def _of(scenario: Callable[[Stage, int, str], Figures], kind: str) -> Scenario:
    return lambda stage, rounds: scenario(stage, rounds, kind)


def _rivals(stage: Stage, rounds: int, kind: str) -> Figures:
    """Two to eight at a time, in turn with one ledger and with one each."""
    total = {"rounds": 0, "spans": 0, "overlaps": 0}
    for number in range(max(1, rounds // 4)):
        play = (rivals.same_ledger, rivals.different_ledgers)[number % 2]
        figures = play(stage, kind, rivals=2 + number % 7, count=8)
        total["rounds"] += 1
        total["spans"] += figures["spans"]
    return total


def _concurrently(stage: Stage, rounds: int) -> Figures:
    builds = 0
    while builds < rounds:
        builds += rivals.concurrently(stage, rivals=4, count=20)["concurrent builds"]
    return {"concurrent builds": builds, "others polling": 3, "deadlocks": 0, "invalid indexes": 0}


def _orphans(stage: Stage, rounds: int, kind: str) -> Figures:
    times = max(1, rounds // 10)
    for number in range(times):
        orphans.long_statement(stage, kind, end=number % 2 == 1)
    return {"rounds": times, "begun beside an orphan": 0, "orphans named": times}


_OF_BOTH: dict[str, Callable[[Stage, int, str], Figures]] = {
    "ambiguous-commits": lambda stage, rounds, kind: cuts.ambiguous_commits(stage, kind, before=rounds, after=rounds),
    "resets-1": lambda stage, rounds, kind: cuts.random_resets(stage, kind, count=5 * rounds, statements=0.01),
    "resets-5": lambda stage, rounds, kind: cuts.random_resets(stage, kind, count=rounds, statements=0.05),
    "stalls": lambda stage, rounds, kind: cuts.stalls(stage, kind, seconds=60, limit=10),
    "crowded": lambda stage, rounds, kind: outages.crowded(stage, kind, count=2 * rounds, slots=20, jobs=64),
    "locked-table": lambda stage, rounds, kind: rivals.locked_table(
        stage, kind, seconds=60, busy="[5s, 10s, 20s, 30s, 60s]", count=10
    ),
    "server-dies": lambda stage, rounds, kind: outages.server_dies(stage, kind, count=rounds, at=30, down=5),
    "orphans": _orphans,
    "stale-lock": lambda stage, rounds, kind: orphans.stale_lock(stage, kind, rounds=max(1, rounds // 10)),
    "worker-dies": lambda stage, rounds, kind: orphans.worker_dies(stage, kind, count=4),
    "rivals": _rivals,
    "by-hand": lambda stage, rounds, kind: rivals.by_hand(stage, kind, hands=3, count=20),
}
_OF_POSTGRESQL: dict[str, Scenario] = {
    "one-of-five-down": lambda stage, rounds: outages.one_of_five_down(stage, each=max(4, rounds // 5)),
    "comes-back": lambda stage, rounds: outages.comes_back(stage, each=20, seconds=3),
    "ledger-unreachable": lambda stage, rounds: ledgers.unreachable(stage, count=rounds, after=20),
    "ledger-full": lambda stage, rounds: ledgers.full(stage, count=rounds),
    "concurrently": _concurrently,
    "many-schemas": lambda stage, rounds: rivals.many_schemas(stage, count=64, jobs=16),
    "pooler-1": lambda stage, rounds: pooling.refused(stage, pool_size=1, clients=0, rounds=rounds, commands=3),
    "pooler-20": lambda stage, rounds: pooling.refused(stage, pool_size=20, clients=0, rounds=rounds, commands=3),
    "pooler-1-busy": lambda stage, rounds: pooling.refused(stage, pool_size=1, clients=5, rounds=rounds, commands=3),
    "pooler-20-busy": lambda stage, rounds: pooling.refused(stage, pool_size=20, clients=10, rounds=rounds, commands=3),
    "pooler-session": lambda stage, rounds: pooling.accepted(stage, pool_size=20, count=20),
}


def main() -> int:
    """1 when a scenario went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("names", nargs="*", help="scenarios, or the beginnings of their names; all of them by default")
    given = parser.parse_args()
    wanted = {name: play for name, play in scenarios().items() if _is_wanted(name, given.names)}
    if not wanted:
        parser.error(f"no scenario begins like that; there are: {', '.join(scenarios())}")
    # What the machine's surroundings would change in the commands.
    os.environ.pop("CI", None)
    fleets.PATIENCE.seconds = 3600
    scratch.use_memory()
    failed = [name for name, good in _play(wanted, given.rounds, given.seed) if not good]
    print(f"{len(wanted) - len(failed)} of {len(wanted)} scenarios held", *failed, sep="\n  failed: ")
    return 1 if failed else 0


def _play(wanted: dict[str, Scenario], rounds: int, seed: int) -> Iterator[tuple[str, bool]]:
    with (
        tempfile.TemporaryDirectory(prefix="orchestrate-faults-") as folder,
        servers.postgres() as postgres,
        servers.mariadb() as mariadb,
    ):
        stage = Stage(folder=Path(folder), postgres=postgres, mariadb=mariadb, seed=seed)
        for name, play in wanted.items():
            began = time.monotonic()
            try:
                figures = play(stage, rounds)
            except Exception:  # noqa: BLE001 - whatever it is, the other scenarios shall be played
                traceback.print_exc()
                print(f"{name}: FAILED, seed {seed}", flush=True)
                yield name, False
                continue
            print(f"{name}: {json.dumps(figures)} in {time.monotonic() - began:.0f} s", flush=True)
            yield name, True


def _is_wanted(name: str, beginnings: list[str]) -> bool:
    return not beginnings or any(name.startswith(beginning) for beginning in beginnings)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.soak kills|points|states`: the long forms of the reliability tests; `make soak` calls it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.services import scratch, session
from tests.soak import crash_points, grounds, kills
from tests.soak.launching import launcher
from tests.soak.mortals import mortal
from tests.soak.states import FleetMachine

#: where what was found is kept; a soak that was stopped goes on from it
RESULTS = Path(__file__).parents[2] / "build" / "soak"


def main() -> int:
    """1 when anything was wrong."""
    asked = _arguments()
    scratch.use_memory()
    session.open_session()
    try:
        engines = grounds.ENGINES if asked.engine == "all" else (asked.engine,)
        return max(asked.harness(asked, engine) for engine in engines)
    finally:
        session.close_session()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    harnesses = parser.add_subparsers(required=True)
    random = harnesses.add_parser("kills", help="SIGKILL at random moments")
    random.set_defaults(harness=_kills)
    random.add_argument("--kills", type=int, default=200)
    random.add_argument("--seed", type=int, default=1)
    random.add_argument("--tenants", type=int, default=60)
    random.add_argument("--again", type=float, default=kills.AGAIN, help="how likely a `resume` is killed as well")
    random.add_argument("--autocommit", action="store_true", help="with a revision that leaves its transaction")
    random.add_argument("--terminate", action="store_true", help="SIGTERM instead, once or twice")
    random.add_argument("--server", action="store_true", help="kill the database server instead")
    points = harnesses.add_parser("points", help="SIGKILL at every place of every command")
    points.set_defaults(harness=_points)
    points.add_argument("--tenants", type=int, default=3)
    points.add_argument("--every", type=int, default=1)
    points.add_argument("--pairs", type=int, default=0, help="so many upgrades, each killed, its resume killed as well")
    points.add_argument("--seed", type=int, default=1)
    points.add_argument("--per-revision", action="store_true", help="commit after each revision")
    points.add_argument("--scenario", action="append", choices=[each.name for each in crash_points.SCENARIOS])
    states = harnesses.add_parser("states", help="anything in any order, on SQLite")
    states.set_defaults(harness=_states, engine="sqlite")
    states.add_argument("--examples", type=int, default=200)
    states.add_argument("--seed", type=int, default=1)
    for each in (random, points):
        each.add_argument("--engine", choices=[*grounds.ENGINES, "all"], default="all")
    return parser.parse_args()


def _kills(asked: argparse.Namespace, engine: str) -> int:
    if asked.server and engine == "sqlite":
        return 0
    variant = ("-server" if asked.server else "") + ("-autocommit" if asked.autocommit else "")
    variant += "-terminate" if asked.terminate else ""
    name = f"{engine}-{asked.tenants}{variant}-seed{asked.seed}"
    size = grounds.Size(tenants=asked.tenants, revisions=8, autocommit=asked.autocommit)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(mortal(engine)) if asked.server else None
        ground = stack.enter_context(grounds.ground(engine, size, server.url if server else None))
        series = kills.Series(ground, asked.seed, server, again=asked.again, terminate=asked.terminate)
        verdicts = kills.soak(series, RESULTS / f"{name}.jsonl", asked.kills)
    print(f"{name}: {kills.summary(verdicts)}", flush=True)
    return int(any(verdict.problems for verdict in verdicts))


def _points(asked: argparse.Namespace, engine: str) -> int:
    RESULTS.mkdir(parents=True, exist_ok=True)
    size = grounds.Size(
        tenants=asked.tenants, revisions=8, starts=(0, 3, 1), autocommit=True, per_revision=asked.per_revision
    )
    chosen = [each for each in crash_points.SCENARIOS if not asked.scenario or each.name in asked.scenario]
    wrong = 0
    with grounds.ground(engine, size) as ground, launcher() as commands:
        stage = crash_points.Stage(ground=ground, launcher=commands)
        if asked.pairs:
            return int(_told(engine, f"pairs of seed {asked.seed}", crash_points.pairs(stage, asked.seed, asked.pairs)))
        for scenario in chosen:
            places = crash_points.points(every=asked.every)
            wrong += _told(engine, scenario.name, crash_points.sweep(stage, scenario, places))
    return int(wrong > 0)


def _states(asked: argparse.Namespace, engine: str) -> int:
    """Every example is a fleet of its own; the first wrong one is made as short as possible, and told."""
    began = time.monotonic()
    wanted = settings(
        max_examples=asked.examples, stateful_step_count=40, deadline=None, database=None, print_blob=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with launcher() as commands, launcher() as others:
        machine = seed(asked.seed)(functools.partial(FleetMachine, commands, others))
        run_state_machine_as_test(machine, settings=wanted)
        steps = FleetMachine.steps
    print(f"states, seed {asked.seed}: {asked.examples} fleets, {steps} steps, {time.monotonic() - began:.0f} s")
    return 0


def _told(engine: str, name: str, crashes: Iterator[crash_points.Crash]) -> int:
    """Write down each, print those that were wrong, and a summary; returns how many were wrong."""
    began, done, wrong = time.monotonic(), 0, 0
    with (RESULTS / f"points-{engine}.jsonl").open("a") as file:
        for crash in crashes:
            line = json.dumps({"scenario": name, **dataclasses.asdict(crash)})
            file.write(f"{line}\n")
            done += 1
            wrong += bool(crash.problems)
            if crash.problems:
                print(line, flush=True)
    print(f"{engine}, {name}: {done} points, {wrong} wrong, {time.monotonic() - began:.0f} s", flush=True)
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())

"""The short form of the state machine: always the same steps, on SQLite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.soak.launching import launcher
from tests.soak.states import FleetMachine

_SHORT = settings(
    derandomize=True,
    max_examples=4,
    stateful_step_count=12,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_whatever_happens_to_a_fleet_its_tenants_stay_right() -> None:
    with launcher() as commands, launcher() as others:
        run_state_machine_as_test(lambda: FleetMachine(commands, others), settings=_SHORT)

"""The short form of the state machine: always the same steps, on SQLite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.soak import crash_points, grounds
from tests.soak.launching import launcher
from tests.soak.states import FleetMachine

#: how often somebody types `resume` though all is done
_TIMES = 20
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


def test_resume_of_a_finished_run_writes_nothing_to_any_tenant() -> None:
    with grounds.ground("sqlite", grounds.Size(tenants=3, revisions=4)) as ground, launcher() as commands:
        ground.reset()
        commands.orchestrate(ground.project, *crash_points.UPGRADE)
        files = sorted((ground.folder / "tenants").iterdir())
        before = [(file.name, file.stat().st_mtime_ns, file.read_bytes()) for file in files]

        said = {commands.orchestrate(ground.project, *crash_points.RESUME).output.strip() for _ in range(_TIMES)}

        after = [
            (file.name, file.stat().st_mtime_ns, file.read_bytes()) for file in (ground.folder / "tenants").iterdir()
        ]
        assert sorted(after) == before
        assert len(said) == 1
        assert ground.problems() == []

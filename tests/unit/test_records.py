"""What is told of a recorded run that has not ended, and when a reconciliation may end it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from orchestrator.errors import ExitCode
from orchestrator.ledger import MemoryLedger, this_process
from orchestrator.outcomes import RunStatus, Status
from orchestrator.plans import Plan
from orchestrator.records import Records
from orchestrator.testing import a_plan, an_outcome

OPS = this_process("ops@here")


class World:
    """A ledger with one run under a lease, in which `a` is done."""

    def __init__(self, plan: Plan) -> None:
        self.ledger = MemoryLedger()
        self.lease = self.ledger.acquire(OPS)
        self.run = self.ledger.open_run(plan, operator="ops", fleet=2, lease=self.lease).id
        self.ledger.record(self.run, an_outcome(next(plan.jobs), Status.UPGRADED))
        registry = SimpleNamespace(targets=(), project=plan.project, environment=plan.environment)
        host = SimpleNamespace(
            ledger=self.ledger, ledger_if_any=lambda: self.ledger, registry=registry, look=lambda targets: []
        )
        self.records = Records(host)  # type: ignore[arg-type]


@pytest.mark.parametrize("live", [True, False])
def test_a_paused_run_waits_for_somebody_whether_its_runner_lives_or_not(live: bool) -> None:
    world = World(a_plan("a", "b"))
    world.ledger.set_status(world.run, RunStatus.PAUSED)
    if not live:
        world.ledger.release(world.lease)
    told = {outcome.target: outcome for outcome in world.records.report(world.run).outcomes}
    reason = told["b"].reason
    assert (told["a"].status, told["b"].status) == (Status.UPGRADED, Status.NOT_STARTED)
    assert reason is not None
    assert (reason.code, reason.text) == ("paused", "waits for somebody to continue")


@pytest.mark.parametrize(("sweep", "status"), [(None, RunStatus.SUCCEEDED), ({"all": True}, RunStatus.HALTED)])
def test_nobody_has_looked_yet_who_has_joined(sweep: dict[str, bool] | None, status: RunStatus) -> None:
    world = World(dataclasses.replace(a_plan("a"), sweep=sweep))
    world.ledger.close_run(world.run, RunStatus.HALTED, ExitCode.FAILURES)
    world.ledger.release(world.lease)
    world.records.reconcile()
    assert world.ledger.run(world.run).status is status

"""The builders and fakes that users of the library test with."""

from __future__ import annotations

import json
import pickle

import pytest

from orchestrator import rollout
from orchestrator.errors import ExitCode
from orchestrator.outcomes import FailureKind, Outcome, Status
from orchestrator.plans import Retries
from orchestrator.testing import (
    NO_RETRIES,
    FakeClock,
    MemoryLedger,
    RecordingListener,
    ScriptedExecutor,
    a_failure,
    a_job,
    a_plan,
    a_target,
    a_wave,
    an_outcome,
)


@pytest.mark.parametrize("status", Status)
def test_outcomes_survive_json_and_other_processes(status: Status) -> None:
    outcome = an_outcome("acme/core", status, labels={"region": "eu"})
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert (outcome.tenant, outcome.database, outcome.target) == ("acme", "core", "acme/core")


def test_targets_and_jobs_carry_what_they_are_given() -> None:
    target = a_target("acme/core", "postgresql+psycopg://app:s3cret@db/saas", schema="acme", labels={"tier": "free"})
    assert (target.name, target.server, target.labels) == ("acme/core", "db:5432", {"tier": "free"})
    job = a_job("acme/core", after=("globex",))
    assert (job.tenant, job.database, job.after) == ("acme", "core", ("globex",))


def test_plans_put_loose_jobs_into_a_wave_that_comes_first() -> None:
    plan = a_plan("acme", a_job("globex"), a_wave("initech", name="rest"), max_failures=2)
    assert [(wave.name, [job.target for job in wave.jobs]) for wave in plan.waves] == [
        ("all", ["acme", "globex"]),
        ("rest", ["initech"]),
    ]
    assert [job.wave for job in plan.jobs] == ["all", "all", "rest"]
    assert plan.max_failures == 2


def test_the_example_of_the_module_runs() -> None:
    plan = a_plan("acme", "globex")
    executor, listener, ledger = ScriptedExecutor({"globex": Status.FAILED}), RecordingListener(), MemoryLedger()
    run = ledger.open_run(plan, operator="me", fleet=2)
    conclusion = rollout.execute(run.id, plan, executor.submit, ledger, [listener])
    assert conclusion.exit_code is ExitCode.FAILURES
    assert [outcome.status for outcome in conclusion.outcomes] == [Status.UPGRADED, Status.FAILED]
    assert listener.names == ["WaveStarted", *["JobStarted", "JobFinished"] * 2, "WaveFinished"]


def test_a_held_executor_answers_when_told_and_loses_the_rest_when_cancelled() -> None:
    executor = ScriptedExecutor({"acme": Status.UNCHANGED}, hold=True)
    acme, globex = executor.submit(a_job("acme")), executor.submit(a_job("globex"))
    assert executor.in_flight == ("acme", "globex")
    executor.finish("acme")
    assert acme.result(0).status is Status.UNCHANGED
    assert not globex.done()
    executor.close(cancel=True)
    assert globex.result(0).status is Status.LOST
    assert (executor.closed, executor.cancelled) == (True, True)


def test_an_executor_may_be_told_to_break() -> None:
    error = RuntimeError("no")
    assert ScriptedExecutor({"acme": error}).submit(a_job("acme")).exception(0) is error


def test_an_executor_answers_each_try_in_turn() -> None:
    executor = ScriptedExecutor({"acme": [Status.FAILED, Status.LOST]})
    statuses = [executor.submit(a_job("acme")).result(0).status for _ in range(3)]
    assert statuses == [Status.FAILED, Status.LOST, Status.LOST]


def test_a_plan_tries_once_and_with_a_fake_clock_waits_for_nothing() -> None:
    busy = an_outcome("acme", Status.FAILED, failure=a_failure(FailureKind.TRANSIENT))
    for retries, attempts in ((NO_RETRIES, 1), (Retries(), 1 + len(Retries().busy))):
        plan, ledger, clock = a_plan("acme", retries=retries), MemoryLedger(), FakeClock()
        run = ledger.open_run(plan, operator="me", fleet=1)
        submit = ScriptedExecutor({"acme": busy}).submit
        (outcome,) = rollout.execute(run.id, plan, submit, ledger, clock=clock).outcomes
        assert (outcome.attempts, clock.seconds) == (attempts, sum(retries.busy) if attempts > 1 else 0)
    assert a_plan("acme").retries == NO_RETRIES

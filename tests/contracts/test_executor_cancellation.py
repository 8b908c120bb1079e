"""Ending a job ends its statement on the server: locks must not stay behind a run that was stopped."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy import URL

from orchestrator.executors import Entry, ProcessExecutor
from orchestrator.executors.contract import wait_until
from orchestrator.outcomes import Outcome, Status
from orchestrator.plans import Job
from orchestrator.tenants import Target
from orchestrator.testing import a_job, a_target

SLEEPING = sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'")
SLEEPY = Entry(
    prepare="orchestrator.executors.contract:ready",
    run="tests.contracts.test_executor_cancellation:sleep",
    finish=None,
)


def sleep(job: Job, target: Target, settings: object) -> Outcome:
    with sqlalchemy.create_engine(target.url).connect() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(600)")
    return job.outcome(Status.UPGRADED)


def test_the_statement_of_an_ended_job_is_cancelled(postgres_database: URL) -> None:
    target = a_target("acme", postgres_database.set(drivername="postgresql+psycopg"))
    executor = ProcessExecutor(1, settings=None, targets={"acme": target}, entry=SLEEPY)
    engine = sqlalchemy.create_engine(target.url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")

    def sleeping() -> int:
        with engine.connect() as connection:
            return connection.execute(SLEEPING).scalar_one()

    future = executor.submit(a_job("acme"))
    wait_until(lambda: sleeping() == 1)
    executor.close(cancel=True)
    outcome = future.result(60)
    assert outcome.status is Status.LOST
    assert outcome.failure is not None
    assert outcome.failure.code == "cancelled"
    wait_until(lambda: sleeping() == 0)

"""What every `Executor` must do, as tests that any implementation can inherit.

```python
class TestMyExecutor(IsolatingExecutorContract):
    def open(self, lanes, targets):
        return MyExecutor(lanes, targets, entry=SCRIPTED)      # its workers call `act(job, target, settings)`
```

`ExecutorContract` is for executors that run jobs in the calling process; `IsolatingExecutorContract` adds what holds
where a job can die without taking the caller with it. What a job shall do stands in its label `act`. Plain
assertions: it needs no test runner to be imported.
"""

from __future__ import annotations

import abc
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from pathlib import Path

from sqlalchemy import URL

from orchestrator.errors import OrchestratorError
from orchestrator.executors.protocol import Executor
from orchestrator.executors.serving import Entry, JobCancelled
from orchestrator.outcomes import Failure, FailureKind, Outcome, Status
from orchestrator.plans import Command, Job
from orchestrator.tenants import Target, Tenant, Timeouts

#: names `act` for executors that call functions by import path
SCRIPTED = Entry(
    prepare="orchestrator.executors.contract:ready", run="orchestrator.executors.contract:act", finish=None
)

#: no test waits longer for something that must happen
PATIENCE = 60.0
HOSTILE = "größe \N{SNOWMAN} \N{PILE OF POO} '; DROP TABLE x; --\nsecond line"


def ready(_settings: object) -> None:
    """Prepare nothing."""


def act(job: Job, _target: Target, _settings: object = None) -> Outcome:
    """Do what the label `act` of the job says; `upgraded` when it says nothing."""
    action, _, detail = job.labels.get("act", "").partition(":")
    return ACTIONS[action](job, detail)


def _upgrade(job: Job, _detail: str) -> Outcome:
    return job.outcome(Status.UPGRADED, at=job.wanted, applied=job.path)


def _raise(_job: Job, detail: str) -> Outcome:
    raise ValueError(detail)


def _exit(_job: Job, detail: str) -> Outcome:
    os._exit(int(detail))


def _kill(_job: Job, _detail: str) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def _leave(_job: Job, _detail: str) -> Outcome:
    sys.exit(3)


def _unpicklable(job: Job, _detail: str) -> Outcome:
    return job.outcome(Status.UPGRADED, labels={"handle": threading.Lock()})


def _nothing(_job: Job, _detail: str) -> Outcome:
    return None  # type: ignore[return-value]  # what a worker of somebody else may do


def _wait(job: Job, detail: str) -> Outcome:
    """Say that it runs, then wait until somebody creates the file."""
    Path(f"{detail}.{job.target}.runs").touch()
    wait_until(Path(detail).exists)
    return _upgrade(job, detail)


def _cling(job: Job, detail: str) -> Outcome:
    """As `wait`, by a job that does not let itself be cancelled."""
    while True:
        try:
            return _wait(job, detail)
        except JobCancelled:
            continue


def _crowd(job: Job, _detail: str) -> Outcome:
    failure = Failure(kind=FailureKind.TRANSIENT, type="OperationalError", message="too many clients", crowded=True)
    return job.outcome(Status.FAILED, failure=failure)


def _answer(job: Job, detail: str) -> Outcome:
    return job.outcome(Status.UPGRADED, at=(str(os.getpid()), os.environ.get(detail, "")))


def _print(job: Job, _detail: str) -> Outcome:
    print("printed by a job", flush=True)  # noqa: T201 - what revisions do
    os.write(1, b"written by a job\n")
    read = os.read(0, 1)
    return job.outcome(Status.UPGRADED, at=(f"{len(read)} bytes of input",))


ACTIONS: Mapping[str, Callable[[Job, str], Outcome]] = {
    "": _upgrade,
    "raise": _raise,
    "exit": _exit,
    "kill": _kill,
    "leave": _leave,
    "unpicklable": _unpicklable,
    "nothing": _nothing,
    "wait": _wait,
    "cling": _cling,
    "crowd": _crowd,
    "answer": _answer,
    "print": _print,
}


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when it holds; an assertion fails when it never does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def make_target(name: str, *, limit: float = 7200.0, database: str = "saas") -> Target:
    """A target that no job of this contract connects to."""
    url = URL.create("postgresql+psycopg", "app", "s3cret", "db.internal", 5432, database)
    return Target(tenant=Tenant(name=name), url=url, schema=name, timeouts=Timeouts(job=limit))


def make_job(name: str, action: str = "") -> Job:
    """A job that does what `action` says."""
    return Job(
        target=name,
        tenant=name,
        labels={"act": action},
        server="db.internal:5432",
        command=Command.UPGRADE,
        found=("r001",),
        wanted=("r002",),
        path=("r002",),
        wave="all",
    )


class ExecutorContract(abc.ABC):
    """Inherit, and say how to open your executor."""

    @abc.abstractmethod
    def open(self, lanes: int, targets: Mapping[str, Target]) -> Executor:
        """A new executor whose jobs call `act`, so many at once; it knows these targets."""

    @contextlib.contextmanager
    def opened(self, names: Sequence[str], *, lanes: int = 2, limit: float = 7200.0) -> Iterator[Executor]:
        """An executor that is closed, by force if need be, however the test ends."""
        executor = self.open(lanes, {name: make_target(name, limit=limit) for name in names})
        try:
            yield executor
        finally:
            executor.close(cancel=True)

    def run(self, name: str, action: str = "") -> Outcome:
        """The outcome of one job of a new executor."""
        with self.opened([name]) as executor:
            return executor.submit(make_job(name, action)).result(PATIENCE)

    def test_a_job_gives_its_outcome(self) -> None:
        """The outcome comes back whole."""
        outcome = self.run("acme")
        assert outcome == make_job("acme").outcome(Status.UPGRADED, at=("r002",), applied=("r002",))

    def test_each_of_many_jobs_gives_its_own_outcome(self) -> None:
        """No outcome is lost, doubled or swapped."""
        names = [f"t{number:03}" for number in range(100)]
        with self.opened(names, lanes=3) as executor:
            futures = {name: executor.submit(make_job(name)) for name in names}
            assert {name: future.result(PATIENCE).target for name, future in futures.items()} == {
                name: name for name in names
            }

    def test_a_job_that_raises_fails(self) -> None:
        """The exception crosses as data, its first line only."""
        outcome = self.run("acme", "raise:boom\nDETAIL: Key (email)=(jane@example.com)")
        assert outcome.status is Status.FAILED
        assert outcome.at is None
        assert outcome.failure is not None
        assert (outcome.failure.code, outcome.failure.type) == ("internal", "ValueError")
        assert "boom" in outcome.failure.message
        assert "jane" not in outcome.failure.message

    def test_passwords_in_exceptions_are_masked(self) -> None:
        """Whatever a job raises, its text is fit to be shown."""
        outcome = self.run("acme", "raise:cannot connect to postgresql://app:s3cret@db.internal/saas")
        assert outcome.failure is not None
        assert "s3cret" not in str(outcome.failure)

    def test_a_job_that_returns_no_outcome_fails(self) -> None:
        """Nothing but an outcome is taken for one."""
        outcome = self.run("acme", "nothing")
        assert outcome.status is Status.FAILED
        assert outcome.failure is not None
        assert outcome.failure.code == "internal"

    def test_the_executor_goes_on_after_a_failure(self) -> None:
        """One failure costs one job."""
        with self.opened(["acme", "globex"], lanes=1) as executor:
            first = executor.submit(make_job("acme", "raise:boom"))
            second = executor.submit(make_job("globex"))
            assert first.result(PATIENCE).status is Status.FAILED
            assert second.result(PATIENCE).status is Status.UPGRADED

    def test_a_job_delivered_twice_gives_two_outcomes(self) -> None:
        """Delivering twice is harmless: each delivery is answered."""
        with self.opened(["acme"]) as executor:
            futures = [executor.submit(make_job("acme")) for _ in range(2)]
            assert [future.result(PATIENCE).status for future in futures] == [Status.UPGRADED] * 2

    def test_names_and_texts_of_any_script_cross(self) -> None:
        """Unicode, quotes and line breaks stay as they are."""
        outcome = self.run(HOSTILE)
        assert outcome.target == HOSTILE

    def test_closing_waits_for_jobs(self) -> None:
        """After `close` every future is done, with the outcome of its job."""
        names = [f"t{number}" for number in range(10)]
        with self.opened(names) as executor:
            futures = [executor.submit(make_job(name)) for name in names]
            executor.close()
            assert all(future.done() and future.result().status is Status.UPGRADED for future in futures)

    def test_closing_twice_is_harmless(self) -> None:
        """`close` may be called again, before and after any job."""
        with self.opened(["acme"]) as executor:
            executor.close()
            executor.close()

    def test_a_closed_executor_refuses_jobs(self) -> None:
        """The future of a job that came too late says so."""
        with self.opened(["acme"]) as executor:
            executor.close()
            error = executor.submit(make_job("acme")).exception(PATIENCE)
            assert isinstance(error, OrchestratorError)
            assert "closed" in str(error)


class IsolatingExecutorContract(ExecutorContract):
    """What holds in addition where jobs run outside the calling process, on a machine that shares its files."""

    @contextlib.contextmanager
    def barrier(self) -> Iterator[Path]:
        """A file that does not exist yet; jobs told to `wait` for it end when it does."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "go")

    def running(self, barrier: Path, name: str) -> None:
        """Wait until the job of that name runs."""
        wait_until(Path(f"{barrier}.{name}.runs").exists)

    def assert_lost(self, future: Future[Outcome], code: str) -> str:
        """The job is lost for that reason; returns what is said about it."""
        outcome = future.result(PATIENCE)
        assert outcome.status is Status.LOST, outcome
        assert outcome.at is None
        assert outcome.failure is not None
        assert outcome.failure.kind is FailureKind.AMBIGUOUS
        assert outcome.failure.code == code
        assert "orchestrate status" in outcome.failure.advice
        return outcome.failure.message

    def test_jobs_run_elsewhere_and_side_by_side(self) -> None:
        """Two lanes hold two jobs at once, outside this process."""
        with self.barrier() as barrier, self.opened(["acme", "globex"]) as executor:
            futures = [executor.submit(make_job(name, f"wait:{barrier}")) for name in ("acme", "globex")]
            self.running(barrier, "acme")
            self.running(barrier, "globex")
            barrier.touch()
            assert {future.result(PATIENCE).status for future in futures} == {Status.UPGRADED}

    def test_outcomes_come_in_any_order(self) -> None:
        """A slow job holds nobody back."""
        with self.barrier() as barrier, self.opened(["slow", "quick"]) as executor:
            slow = executor.submit(make_job("slow", f"wait:{barrier}"))
            quick = executor.submit(make_job("quick"))
            assert next(as_completed([slow, quick], PATIENCE)) is quick
            barrier.touch()
            assert slow.result(PATIENCE).status is Status.UPGRADED

    def test_a_killed_worker_loses_only_its_own_job(self) -> None:
        """The neighbour in flight and the jobs behind it do not notice."""
        with self.barrier() as barrier, self.opened(["victim", "neighbour", "next"]) as executor:
            neighbour = executor.submit(make_job("neighbour", f"wait:{barrier}"))
            self.running(barrier, "neighbour")
            victim = executor.submit(make_job("victim", "kill"))
            after = executor.submit(make_job("next"))
            assert "SIGKILL" in self.assert_lost(victim, "worker_lost")
            assert after.result(PATIENCE).status is Status.UPGRADED
            barrier.touch()
            assert neighbour.result(PATIENCE).status is Status.UPGRADED

    def test_dying_workers_are_replaced_each_time(self) -> None:
        """Any number of deaths costs just as many jobs."""
        names = [f"t{number}" for number in range(8)]
        with self.opened(names) as executor:
            futures = [executor.submit(make_job(name, "exit:7" if i % 2 else "")) for i, name in enumerate(names)]
            for index, future in enumerate(futures):
                if index % 2:
                    assert "7" in self.assert_lost(future, "worker_lost")
                else:
                    assert future.result(PATIENCE).status is Status.UPGRADED

    def test_leaving_the_interpreter_is_a_failure(self) -> None:
        """A revision that calls `sys.exit` fails its own job."""
        outcome = self.run("acme", "leave")
        assert outcome.status is Status.FAILED
        assert outcome.failure is not None
        assert outcome.failure.type == "SystemExit"

    def test_an_outcome_that_cannot_cross_is_a_failure(self) -> None:
        """It costs one job, not the worker or the run."""
        with self.opened(["acme", "globex"], lanes=1) as executor:
            first = executor.submit(make_job("acme", "unpicklable")).result(PATIENCE)
            assert first.status is Status.FAILED
            assert first.failure is not None
            assert first.failure.code == "internal"
            assert executor.submit(make_job("globex")).result(PATIENCE).status is Status.UPGRADED

    def test_closing_by_force_ends_everything_now(self) -> None:
        """What runs is lost, what waits was never begun, and no future stays open."""
        with self.barrier() as barrier, self.opened(["acme", "waiting"], lanes=1) as executor:
            running = executor.submit(make_job("acme", f"wait:{barrier}"))
            waiting = executor.submit(make_job("waiting"))
            self.running(barrier, "acme")
            executor.close(cancel=True)
            assert running.done()
            self.assert_lost(running, "cancelled")
            assert waiting.result(0).status is Status.NOT_STARTED

    def test_closing_by_force_ends_a_close_that_waits(self) -> None:
        """The second Ctrl-C comes while the first one still waits."""
        with self.barrier() as barrier, self.opened(["acme"]) as executor:
            running = executor.submit(make_job("acme", f"wait:{barrier}"))
            self.running(barrier, "acme")
            patient = threading.Thread(target=executor.close)
            patient.start()
            executor.close(cancel=True)
            patient.join(PATIENCE)
            assert not patient.is_alive()
            self.assert_lost(running, "cancelled")

    def test_a_job_past_its_limit_is_lost(self) -> None:
        """`timeouts: job` ends it, and the lane goes on with the next one."""
        with self.barrier() as barrier, self.opened(["slow", "next"], lanes=1, limit=0.3) as executor:
            slow = executor.submit(make_job("slow", f"wait:{barrier}"))
            after = executor.submit(make_job("next"))
            assert "0.3 s" in self.assert_lost(slow, "job_timeout")
            assert after.result(PATIENCE).status is Status.UPGRADED

    def test_jobs_read_no_input(self) -> None:
        """A revision that asks a question gets an end of file, and what it prints is not taken for a report."""
        assert self.run("acme", "print").at == ("0 bytes of input",)

"""The part of the ledger's contract that keeps runners apart: the lease, its fencing number, and the audit table."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import datetime
import threading
import time
from collections.abc import Callable, Iterator

from orchestrator.errors import ExitCode, LeaseHeld, LeaseLost, OrchestratorError, Stopped
from orchestrator.ledger.holders import is_dead, this_process
from orchestrator.ledger.protocol import HEARTBEAT_SECONDS, LEASE_SECONDS, Holder, Lease, Ledger, StopRequest
from orchestrator.ledger.samples import job, outcome, plan, wave
from orchestrator.outcomes import RunStatus, Status

#: seconds after which a test gives a thread up
_PATIENCE = 60


class LeaseContract(abc.ABC):
    """Tests of a ledger under several hands."""

    @abc.abstractmethod
    def open(self, *, project: str = "billing", environment: str = "test") -> Ledger:
        """Open the one store of the running test."""

    def pass_time(self, seconds: float) -> None:
        """Let the holder of the lease be silent for so long; a store that can be made to believe it is quicker."""
        time.sleep(seconds)

    def test_one_process_at_a_time_holds_the_lease(self) -> None:
        """The next one has a higher number; a process does not share it with itself either."""
        with self._opened() as ledger, self._opened() as other:
            first = ledger.acquire(here())
            assert (first.holder, first.run) == (here(), None)
            for again in (ledger, other):
                with raises(LeaseHeld, f"ops@here on {here().host}, pid {here().pid}, since 2"):
                    again.acquire(here())
            ledger.release(first)
            second = other.acquire(here())
            assert second.token > first.token

    def test_who_is_refused_is_told_who_runs_what(self) -> None:
        """And how to watch and to end it."""
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=ledger.acquire(here())).id
            for saying in (f"run {run} of billing/test is live", f"runs show {run}", f"orchestrate abort {run}"):
                with raises(LeaseHeld, saying):
                    other.acquire(here())

    def test_the_lease_of_a_dead_process_is_free_at_once(self) -> None:
        """Also when its pid was given to another process meanwhile."""
        with self._opened() as ledger, self._opened() as other:
            gone = dataclasses.replace(here(), birth=f"{here().birth.rpartition('/')[0]}/0")
            lost = ledger.acquire(gone)
            if is_dead(gone):
                assert other.live() is None
            assert other.acquire(here()).token > lost.token

    def test_a_silent_holder_elsewhere_is_waited_for(self) -> None:
        """Until it has been silent for so long that it must be dead."""
        with self._opened() as ledger, self._opened() as other:
            lost = ledger.acquire(elsewhere())
            self.pass_time(LEASE_SECONDS - 2)
            assert other.live() == lost
            assert other.acquire(here()).token > lost.token
            with raises(LeaseLost, f"ops@here on {here().host}, pid {here().pid}"):
                ledger.renew(lost)

    def test_whoever_waits_may_give_up(self) -> None:
        """What is raised between two looks ends the waiting, and takes nothing."""

        def give_up(_: float) -> None:
            raise Stopped("somebody wants to go home")

        with self._opened() as ledger, self._opened() as other:
            lease = ledger.acquire(elsewhere())
            with raises(Stopped, "go home"):
                other.acquire(here(), pause=give_up)
            assert other.live() == lease

    def test_a_holder_elsewhere_that_lives_keeps_the_lease(self) -> None:
        """Its heartbeat shows it, however long it has been silent before."""
        with self._opened() as ledger, self._opened() as other:
            lease = ledger.acquire(elsewhere())
            self.pass_time(LEASE_SECONDS - HEARTBEAT_SECONDS - 1)
            with _repeating(lambda: ledger.renew(lease)), raises(LeaseHeld, "ann@build7 on build7, pid 4711"):
                other.acquire(here())
            assert other.live() == lease

    def test_a_process_that_was_asleep_wakes_with_its_lease(self) -> None:
        """Unless somebody took it meanwhile; what was lost is not given back."""
        with self._opened() as ledger, self._opened() as other:
            lease = ledger.acquire(elsewhere())
            self.pass_time(LEASE_SECONDS)
            assert other.live() is None
            assert ledger.renew(lease) is None
            assert other.live() == lease
            self.pass_time(LEASE_SECONDS)
            taken = other.acquire(here())
            ledger.release(lease)
            assert other.live() == taken

    def test_a_process_that_is_about_to_wake_keeps_the_lease(self) -> None:
        """A machine that was asleep makes nobody a successor of a process that lives on it."""
        with self._opened() as ledger, self._opened() as other:
            lease = ledger.acquire(here())
            self.pass_time(LEASE_SECONDS)
            with _repeating(lambda: ledger.renew(lease)), raises(LeaseHeld, f"pid {here().pid}"):
                other.acquire(here())

    def test_of_many_that_ask_at_once_one_gets_it(self) -> None:
        """From one ledger object, and from many."""
        with self._opened() as shared, contextlib.ExitStack() as opened:
            ledgers = [shared] * 4 + [opened.enter_context(self._opened()) for _ in range(4)]
            for _ in range(3):
                won = _at_once([_taking(ledger) for ledger in ledgers])
                leases = [lease for lease in won if isinstance(lease, Lease)]
                assert len(leases) == 1
                assert [type(other) for other in won if other is not leases[0]] == [LeaseHeld] * 7
                assert shared.live() == leases[0]
                shared.release(leases[0])

    def test_scopes_have_a_lease_each(self) -> None:
        """Two environments, or projects, run side by side, and give each other no orders."""
        with self._opened() as ledger, self._opened(environment="staging") as other:
            mine, theirs = ledger.acquire(here()), other.acquire(here())
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=mine).id
            assert not other.request_stop(run, StopRequest.NOW)
            assert ledger.renew(mine) is other.renew(theirs) is None
            ledger.release(mine)
            assert other.live() == theirs

    def test_a_run_is_running_while_somebody_alive_drives_it(self) -> None:
        """Otherwise it was interrupted, though nobody could write that down."""
        with self._opened() as ledger, self._opened() as other:
            old = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            lease = ledger.acquire(here())
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease).id
            assert other.live() == dataclasses.replace(lease, run=run)
            assert _statuses(other) == {run: RunStatus.RUNNING, old: RunStatus.INTERRUPTED}
            self.pass_time(LEASE_SECONDS)
            assert _statuses(other) == {run: RunStatus.INTERRUPTED, old: RunStatus.INTERRUPTED}
            ledger.renew(lease)
            assert other.run(run).status is RunStatus.RUNNING
            ledger.release(lease)
            assert _statuses(other) == {run: RunStatus.INTERRUPTED, old: RunStatus.INTERRUPTED}
            assert other.live() is None

    def test_who_lost_the_lease_writes_nothing_more(self) -> None:
        """Neither an intent nor an outcome, and neither a beginning nor an end."""
        with self._opened() as ledger, self._opened() as other:
            lost = ledger.acquire(elsewhere())
            run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops", fleet=2, lease=lost).id
            assert ledger.start(run, job("acme")) == 1
            self.pass_time(LEASE_SECONDS)
            other.acquire(here())
            failed = outcome("acme", Status.FAILED)
            attempts: list[Callable[[], object]] = [
                lambda: ledger.start(run, job("globex")),
                lambda: ledger.record(run, outcome("acme")),
                lambda: ledger.record(run, failed),
                lambda: ledger.add_jobs(run, [job("hooli")]),
                lambda: ledger.close_run(run, RunStatus.SUCCEEDED, ExitCode.OK, [outcome("acme")]),
                lambda: ledger.adopt_run(run, lost, reopen=True),
                lambda: ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lost),
                lambda: ledger.renew(lost),
            ]
            for attempt in attempts:
                with raises(LeaseLost, "was taken over by ops@here"):
                    attempt()
            (only,) = other.runs()
            assert (only.status, only.exit_code, only.finished_at) == (RunStatus.INTERRUPTED, None, None)
            assert list(other.outcomes(run)) == []
            assert list(other.attempts(run, "globex")) == []
            assert list(other.unsettled(run)) == ["acme"]

    def test_who_gave_the_lease_back_writes_nothing_more(self) -> None:
        """Though nobody has it since."""
        with self._opened() as ledger:
            lease = ledger.acquire(here())
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease).id
            ledger.release(lease)
            with raises(LeaseLost, "given back"):
                ledger.start(run, job("acme"))

    def test_a_run_is_gone_on_with_by_another_process(self) -> None:
        """It is live again, and what its first runner wrote is still there."""
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("acme", "globex")]), operator="ops", fleet=2).id
            ledger.start(run, job("acme"))
            ledger.close_run(run, RunStatus.INTERRUPTED, ExitCode.INTERRUPTED, [outcome("globex", Status.NOT_STARTED)])
            lease = other.acquire(here())
            reopened = other.adopt_run(run, lease, reopen=True)
            assert (reopened.status, reopened.exit_code, reopened.finished_at) == (RunStatus.RUNNING, None, None)
            assert ledger.run(run) == reopened
            assert other.start(run, job("acme")) == 2
            other.record(run, outcome("acme"))
            assert ledger.run(run).counts["upgraded"] == 1
            closed = other.close_run(run, RunStatus.SUCCEEDED, ExitCode.OK, [outcome("acme"), outcome("globex")])
            assert {status: number for status, number in closed.counts.items() if number} == {"upgraded": 2}

    def test_a_run_is_settled_without_being_live(self) -> None:
        """What is adopted only to be closed was never running."""
        with self._opened() as ledger, self._opened() as other:
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1).id
            lease = other.acquire(here())
            assert other.adopt_run(run, lease).status is RunStatus.INTERRUPTED
            assert other.live() == lease
            ended = other.close_run(run, RunStatus.SUPERSEDED, ExitCode.FAILURES, [outcome("acme")])
            assert (ended.status, ended.counts["upgraded"]) == (RunStatus.SUPERSEDED, 1)

    def test_a_live_run_can_be_asked_to_stop(self) -> None:
        """It hears of that at its next heartbeat; a stronger request is not weakened."""
        with self._opened() as ledger, self._opened() as other:
            assert not other.request_stop("r-20261122-073100-0000", StopRequest.NOW)
            lease = ledger.acquire(here())
            run = ledger.open_run(plan([wave("acme")]), operator="ops", fleet=1, lease=lease).id
            assert not other.request_stop("r-20261122-073100-0000", StopRequest.NOW)
            assert ledger.renew(lease) is None
            for asked, heard in (
                (StopRequest.DRAIN, StopRequest.DRAIN),
                (StopRequest.NOW, StopRequest.NOW),
                (StopRequest.DRAIN, StopRequest.NOW),
            ):
                assert other.request_stop(run, asked)
                assert ledger.renew(lease) is heard
            ledger.release(lease)
            assert not other.request_stop(run, StopRequest.NOW)
            assert other.renew(other.acquire(here())) is None

    def test_a_heartbeat_beside_the_work_disturbs_neither(self) -> None:
        """One object, two threads."""
        names = [f"tenant{number}" for number in range(40)]
        with self._opened() as ledger:
            lease = ledger.acquire(here())
            run = ledger.open_run(plan([wave(*names)]), operator="ops", fleet=40, lease=lease).id
            with _repeating(lambda: ledger.renew(lease), pause=0.0):
                for name in names:
                    assert ledger.start(run, job(name)) == 1
                    ledger.record(run, outcome(name))
            assert ledger.close_run(run, RunStatus.SUCCEEDED, ExitCode.OK).counts["upgraded"] == 40

    def test_the_audit_table_tells_who_did_what(self) -> None:
        """Latest first; of this project and environment only."""
        began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
        with self._opened() as ledger, self._opened(project="shop") as other:
            assert list(ledger.audit()) == []
            ledger.note(here(), "upgrade", run="r-1", detail={"targets": 3, "names": ["größe", None], "deep": {"a": 1}})
            other.note(here(), "upgrade")
            ledger.note(elsewhere(), "runs prune")
            latest, first = ledger.audit()
            assert (latest.operator, latest.host, latest.action) == ("ann@build7", "build7", "runs prune")
            assert (latest.run, dict(latest.detail)) == (None, {})
            assert (first.operator, first.host, first.action, first.run) == ("ops@here", here().host, "upgrade", "r-1")
            assert dict(first.detail) == {"targets": 3, "names": ["größe", None], "deep": {"a": 1}}
            assert began < first.at <= latest.at
            assert [entry.action for entry in ledger.audit(limit=1)] == ["runs prune"]
            ledger.note(here(), "upgrade", detail={"url": "postgresql://app:S3cr3t-word@db/app"})
            assert "S3cr3t-word" not in str(ledger.audit())

    @contextlib.contextmanager
    def _opened(self, *, project: str = "billing", environment: str = "test") -> Iterator[Ledger]:
        ledger = self.open(project=project, environment=environment)
        try:
            yield ledger
        finally:
            ledger.close()


def here() -> Holder:
    """The process of the test."""
    return this_process("ops@here")


def elsewhere() -> Holder:
    """A process of which nobody here can know whether it lives."""
    return Holder(operator="ann@build7", host="build7", pid=4711, birth="elsewhere/1/2")


@contextlib.contextmanager
def raises(kind: type[OrchestratorError], saying: str) -> Iterator[None]:
    """Expect an error of that kind that says this."""
    said: str | None = None
    try:
        yield
    except kind as error:
        said = str(error)
    assert said is not None, f"{kind.__name__} was not raised"
    assert saying in said, f"{said} does not say {saying!r}"


def _statuses(ledger: Ledger) -> dict[str, RunStatus]:
    listed = {run.id: run.status for run in ledger.runs()}
    assert listed == {run.id: run.status for run in ledger.open_runs()}
    assert listed == {run: ledger.run(run).status for run in listed}
    return listed


def _taking(ledger: Ledger) -> Callable[[], Lease]:
    return lambda: ledger.acquire(here())


def _at_once(works: list[Callable[[], Lease]]) -> list[Lease | Exception | None]:
    """What each thread got, or the error that it met."""
    results: list[Lease | Exception | None] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(number: int) -> None:
        barrier.wait(_PATIENCE)
        try:
            results[number] = works[number]()
        except OrchestratorError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)
    return results


@contextlib.contextmanager
def _repeating(work: Callable[[], object], *, pause: float = 0.1) -> Iterator[None]:
    """Do something over and over in a thread; what it meets is raised at the end."""
    ended, errors = threading.Event(), list[OrchestratorError]()

    def repeat() -> None:
        try:
            while not ended.wait(pause):
                work()
        except OrchestratorError as error:
            errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_PATIENCE)
    if errors:
        raise errors[0]

"""One live run: the lease and its heartbeat, the executor, the rollout, and how it is closed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import getpass
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TypedDict, Unpack

from orchestrator import executors, logs, rollout, telemetry, worker
from orchestrator.errors import ExitCode, LeaseLost, LedgerError, SettingsError, Stopped, Terminated
from orchestrator.events import Listener, RunFinished, RunHalted, RunStarted
from orchestrator.gates import GateMeasurer
from orchestrator.ledger import HEARTBEAT_SECONDS, LEASE_SECONDS, Holder, Lease, Ledger, Run, StopRequest, this_process
from orchestrator.outcomes import GateResult, Outcome, Report, RunStatus, WaveSummary
from orchestrator.plans import Gate, Plan
from orchestrator.registry.variables import Variables
from orchestrator.rollout import Ask, Conclusion, Mailbox, Measurer, Outside, StopCause, StopSignal, Sweep
from orchestrator.settings import Settings
from orchestrator.strategy import WaveRule
from orchestrator.tenants import Target

logger = logging.getLogger(__name__)

EXECUTORS = ("processes", "inline")
#: what a run does that waits for a person
ON_PAUSE = ("wait", "exit")


class Options(TypedDict, total=False):
    """What a caller may say of a `Manner`, as keywords."""

    operator: str | None
    listeners: Sequence[Listener]
    executor: str
    stop: StopSignal | None
    confirm: str | None
    end_orphans: bool
    on_pause: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a run is run: who asked for it, who watches, where its jobs run."""

    #: `ann@build7`
    operator: str
    listeners: Sequence[Listener] = ()
    #: `processes` or `inline`
    executor: str = "processes"
    stop: StopSignal = dataclasses.field(default_factory=StopSignal)
    #: the name of a protected environment
    confirm: str | None = None
    #: end server sessions that a dead run left behind, instead of waiting for them
    end_orphans: bool = False
    #: whether a run that waits for a person waits in this process, or ends to be gone on with
    on_pause: str = ON_PAUSE[0]
    mailbox: Mailbox = dataclasses.field(default_factory=Mailbox)

    @classmethod
    def of(cls, **options: Unpack[Options]) -> Manner:
        """With the present user where nobody is named; raises `SettingsError` for an unknown word."""
        executor, on_pause = options.get("executor", EXECUTORS[0]), options.get("on_pause", ON_PAUSE[0])
        if executor not in EXECUTORS:
            raise SettingsError(f"no executor `{executor}`; there are {', '.join(EXECUTORS)}")
        if on_pause not in ON_PAUSE:
            raise SettingsError(f"no way `{on_pause}` to be paused; there are {', '.join(ON_PAUSE)}")
        return cls(
            operator=options.get("operator") or operator_here(),
            listeners=options.get("listeners", ()),
            executor=executor,
            stop=options.get("stop") or StopSignal(),
            confirm=options.get("confirm"),
            end_orphans=options.get("end_orphans", False),
            on_pause=on_pause,
        )

    @property
    def holder(self) -> Holder:
        """This process, as the lease and the audit table know it."""
        return this_process(self.operator)


def operator_here() -> str:
    """Who runs this: user and host, or what CI calls itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@contextlib.contextmanager
def leased(ledger: Ledger, manner: Manner) -> Iterator[Lease]:
    """Hold the lease of the project and environment, renewed by a thread; raises `LeaseHeld` while another has it.

    When the lease is lost, or somebody asks for it through the ledger, the manner's `stop` is told.
    """
    lease = ledger.acquire(manner.holder, pause=functools.partial(_pause, manner.stop))
    heartbeat = _Heartbeat(ledger, lease, manner)
    heartbeat.start()
    try:
        yield lease
    finally:
        heartbeat.end()
        try:
            ledger.release(lease)
        except LedgerError:
            logger.warning("the lease could not be given back; it runs out by itself", exc_info=True)


def _pause(stop: StopSignal, seconds: float) -> None:
    """Between two looks at a lease that is another's."""
    if stop.cause is not None:
        kind = Terminated if stop.cause is StopCause.TERMINATED else Stopped
        raise kind("asked to stop while waiting for a runner that may be dead; nothing was started")
    time.sleep(seconds)


class _Heartbeat(threading.Thread):
    """Says that the holder lives; hears what others ask of it."""

    def __init__(self, ledger: Ledger, lease: Lease, manner: Manner) -> None:
        super().__init__(name="orchestrate-heartbeat", daemon=True)
        self._ledger = ledger
        self._lease = lease
        self._signal = manner.stop
        self._mailbox = manner.mailbox
        self._ended = threading.Event()

    def run(self) -> None:
        """Beat until told to end."""
        renewed = time.monotonic()
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                self._heed(self._ledger.renew(self._lease))
                renewed = time.monotonic()
                if self._mailbox.run is not None:
                    self._mailbox.deliver(self._ledger.requests(self._mailbox.run))
            except LeaseLost as error:
                logger.exception("another runner took the lease over; nothing more is started")
                self._signal.fail(error)
                return
            except LedgerError:
                logger.warning("the lease could not be renewed", exc_info=True)
                if time.monotonic() - renewed > LEASE_SECONDS:
                    # Others may take us for dead from now on.
                    self._signal.drain()

    def end(self) -> None:
        """Stop beating."""
        self._ended.set()
        self.join()

    def _heed(self, request: StopRequest | None) -> None:
        aborted = self._signal.cause is StopCause.ABORTED
        if request is StopRequest.DRAIN and not aborted:
            self._signal.drain(StopCause.ABORTED)
        if request is StopRequest.NOW and not (aborted and self._signal.immediate):
            self._signal.now(StopCause.ABORTED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where jobs find what they need."""

    settings: Settings
    #: by name
    targets: Mapping[str, Target]
    ledger: Ledger
    #: runs whose server sessions are orphans by now
    orphans: frozenset[str] = frozenset()
    #: waves of the strategy as written: what their gates ask
    rules: Sequence[WaveRule] = ()
    #: jobs of tenants that have joined
    sweep: Sweep | None = None


def drive(run: Run, plan: Plan, place: Place, manner: Manner) -> Report:
    """Run the plan as that open run, under the lease that the caller holds, and close it; complete on every path."""
    with telemetry.traced() as more:
        return _drive(run, plan, place, dataclasses.replace(manner, listeners=(*manner.listeners, *more)))


def _drive(run: Run, plan: Plan, place: Place, manner: Manner) -> Report:
    started = time.monotonic()
    logs.configure(place.settings.log_file)
    rollout.notify(manner.listeners, RunStarted(run=run.id, plan=plan))
    manner.mailbox.run = run.id
    with _executor(run, plan, place, manner) as pool, _outside(run, place, manner, plan.server_caps) as outside:
        conclusion = rollout.execute(
            run.id,
            plan,
            pool.submit,
            place.ledger,
            manner.listeners,
            manner.stop,
            cancel=lambda: pool.close(cancel=True),
            outside=outside,
        )
    closed = _close(run, _named(conclusion, manner.stop), place.ledger, manner.listeners)
    report = report_of(closed, conclusion.outcomes, conclusion.waves, time.monotonic() - started)
    rollout.notify(manner.listeners, RunFinished(report=report))
    return report


@contextlib.contextmanager
def _outside(run: Run, place: Place, manner: Manner, caps: Mapping[str, int]) -> Iterator[Outside]:
    """People, gates and newcomers, for as long as the run is on."""
    facts = {
        "ORCHESTRATE_RUN": run.id,
        "ORCHESTRATE_PROJECT": run.project,
        "ORCHESTRATE_ENVIRONMENT": run.environment,
        "ORCHESTRATE_REVISION": ",".join(run.revision),
    }
    measurer = GateMeasurer(
        rules=place.rules,
        variables=Variables(place.settings.root),
        targets=place.targets,
        root=place.settings.root,
        environment=facts,
        server_caps=caps,
    )
    waits = manner.on_pause == ON_PAUSE[0]
    try:
        yield Outside(mailbox=manner.mailbox, ask=_asking(measurer), sweep=place.sweep, waits=waits)
    finally:
        measurer.close()


def _asking(measurer: Measurer) -> Ask:
    """Each measurement in a thread of its own, so that the run can be stopped meanwhile."""

    def ask(wave: str, gate: Gate, done: Sequence[Outcome]) -> Future[GateResult]:
        future: Future[GateResult] = Future()

        def measure() -> None:
            try:
                future.set_result(measurer.measure(wave, gate, done))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the run must hear of it
                future.set_exception(error)

        threading.Thread(target=measure, name="orchestrate-gate", daemon=True).start()
        return future

    return ask


def report_of(run: Run, outcomes: tuple[Outcome, ...], waves: tuple[WaveSummary, ...], duration: float) -> Report:
    """The report of a run; `duration` in seconds."""
    return Report(
        run=run.id,
        parent=run.parent,
        command=run.command.value,
        revision=run.revision,
        project=run.project,
        environment=run.environment,
        operator=run.operator,
        strategy=run.strategy,
        plan_digest=run.plan_digest,
        status=run.status,
        exit_code=run.exit_code if run.exit_code is not None else ExitCode.FAILURES,
        started_at=run.started_at,
        duration_s=duration,
        waves=waves,
        outcomes=outcomes,
    )


@contextlib.contextmanager
def _executor(run: Run, plan: Plan, place: Place, manner: Manner) -> Iterator[executors.Executor]:
    settings = worker.WorkerSettings(
        config=place.settings.config,
        run=run.id,
        log=place.settings.log_file,
        x=place.settings.x,
        orphans=place.orphans,
        end_orphans=manner.end_orphans,
    )
    pool = _new_executor(manner.executor, lanes_of(plan), place.targets, settings)
    try:
        yield pool
    finally:
        pool.close()


def lanes_of(plan: Plan) -> int:
    """Most jobs that are ever at work at once; of tenants that join nobody knows yet how many there are."""
    joins = plan.sweep is not None
    most = (wave.concurrency if joins else min(wave.concurrency, len(wave.jobs)) for wave in plan.waves)
    return max([1, *most])


def _new_executor(
    name: str, lanes: int, targets: Mapping[str, Target], settings: worker.WorkerSettings
) -> executors.Executor:
    if name == "inline":
        worker.prepare(settings)
        return executors.InlineExecutor(lambda job: worker.run_job(job, targets[job.target], settings))
    entry = executors.Entry(
        prepare="orchestrator.worker:prepare_process",
        run="orchestrator.worker:run_job",
        finish="orchestrator.worker:finish",
        rest="orchestrator.worker:rest",
    )
    return executors.ProcessExecutor(lanes=lanes, entry=entry, settings=settings, targets=targets)


def _named(conclusion: Conclusion, stop: StopSignal) -> Conclusion:
    """A run that was aborted is closed for good, one that was interrupted can be resumed."""
    if stop.cause is StopCause.ABORTED and conclusion.status is RunStatus.INTERRUPTED:
        return dataclasses.replace(conclusion, status=RunStatus.ABORTED, exit_code=ExitCode.FAILURES)
    return conclusion


def _close(run: Run, conclusion: Conclusion, ledger: Ledger, listeners: Sequence[Listener]) -> Run:
    """Close the run in the ledger; a ledger that fails cannot be told how it ended, the report still can."""
    status, exit_code = conclusion.status, conclusion.exit_code
    try:
        return ledger.close_run(run.id, status, exit_code, conclusion.outcomes)
    except LedgerError as error:
        if conclusion.error is None:
            text = f"the end of the run could not be written down: {error}"
            rollout.notify(listeners, RunHalted(cause="ledger", text=text, in_flight=0, not_started=0))
            status = RunStatus.FAILED if status is RunStatus.SUCCEEDED else status
            exit_code = exit_code or ExitCode.FAILURES
        return dataclasses.replace(run, status=status, exit_code=exit_code)

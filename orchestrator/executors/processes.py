"""Jobs in worker processes: a dying process takes only its own job with it."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Mapping
from concurrent.futures import Future

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.executors import endings
from orchestrator.executors.dispatching import Dispatcher, Wish
from orchestrator.executors.lanes import Errand
from orchestrator.executors.serving import Entry, Order, serve
from orchestrator.outcomes import Outcome
from orchestrator.plans import Job
from orchestrator.tenants import Target

ENTRY = Entry()
#: drivers that are slow to import and safe to be forked after it
DRIVERS = frozenset({"psycopg", "psycopg2", "pymysql"})


class ProcessExecutor:
    """Runs jobs in up to `lanes` worker processes, each running one job at a time.

    Processes are started as jobs arrive, and kept: a job goes to one that has worked on the same database, if such a
    process is free. A process that dies gives its job the outcome `lost` and is replaced. A job that takes longer than
    its target's `timeouts: job` is ended, also `lost`. When processes cannot start at all, futures raise
    `OrchestratorError` with the reason. Settings and targets travel through pipes, never through arguments or the
    environment.
    """

    def __init__(self, lanes: int, *, settings: object, targets: Mapping[str, Target], entry: Entry = ENTRY) -> None:
        if lanes < 1:
            raise UsageError(f"{lanes} worker processes cannot run anything; ask for at least 1")
        self._lanes = lanes
        self._targets = targets
        self._entry = entry
        self._settings = settings
        self._gate = threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._closed = False

    def submit(self, job: Job) -> Future[Outcome]:
        """Hand the job to a worker process, or queue it where all are busy."""
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()  # from now on only the outcome ends it
        try:
            target = self._targets[job.target]
            data = pickle.dumps((job, target))
        except Exception as error:  # noqa: BLE001 - pickle raises whatever a value's own code raises
            future.set_result(endings.not_sent(job, error))
            return future
        errand = Errand(job=job, data=data, future=future, place=_place(target), limit=target.timeouts.job)
        with self._gate:
            try:
                self._running(job).tell(errand)
            except OrchestratorError as error:
                future.set_exception(error)
        return future

    def close(self, *, cancel: bool = False) -> None:
        """Wait for the jobs that were submitted, or end them now; then end the processes. May be called again."""
        with self._gate:
            self._closed = True
            dispatcher = self._dispatcher
            if dispatcher and dispatcher.is_alive():
                dispatcher.tell(Wish.CANCEL if cancel else Wish.CLOSE)
        if dispatcher:
            dispatcher.join()
            with self._gate:
                dispatcher.release()

    def _running(self, job: Job) -> Dispatcher:
        if self._closed:
            raise OrchestratorError(f"{job.target}: the executor is closed; make a new one")
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self._lanes, self._order(), self._preload())
            self._dispatcher.start()
        return self._dispatcher

    def _preload(self) -> list[str]:
        """Modules to import once, in the server that workers are forked from; other people's are not ours to import."""
        ours = {module for module in (self._entry.run.partition(":")[0],) if module.startswith("orchestrator.")}
        drivers = {target.url.drivername.partition("+")[2] for target in self._targets.values()}
        return [serve.__module__, *sorted(ours | (drivers & DRIVERS))]

    def _order(self) -> bytes:
        try:
            return pickle.dumps(Order(entry=self._entry, settings=self._settings, environ=dict(os.environ)))
        except Exception as error:
            raise OrchestratorError(f"the settings cannot be sent to worker processes: {error}") from error


def _place(target: Target) -> str:
    return f"{target.server}/{target.url.database}"

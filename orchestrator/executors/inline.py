"""Jobs in this process, one at a time: for debugging and tests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from orchestrator.errors import OrchestratorError
from orchestrator.executors import endings
from orchestrator.outcomes import Outcome
from orchestrator.outputs import printed_aside
from orchestrator.plans import Job
from orchestrator.tracebacks import said

logger = logging.getLogger(__name__)


class InlineExecutor:
    """Runs each job inside `submit`, which returns a future that is done.

    Nothing can end the job in hand: a request to stop at once is heeded after it.
    """

    def __init__(self, run_job: Callable[[Job], Outcome]) -> None:
        self._run_job = run_job
        self._closed = False

    def submit(self, job: Job) -> Future[Outcome]:
        """Run the job now; an exception becomes a failed outcome."""
        future: Future[Outcome] = Future()
        if self._closed:
            future.set_exception(OrchestratorError(f"{job.target}: the executor is closed; make a new one"))
        else:
            future.set_result(self._outcome(job))
        return future

    def close(self, *, cancel: bool = False) -> None:  # noqa: ARG002 - nothing is ever in flight between two calls
        """Take no more jobs."""
        self._closed = True

    def _outcome(self, job: Job) -> Outcome:
        try:
            with printed_aside():
                outcome: object = self._run_job(job)
        except Exception as error:
            logger.exception("%s: running the job raised", job.target)
            return endings.raised(job, type(error).__name__, said(error))
        if not isinstance(outcome, Outcome):
            return endings.raised(job, "TypeError", f"the job returned {type(outcome).__name__}, not an Outcome")
        return outcome

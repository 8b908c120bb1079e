"""Outcomes that a run gives where no worker did."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from orchestrator.errors import OrchestratorError
from orchestrator.outcomes import Failure, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Job

logger = logging.getLogger(__name__)


def answer_of(job: Job, future: Future[Outcome]) -> tuple[Outcome, OrchestratorError | None]:
    """The outcome that a finished future holds; the error when the executor itself cannot run jobs."""
    try:
        return future.result(), None
    except OrchestratorError as error:
        return job.outcome(Status.FAILED, at=job.found, failure=_executor_failure(error)), error
    except Exception as error:
        logger.warning("the executor lost %s", job.target, exc_info=True)
        return job.outcome(Status.LOST, failure=_unknown_fate(error)), None


def bar(job: Job, dependency: Outcome) -> Outcome:
    """What becomes of a job behind a target that is not done: put off with it, or skipped because of it."""
    text = f"{dependency.target} must be done first and is {dependency.status.value.replace('_', ' ')}"
    if dependency.status is Status.DEFERRED:
        code = dependency.reason.code if dependency.reason else "server_down"
        return job.outcome(Status.DEFERRED, reason=Reason(code=code, text=text))
    reason = Reason(code="dependency_failed", text=text)
    return job.outcome(Status.SKIPPED, reason=reason, attempts=int(job.resumed))


def _executor_failure(error: OrchestratorError) -> Failure:
    return Failure(
        kind=FailureKind.RUN,
        code="executor",
        type=type(error).__name__,
        message=str(error),
        advice="nothing was done to this target; mend the cause and run the command again",
        fingerprint="executor",
    )


def _unknown_fate(error: BaseException) -> Failure:
    return Failure(
        kind=FailureKind.AMBIGUOUS,
        code="internal",
        type=type(error).__name__,
        message=f"the executor gave no outcome but {type(error).__name__}",
        advice="run `orchestrate status` to see where the target is, then run the command again",
        fingerprint=f"executor:{type(error).__name__}",
    )

"""Outcomes of jobs that could not give one themselves."""

from __future__ import annotations

import signal
from typing import Any

from orchestrator.outcomes import Failure, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Job
from orchestrator.redaction import first_line, scrub

LOOK = "run `orchestrate status` to see where the target is, then run the command again"


def worker_lost(job: Job, exit_code: int | None, **times: Any) -> Outcome:
    """The worker process died while it ran the job."""
    failure = _unknown("worker_lost", "WorkerLost", f"the worker process died ({name_exit(exit_code)})")
    return job.outcome(Status.LOST, attempts=1, failure=failure, **times)


def timed_out(job: Job, limit: float, **times: Any) -> Outcome:
    """The job was ended because it took longer than `timeouts: job`."""
    failure = _unknown("job_timeout", "JobTimeout", f"the job was ended after {limit:g} s, its `timeouts: job`")
    return job.outcome(Status.LOST, attempts=1, failure=failure, **times)


def cancelled(job: Job, **times: Any) -> Outcome:
    """The job was ended because somebody asked for it."""
    failure = _unknown("cancelled", "JobCancelled", "the job was ended because the run was told to stop at once")
    return job.outcome(Status.LOST, attempts=1, failure=failure, **times)


def never_begun(job: Job) -> Outcome:
    """The job was waiting for a worker when the executor was told to stop at once."""
    text = "the run was told to stop before a worker took the job"
    return job.outcome(Status.NOT_STARTED, reason=Reason(code="interrupted", text=text))


def raised(job: Job, type_name: str, message: str, **times: Any) -> Outcome:
    """What runs the job raised instead of returning an outcome, or returned something else."""
    failure = _unknown("internal", type_name, scrub(first_line(message)) or type_name)
    return job.outcome(Status.FAILED, attempts=1, failure=failure, **times)


def not_sent(job: Job, error: BaseException) -> Outcome:
    """The job could not be handed to a worker at all, so nothing was done to its target."""
    failure = Failure(
        kind=FailureKind.PERMANENT,
        code="internal",
        type=type(error).__name__,
        message=f"the job cannot be sent to a worker process: {scrub(first_line(str(error)))}",
        advice="nothing was done to this target; values in `connect_args` must be plain",
        fingerprint="executor:not_sent",
    )
    return job.outcome(Status.FAILED, at=job.found, failure=failure)


def name_exit(exit_code: int | None) -> str:
    """`killed by SIGKILL`, or `exit status 3`."""
    if exit_code is None:
        return "exit status unknown"
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"


def _unknown(code: str, type_name: str, message: str) -> Failure:
    return Failure(
        kind=FailureKind.AMBIGUOUS,
        code=code,
        type=type_name,
        message=message,
        advice=LOOK,
        fingerprint=f"executor:{code}:{type_name}",
    )

"""The seam between a run and the places where its jobs run."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from orchestrator.outcomes import Outcome
from orchestrator.plans import Job


class Executor(Protocol):
    """Runs jobs. A future always ends in an `Outcome`: a worker that died gives `lost`, never an exception."""

    def submit(self, job: Job) -> Future[Outcome]:
        """Start the job, or queue it where no worker is free."""

    def close(self, *, cancel: bool = False) -> None:
        """Wait for what is in flight, or with `cancel` stop it now; every future is done afterwards."""

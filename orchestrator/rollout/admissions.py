"""When jobs may start: the windows, freezes and the deadline of a plan."""

from __future__ import annotations

import datetime

from orchestrator import windows
from orchestrator.outcomes import Reason
from orchestrator.plans import Job, Plan, Wave
from orchestrator.rollout.delays import Clock


class Admissions:
    """Says why nothing, or one job, may not start now; the deadline counts from when this is made."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan = plan
        self._clock = clock
        self._began = clock.now()

    def closed(self, wave: Wave) -> Reason | None:
        """Why no job of the wave, nor of a later one, may start now; None when they may."""
        late = self.past_deadline()
        if late is not None:
            return late
        if not self._plan.freeze and not wave.window:
            return None
        moment = self._clock.utc()
        until = windows.frozen_until(self._plan.freeze, moment)
        if until is not None:
            return Reason(code="freeze", text=f"nothing is started before the freeze ends, {_written(until)}")
        if not windows.is_open(wave.window, moment):
            opens = windows.next_opening(wave.window, moment)
            return Reason(code="window", text=f"the window of wave {wave.name} opens {_written(opens)}")
        return None

    def past_deadline(self) -> Reason | None:
        """Why nothing more is started at all; None while there is time."""
        deadline = self._plan.deadline
        if deadline is None or self._clock.now() - self._began < deadline:
            return None
        return Reason(code="deadline", text=f"nothing is started after the deadline of {deadline:g} s")

    def against(self, job: Job) -> Reason | None:
        """Why the tenant of a job is not to be touched now; None when it may be."""
        if not job.window:
            return None
        moment = self._clock.utc()
        if windows.is_open(job.window, moment):
            return None
        return Reason(code="window", text=f"its window opens {_written(windows.next_opening(job.window, moment))}")


def _written(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"

"""Whether what came of a job is its outcome, or whether it is tried again."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Sequence

from orchestrator.outcomes import FAILING, Failure, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Job, Plan
from orchestrator.rollout.delays import Clock
from orchestrator.rollout.servers import FILES, Server, Servers

#: seconds before a job whose worker died is given to another one
AFTER_LOSS = 1.0
#: codes of jobs that somebody, or their own time limit, has ended: doing that once more helps nobody
ENDED_ON_PURPOSE = frozenset({"job_timeout", "cancelled"})
#: codes of lost sessions that are somebody's fault rather than the network's: the next try would end alike
LOST_FOR_A_REASON = frozenset({"lock_lost", "version_moved", "25P03"})


class _Sign(enum.Enum):
    """What the end of a try says about the target, and about its server."""

    #: the server answered, and this is the outcome
    FINAL = enum.auto()
    BUSY = enum.auto()
    CROWDED = enum.auto()
    DOWN = enum.auto()
    #: nobody knows what was done, or the connection was lost too often for the worker
    UNKNOWN = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A job goes back to the queue."""

    job: Job
    #: seconds until it may run, as far as is known now
    delay: float
    reason: Reason
    #: whether it waits by itself; otherwise its server says when
    waits: bool = True
    #: behind jobs of its server with a lower rank
    rank: int = 0


class Retrials:
    """Tries of each job so far, and the state of the servers that they showed."""

    def __init__(self, plan: Plan, servers: Servers, clock: Clock) -> None:
        self._retries = plan.retries
        self._servers = servers
        self._clock = clock
        self._busy: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        #: times that a target met a server that was down
        self._struck: Counter[str] = Counter()
        #: what earlier tries of this run did to a target
        self._earlier: dict[str, Outcome] = {}

    def start(self, job: Job) -> None:
        """A try begins."""
        server = self._servers[job.server]
        server.breaker.start(job)
        server.throttle.start(job.target)

    def whole(self, outcome: Outcome) -> Outcome:
        """The outcome of a job over all its tries: a long path may have been gone in several of them."""
        earlier = self._earlier.get(outcome.target)
        if earlier is None:
            return outcome
        applied = (*earlier.applied, *(step for step in outcome.applied if step not in earlier.applied))
        found = outcome.found if earlier.found is None else earlier.found
        return dataclasses.replace(outcome, found=found, applied=applied)

    def judge(self, job: Job, outcome: Outcome) -> Again | None:
        """How a job is tried again; None when this is its outcome."""
        server, sign = self._servers[job.server], _sign(outcome)
        failure = outcome.failure
        again = None
        if failure is None or sign is _Sign.FINAL:
            self._note_answer(server, outcome)
        elif sign is _Sign.BUSY:
            self._note_answer(server, outcome)
            again = self._after_busy(job, failure)
        elif sign is _Sign.CROWDED:
            again = self._after_crowd(job, failure, server)
        elif sign is _Sign.DOWN:
            again = self._after_down(job, outcome, failure, server)
        else:
            again = self._after_unknown(job, outcome, failure, server)
        if again:
            self._earlier[job.target] = self.whole(outcome)
            resumed = job.resumed or _may_have_begun(job, outcome)
            again = dataclasses.replace(again, job=dataclasses.replace(again.job, resumed=resumed))
        return again

    def _note_answer(self, server: Server, outcome: Outcome) -> None:
        # What never reached a worker says nothing about the server.
        if outcome.status is not Status.NOT_STARTED:
            server.breaker.succeed()
            server.throttle.succeed()

    def _after_busy(self, job: Job, failure: Failure) -> Again | None:
        delay = self._next_delay(self._retries.busy, self._busy[job.target])
        if delay is None:
            return None
        self._busy[job.target] += 1
        return self._again(job, delay, "retrying", failure)

    def _after_crowd(self, job: Job, failure: Failure, server: Server) -> Again:
        server.breaker.succeed()
        server.throttle.crowd(job.target)
        if server.throttle.is_choked:
            server.give_up(Reason(code="crowded", text=f"{job.server} had no room for a single job: {failure.message}"))
        delay = max(0.0, server.throttle.wakes_at - self._clock.now())
        return dataclasses.replace(self._again(job, delay, "crowded", failure), waits=False, rank=0)

    def _after_down(self, job: Job, outcome: Outcome, failure: Failure, server: Server) -> Again | None:
        if job.server == FILES:
            return None
        self._struck[job.target] += 1
        was_closed = server.breaker.is_closed
        # A server that others reach in between is not down: the fault is this target's own.
        if was_closed and self._struck[job.target] > len(self._retries.server) + 1:
            return None
        server.breaker.fail(job, outcome)
        return self._behind_breaker(job, failure, server)

    def _after_unknown(self, job: Job, outcome: Outcome, failure: Failure, server: Server) -> Again | None:
        opened = not server.breaker.is_closed
        if opened:
            server.breaker.fail(job, outcome)
        if failure.code in ENDED_ON_PURPOSE:
            return None
        if opened and outcome.status is not Status.LOST and job.server != FILES:
            return self._behind_breaker(job, failure, server)
        if self._lost[job.target] >= self._retries.lost:
            return None
        self._lost[job.target] += 1
        return self._again(job, self._clock.spread(AFTER_LOSS), "retrying", failure)

    def _behind_breaker(self, job: Job, failure: Failure, server: Server) -> Again:
        delay = max(0.0, (server.breaker.wakes_at or 0.0) - self._clock.now())
        return dataclasses.replace(self._again(job, delay, "server_down", failure), waits=False)

    def _next_delay(self, delays: Sequence[float], used: int) -> float | None:
        return self._clock.spread(delays[used]) if used < len(delays) else None

    def _again(self, job: Job, delay: float, code: str, failure: Failure) -> Again:
        reason = Reason(code=code, text=f"put off for {delay:.3g} s: {failure.message}")
        tries = self._busy[job.target] + self._lost[job.target] + self._struck[job.target]
        return Again(job=job, delay=delay, reason=reason, rank=tries)


def _sign(outcome: Outcome) -> _Sign:
    failure = outcome.failure
    if failure is None or outcome.status not in FAILING:
        return _Sign.FINAL
    if failure.crowded:
        return _Sign.CROWDED
    if failure.kind is FailureKind.SERVER:
        return _Sign.DOWN
    if failure.kind is FailureKind.AMBIGUOUS and (outcome.at is None or failure.code not in LOST_FOR_A_REASON):
        return _Sign.UNKNOWN
    transient = failure.kind is FailureKind.TRANSIENT and outcome.status is Status.FAILED
    return _Sign.BUSY if transient else _Sign.FINAL


def _may_have_begun(job: Job, outcome: Outcome) -> bool:
    """Whether something may have been done to the target."""
    failure = outcome.failure
    if outcome.at is not None:
        return outcome.at != job.found
    return failure is not None and (failure.kind is FailureKind.AMBIGUOUS or failure.revision is not None)

"""What a run and its waves come to: status and exit code, from the outcomes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.errors import ExitCode, LeaseLost, OrchestratorError
from orchestrator.outcomes import FAILING, Outcome, Reason, RunStatus, Status, WaveSummary, count
from orchestrator.plans import Plan
from orchestrator.rollout.signals import StopCause

#: reasons for leaving a target alone that leave nothing to be done about it
HARMLESS = frozenset({"at_head", "past", "quarantined", "suspended", "concurrent"})
AHEAD = "unknown_revision"
#: code of the failure of a target that stands behind a transaction pooler
POOLER = "pooler"


class HaltCause(enum.StrEnum):
    """Why a run starts nothing more."""

    BUDGET = "budget"
    #: every target would fail alike, or no job can be run at all
    RUN_LEVEL = "run_level"
    INTERRUPTED = "interrupted"
    LEDGER = "ledger"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Why nothing more was started, for tools and for people."""

    cause: HaltCause
    text: str

    @property
    def reason(self) -> Reason:
        """What the jobs that never started are told."""
        return Reason(code="interrupted" if self.cause is HaltCause.INTERRUPTED else "halted", text=self.text)


class WaveStatus(enum.StrEnum):
    """How a wave ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEFERRED = "deferred"
    HALTED = "halted"
    INTERRUPTED = "interrupted"
    NOT_STARTED = "not_started"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """How far a run came, beside its outcomes."""

    #: names of the waves that were reached
    begun: frozenset[str]
    #: targets that were to be tried again, and whose turn did not come
    put_off: frozenset[str]
    #: targets whose outcome the ledger has
    recorded: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How a run ended; given on every path, also when the ledger failed on the way."""

    status: RunStatus
    exit_code: ExitCode
    #: one for each target: jobs wave by wave, then what the plan had settled
    outcomes: tuple[Outcome, ...]
    waves: tuple[WaveSummary, ...]
    #: outcomes of jobs that the ledger does not have yet: of those never started, and what could not be recorded
    unrecorded: tuple[Outcome, ...] = ()
    #: what stopped the run from outside the jobs: the ledger could not be written, or no worker can start
    error: OrchestratorError | None = None


def blames(outcome: Outcome, *, allow_ahead: bool = False) -> bool:
    """Whether this outcome alone makes a run end with exit code 1."""
    if outcome.status is Status.SKIPPED:
        code = outcome.reason.code if outcome.reason else None
        return code not in HARMLESS and not (allow_ahead and code == AHEAD)
    return outcome.status in FAILING or outcome.status in {Status.NOT_PROVISIONED, Status.NOT_STARTED}


def conclude(
    plan: Plan,
    finished: Mapping[str, Outcome],
    left: Left,
    *,
    interrupted: StopCause | None,
    error: OrchestratorError | None,
) -> Conclusion:
    """Sum up a run; `finished` has an outcome for each job."""
    own = tuple(finished[job.target] for job in plan.jobs)
    status, exit_code = _ending(own, plan, left, interrupted, error)
    waves = []
    for name, outcomes in _by_wave((*own, *plan.settled), plan).items():
        if not outcomes:
            continue
        begun = name in left.begun or any(outcome.wave == name for outcome in plan.settled)
        waves.append(_summary(name, outcomes, begun=begun, allow_ahead=plan.allow_ahead, interrupted=bool(interrupted)))
    return Conclusion(
        status=status,
        exit_code=exit_code,
        outcomes=(*own, *plan.settled),
        waves=tuple(waves),
        unrecorded=tuple(outcome for outcome in own if outcome.target not in left.recorded),
        error=error,
    )


def _by_wave(outcomes: Iterable[Outcome], plan: Plan) -> dict[str, list[Outcome]]:
    """Outcomes by wave, in the order in which waves run: those that the plan has no jobs for any more are over."""
    planned: dict[str, list[Outcome]] = {wave.name: [] for wave in plan.waves}
    over: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.wave is not None:
            waves = planned if outcome.wave in planned else over
            waves.setdefault(outcome.wave, []).append(outcome)
    return over | planned


def _ending(
    own: Sequence[Outcome],
    plan: Plan,
    left: Left,
    interrupted: StopCause | None,
    error: OrchestratorError | None,
) -> tuple[RunStatus, ExitCode]:
    outcomes = (*own, *plan.settled)
    statuses = {outcome.status for outcome in outcomes}
    # A drain that found nothing left to start has changed nothing: such a run ends like any other.
    undone = {Status.NOT_STARTED, Status.LOST, Status.DEFERRED} & {outcome.status for outcome in own}
    if interrupted and not error and undone:
        return RunStatus.INTERRUPTED, interrupted.exit_code
    if isinstance(error, LeaseLost):
        return RunStatus.HALTED, error.exit_code
    if error or left.put_off or Status.NOT_STARTED in statuses:
        return RunStatus.HALTED, _failures_exit(outcomes)
    if any(blames(outcome, allow_ahead=plan.allow_ahead) for outcome in outcomes):
        return RunStatus.FAILED, _failures_exit(outcomes)
    if Status.DEFERRED in statuses:
        return RunStatus.PAUSED, ExitCode.PAUSED
    return RunStatus.SUCCEEDED, ExitCode.OK


def _failures_exit(outcomes: Sequence[Outcome]) -> ExitCode:
    """1; 3 when all that failed was refused because of a pooler before anything was done to it."""
    codes = {outcome.failure.code if outcome.failure else None for outcome in outcomes if outcome.status in FAILING}
    return ExitCode.REFUSED if codes == {POOLER} else ExitCode.FAILURES


def summarise_waves(outcomes: Sequence[Outcome], *, interrupted: bool) -> tuple[WaveSummary, ...]:
    """How the waves of a recorded run ended, from its outcomes; those that the plan had settled belong to none."""
    waves: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.wave is not None:
            waves.setdefault(outcome.wave, []).append(outcome)
    return tuple(
        _summary(name, own, begun={outcome.status for outcome in own} != {Status.NOT_STARTED}, interrupted=interrupted)
        for name, own in waves.items()
    )


def _summary(
    name: str, outcomes: Sequence[Outcome], *, begun: bool, interrupted: bool, allow_ahead: bool = False
) -> WaveSummary:
    how = _wave_status(outcomes, allow_ahead=allow_ahead, interrupted=interrupted) if begun else WaveStatus.NOT_STARTED
    return WaveSummary(name=name, status=how.value, counts=count(outcomes))


def _wave_status(outcomes: Sequence[Outcome], *, allow_ahead: bool, interrupted: bool) -> WaveStatus:
    statuses = {outcome.status for outcome in outcomes}
    if Status.NOT_STARTED in statuses:
        return WaveStatus.INTERRUPTED if interrupted else WaveStatus.HALTED
    if any(blames(outcome, allow_ahead=allow_ahead) for outcome in outcomes):
        return WaveStatus.FAILED
    return WaveStatus.DEFERRED if Status.DEFERRED in statuses else WaveStatus.SUCCEEDED

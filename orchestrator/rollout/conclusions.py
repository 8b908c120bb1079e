"""What a run and its waves come to: status and exit code, from the outcomes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.errors import ExitCode, LeaseLost, OrchestratorError
from orchestrator.ledger.protocol import WaveMark
from orchestrator.outcomes import AHEAD, FAILING, Outcome, Reason, RunStatus, Status, Verdict, WaveSummary, count
from orchestrator.plans import Plan
from orchestrator.rollout.signals import StopCause

#: reasons for leaving a target alone that leave nothing to be done about it
HARMLESS = frozenset({"at_head", "past", "quarantined", "suspended", "concurrent", "skipped"})
#: code of the failure of a target that stands behind a transaction pooler
POOLER = "pooler"


class HaltCause(enum.StrEnum):
    """Why a run starts nothing more."""

    BUDGET = "budget"
    #: every target would fail alike, or no job can be run at all
    RUN_LEVEL = "run_level"
    INTERRUPTED = "interrupted"
    LEDGER = "ledger"
    #: the gate of a wave failed
    GATE = "gate"
    #: it waits for a person, and not in this process
    PAUSED = "paused"
    #: nothing may start now: a window, a freeze, the deadline, or a wave in which nothing could be done
    DEFERRED = "deferred"
    #: nobody could say which tenants have joined
    SWEEP = "sweep"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Why nothing more was started, for tools and for people."""

    cause: HaltCause
    text: str
    #: why jobs are put off
    code: str = "halted"
    #: the run waits for a person as well
    paused: bool = False

    @property
    def status(self) -> Status:
        """What becomes of jobs that never started."""
        return Status.DEFERRED if self.cause is HaltCause.DEFERRED else Status.NOT_STARTED

    @property
    def reason(self) -> Reason:
        """What they are told."""
        if self.paused:
            return Reason(code="paused", text=self.text)
        own = {HaltCause.INTERRUPTED: "interrupted", HaltCause.PAUSED: "paused", HaltCause.DEFERRED: self.code}
        return Reason(code=own.get(self.cause, "halted"), text=self.text)


class WaveStatus(enum.StrEnum):
    """How a wave ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEFERRED = "deferred"
    HALTED = "halted"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
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
    #: how far it is with the waves that it has reached
    marks: tuple[WaveMark, ...] = ()
    #: more was to come than jobs: the gate behind the last wave, or a look for tenants that have joined
    unfinished: bool = False


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
    halt: Halt | None,
    interrupted: StopCause | None,
    error: OrchestratorError | None,
) -> Conclusion:
    """Sum up a run; `finished` has an outcome for each job."""
    own = tuple(finished[job.target] for job in plan.jobs)
    status, exit_code = _ending(own, plan, left, halt, interrupted, error)
    waves = []
    view = _View(allow_ahead=plan.allow_ahead, interrupted=bool(interrupted), marks=_by_name(left.marks))
    for name, outcomes in _by_wave((*own, *plan.settled), plan).items():
        if not outcomes:
            continue
        reached = name in left.begun and any(outcome.wave == name for outcome in own)
        begun = reached or any(outcome.status is not Status.NOT_STARTED for outcome in outcomes)
        waves.append(view.summary(name, outcomes, begun=begun))
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
    halt: Halt | None,
    interrupted: StopCause | None,
    error: OrchestratorError | None,
) -> tuple[RunStatus, ExitCode]:
    outcomes = (*own, *plan.settled)
    # A drain that found nothing left to start has changed nothing: such a run ends like any other.
    undone = {Status.NOT_STARTED, Status.LOST, Status.DEFERRED} & {outcome.status for outcome in own}
    if interrupted and not error and (undone or left.unfinished):
        # Whoever stops the runner of a run that waits for a person has not said that it may go on.
        return RunStatus.PAUSED if halt and halt.paused else RunStatus.INTERRUPTED, interrupted.exit_code
    if isinstance(error, LeaseLost):
        return RunStatus.HALTED, error.exit_code
    not_started = [outcome for outcome in outcomes if outcome.status is Status.NOT_STARTED]
    waits = bool(not_started) and all(outcome.reason and outcome.reason.code == "paused" for outcome in not_started)
    if not error and (waits or (halt and halt.cause is HaltCause.PAUSED)):
        return RunStatus.PAUSED, ExitCode.PAUSED
    ends_it = halt is not None and halt.cause in {HaltCause.GATE, HaltCause.SWEEP}
    cut_off = left.put_off and not (halt and halt.cause is HaltCause.DEFERRED)
    if error or cut_off or not_started or ends_it:
        return RunStatus.HALTED, _failures_exit(outcomes)
    if any(blames(outcome, allow_ahead=plan.allow_ahead) for outcome in outcomes):
        return RunStatus.FAILED, _failures_exit(outcomes)
    if any(outcome.status is Status.DEFERRED for outcome in outcomes):
        return RunStatus.PAUSED, ExitCode.PAUSED
    return RunStatus.SUCCEEDED, ExitCode.OK


def _failures_exit(outcomes: Sequence[Outcome]) -> ExitCode:
    """1; 3 when all that failed was refused because of a pooler before anything was done to it."""
    codes = {outcome.failure.code if outcome.failure else None for outcome in outcomes if outcome.status in FAILING}
    return ExitCode.REFUSED if codes == {POOLER} else ExitCode.FAILURES


def summarise_waves(
    outcomes: Sequence[Outcome], *, interrupted: bool, marks: Sequence[WaveMark] = (), order: Sequence[str] = ()
) -> tuple[WaveSummary, ...]:
    """How the waves of a recorded run ended, from its outcomes; those that the plan had settled belong to none.

    `order` has the names of the plan's waves as they run.
    """
    waves: dict[str, list[Outcome]] = {name: [] for name in order}
    for outcome in outcomes:
        if outcome.wave is not None:
            waves.setdefault(outcome.wave, []).append(outcome)
    view = _View(allow_ahead=False, interrupted=interrupted, marks=_by_name(marks))
    return tuple(
        view.summary(name, own, begun={outcome.status for outcome in own} != {Status.NOT_STARTED})
        for name, own in waves.items()
        if own
    )


def _by_name(marks: Iterable[WaveMark]) -> dict[str, WaveMark]:
    return {mark.wave: mark for mark in marks}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """From where waves are looked at."""

    allow_ahead: bool
    interrupted: bool
    marks: Mapping[str, WaveMark]

    def summary(self, name: str, outcomes: Sequence[Outcome], *, begun: bool) -> WaveSummary:
        """How one wave ended."""
        mark = self.marks.get(name) or WaveMark(wave=name)
        how = self._status(outcomes, mark) if begun else WaveStatus.NOT_STARTED
        return WaveSummary(
            name=name,
            status=how.value,
            counts=count(outcomes),
            gate=mark.gate,
            started_at=mark.started_at,
            finished_at=mark.finished_at,
        )

    def _status(self, outcomes: Sequence[Outcome], mark: WaveMark) -> WaveStatus:
        not_started = [outcome for outcome in outcomes if outcome.status is Status.NOT_STARTED]
        if any(outcome.reason and outcome.reason.code == "paused" for outcome in not_started):
            return WaveStatus.PAUSED
        if not_started:
            return WaveStatus.INTERRUPTED if self.interrupted else WaveStatus.HALTED
        refused = mark.gate is not None and mark.gate.verdict is Verdict.FAILED
        if refused or any(blames(outcome, allow_ahead=self.allow_ahead) for outcome in outcomes):
            return WaveStatus.FAILED
        deferred = any(outcome.status is Status.DEFERRED for outcome in outcomes)
        return WaveStatus.DEFERRED if deferred else WaveStatus.SUCCEEDED

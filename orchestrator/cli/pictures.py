"""What is known of a run at one moment, as it is shown: counters that add up, and each wave."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any


class WaveState(enum.StrEnum):
    """How far a wave is."""

    NOT_STARTED = "not_started"
    RUNNING = "running"
    #: all of its jobs have ended, and it is watched for a while
    BAKING = "baking"
    #: its gate is being measured
    ASKING = "asking"
    #: a person must say that the run goes on
    WAITING = "waiting"
    DONE = "done"
    #: its gate has failed
    REFUSED = "refused"


#: states of a wave whose jobs have all ended, and behind which the run waits
BEHIND = frozenset({WaveState.BAKING, WaveState.ASKING, WaveState.WAITING, WaveState.REFUSED})
#: states of the wave that the run is at
BEGUN = BEHIND | {WaveState.RUNNING}


class Phase(enum.StrEnum):
    """What the whole run is at."""

    RUNNING = "running"
    PAUSED = "paused"
    #: asked to stop: what is in flight ends
    DRAINING = "draining"
    HALTED = "halted"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WavePicture:
    """One wave at one moment."""

    name: str
    state: WaveState
    total: int
    done: int
    failed: int
    #: jobs that have an outcome
    ended: int
    #: failures that it still tolerates, None without a limit
    failures_left: int | None = None
    #: seconds until its pause is over
    seconds_left: float | None = None
    #: measurements of its gate: this one, of so many; None before the first has been answered
    asking: tuple[int, int] | None = None
    #: what the gate came to, or why the run waits
    text: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Every target of the run, in one of six places."""

    done: int
    failed: int
    running: int
    #: put back into the queue
    waiting: int
    left_alone: int
    not_started: int

    @property
    def total(self) -> int:
        """The whole selection."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A run at one moment."""

    run: str
    command: str
    revision: tuple[str, ...]
    project: str
    environment: str
    phase: Phase
    #: why it is not simply running
    text: str
    seconds: float
    counts: Counts
    #: jobs of the run, and how many of them have an outcome
    jobs: int
    ended: int
    #: jobs per second of late, and what is left at that rate; None while nothing runs
    rate: float | None
    seconds_left: float | None
    failures_left: int | None
    waves: tuple[WavePicture, ...]
    #: targets at work and for how many seconds, the longest first
    longest: tuple[tuple[str, float], ...]

    @property
    def wave(self) -> tuple[int, WavePicture] | None:
        """The wave that the run is at, with its number from 1; None before the first and after the last."""
        begun = (
            pair for pair in enumerate(self.waves, 1) if pair[1].state is WaveState.RUNNING or pair[1].state in BEHIND
        )
        return next(begun, None)

    def to_json(self) -> dict[str, Any]:
        """As `runs watch -o jsonl` streams it."""
        shown = {key: value for key, value in dataclasses.asdict(self).items() if key not in {"longest", "waves"}}
        return {
            "format": "orchestrate.progress/1",
            **shown,
            "revision": list(self.revision),
            "phase": self.phase.value,
            "waves": [{**dataclasses.asdict(wave), "state": wave.state.value} for wave in self.waves],
            "longest": [{"target": target, "seconds": round(seconds, 1)} for target, seconds in self.longest],
        }

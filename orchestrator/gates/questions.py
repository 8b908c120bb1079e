"""What is asked of a gate, how long an answer is waited for, and what it came to."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from orchestrator.outcomes import Outcome, Verdict
from orchestrator.registry.targets import Surroundings
from orchestrator.strategy import GateRule
from orchestrator.tenants import Target

T = TypeVar("T")

#: seconds between two looks at whether the measurement is over
_TICK = 0.05
#: seconds that what was ended gets to say so
_GRACE = 1.0


class Finding(NamedTuple):
    """What one measurement came to."""

    verdict: Verdict
    text: str


class Patience:
    """The time that one measurement may take; it is over as well when somebody ends it."""

    def __init__(self, seconds: float, ended: threading.Event) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._ended = ended

    @property
    def left(self) -> float:
        """Seconds."""
        return 0.0 if self._ended.is_set() else max(self._until - time.monotonic(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether nothing is waited for any more."""
        return self.left == 0.0

    def tick(self) -> float:
        """Seconds to wait before the next look; not more than are left."""
        return min(self.left, _TICK)

    def over(self) -> Finding:
        """What a measurement came to that is over without an answer."""
        text = "ended before it answered" if self._ended.is_set() else f"no answer within {self._seconds:g} s"
        return Finding(Verdict.INCONCLUSIVE, text)

    def wait_for(self, done: threading.Event) -> bool:
        """Wait until it is set; False where the time is over first."""
        while not done.wait(self.tick()):
            if self.is_over:
                return done.is_set()
        return True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One measurement that is to be made."""

    rule: GateRule
    wave: str
    #: of the targets that the wave has brought where they were wanted
    done: Sequence[Outcome]
    surroundings: Surroundings
    #: by name
    targets: Mapping[str, Target]
    #: as in a plan
    server_caps: Mapping[str, int]
    #: what commands are told of the run
    environment: Mapping[str, str]
    patience: Patience

    def text(self, raw: str) -> str:
        """A text of the rule with variables put in; raises `Mistake` for one that is not set."""
        return self.surroundings.variables.text(raw)


def aside(work: Callable[[], T], patience: Patience, end: Callable[[], None]) -> T | None:
    """What `work` gives, done in a thread that is left behind when the time is over, after `end`; None then.

    Raises what `work` raises.
    """
    answers: list[T] = []
    faults: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(work())
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            faults.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True, name="gate").start()
    if not patience.wait_for(done):
        end()
        done.wait(_GRACE)
        return None
    if faults:
        raise faults[0]
    return answers[0]

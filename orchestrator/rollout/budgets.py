"""How many failures are too many."""

from __future__ import annotations

from orchestrator.outcomes import FAILING, FailureKind, Outcome, some_names
from orchestrator.rollout.servers import FILES


def is_server_down(outcome: Outcome) -> bool:
    """Whether a target failed with its whole server; it halts nothing while other servers have work to do."""
    failure = outcome.failure
    return outcome.server != FILES and failure is not None and failure.kind is FailureKind.SERVER


class Budget:
    """Failures so far against how many are tolerated; a server that is down counts once."""

    def __init__(self, place: str, limit: int | None) -> None:
        self._place = place
        self._limit = limit
        self._counted: dict[str, Outcome] = {}

    def add(self, outcome: Outcome) -> None:
        """Count the outcome if it is a failure."""
        if outcome.status not in FAILING:
            return
        key = f"server {outcome.server}" if is_server_down(outcome) else f"target {outcome.target}"
        self._counted.setdefault(key, outcome)

    def limit(self, failures: int) -> None:
        """Tolerate so many from now on."""
        self._limit = failures

    @property
    def left(self) -> int | None:
        """Failures that are still tolerated, None for any number."""
        return None if self._limit is None else max(0, self._limit - len(self._counted))

    def overdraft(self) -> str | None:
        """What to say when the failures exceed the limit, None while they do not."""
        if self._limit is None or len(self._counted) <= self._limit:
            return None
        failed = list(self._counted.values())
        noun = "failure exceeds" if len(failed) == 1 else "failures exceed"
        return f"{len(failed)} {noun} max_failures {self._limit} of {self._place}: {some_names(failed)}"

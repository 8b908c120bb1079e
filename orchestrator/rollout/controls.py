"""What people ask of a run while it is on: folded in the order in which they asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from orchestrator.ledger.protocol import Request, RequestKind, WaveMark
from orchestrator.outcomes import Reason, Verdict
from orchestrator.plans import UNTIL_CONTINUED, Plan, Wave


class Controls:
    """How a run stands by what was asked of it; the same for every runner that reads the same requests."""

    def __init__(self, requests: Sequence[Request] = ()) -> None:
        #: who has paused the run, None while it goes on
        self.paused: Request | None = None
        #: id of the latest `continue`
        self.continued = 0
        #: id of the latest one that ended no pause of a person
        self.released = 0
        #: who said last that the run goes on
        self.continued_by = "somebody"
        #: why targets are left alone, by name
        self.skips: dict[str, Reason] = {}
        #: failures tolerated in a wave, or with None in the run
        self.budgets: dict[str | None, int] = {}
        self._seen: set[int] = set()
        self.heed(requests)

    @property
    def heard(self) -> int:
        """Id of the latest request."""
        return max(self._seen, default=0)

    def heed(self, requests: Sequence[Request]) -> list[Request]:
        """Take in the requests that are new, and return them."""
        new = sorted((each for each in requests if each.id not in self._seen), key=lambda each: each.id)
        for request in new:
            self._seen.add(request.id)
            self._take(request)
        return new

    def lets_pass(self, wave: Wave, mark: WaveMark) -> bool:
        """Whether somebody has said to go on since the run began to wait behind a wave as its mark tells.

        Who ends the pause of a person cuts no bake time short by that. But where the run waits for a person as well,
        one word is enough.
        """
        unmeasured = mark.gate is not None and mark.gate.verdict is Verdict.INCONCLUSIVE
        awaited = unmeasured or (mark.gate is None and wave.pause == UNTIL_CONTINUED)
        return (self.continued if awaited else self.released) > mark.heard

    def budgeted(self, plan: Plan) -> Plan:
        """The plan with as many failures tolerated as was asked for."""
        waves = (
            dataclasses.replace(wave, max_failures=self.budgets.get(wave.name, wave.max_failures))
            for wave in plan.waves
        )
        return dataclasses.replace(plan, waves=tuple(waves), max_failures=self.budgets.get(None, plan.max_failures))

    def _take(self, request: Request) -> None:
        detail = request.detail
        match request.kind:
            case RequestKind.PAUSE:
                self.paused = request
            case RequestKind.CONTINUE:
                self.continued_by, self.continued = request.operator, request.id
                if self.paused is None:
                    self.released = request.id
                self.paused = None
            case RequestKind.SKIP:
                text = f"{detail['reason']} ({request.operator})"
                self.skips[detail["target"]] = Reason(code="skipped", text=text)
            case RequestKind.BUDGET:
                self.budgets[detail.get("wave")] = detail["max_failures"]


class Mailbox:
    """Where requests reach a live run, from any thread."""

    def __init__(self) -> None:
        #: the run whose requests are wanted, None before it is known
        self.run: str | None = None
        self._latest: Sequence[Request] = ()
        self._wakes: list[Callable[[], None]] = []

    def deliver(self, requests: Sequence[Request]) -> None:
        """All that was asked of the run so far; what another thread has read before that is of no use any more."""
        if len(requests) > len(self._latest):
            self._latest = requests
            for wake in self._wakes:
                wake()

    def read(self) -> Sequence[Request]:
        """What was delivered last."""
        return self._latest

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` when something new has come."""
        self._wakes.append(wake)

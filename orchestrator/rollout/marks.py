"""How far a run is with its waves, as the ledger has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from orchestrator.errors import LedgerError
from orchestrator.ledger.protocol import Ledger, WaveMark
from orchestrator.rollout.delays import Clock


class Marks:
    """One mark for each wave that was reached; `lose` hears of a ledger that cannot be written."""

    def __init__(self, run: str, ledger: Ledger, clock: Clock, lose: Callable[[LedgerError], None]) -> None:
        self._run = run
        self._ledger = ledger
        self._clock = clock
        self._lose = lose
        self._known: dict[str, WaveMark] = {}
        self._reopened: set[str] = set()

    def recall(self) -> None:
        """Read what earlier runners of the run have written; raises `LedgerError`."""
        self._known = {mark.wave: mark for mark in self._ledger.wave_marks(self._run)}

    def __getitem__(self, wave: str) -> WaveMark:
        return self._known.get(wave) or WaveMark(wave=wave)

    def all(self) -> tuple[WaveMark, ...]:
        """In the order in which the waves were reached."""
        return tuple(self._known.values())

    def begin(self, wave: str) -> None:
        """The first job of the wave is about to start, unless one has before."""
        if self[wave].started_at is None:
            self.change(wave, started_at=self._clock.utc())

    def reopen(self, wave: str) -> None:
        """The gate of the wave has passed, and more of the wave is about to be done: what it said may hold no more."""
        self._reopened.add(wave)
        self.change(wave, passed=False)

    def finish(self, wave: str, heard: int, *, changed: bool = True, holds: bool = True) -> None:
        """All jobs of the wave have ended: its pause begins, unless it is over already.

        One that has begun goes on where this runner has `changed` no target of the wave. A wave that `holds` nothing
        has neither pause nor gate, so it is passed with its last job. What a gate said holds if nothing has changed.
        """
        mark = self[wave]
        if not holds:
            self.change(wave, finished_at=self._clock.utc(), heard=heard, passed=True)
        elif not changed and wave in self._reopened:
            self.change(wave, passed=True)
        elif not mark.passed and (changed or mark.finished_at is None):
            self.change(wave, finished_at=self._clock.utc(), heard=heard)

    def change(self, wave: str, **fields: Any) -> WaveMark:
        """Write some of it anew."""
        mark = self._known[wave] = dataclasses.replace(self[wave], **fields)
        try:
            self._ledger.mark_wave(self._run, mark)
        except LedgerError as error:
            self._lose(error)
        return mark

"""Kills at random moments: run, SIGKILL, `resume`, perhaps killed again, and in the end everything must be right.

Whom and when is drawn from the seed and the number of the kill, so that a soak that was stopped goes on where it was.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import random
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.acceptance.fleets import Done
from tests.soak import ledgers, processes
from tests.soak.crash_points import KILLED
from tests.soak.grounds import Ground
from tests.soak.mortals import Mortal
from tests.soak.processes import Running, Victim

#: `upgrade` at first, this from the first kill on
RESUME = ("resume",)
UPGRADE = ("upgrade", "--all")
#: of a hundred kills, beside those of the orchestrator
_WORKERS, _GROUPS = 20, 20
#: how likely a `resume` is killed as well, and how often in a row
AGAIN, _ROW = 0.35, 5
#: exit status of a run that was told to stop
_TERMINATED = 143
#: how long a killed server stays away, in seconds
_AWAY = (1.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """One series: the first kill, those of its resumes, and what was wrong in the end."""

    number: int
    victim: str
    #: seconds after the ledger was opened
    moment: float
    #: processes killed
    kills: int
    #: from the last kill to all at head
    seconds: float
    #: how often the reader compared ledger and databases
    looks: int
    problems: list[str]
    #: what is no mistake, but worth knowing: a run that needed a hand
    notes: list[str]


class Reader:
    """Ten times a second: whoever is `upgraded` in the ledger has that version in the database."""

    def __init__(self, ground: Ground, *, may_fail: bool) -> None:
        self._ground = ground
        #: a server that was killed does not answer; the end is checked all the same
        self._may_fail = may_fail
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._confirmed: set[str] = set()
        self.looks = 0
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _read(self) -> None:
        while not self._stop.wait(0.1):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                if not self._may_fail:
                    self.problems.append(f"reader: {type(error).__name__}: {error}")

    def _look(self) -> None:
        claimed = {
            name: claim
            for name, claim in ledgers.claims(self._ground.folder).items()
            if claim.status in ledgers.CLAIMS and name not in self._confirmed
        }
        if not claimed:
            return
        versions = self._ground.versions(claimed)
        self.looks += 1
        for name, claim in claimed.items():
            if versions.get(name) == claim.at:
                self._confirmed.add(name)
            else:
                self.problems.append(f"reader: {name} is {claim.status} at {claim.at}, found at {versions.get(name)}")


class Series:
    """Kills of one fleet."""

    def __init__(
        self,
        ground: Ground,
        seed: int,
        server: Mortal | None = None,
        *,
        again: float = AGAIN,
        terminate: bool = False,
    ) -> None:
        self._ground = ground
        self._terminate = terminate
        self._seed = seed
        self._again = again
        self._server = server
        self._duration = 0.0
        #: commands of this series, whose processes must all be gone in the end
        self._commands: list[Running] = []

    def measure(self, runs: int = 2) -> float:
        """Seconds from the opened ledger to the end of a run that nobody kills."""
        found = []
        for _ in range(runs):
            self._ground.reset()
            running = self._start(*UPGRADE)
            began = time.monotonic()
            done = running.wait()
            found.append(time.monotonic() - began)
            problems = [*self._ground.problems(), *self._left()]
            assert done.exit_status == 0, f"{done}"
            assert not problems, problems
        self._duration = statistics.median(found)
        return self._duration

    def kill(self, number: int) -> Verdict:
        """One series."""
        chance = random.Random(f"{self._seed}/{number}")
        victim = self._victim(chance)
        self._ground.reset()
        problems: list[str] = []
        notes: list[str] = []
        with Reader(self._ground, may_fail=self._server is not None) as reader:
            running, moment = self._struck(victim, chance)
            kills = 1
            last = time.monotonic()
            done = self._wait(running, problems)
            while done.exit_status != 0 and kills <= _ROW and chance.random() < self._again:
                again = self._start(*RESUME)
                time.sleep(chance.uniform(0, self._duration))
                kills += again.kill(chance.choice([Victim.ORCHESTRATOR, Victim.GROUP]), chance)
                last = time.monotonic()
                done = self._wait(again, problems)
            problems += _unexpected(done, victim, ledgers.read(self._ground.folder))
            problems += self._finish(done, victim, notes)
            seconds = time.monotonic() - last
        problems += [*reader.problems, *self._ground.problems(), *self._left()]
        return Verdict(
            number=number, victim=victim.value, moment=round(moment, 3), kills=kills, seconds=round(seconds, 3),
            looks=reader.looks, problems=problems, notes=notes,
        )  # fmt: skip

    def _victim(self, chance: random.Random) -> Victim:
        if self._server is not None:
            return Victim.SERVER
        if self._terminate:
            return Victim.TERMINATED
        drawn = chance.randrange(100)
        if drawn < _WORKERS:
            return Victim.WORKER
        return Victim.GROUP if drawn < _WORKERS + _GROUPS else Victim.ORCHESTRATOR

    def _struck(self, victim: Victim, chance: random.Random) -> tuple[Running, float]:
        """A run in which somebody was killed; one that ended too soon is run again, and struck earlier."""
        longest = self._duration
        while True:
            running = self._start(*UPGRADE)
            moment = chance.uniform(0, longest)
            time.sleep(moment)
            if victim is Victim.SERVER and self._server is not None and running.process.poll() is None:
                self._server.kill()
                time.sleep(chance.uniform(*_AWAY))
                self._server.start()
                return running, moment
            if victim is not Victim.SERVER and self._strike(running, victim, chance):
                return running, moment
            running.wait()
            longest = max(0.05, longest * 0.8)
            self._ground.reset()

    def _strike(self, running: Running, victim: Victim, chance: random.Random, seconds: float = 5) -> bool:
        """A worker may have to be waited for: none is there in the first moments."""
        deadline = time.monotonic() + seconds
        while running.process.poll() is None and time.monotonic() < deadline:
            if running.terminate(chance) if victim is Victim.TERMINATED else running.kill(victim, chance):
                return True
            time.sleep(0.005)
        return False

    def _start(self, *arguments: str) -> Running:
        """Start a command, and wait until it has opened the ledger: what is before that is imports."""
        running = processes.start(self._ground.project, *arguments)
        self._commands.append(running)
        ledger = self._ground.folder / ".orchestrate" / "ledger.db"
        began = time.time()
        while running.process.poll() is None and not (ledger.exists() and _used(ledger, began)):
            time.sleep(0.002)
        return running

    def _wait(self, running: Running, problems: list[str]) -> Done:
        try:
            return running.wait()
        except Exception as error:  # noqa: BLE001 - a command that hangs is what this looks for
            running.kill(Victim.GROUP, random.Random(0))
            problems.append(f"{' '.join(running.arguments)} hangs: {error}")
            return running.wait()

    def _finish(self, done: Done, victim: Victim, notes: list[str]) -> Iterator[str]:
        """What an operator types until all is done; what should not have been needed is a problem."""
        if done.exit_status != 0 and victim is Victim.WORKER:
            notes.append(f"a killed worker ended the run with {done.exit_status}")
        book = ledgers.read(self._ground.folder)
        for command in _remedies(done, book):
            done = self._start(*command).wait()
            if done.exit_status != 0:
                yield f"{' '.join(command)} ended with {done.exit_status}: {done.text[-600:]}"

    def _left(self) -> list[str]:
        """Processes and server sessions that should be gone by now."""
        survivors = [f"process {pid} is left" for running in self._commands for pid in running.survivors()]
        self._commands.clear()
        deadline = time.monotonic() + 15
        while (sessions := self._ground.sessions()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return survivors + sessions


def _unexpected(done: Done, victim: Victim, book: ledgers.Book | None) -> list[str]:
    """What a run that was asked to stop may not do: end with another code, or be recorded as anything else."""
    if victim is not Victim.TERMINATED or done.exit_status in (0, KILLED):
        return []
    latest = next(iter(book.runs.values()), "") if book is not None else ""
    if done.exit_status != _TERMINATED or latest not in ("", "interrupted"):
        return [f"SIGTERM: ended with {done.exit_status}, recorded as {latest!r}: {done.text[-600:]}"]
    return []


def _remedies(done: Done, book: ledgers.Book | None) -> list[tuple[str, ...]]:
    """What is to be typed after a command that ended so; each of them says what to type itself."""
    if book is None or not book.runs:
        # A `resume` finds nothing and ends with 0 where the one that was killed had not opened its run.
        return [] if done.exit_status == 0 and "resume" not in done.command else [UPGRADE]
    if done.exit_status == 0:
        return []
    # A run that ended by itself may have given targets up as lost: those are for `retry`.
    return [RESUME] if done.exit_status in (KILLED, 4, _TERMINATED) else [RESUME, ("retry",)]


def _used(ledger: Path, since: float) -> bool:
    with contextlib.suppress(OSError):
        return any(path.stat().st_mtime >= since - 0.01 for path in ledger.parent.glob("ledger.db*"))
    return False


# A soak: many series, written down one by one


def soak(series: Series, path: Path, kills: int) -> list[Verdict]:
    """Series until so many kills have been done; those that the file has already count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    verdicts = [Verdict(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    if _killed(verdicts) < kills:
        print(f"a run takes {series.measure():.1f} s from its ledger on", flush=True)
    while _killed(verdicts) < kills:
        verdict = series.kill(len(verdicts) + 1)
        with path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(verdict)) + "\n")
        verdicts.append(verdict)
        if verdict.problems or verdict.notes:
            print(json.dumps(dataclasses.asdict(verdict)), flush=True)
    return verdicts


def _killed(verdicts: list[Verdict]) -> int:
    return sum(verdict.kills for verdict in verdicts)


def summary(verdicts: list[Verdict]) -> str:
    """In one paragraph."""
    wrong = [verdict.number for verdict in verdicts if verdict.problems]
    seconds = statistics.median(verdict.seconds for verdict in verdicts)
    victims = dict(collections.Counter(verdict.victim for verdict in verdicts))
    bound = f"at most {3 / len(verdicts):.1%} wrong, with 95 % confidence" if not wrong else f"wrong: {wrong}"
    return (
        f"{len(verdicts)} series, {_killed(verdicts)} kills {victims}: "
        f"{len(verdicts) - len(wrong)} right, {len(wrong)} wrong; {bound}; "
        f"median {seconds:.1f} s from the last kill to all at head; "
        f"{sum(verdict.looks for verdict in verdicts)} looks by the reader"
    )

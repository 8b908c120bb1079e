"""What a proxy does to which connection and which statement. A rule is called in the proxy's one thread."""

from __future__ import annotations

import dataclasses
import enum
import random
import re
import threading

from tests.faults.messages import Statement


class Fate(enum.Enum):
    """What becomes of a connection at one point."""

    PASS = enum.auto()
    #: reset at both ends; what was on its way never arrives
    RESET = enum.auto()
    #: the server gets the statement and answers it; the answer never arrives, both ends are reset
    CUT_ANSWER = enum.auto()
    #: told that the server is starting up; only while connecting
    TURN_AWAY = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Wait for so many seconds, then this."""

    fate: Fate = Fate.PASS
    delay: float = 0.0


PASS = Verdict()


class Rule:
    """Lets everything pass."""

    def on_connect(self, number: int) -> Verdict:
        """A connection was accepted; the server has not heard of it yet."""
        return PASS

    def on_statement(self, statement: Statement) -> Verdict:
        """A statement has arrived from the client; the server has not seen it yet."""
        return PASS


class CutCommits(Rule):
    """Cut `times` connections at the COMMIT that moves a version: before the server sees it, or after it did it."""

    def __init__(self, *, before: int = 0, after: int = 0, every: int = 1) -> None:
        self.cuts: list[str] = []
        self._left = {Fate.RESET: before, Fate.CUT_ANSWER: after}
        self._every = every
        self._seen = 0

    def on_statement(self, statement: Statement) -> Verdict:
        if not statement.commits_version:
            return PASS
        self._seen += 1
        fate = max(self._left, key=lambda fate: self._left[fate])
        if self._seen % self._every or not self._left[fate]:
            return PASS
        self._left[fate] -= 1
        self.cuts.append(fate.name)
        return Verdict(fate)


class RandomResets(Rule):
    """Reset a share of the connections while they are made, and a share of the statements on the others."""

    def __init__(self, *, connections: float, statements: float, seed: int) -> None:
        self.resets = 0
        self._connections, self._statements = connections, statements
        self._random = random.Random(seed)

    def on_connect(self, number: int) -> Verdict:
        return self._draw(self._connections)

    def on_statement(self, statement: Statement) -> Verdict:
        return PASS if statement.is_frame else self._draw(self._statements)

    def _draw(self, share: float) -> Verdict:
        if self._random.random() >= share:
            return PASS
        self.resets += 1
        # The answer may be lost as well as the question.
        return Verdict(Fate.RESET if self._random.random() < 0.5 else Fate.CUT_ANSWER)


class ResetNth(Rule):
    """Reset at the n-th statement that matches, once."""

    def __init__(self, pattern: str, number: int = 1) -> None:
        self.done = False
        self._pattern = re.compile(pattern.encode(), re.IGNORECASE)
        self._left = number

    def on_statement(self, statement: Statement) -> Verdict:
        if not self._pattern.search(statement.text):
            return PASS
        self._left -= 1
        if self._left:
            return PASS
        self.done = True
        return Verdict(Fate.RESET)


class Stall(Rule):
    """Hold back the first statement that matches for a while."""

    def __init__(self, pattern: str, seconds: float) -> None:
        self.done = False
        self._pattern = re.compile(pattern.encode(), re.IGNORECASE)
        self._seconds = seconds

    def on_statement(self, statement: Statement) -> Verdict:
        if self.done or not self._pattern.search(statement.text):
            return PASS
        self.done = True
        return Verdict(delay=self._seconds)


class Outage(Rule):
    """Down: whoever connects is turned away, whoever is connected is reset at the next statement."""

    def __init__(self, *, down: bool) -> None:
        #: connections that were turned away
        self.refused = 0
        #: statements that never arrived
        self.broke = 0
        self._down = threading.Event()
        if down:
            self.begin()

    def begin(self) -> None:
        """Go down."""
        self._down.set()

    def end(self) -> None:
        """Come back."""
        self._down.clear()

    def on_connect(self, number: int) -> Verdict:
        self.refused += self._down.is_set()
        return Verdict(Fate.TURN_AWAY) if self._down.is_set() else PASS

    def on_statement(self, statement: Statement) -> Verdict:
        self.broke += self._down.is_set()
        return Verdict(Fate.RESET) if self._down.is_set() else PASS


class OutageAfter(Outage):
    """Goes down by itself when so many statements that match have passed."""

    def __init__(self, pattern: str, number: int) -> None:
        super().__init__(down=False)
        self._pattern = re.compile(pattern.encode(), re.IGNORECASE)
        self._left = number

    def on_statement(self, statement: Statement) -> Verdict:
        if self._pattern.search(statement.text):
            self._left -= 1
            if self._left == 0:
                self.begin()
        return super().on_statement(statement)

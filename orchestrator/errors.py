"""What can go wrong for the whole command; what goes wrong for one target is an `Outcome`, not an exception."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Sequence
from typing import ClassVar

#: problems that one message tells: of one place, so that a source with a wrong column hides nothing else, and in all
MOST_AT_ONE_PLACE = 10
MOST_TOLD = 50


class ExitCode(enum.IntEnum):
    """Exit status of every command."""

    OK = 0
    FAILURES = 1
    USAGE = 2
    REFUSED = 3
    PAUSED = 4
    DUE = 5
    INTERNAL = 70
    INTERRUPTED = 130
    TERMINATED = 143


class OrchestratorError(Exception):
    """The command cannot go on; the message says what is wrong, where, and what to type next."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


class UsageError(OrchestratorError):
    """The command line, or the arguments of an API call, ask for something that makes no sense."""


class SettingsError(OrchestratorError):
    """A setting of the command line, the environment or `alembic.ini` is wrong or missing."""


class ScriptsError(OrchestratorError):
    """The revision scripts cannot be used: a missing file, a cycle, several heads, an unknown revision."""


class EnvironmentError(OrchestratorError):  # noqa: A001 - Alembic's own word for env.py and its folder
    """`env.py` asks for something that would be wrong for a fleet."""


class Refused(OrchestratorError):  # noqa: N818 - a refusal is not a mistake of the program
    """Nothing is wrong, but going on would be unsafe; the message names the flag that allows it."""

    exit_code: ClassVar[ExitCode] = ExitCode.REFUSED


class StalePlan(Refused):
    """A plan rests on something that has changed since it was made; `changes` has one sentence for each."""

    def __init__(self, changes: Sequence[str], *remedies: str) -> None:
        self.changes = tuple(changes)
        told = [f"  {change}" for change in self.changes]
        super().__init__("\n".join(["the plan is stale: what it rests on has changed", *told, *remedies]))


class LeaseHeld(Refused):
    """Another run of the same project and environment is live."""


class Stopped(OrchestratorError):  # noqa: N818 - named for what happened
    """Somebody asked the command to stop before it began."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERRUPTED


class Terminated(Stopped):
    """The same, by SIGTERM."""

    exit_code: ClassVar[ExitCode] = ExitCode.TERMINATED


class LedgerError(OrchestratorError):
    """The ledger cannot be opened, read or written."""


class LeaseLost(LedgerError):  # noqa: N818 - named for what it says
    """Another runner took the lease over: this one must write nothing more."""

    exit_code: ClassVar[ExitCode] = ExitCode.REFUSED


class TargetsFailed(OrchestratorError):  # noqa: N818 - named for what it reports
    """Some targets of a run did not get where they should; raised by `Report.raise_for_failures` only."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURES


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One mistake in a file that the user wrote."""

    #: `tenants.yaml:12:5`, or the file alone where no line is known
    place: str
    #: what is wrong, with the offending name quoted in backticks
    text: str
    #: what to do about it
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.place}: {self.text}{remedy}"


class RegistryError(OrchestratorError):
    """`tenants.yaml` or one of its sources is wrong; carries every problem that was found, in file order.

    The message of a fleet that is wrong throughout ends after the first few; `problems` has them all.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(_told(self.problems)))


def _told(problems: Sequence[Problem]) -> list[str]:
    at: collections.Counter[str] = collections.Counter()
    told: list[str] = []
    for problem in problems:
        at[problem.place] += 1
        if at[problem.place] <= MOST_AT_ONE_PLACE and len(told) < MOST_TOLD:
            told.append(str(problem))
    rest = len(problems) - len(told)
    return [*told, f"and {rest:,} more; mend these first"] if rest else told

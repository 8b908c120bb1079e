"""Every place at which a command can die: kill it there, go on as an operator would, and look whether all is right."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import signal
import time
from collections.abc import Callable, Iterator

from tests import histories
from tests.acceptance.fleets import Done
from tests.soak import ledgers
from tests.soak.grounds import Ground
from tests.soak.launching import Launcher

KILLED = -signal.SIGKILL
INLINE = ("--executor", "inline")
UPGRADE = ("upgrade", "--all", *INLINE)
RESUME = ("resume", *INLINE)
#: among which two are drawn; a command that passes fewer of them ends by itself
_PLACES = (20, 320)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a scenario is played."""

    ground: Ground
    launcher: Launcher

    def run(self, *arguments: str, failpoint: str = "", exit_status: int | None = 0) -> Done:
        return self.launcher.orchestrate(self.ground.project, *arguments, failpoint=failpoint, exit_status=exit_status)

    def execute(self, number: int, statements: tuple[str, ...]) -> None:
        """Run SQL on one tenant."""
        member = self.ground.members[number]
        self.ground.starter.bring(member.url, None, schema=member.schema, then=statements)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crash:
    """One command that died, and what was wrong after going on."""

    number: int
    place: str
    problems: tuple[str, ...]


def _nothing(stage: Stage) -> None:
    """Prepare nothing."""


def _resume(stage: Stage) -> None:
    """As the how-to says: `resume`; and the command again where that says that there is nothing to resume."""
    if "nothing to resume" in stage.run(*RESUME).text:
        stage.run(*UPGRADE)


def _all_right(stage: Stage) -> list[str]:
    return stage.ground.problems()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
    """A command that is killed, what stands before it, and what an operator types after it."""

    name: str
    command: tuple[str, ...]
    prepare: Callable[[Stage], None] = _nothing
    go_on: Callable[[Stage], None] = _resume
    problems: Callable[[Stage], list[str]] = _all_right
    #: the command by itself leaves work
    goes_on_anyway: bool = False
    #: let the command make the ledger's tables as well
    makes_ledger: bool = False


def sweep(stage: Stage, scenario: Scenario, numbers: Iterator[int]) -> Iterator[Crash]:
    """Kill the command at each of the points, until it gets through; that one must be right as well."""
    for number in numbers:
        stage.ground.reset(ledger=not scenario.makes_ledger)
        scenario.prepare(stage)
        done = stage.run(*scenario.command, failpoint=f"{number}:kill", exit_status=None)
        if done.exit_status == KILLED or scenario.goes_on_anyway:
            scenario.go_on(stage)
        yield Crash(number=number, place=_place(done), problems=(*scenario.problems(stage), *_sessions(stage)))
        if done.exit_status != KILLED:
            assert done.exit_status == 0, f"{done}"
            return


def pairs(stage: Stage, seed: int, number: int) -> Iterator[Crash]:
    """Kill an upgrade at a place drawn by the seed, and its `resume` at another; then go on and look."""
    chance = random.Random(seed)
    for _ in range(number):
        stage.ground.reset(ledger=True)
        first, second = chance.randint(*_PLACES), chance.randint(*_PLACES)
        done = [stage.run(*UPGRADE, failpoint=f"{first}:kill", exit_status=None)]
        done.append(stage.run(*RESUME, failpoint=f"{second}:kill", exit_status=None))
        if done[-1].exit_status == KILLED or "nothing to resume" in done[-1].text:
            _resume(stage)
        problems = (*stage.ground.problems(), *_sessions(stage))
        yield Crash(number=first, place=" / ".join(_place(each) for each in done), problems=problems)


def points(*, every: int = 1, offset: int = 0) -> Iterator[int]:
    """1, 2, 3 …, or every so many of them."""
    return itertools.count(1 + offset % every, every)


def _place(done: Done) -> str:
    found = re.search(r"^failpoint \d+: (.*)$", done.errors, re.MULTILINE)
    return found.group(1) if found else "the end"


def _sessions(stage: Stage, seconds: float = 10) -> list[str]:
    """Server sessions that are still there; they may need a moment to notice that their client has gone."""
    deadline = time.monotonic() + seconds
    while (left := stage.ground.sessions()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


# What can die, beside the upgrade


def _begun(stage: Stage) -> None:
    """An upgrade that died when its first tenant was done, before it could say so."""
    stage.run(*UPGRADE, failpoint="1@job.after:kill", exit_status=KILLED)


def _begun_and_failed(stage: Stage) -> None:
    """An upgrade in which the last tenant fails, mended by now."""
    last = len(stage.ground.members) - 1
    stage.execute(last, histories.POISON)
    stage.run(*UPGRADE, "--keep-going", exit_status=1)
    stage.execute(last, histories.MEND)


def _retry(stage: Stage) -> None:
    """A `retry` that died: what it began is resumed, what it did not begin is tried again."""
    for _ in range(2):
        stage.run(*RESUME, exit_status=None)
        stage.run("retry", *INLINE, exit_status=None)


def _upgraded(stage: Stage) -> None:
    stage.run(*UPGRADE)


def _roll_back(stage: Stage) -> None:
    """A `rollback` that died before it was a run is asked for again, one that was is resumed."""
    book = ledgers.read(stage.ground.folder)
    assert book is not None
    stage.run(*(RESUME if len(book.runs) > 1 else ROLLBACK))


def _at_start(stage: Stage) -> list[str]:
    """Every tenant where it began."""
    ground = stage.ground
    expected = [
        dataclasses.replace(
            member.expected(ground.size.revisions),
            heads=histories.revision_ids(member.start)[-1:],
            markers=histories.revision_ids(member.start),
            tables=histories.tables_at(member.start),
            marker_table="markers" if member.start else "",
        )
        for member in ground.members
    ]
    book = ledgers.read(ground.folder)
    assert book is not None
    versions = {member.name: () for member in ground.members} | ground.versions()
    return [*ground.wrong(expected), *book.problems(versions)]


def _abort(stage: Stage) -> None:
    """`abort` again, and a new upgrade after it."""
    book = ledgers.read(stage.ground.folder)
    if book is not None and set(book.runs.values()) - ledgers.CLOSED:
        stage.run("abort")
    stage.run(*UPGRADE)


ROLLBACK = ("rollback", "--yes", *INLINE)
SCENARIOS = (
    Scenario(name="upgrade", command=UPGRADE),
    Scenario(name="first upgrade", command=UPGRADE, makes_ledger=True),
    Scenario(name="upgrade again", command=UPGRADE, prepare=_begun),
    Scenario(name="resume", command=RESUME, prepare=_begun),
    Scenario(name="retry", command=("retry", *INLINE), prepare=_begun_and_failed, go_on=_retry),
    Scenario(name="rollback", command=ROLLBACK, prepare=_upgraded, go_on=_roll_back, problems=_at_start),
    Scenario(name="abort", command=("abort",), prepare=_begun, go_on=_abort, goes_on_anyway=True),
)

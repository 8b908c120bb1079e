"""The fleet as small squares, one for each target, drawn by one path per status: ten thousand take a few kilobytes."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.outcomes import FAILING, Outcome, Status

#: from one square to the next, and what of it is filled; the style sheet dashes the lines to match
PITCH, SIDE = 8, 6
#: squares in a row: of a small server, and at most
NARROW, WIDE = 40, 120
#: targets of a server that stay within the narrow width where there are others beside it
SMALL = 1600
#: servers with a picture of their own; the others share one
SERVERS = 40
WITHOUT_SERVER = "no server"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """All squares of one status: lines that are dashed into squares."""

    status: str
    count: int
    #: the `d` of an SVG path
    data: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The targets of one server."""

    title: str
    targets: int
    failing: int
    width: int
    height: int
    #: takes a whole line of the page
    is_wide: bool
    paths: tuple[Path, ...]

    @property
    def described(self) -> str:
        """What somebody hears who does not see it."""
        counts = ", ".join(f"{path.count:,} {path.status.replace('_', ' ')}" for path in self.paths)
        return f"{self.title}: {counts}"


def pictures(outcomes: Iterable[Outcome]) -> Iterator[Picture]:
    """A picture for each server by name; of very many servers those with failures and many targets have their own."""
    by_server: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_server.setdefault(outcome.server or WITHOUT_SERVER, []).append(outcome)
    own = set(by_server)
    alone = len(by_server) == 1
    if len(by_server) > SERVERS:
        own = set(sorted(by_server, key=lambda name: _weight(by_server[name]), reverse=True)[: SERVERS - 1])
    for server in sorted(own, key=_natural):
        yield _picture(server, by_server[server], alone=alone)
    others = [name for name in sorted(by_server, key=_natural) if name not in own]
    if others:
        together = [outcome for name in others for outcome in _by_name(by_server[name])]
        yield _picture(f"{len(others):,} other servers", together)


def _natural(name: str) -> list[tuple[int, str]]:
    """`db2` before `db10`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _weight(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    return sum(outcome.status in FAILING for outcome in outcomes), len(outcomes)


def _by_name(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda outcome: outcome.target)


def _picture(title: str, outcomes: Sequence[Outcome], *, alone: bool = False) -> Picture:
    fitting = math.ceil(math.sqrt(4 * len(outcomes)))
    columns = min(WIDE, max(NARROW, fitting)) if alone or len(outcomes) > SMALL else NARROW
    statuses = [outcome.status for outcome in _by_name(outcomes)]
    rows = [statuses[start : start + columns] for start in range(0, len(statuses), columns)]
    paths = [_path(status, rows) for status in Status if status in statuses]
    return Picture(
        title=title,
        targets=len(statuses),
        failing=sum(status in FAILING for status in statuses),
        width=columns * PITCH,
        height=len(rows) * PITCH,
        is_wide=columns > NARROW,
        paths=tuple(paths),
    )


def _path(status: Status, rows: Sequence[Sequence[Status]]) -> Path:
    """One line for each run of equal neighbours; relative moves are the shortest way to write them."""
    lines = []
    at_x, at_y, number = 0, 0, 0
    for row, statuses in enumerate(rows):
        column = 0
        for found, group in itertools.groupby(statuses):
            length = len(list(group))
            if found is status:
                x, y, line = column * PITCH, row * PITCH + PITCH // 2, length * PITCH - (PITCH - SIDE)
                lines.append(f"m{x - at_x} {y - at_y}h{line}")
                at_x, at_y, number = x + line, y, number + length
            column += length
    return Path(status=status.value, count=number, data="".join(lines))

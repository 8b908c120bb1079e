"""Revisions that write down when they begin and end, by the machine's one clock: whether two ever overlap."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from pathlib import Path

from tests.acceptance.fleets import Fleet

_WRAPPER = """

def upgrade():
    import json, os, time

    def note(what):
        target = op.get_context().dialect.default_schema_name
        line = json.dumps([what, target, revision, os.getpid(), time.monotonic_ns()]) + "\\n"
        file = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

    note("begin")
    time.sleep({pause})
    _upgrade()
    note("end")
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """One go of one revision on one target; `end` is None when it never came to its end."""

    target: str
    revision: str
    pid: int
    begin: int
    end: int | None


def keep(fleet: Fleet, *, pause: float = 0.0) -> Path:
    """Make all revisions of a fleet keep spans, each for at least `pause` seconds; returns their log."""
    log = fleet.project.folder / "spans.jsonl"
    log.touch()
    for path in (fleet.project.folder / "alembic" / "versions").glob("*.py"):
        text = path.read_text().replace("def upgrade():", "def _upgrade():")
        path.write_text(text + _WRAPPER.format(log=str(log), pause=pause))
    return log


def read(log: Path) -> list[Span]:
    """All spans so far, in the order in which they began."""
    begun: dict[tuple[str, str, int], int] = {}
    spans: list[Span] = []
    for line in log.read_text().splitlines():
        what, target, revision, pid, at = json.loads(line)
        key = (target, revision, pid)
        if what == "begin":
            begun[key] = at
        else:
            spans.append(Span(target=target, revision=revision, pid=pid, begin=begun.pop(key), end=at))
    spans += [Span(target=key[0], revision=key[1], pid=key[2], begin=at, end=None) for key, at in begun.items()]
    return sorted(spans, key=lambda span: span.begin)


def overlaps(spans: list[Span]) -> list[tuple[Span, Span]]:
    """Spans of one target of which the second began before the first had ended."""
    by_target: dict[str, list[Span]] = collections.defaultdict(list)
    for span in spans:
        by_target[span.target].append(span)
    return [
        (first, second)
        for of_one in by_target.values()
        for first, second in itertools.pairwise(of_one)
        if first.end is not None and second.begin < first.end
    ]


def assert_apart(log: Path, *, once: bool = True) -> int:
    """No two overlap, and with `once` no revision ran twice; returns how many there are."""
    spans = read(log)
    assert spans, "no revision ran"
    assert not overlaps(spans), f"{overlaps(spans)}"
    counted = collections.Counter((span.target, span.revision) for span in spans)
    twice = [key for key, number in counted.items() if number > 1]
    assert not (once and twice), f"ran more than once: {twice}"
    return len(spans)

"""What a terminal shows of a run at one moment: lines that fit its width and height, counted in cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, set_cell_size

from orchestrator.cli.pictures import BEHIND, Counts, Phase, Picture, WavePicture, WaveState
from orchestrator.cli.progress import pause_text, rate_text, state_text
from orchestrator.cli.render import counted, goal_text
from orchestrator.cli.terminals import Mood, visible
from orchestrator.reports.words import duration

#: waves with a line of their own; those that are done share one
WAVES = 8
BAR = 30
NAME = 24
#: a screen lower than that has no room for more than the counters
LEAST = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Some text of a line, and what it means."""

    text: str
    mood: Mood | None = None


Row = tuple[Part, ...]


def frame(picture: Picture, *, width: int, height: int, hint: str = "", encoding: str = "utf-8") -> list[Row]:
    """The lines, none wider than `width` cells, no more of them than `height`: the least important ones go first."""
    width = max(1, width)
    head = [_head(picture, width), _bar(picture, width), *_counters(picture.counts, width)]
    state = list(_state(picture))
    longest = list(_longest(picture))
    budget = list(_budget(picture))
    # Once nothing new starts, there is nothing to drain.
    ending = [(Part(hint, Mood.FAINT),)] if hint and picture.phase in {Phase.RUNNING, Phase.PAUSED} else []
    room = height - len(head) - len(state)
    waves = list(_waves(picture.waves, max(0, min(WAVES, room)))) if _tells_of_waves(picture) else []
    rows = [*head, *state, *waves]
    for rest in (budget, longest, ending):
        if len(rows) + len(rest) <= height:
            rows += rest
    return [_cut(row, width, encoding) for row in rows[: max(1, height)]]


def cut(text: str, width: int, encoding: str = "utf-8") -> str:
    """The text without what could drive a terminal, in at most so many cells; what is left out shows as `..`."""
    text = visible(text, encoding)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width) if width < LEAST else set_cell_size(text, width - 2).rstrip() + ".."


def _cut(row: Row, width: int, encoding: str) -> Row:
    """No more cells than that; every text is made harmless on the way."""
    parts: list[Part] = []
    for part in row:
        text = cut(part.text, width, encoding)
        width -= cell_len(text)
        parts.append(Part(text, part.mood))
        if width <= 0:
            break
    return tuple(parts)


def _spread(left: Row, right: str, width: int) -> Row:
    """The left part, and the right one at the end of the line where there is room."""
    used = sum(cell_len(visible(part.text)) for part in left)
    gap = width - used - cell_len(right)
    return (*left, Part(" " * gap), Part(right, Mood.FAINT)) if gap >= 2 else left


def _head(picture: Picture, width: int) -> Row:
    what = goal_text(picture.command, picture.revision)
    left = (
        Part(f"run {picture.run}  ", Mood.STRONG),
        Part(what, Mood.STRONG),
        Part(f"  {picture.project}/{picture.environment}", Mood.FAINT),
    )
    return _spread(left, duration(picture.seconds) if picture.seconds >= 1 else "", width)


def _bar(picture: Picture, width: int) -> Row:
    share = picture.ended / picture.jobs if picture.jobs else 1.0
    # All but complete is not complete.
    percent = int(share * 100)
    size = max(0, min(BAR, width - 50))
    filled = int(share * size)
    parts = [Part(f"[{'=' * filled}{'.' * (size - filled)}] ", Mood.GOOD)] if size else []
    parts.append(Part(f"{picture.ended:,} of {counted(picture.jobs, 'job')}  {percent}%"))
    if picture.rate:
        parts.append(Part(f"  {rate_text(picture.rate)}", Mood.FAINT))
    if picture.seconds_left is not None:
        parts.append(Part(f"  eta {duration(picture.seconds_left)}", Mood.FAINT))
    return tuple(parts)


def _counters(counts: Counts, width: int) -> Iterator[Row]:
    """`10,000 targets:  1,200 done  3 failed …`, on as many lines as it takes."""
    cells = [
        Part(f"{counts.done:,} done", Mood.GOOD),
        Part(f"{counts.failed:,} failed", Mood.BAD if counts.failed else None),
        Part(f"{counts.running:,} running"),
        Part(f"{counts.waiting:,} waiting", Mood.WARNING),
        Part(f"{counts.left_alone:,} left alone", Mood.WARNING),
        Part(f"{counts.not_started:,} not started", Mood.FAINT),
    ]
    always = cells[:3]
    numbers = (counts.done, counts.failed, counts.running, counts.waiting, counts.left_alone, counts.not_started)
    shown = [cell for cell, number in zip(cells, numbers, strict=True) if number or cell in always]
    return _flowing(Part(f"{counted(counts.total, 'target')}:"), shown, width)


def _flowing(first: Part, cells: Iterable[Part], width: int) -> Iterator[Row]:
    row, used = [first], len(first.text)
    for cell in cells:
        if used + 2 + len(cell.text) > width and len(row) > 1:
            yield tuple(row)
            row, used = [], 0
        row += [Part("  "), cell]
        used += 2 + len(cell.text)
    yield tuple(row)


def _state(picture: Picture) -> Iterator[Row]:
    """Why nothing new starts, where that is so."""
    match picture.phase:
        case Phase.RUNNING:
            return
        case Phase.PAUSED:
            yield (Part(f"{pause_text(picture.text)}; to go on: orchestrate continue", Mood.WARNING),)
        case Phase.DRAINING:
            yield (Part("draining: nothing new starts; Ctrl-C again stops what is running", Mood.WARNING),)
        case Phase.HALTED:
            yield (Part(f"halted: {picture.text}", Mood.BAD),)


def _tells_of_waves(picture: Picture) -> bool:
    """A single wave is the run, until it waits behind it."""
    return len(picture.waves) > 1 or any(wave.state in BEHIND for wave in picture.waves)


def _waves(waves: Sequence[WavePicture], most: int) -> Iterator[Row]:
    """Those that are done in one line, then the others, then how many more there are."""
    done = [wave for wave in waves if wave.state is WaveState.DONE]
    open_ones = [wave for wave in waves if wave.state is not WaveState.DONE]
    if most < 1:
        return
    if done:
        yield _folded(done)
    room = most - bool(done)
    if len(open_ones) > room:
        room -= 1
    shown, rest = open_ones[: max(0, room)], open_ones[max(0, room) :]
    widths = _widths(shown)
    yield from (_wave(wave, *widths) for wave in shown)
    if rest and most > bool(done):
        total = sum(wave.total for wave in rest)
        yield (Part(f"  and {counted(len(rest), 'more wave')} with {counted(total, 'target')}", Mood.FAINT),)


def _widths(waves: Sequence[WavePicture]) -> tuple[int, int]:
    """Cells of the names, and of the numbers."""
    names = max((min(NAME, cell_len(visible(wave.name))) for wave in waves), default=0)
    return names, max((len(_share(wave)) for wave in waves), default=0)


def _share(wave: WavePicture) -> str:
    return f"{wave.done:,}/{wave.total:,}"


def _folded(waves: Sequence[WavePicture]) -> Row:
    done, total = sum(wave.done for wave in waves), sum(wave.total for wave in waves)
    failed = sum(wave.failed for wave in waves)
    parts = [Part(f"  {counted(len(waves), 'wave')} done  {done:,}/{total:,}", Mood.FAINT)]
    return (*parts, Part(f"  {failed:,} failed", Mood.BAD)) if failed else tuple(parts)


def _wave(wave: WavePicture, names: int, numbers: int) -> Row:
    name = cut(wave.name, names)
    text, mood = state_text(wave)
    parts = [Part(f"  {name}{' ' * (names - cell_len(name))}  {_share(wave):>{numbers}}")]
    if wave.failed:
        parts.append(Part(f"  {wave.failed:,} failed", Mood.BAD))
    return (*parts, Part(f"  {text}", mood))


def _budget(picture: Picture) -> Iterator[Row]:
    text = budget_text(picture)
    if text:
        yield (Part(text, Mood.FAINT),)


def budget_text(picture: Picture) -> str:
    """`budget: 2 failures left, 0 in this wave`; nothing where no limit holds."""
    parts = []
    if picture.failures_left is not None:
        parts.append(f"{counted(picture.failures_left, 'failure')} left")
    wave = picture.wave
    if wave is not None and wave[1].failures_left is not None and len(picture.waves) > 1:
        parts.append(f"{wave[1].failures_left:,} in this wave")
    return f"budget: {', '.join(parts)}" if parts else ""


def _longest(picture: Picture) -> Iterator[Row]:
    for number, (target, seconds) in enumerate(picture.longest):
        lead = "longest at work:" if number == 0 else ""
        yield (Part(f"{lead:<16} {duration(seconds):>6}  ", Mood.FAINT), Part(target))

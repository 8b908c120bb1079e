"""The waves of a strategy, taken together: each has a name of its own, and something to take."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.registry.documents import Path
from orchestrator.registry.models import WaveEntry
from orchestrator.registry.problems import Problems


def check_waves(path: Path, waves: Sequence[WaveEntry], problems: Problems) -> None:
    """Note what is wrong between the waves at a path of the document."""
    for number, wave in enumerate(waves):
        here = (*path, number)
        _check_name(here, wave, waves[:number], problems)
        if number < len(waves) - 1:
            _check_leaves_some(here, wave, problems)
        if wave.growth is not None and str(wave.size or "").endswith("%"):
            remedy = "write how many tenants the first one takes, like `size: 10`"
            problems.add((*here, "size"), "waves that grow begin with a number of tenants, not a percentage", remedy)
    _check_percentages(path, waves, problems)


def _check_name(here: Path, wave: WaveEntry, before: Sequence[WaveEntry], problems: Problems) -> None:
    place = (*here, "name")
    for other in before:
        if wave.name == other.name:
            problems.add(place, f"two waves are called `{wave.name}`", "rename one")
        elif text := _grown_alike(wave, other) or _grown_alike(other, wave):
            problems.add(place, text, "rename one")


def _grown_alike(wave: WaveEntry, other: WaveEntry) -> str | None:
    """What to say where one of the waves that a wave grows into is called like another."""
    if wave.growth is None or not re.fullmatch(re.escape(wave.name) + r"-[0-9]+", other.name):
        return None
    return f"wave `{wave.name}` grows into `{wave.name}-1`, `{wave.name}-2` and so on, and another is `{other.name}`"


def _check_leaves_some(here: Path, wave: WaveEntry, problems: Problems) -> None:
    if wave.selector is not None:
        return
    if wave.growth is not None:
        text = f"wave `{wave.name}` grows until it has all, but others follow"
        problems.add((*here, "growth"), text, "give it `selector`, or put it last")
    elif wave.size is None:
        text = f"wave `{wave.name}` takes the rest, but others follow"
        problems.add(here, text, "give it `size` or `selector`, or put it last")


def _check_percentages(path: Path, waves: Sequence[WaveEntry], problems: Problems) -> None:
    """Percentages add up, among the waves of one selector."""
    taken: dict[str | None, float] = {}
    for number, wave in enumerate(waves):
        size = str(wave.size or "")
        before = taken.get(wave.selector, 0.0)
        taken[wave.selector] = before + (float(size[:-1]) if size.endswith("%") else 0.0)
        if before <= 100 < taken[wave.selector]:
            whose = "of the tenants" if wave.selector is None else f"of `{wave.selector}`"
            problems.add((*path, number, "size"), f"the waves up to this one take more than 100 % {whose}", "lower one")

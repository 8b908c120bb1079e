"""Which tenant is in which wave of a strategy. Pure, and the same on every machine.

First match wins, and membership goes by tenant. Whoever others come after is in the earliest wave of those behind it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.plans import Job, Wave
from orchestrator.selectors import parse_labels, stable_hash
from orchestrator.strategy import Growth, Size, Strategy, WaveRule

#: the one wave of a strategy without waves
ONLY_WAVE = "all"
#: the wave of those whom no rule takes
REST = "rest"
#: how much larger each wave of an exponential growth is than the one before
GROWTH_FACTOR = 10
_HASHES = 2**64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the command line says about every wave."""

    #: most jobs in flight
    concurrency: int | None = None
    #: no wave has a budget
    keep_going: bool = False
    #: maintenance windows do not count
    outside_windows: bool = False


def spread(strategy: Strategy, jobs: Sequence[Job], limits: Limits | None = None) -> tuple[Wave, ...]:
    """The jobs in their waves; waves that nobody is in are left out."""
    spreading = _Spreading(jobs)
    chosen: list[tuple[WaveRule, list[Job]]] = []
    for rule in strategy.waves:
        chosen += [(named, spreading.take(tenants)) for named, tenants in spreading.members(rule)]
    rest = spreading.take(list(spreading.left))
    if rest or not strategy.waves:
        chosen.append((WaveRule(name=_name_of_rest(strategy)), rest))
    last = chosen[-1][0] if chosen else None
    shape = _Shape(strategy, limits or Limits())
    return tuple(shape.wave(rule, own, is_last=rule is last) for rule, own in chosen if own)


def fraction(tenant: str) -> float:
    """Where a tenant lies between 0 and 100: the same for ever, whoever else is in the fleet."""
    return int.from_bytes(stable_hash(tenant)) / _HASHES * 100


def rule_of(wave: str, rules: Sequence[WaveRule]) -> WaveRule | None:
    """The rule that a wave of a plan came from: of a rule `ramp` that grows, `ramp-1`, `ramp-2` and so on."""
    return next((rule for rule in rules if wave in (rule.name, _numbered(rule, wave))), None)


def _numbered(rule: WaveRule, wave: str) -> str | None:
    number = wave.removeprefix(f"{rule.name}-")
    return wave if rule.growth is not None and number != wave and number.isdecimal() else None


def _name_of_rest(strategy: Strategy) -> str:
    if not strategy.waves:
        return ONLY_WAVE
    names = {rule.name for rule in strategy.waves}
    return REST if REST not in names else f"{REST}-of-all"


class _Spreading:
    """Tenants that no wave has taken yet, with their jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        #: jobs of each tenant, with their places in the plan
        self._own: dict[str, list[tuple[int, Job]]] = {}
        for place, job in enumerate(jobs):
            self._own.setdefault(job.tenant, []).append((place, job))
        self._labels: Mapping[str, Mapping[str, str]] = {job.tenant: job.labels for job in jobs}
        owners = {job.target: job.tenant for job in jobs}
        self._before: dict[str, list[str]] = {}
        for job in jobs:
            before = [owners[name] for name in job.after if name in owners]
            self._before.setdefault(job.tenant, []).extend(name for name in before if name != job.tenant)
        self._thresholds: dict[str | None, float] = {}
        #: in the order of the plan
        self.left: dict[str, None] = dict.fromkeys(job.tenant for job in jobs)

    def members(self, rule: WaveRule) -> Iterator[tuple[WaveRule, list[str]]]:
        """The waves of a rule, each with its tenants; whoever asks for the next has taken those of the one before."""
        if rule.growth is None:
            yield rule, self._sized(rule)
            return
        size, number = (rule.size or Size(count=1)).count or 1, 1
        # Sorted once: slow growth of a large fleet makes thousands of waves.
        candidates = sorted(self._candidates(rule.selector), key=stable_hash)
        while candidates := [name for name in candidates if name in self.left]:
            yield dataclasses.replace(rule, name=f"{rule.name}-{number}"), candidates[:size]
            number += 1
            size *= GROWTH_FACTOR if rule.growth is Growth.EXPONENTIAL else 1

    def _sized(self, rule: WaveRule) -> list[str]:
        candidates, size = self._candidates(rule.selector), rule.size
        if size is None:
            return candidates
        if size.count is not None:
            return _lowest(candidates, size.count)
        threshold = self._thresholds.get(rule.selector, 0.0) + (size.percent or 0.0)
        self._thresholds[rule.selector] = threshold
        return [name for name in candidates if fraction(name) < threshold] or _lowest(candidates, 1)

    def _candidates(self, selector: str | None) -> list[str]:
        if selector is None:
            return list(self.left)
        matches = parse_labels(selector)
        return [name for name in self.left if matches(self._labels[name])]

    def take(self, tenants: Sequence[str]) -> list[Job]:
        """The jobs of these tenants, and of those that must be done before them, in the order of the plan."""
        taken: list[tuple[int, Job]] = []
        waiting = list(tenants)
        while waiting:
            name = waiting.pop()
            if name in self.left:
                del self.left[name]
                taken += self._own[name]
                waiting += self._before.get(name, ())
        return [job for _, job in sorted(taken, key=lambda entry: entry[0])]


def _lowest(names: Sequence[str], count: int) -> list[str]:
    return sorted(names, key=stable_hash)[:count]


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """What a wave is like beside its jobs."""

    strategy: Strategy
    limits: Limits

    def wave(self, rule: WaveRule, jobs: Sequence[Job], *, is_last: bool) -> Wave:
        """One wave of a plan."""
        order = rule.order_by or self.strategy.order_by
        ordered = jobs if order is None else sorted(jobs, key=lambda job: _place(job.labels.get(order)))
        at_once = self._concurrency(rule)
        window = self.strategy.window if rule.window is None else rule.window
        return Wave(
            name=rule.name,
            jobs=tuple(dataclasses.replace(job, wave=rule.name) for job in ordered),
            concurrency=at_once or self.strategy.jobs_at_once(),
            auto=at_once is None,
            order_by=order,
            max_failures=self._budget(rule, len(jobs), is_last=is_last),
            strict=self.strategy.strict if rule.strict is None else rule.strict,
            pause=rule.pause,
            gate=None if rule.gate is None else rule.gate.described(),
            window=() if self.limits.outside_windows else window,
        )

    def _concurrency(self, rule: WaveRule) -> int | None:
        """None for as many as suits the machine."""
        written = rule.concurrency or self.strategy.concurrency
        cap = self.limits.concurrency
        if written is None:
            return cap
        return written if cap is None else min(written, cap)

    def _budget(self, rule: WaveRule, due: int, *, is_last: bool) -> int | None:
        if self.limits.keep_going:
            return None
        if rule.max_failures is not None:
            return rule.max_failures.of(due)
        return None if is_last else 0


def _place(value: str | None) -> tuple[bool, list[tuple[bool, int, str]]]:
    """Numbers in a label's value count as numbers; who does not have the label comes last."""
    parts = re.split(r"([0-9]+)", value or "")
    return value is None, [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]

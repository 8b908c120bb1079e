"""Strategies as written to `Strategy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.plans import Retries
from orchestrator.registry.models import RetriesEntry, StrategyEntry, Strict, WaveEntry
from orchestrator.strategy import Budget, Strategy, WaveRule


def read_strategies(entries: Mapping[str, StrategyEntry]) -> dict[str, Strategy]:
    """Every strategy by its name; the built-in `default` is there unless another is called so."""
    return {"default": Strategy()} | {name: _strategy(name, entry) for name, entry in entries.items()}


def _strategy(name: str, entry: StrategyEntry) -> Strategy:
    return Strategy(
        name=name,
        concurrency=entry.concurrency,
        max_failures=entry.max_failures if isinstance(entry.max_failures, Budget) else Budget(count=0),
        waves=tuple(_wave(wave) for wave in entry.waves),
        retries=_retries(entry.retries),
        extra=_rest(entry, {"concurrency", "max_failures", "retries", "waves"}),
    )


def _retries(entry: RetriesEntry) -> Retries:
    """What is not written keeps its built-in value; an empty list is written."""
    usual = Retries()
    return Retries(
        busy=usual.busy if entry.busy is None else tuple(entry.busy),
        server=usual.server if entry.server is None else tuple(entry.server),
        lost=usual.lost if entry.lost is None else entry.lost,
    )


def _wave(entry: WaveEntry) -> WaveRule:
    return WaveRule(
        name=entry.name,
        size=entry.size,
        selector=entry.selector,
        concurrency=entry.concurrency,
        max_failures=entry.max_failures,
        extra=_rest(entry, {"name", "size", "selector", "concurrency", "max_failures"}),
    )


def _rest(entry: Strict, known: set[str]) -> dict[str, Any]:
    return entry.model_dump(exclude_unset=True, exclude=known)

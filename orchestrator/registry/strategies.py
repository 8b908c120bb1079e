"""Strategies as written to `Strategy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.plans import Retries
from orchestrator.registry.documents import Path
from orchestrator.registry.gates import check_gate
from orchestrator.registry.models import GateEntry, RetriesEntry, StrategyEntry, WaveEntry
from orchestrator.registry.problems import Problems
from orchestrator.registry.targets import Surroundings
from orchestrator.registry.waves import check_waves
from orchestrator.strategy import Budget, GateRule, Growth, Size, Strategy, WaveRule


def read_strategies(
    entries: Mapping[str, StrategyEntry], surroundings: Surroundings, problems: Problems
) -> dict[str, Strategy]:
    """Every strategy by its name; the built-in `default` is there unless another is called so."""
    for name, entry in entries.items():
        _check(("strategies", name, "waves"), entry.waves, surroundings, problems)
    return {"default": Strategy()} | {name: _strategy(name, entry) for name, entry in entries.items()}


def _check(path: Path, waves: Sequence[WaveEntry], surroundings: Surroundings, problems: Problems) -> None:
    check_waves(path, waves, problems)
    for number, wave in enumerate(waves):
        if wave.gate is not None:
            check_gate((*path, number, "gate"), wave.gate, surroundings, problems)


def _strategy(name: str, entry: StrategyEntry) -> Strategy:
    return Strategy(
        name=name,
        concurrency=entry.concurrency,
        max_failures=entry.max_failures if isinstance(entry.max_failures, Budget) else Budget(count=0),
        waves=tuple(_wave(wave) for wave in entry.waves),
        retries=_retries(entry.retries),
        strict=bool(entry.strict),
        transaction=entry.transaction,
        order_by=entry.order_by,
        window=tuple(entry.window or ()),
        freeze=tuple(entry.freeze or ()),
        deadline=entry.deadline,
        sweep=bool(entry.sweep),
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
        size=None if entry.size is None else Size.parse(entry.size),
        selector=entry.selector,
        growth=None if entry.growth is None else Growth(entry.growth),
        order_by=entry.order_by,
        concurrency=entry.concurrency,
        max_failures=entry.max_failures,
        strict=entry.strict,
        pause=entry.pause,
        gate=None if entry.gate is None else _gate(entry.gate),
        window=None if entry.window is None else tuple(entry.window),
    )


def _gate(entry: GateEntry) -> GateRule:
    """Variables stay as written: they are filled in when the gate is asked."""
    usual = GateRule()
    return GateRule(
        command=None if entry.command is None else tuple(entry.command),
        sql=entry.sql,
        http=entry.http,
        on=entry.on,
        url=entry.url,
        status=entry.status,
        path=entry.path,
        headers=entry.headers or {},
        timeout=usual.timeout if entry.timeout is None else entry.timeout,
        interval=usual.interval if entry.interval is None else entry.interval,
        count=usual.count if entry.count is None else entry.count,
    )

"""Gates as written: each key belongs to its kind, and all that is to be filled in is there before a run needs it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from orchestrator.registry.addresses import check_address, has_user
from orchestrator.registry.documents import Path
from orchestrator.registry.models import GateEntry
from orchestrator.registry.problems import Mistake, Problems
from orchestrator.registry.sources.places import settled
from orchestrator.registry.targets import Surroundings

#: keys that only one kind of gate has
_KEYS = {"sql": ("on", "url"), "http": ("status", "path", "headers")}


def check_gate(path: Path, gate: GateEntry, surroundings: Surroundings, problems: Problems) -> None:
    """Note what is wrong with the gate at a path of the document."""
    for key, mistake in itertools.chain(_misplaced(gate), _missing(gate)):
        problems.add_mistake((*path, key), mistake)
    for place, kind, raw in _written(gate):
        try:
            _check_text(kind, raw, surroundings)
        except Mistake as mistake:
            problems.add_mistake((*path, *place), mistake)


def _misplaced(gate: GateEntry) -> Iterator[tuple[str, Mistake]]:
    for kind, keys in _KEYS.items():
        for key in keys:
            if getattr(gate, key) is not None and getattr(gate, kind) is None:
                yield key, Mistake(f"`{key}` belongs to a gate with `{kind}`", "remove it")


def _missing(gate: GateEntry) -> Iterator[tuple[str, Mistake]]:
    if gate.sql is not None and gate.on is None and gate.url is None:
        remedy = "add `on: each` for every target that the wave brought up, or `url` for one database"
        yield "sql", Mistake("`sql` without a database", remedy)
    if gate.sql is not None and gate.on is not None and gate.url is not None:
        yield "url", Mistake("`on: each` and `url` exclude each other", "keep one")
    if gate.path is not None and "" in gate.path.split("."):
        yield "path", Mistake("`path` is no path into JSON", "write it like checks.0.ok")


def _written(gate: GateEntry) -> Iterator[tuple[Path, str, str]]:
    """Where each text stands in which variables are filled in, of which kind it is, and the text."""
    for number, argument in enumerate(gate.command or ()):
        yield ("command", number), "text", argument
    for name, value in (gate.headers or {}).items():
        yield ("headers", name), "text", value
    texts = (("sql", gate.sql), ("url", gate.url), ("http", gate.http))
    yield from (((kind,), kind, raw) for kind, raw in texts if raw is not None)


def _check_text(kind: str, raw: str, surroundings: Surroundings) -> None:
    if kind == "url":
        settled(raw, surroundings)
        return
    text = surroundings.variables.text(raw)
    if kind == "http":
        check_address(text)
        if has_user(text):
            raise Mistake("the address holds a user", "send an `Authorization` under `headers`")

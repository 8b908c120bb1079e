"""Tenants read at run time: one module per kind, each with a `read` that gives names or mappings."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.redaction import first_line, scrub
from orchestrator.registry.models import AnySource
from orchestrator.registry.problems import Mistake
from orchestrator.registry.sources.rows import Reader, Rows
from orchestrator.registry.targets import Surroundings


def title_of(source: AnySource) -> str:
    """The source as problems call it."""
    return f"source `{source.name or source.type}`"


def read_source(source: AnySource, surroundings: Surroundings, complain: Callable[[Mistake], None]) -> Rows:
    """All tenants of a source, read within its time; a failing, empty or short one is told to `complain`."""
    title = title_of(source)
    try:
        items = _within(source.timeout, lambda: list(_read(source, surroundings)))
    except Mistake as mistake:
        complain(Mistake(f"{title}: {mistake.text}", mistake.remedy))
        return {}
    reader = Reader()
    rows = reader.read_all(items)
    for wrong in reader.mistakes:
        complain(Mistake(f"{title}: {wrong.text}", wrong.remedy))
    if not reader.mistakes:
        _check_size(source, len(rows), complain)
    return rows


def _read(source: AnySource, surroundings: Surroundings) -> Iterable[Any]:
    # Only kinds that are in use are imported: a fleet without Flask does not pay for Flask.
    module = importlib.import_module(f"{__name__}.{source.type}")
    found: Iterable[Any] = module.read(source, surroundings)
    return found


def _check_size(source: AnySource, count: int, complain: Callable[[Mistake], None]) -> None:
    if count == 0 and not source.allow_empty:
        complain(
            Mistake(f"{title_of(source)} gave no tenants", "mend it, or write `allow_empty: true` if it may be empty")
        )
    elif count < source.min and not (count == 0 and source.allow_empty):
        complain(
            Mistake(
                f"{title_of(source)} gave {count} tenants, fewer than its `min: {source.min}`",
                "mend it, or lower `min`",
            )
        )


def _within(seconds: float, read: Callable[[], list[Any]]) -> list[Any]:
    """Run in a thread that may be left behind; raises `Mistake` for whatever goes wrong in it."""
    answer: list[list[Any]] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(read())
        except BaseException as error:  # noqa: BLE001 - a user's callable may raise anything, SystemExit as well
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True, name="source")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Mistake(f"no answer within {seconds:g} s", "mend it, or raise its `timeout`")
    if failure:
        raise _as_mistake(failure[0])
    return answer[0]


def _as_mistake(error: BaseException) -> Mistake:
    if isinstance(error, Mistake):
        return error
    message = first_line(scrub(str(error)))
    if isinstance(error, OrchestratorError):
        text, _, remedy = message.rpartition("; ")
        return Mistake(text or remedy, remedy if text else "")
    return Mistake(f"failed: {type(error).__name__}: {message}".removesuffix(": "), "run it by hand to see why")

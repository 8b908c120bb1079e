"""Modules that take long to import, each imported when it is first used: `--help` and completion need none of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator import (
        adoption,
        authoring,
        events,
        ledger,
        logs,
        outcomes,
        plans,
        project,
        registry,
        rollout,
        selectors,
        strategy,
    )
    from orchestrator.cli import display

__all__ = [
    "adoption",
    "authoring",
    "display",
    "events",
    "ledger",
    "logs",
    "outcomes",
    "plans",
    "project",
    "registry",
    "rollout",
    "selectors",
    "strategy",
]


def __getattr__(name: str) -> Any:
    """Import the module of that name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package = __package__ if name == "display" else "orchestrator"
    return importlib.import_module(f"{package}.{name}")

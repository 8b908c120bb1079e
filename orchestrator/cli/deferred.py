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
        plan_files,
        plans,
        project,
        questions,
        registry,
        rollout,
        selectors,
        strategy,
    )
    from orchestrator.cli import display
    from orchestrator.reports import github, prometheus

__all__ = [
    "adoption",
    "authoring",
    "display",
    "events",
    "github",
    "ledger",
    "logs",
    "outcomes",
    "plan_files",
    "plans",
    "project",
    "prometheus",
    "questions",
    "registry",
    "rollout",
    "selectors",
    "strategy",
]

_PACKAGES = {"display": __package__, "github": "orchestrator.reports", "prometheus": "orchestrator.reports"}


def __getattr__(name: str) -> Any:
    """Import the module of that name; from then on it is an attribute, as thousands of events ask for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{_PACKAGES.get(name, 'orchestrator')}.{name}")
    globals()[name] = module
    return module

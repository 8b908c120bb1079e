"""Roll one Alembic history out to every tenant database and schema of a SaaS."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.errors import OrchestratorError
    from orchestrator.outcomes import Outcome, Report, Status
    from orchestrator.plans import Plan
    from orchestrator.project import Project
    from orchestrator.tenants import Target, Tenant

__all__ = ["OrchestratorError", "Outcome", "Plan", "Project", "Report", "Status", "Target", "Tenant"]

_HOMES = {
    "OrchestratorError": "errors",
    "Outcome": "outcomes",
    "Plan": "plans",
    "Project": "project",
    "Report": "outcomes",
    "Status": "outcomes",
    "Target": "tenants",
    "Tenant": "tenants",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `orchestrate --help` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Databases that sources read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from orchestrator.databases import backend_for
from orchestrator.errors import OrchestratorError
from orchestrator.outcomes import FailureKind
from orchestrator.redaction import remember_arguments
from orchestrator.registry.problems import Mistake
from orchestrator.registry.targets import Surroundings
from orchestrator.registry.urls import fill_url, settle_url
from orchestrator.registry.variables import take_apart
from orchestrator.tenants import Hidden, Target, Tenant, Timeouts


def settled(raw: str, surroundings: Surroundings, *, needs_database: bool = True) -> URL:
    """The checked URL of a source."""
    url = fill_url(take_apart(raw, placeholders=False), surroundings.variables.value)
    return settle_url(url, surroundings.root, needs_database=needs_database)[0]


def filled_arguments(arguments: Mapping[str, Any], surroundings: Surroundings) -> Hidden:
    """Connect arguments with variables put in."""
    text = surroundings.variables.text
    filled = Hidden({key: text(value) if isinstance(value, str) else value for key, value in arguments.items()})
    remember_arguments(filled)
    return filled


def place_of(url: URL, arguments: Mapping[str, Any], seconds: float) -> Target:
    """The source's database as something that can be connected to."""
    timeouts = Timeouts(connect=seconds, statement=seconds)
    return Target(tenant=Tenant(name="source"), url=url, connect_args=arguments, timeouts=timeouts)


def failure_of(error: Exception, url: URL, *, query: bool = False) -> Mistake:
    """What a driver or server said, as far as it may be shown; its advice is meant for revisions, not for a query."""
    if isinstance(error, OrchestratorError):
        text, _, remedy = str(error).partition("; ")
        return Mistake(text, remedy)
    failure = backend_for(url).classify(error)
    code = f" ({failure.code})" if failure.code else ""
    is_fault_of_query = query and failure.kind not in (FailureKind.TRANSIENT, FailureKind.AMBIGUOUS)
    advice = "mend its `query`, which can only read" if is_fault_of_query else failure.advice
    return Mistake(f"failed: {failure.message}{code}", advice or "mend its `url`")

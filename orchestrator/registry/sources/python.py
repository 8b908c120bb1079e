"""Tenants as a Python callable gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.registry.models import PythonSource
from orchestrator.registry.sources.callables import call
from orchestrator.registry.targets import Surroundings


def read(source: PythonSource, surroundings: Surroundings) -> Iterable[Any]:
    """Call it; the folder of tenants.yaml and the current one are importable."""
    return call(source.call, surroundings.root)

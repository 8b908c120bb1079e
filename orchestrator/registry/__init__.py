"""All tenants, validated: tenants.yaml and the sources that it names."""

from orchestrator.registry.discovery import unregistered
from orchestrator.registry.loading import identify, load
from orchestrator.registry.notifications import subscribe
from orchestrator.registry.registries import Identity, Pattern, Registry, refuse_unconfirmed
from orchestrator.registry.scalars import read_duration
from orchestrator.registry.schemas import json_schema

__all__ = [
    "Identity",
    "Pattern",
    "Registry",
    "identify",
    "json_schema",
    "load",
    "read_duration",
    "refuse_unconfirmed",
    "subscribe",
    "unregistered",
]

"""All tenants, validated: tenants.yaml and the sources that it names."""

from orchestrator.registry.discovery import unregistered
from orchestrator.registry.loading import load
from orchestrator.registry.registries import Pattern, Registry, refuse_unconfirmed
from orchestrator.registry.schemas import json_schema

__all__ = ["Pattern", "Registry", "json_schema", "load", "refuse_unconfirmed", "unregistered"]

"""The JSON Schema of tenants.yaml, for editors: `# yaml-language-server: $schema=…` in its first line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.registry.models import RegistryFile

#: the generated file, shipped with the package
SCHEMA_FILE = Path(__file__).with_name("tenants.schema.json")


def json_schema() -> dict[str, Any]:
    """The schema as generated from the models that the registry is checked with."""
    schema = RegistryFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "tenants.yaml"}


def schema_text() -> str:
    """The schema as the shipped file holds it."""
    return json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"

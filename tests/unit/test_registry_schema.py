"""The JSON Schema for editors: up to date, and of one mind with the registry about real files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml

from orchestrator import registry
from orchestrator.registry.schemas import SCHEMA_FILE, schema_text

REPOSITORY = Path(__file__).parents[2]

REFERENCE = """
version: 1
project: billing
environment: production
protected: true
defaults:
  url: "postgresql+psycopg://app:${DB_PASSWORD}@db.internal/saas"
  schema: "tenant_{tenant}"
  search_path: [extensions, public]
  role: migrator
  connect_args: {sslmode: verify-full}
  labels: {tier: standard}
  timeouts: {connect: 10s, lock: 1, statement: 15m}
  password: {command: [token], ttl: 10m}
profiles:
  maria: {url: "mysql+pymysql://app@maria1.internal/{tenant}", schema: null, search_path: null, password: x}
servers:
  "db.internal:5432": {concurrency: 8}
tenants:
  acme: {labels: {region: eu}, after: [shared]}
  shared:
  initech: {databases: {core: {url: "sqlite:///x"}, analytics: }}
  hooli: {state: quarantined, reason: "x", owner: ops, until: "2026-12-01"}
sources:
  - {type: sql, url: "x", query: "SELECT 1", min: 100}
  - {type: schemas, url: "x", match: "tenant_*"}
  - {type: command, run: ["./list-tenants"]}
  - {type: http, url: "x", headers: {Authorization: "Bearer ${TOKEN}"}, profile: maria}
  - {type: python, call: "myapp.tenants:all_tenants"}
  - {type: flask, app: "myapp:create_app", tenants: "myapp:names"}
strategies:
  default: {concurrency: auto, max_failures: 0, retries: {busy: [1m, 5m], server: [], lost: 2}}
  careful:
    max_failures: 2%
    freeze: ["2026-12-24"]
    window: "Sat 02:00-04:00"
    waves:
      - {name: canary, size: 1}
      - {name: internal, selector: "tier=internal", pause: 10m, gate: {command: ["./smoke"]}}
      - {name: early, size: 10%, gate: {sql: "SELECT 1", on: each}, window: [Sat, Sun]}
      - {name: next, size: 10%, gate: {http: "https://h/", status: 204, path: ok, headers: {A: b}}}
      - {name: rest}
ledger: "sqlite:///.orchestrate/ledger.db"
"""


class As12(yaml.SafeLoader):
    """Reads `on` as a word, as YAML 1.2 does, and with it editors and the registry itself."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


As12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def valid(data: Any) -> bool:
    validator = jsonschema.Draft202012Validator(registry.json_schema())
    return bool(validator.is_valid(data))


def test_the_shipped_schema_is_the_generated_one() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run `python -m orchestrator.registry`"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text()))


@pytest.mark.parametrize("text", [REFERENCE, (REPOSITORY / "tenants.yaml").read_text()])
def test_files_that_load_fit_the_schema(text: str) -> None:
    data = yaml.load(text, As12)
    jsonschema.Draft202012Validator(registry.json_schema()).validate(data)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"version": 2},
        {"version": 1, "tennants": {}},
        {"version": 1, "tenants": {"acme": {"labls": {}}}},
        {"version": 1, "sources": [{"type": "sql", "url": "x"}]},
        {"version": 1, "tenants": {"acme": {"labels": {"shard": 12}}}},
        {"version": 1, "servers": {"h:1": {}}},
        {"version": 1, "strategies": {"s": {"waves": [{"name": "a", "gate": {"sql": "SELECT 1", "on": "all"}}]}}},
    ],
)
def test_files_that_do_not_load_do_not_fit_the_schema(data: Any) -> None:
    assert not valid(data)

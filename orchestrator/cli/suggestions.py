"""What the shell proposes for a word half typed: from files alone, so that Tab touches no network and no database."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

_META = "orchestrator.cli"
_TOP_LEVEL = re.compile(r"(?P<key>[\w-]+):\s*(?:#.*)?$")
_ENTRY = re.compile(r"(?P<indent>[ ]+)(?P<key>[^\s#'\"{}\[\]:][^:]*?|'[^']*'|\"[^\"]*\"):(?:\s|$)")


def tenants(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Names of tenants: those of tenants.yaml, and those that its sources gave the last time."""
    done, comma, prefix = incomplete.rpartition(",")
    registry = _registry(ctx)
    names = {*_keys_below(registry, "tenants"), *_remembered(registry, "tenants")}
    return [CompletionItem(done + comma + name) for name in sorted(names) if name.startswith(prefix)]


def strategies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Names of strategies."""
    names = {"default", *_keys_below(_registry(ctx), "strategies")}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The latest runs, as the last command that knew them left them."""
    return [CompletionItem(run) for run in _remembered(_registry(ctx), "runs") if run.startswith(incomplete)]


def remember(root: Path, *, tenants: Iterable[str] | None = None, runs: Sequence[str] | None = None) -> None:
    """Keep names for the next Tab; a folder that cannot be written costs the completion and nothing else."""
    path = _cache(root)
    kept = _read(path)
    if tenants is not None:
        kept["tenants"] = sorted(set(tenants))
    if runs is not None:
        kept["runs"] = list(runs)
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".completion-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        Path(temporary).replace(path)


def _registry(ctx: click.Context) -> Path:
    given = ctx.meta.get(_META, {})
    config = given.get("config") or os.environ.get("ORCHESTRATE_CONFIG") or os.environ.get("ALEMBIC_CONFIG")
    registry = given.get("registry") or os.environ.get("ORCHESTRATE_REGISTRY")
    return Path(registry) if registry else Path(config or "alembic.ini").parent / "tenants.yaml"


def _cache(root: Path) -> Path:
    return root / ".orchestrate" / "completion.json"


def _remembered(registry: Path, key: str) -> list[str]:
    return [str(name) for name in _read(_cache(registry.parent)).get(key, [])]


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keys_below(path: Path, section: str) -> Iterator[str]:
    """Keys of a block of tenants.yaml by their indentation: reading it as YAML would cost Tab its speed."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    inside, indent = False, None
    for line in lines:
        top = _TOP_LEVEL.match(line)
        if top:
            inside, indent = top["key"] == section, None
        entry = _ENTRY.match(line)
        if inside and entry and (indent is None or entry["indent"] == indent):
            indent = entry["indent"]
            yield entry["key"].strip("'\"")

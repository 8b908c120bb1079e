"""Writes tenants.yaml into a folder and loads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator import registry
from orchestrator.errors import RegistryError
from orchestrator.registry import Registry
from orchestrator.settings import Settings
from orchestrator.tenants import Target


@dataclasses.dataclass(frozen=True)
class Folder:
    """A project's folder."""

    path: Path

    def write(self, text: str, name: str = "tenants.yaml") -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def load(self, text: str, environ: Mapping[str, str] | None = None, ledger: str | None = None) -> Registry:
        """The registry of a text, `version: 1` added."""
        self.write("version: 1\n" + text)
        return registry.load(self.settings(ledger), environ=environ or {})

    def settings(self, ledger: str | None = None) -> Settings:
        config = self.path / "alembic.ini"
        if not config.exists():
            config.write_text("[alembic]\nscript_location = %(here)s/alembic\n\n[analytics]\n")
        return Settings.load(config, self.path / "tenants.yaml", ledger=ledger, environ={})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """What is wrong with a text; it must be something."""
        with pytest.raises(RegistryError) as caught:
            self.load(text, environ)
        return [str(problem) for problem in caught.value.problems]


def by_name(loaded: Registry) -> dict[str, Target]:
    return {target.name: target for target in loaded.targets}

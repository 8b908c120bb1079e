"""Starting the command line in this process, with a fake project behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import commands, options
from tests.unit.cli_fakes import FakeProject

Invoke: TypeAlias = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProject:
    """What every command works on; replace its fields before `invoke`."""
    fake = FakeProject(root=tmp_path)

    def load(common: options.Common) -> FakeProject:
        fake.loaded_with = common
        return fake

    monkeypatch.setattr(options, "load_project", load)
    return fake


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run `orchestrate` with these words; the result has its output, standard error apart, and its exit code."""
    monkeypatch.setattr(sys, "argv", ["pytest"])

    def run(*arguments: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(commands, list(arguments), input=typed, prog_name="orchestrate")

    return run

"""Starting the command line in this process, with a fake project behind it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import commands, options, signals
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


@pytest.fixture
def interrupted() -> Iterator[None]:
    """Both signals raise KeyboardInterrupt where nobody handles them: SIGTERM would end the tests."""
    before = [(number, signal.signal(number, signal.default_int_handler)) for number in signals.SIGNALS]
    yield
    for number, handler in before:
        signal.signal(number, handler)

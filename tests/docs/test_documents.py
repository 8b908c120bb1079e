"""The documents say what is there: every command, every exit code, links that lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchestrator.cli import commands as group
from orchestrator.errors import ExitCode
from tests.docs import documents

PATHS = documents.paths()


def commands(command: click.Command, name: str = "orchestrate") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")
    else:
        yield name, command


def reference() -> str:
    return "\n".join(path.read_text() for path in PATHS if documents.ROOT / "docs" in path.parents)


def test_every_command_is_documented() -> None:
    assert isinstance(group, click.Group)
    text = reference()
    missing = [name for name, command in commands(group) if not command.hidden and name not in text]
    assert not missing


def test_every_command_has_help() -> None:
    assert isinstance(group, click.Group)
    silent = [name for name, command in commands(group) if not (command.help or "").strip()]
    assert not silent


def test_every_exit_code_is_documented() -> None:
    text = reference()
    missing = [code for code in ExitCode if not re.search(rf"\b{int(code)}\b", text)]
    assert not missing


def test_the_readme_is_short() -> None:
    lines = (documents.ROOT / "README.md").read_text().splitlines()
    assert 20 <= len(lines) <= 120


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(documents.ROOT)))
def test_links_resolve(path: Path) -> None:
    broken = [link for link in documents.links(path.read_text()) if not resolves(path, link)]
    assert not broken


def resolves(path: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return link.startswith("https://")
    place, _, anchor = link.partition("#")
    target = (path.parent / place).resolve() if place else path
    if not target.exists() or not target.is_relative_to(documents.ROOT):
        return False
    return not anchor or anchor in documents.anchors(target.read_text())


def test_something_in_docs_is_run() -> None:
    text = (documents.ROOT / "docs" / "tutorial.md").read_text()
    shells = [shell for block in documents.blocks(text) for shell in documents.shells(block)]
    assert text.lstrip().startswith("<!-- run by CI -->")
    assert len(shells) >= 5

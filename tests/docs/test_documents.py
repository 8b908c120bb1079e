"""The documents say what is there: every command, every exit code, links that lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from orchestrator import registry, testing
from orchestrator.cli import commands as group
from orchestrator.errors import ExitCode
from orchestrator.events import Event
from orchestrator.outcomes import FailureKind, RunStatus, Status
from orchestrator.registry.documents import parse
from orchestrator.registry.problems import Problems
from orchestrator.registry.validation import validate
from orchestrator.registry.variables import Variables
from orchestrator.standings import Standing
from orchestrator.tenants import State
from tests.docs import documents, reference

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


def everything() -> str:
    return "\n".join(path.read_text() for path in PATHS if documents.ROOT / "docs" in path.parents)


def test_every_command_is_documented() -> None:
    assert isinstance(group, click.Group)
    text = everything()
    missing = [name for name, command in commands(group) if not command.hidden and name not in text]
    assert not missing


def test_every_command_has_help() -> None:
    assert isinstance(group, click.Group)
    silent = [name for name, command in commands(group) if not (command.help or "").strip()]
    assert not silent


def test_every_exit_code_is_documented() -> None:
    text = everything()
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


def test_the_reference_of_commands_is_up_to_date() -> None:
    text = reference.PATH.read_text()
    assert text == reference.generated(text), "run `python -m tests.docs.reference`"
    assert reference.named(text) >= set(reference.every_command()) | set(reference.SHARED)


def test_lines_below_a_command_must_be_printed_in_order(tmp_path: Path) -> None:
    text = "```console\n$ orchestrate status  # exit 5\n1 target in 2.5 s\n\n…\nhead: …\n$ true \\\n  || false\n```\n"
    status, following = [shell for block in documents.blocks(text) for shell in documents.shells(block)]
    assert (status.text, status.exit_status, following.text) == ("orchestrate status", 5, "true \\\n  || false")
    assert status.missing("note\n1 target in 10 s\nhead: r0001\n", tmp_path) is None
    assert status.missing("head: r0001\n1 target in 10 s\n", tmp_path) == "head: …"
    assert status.missing("2 targets in 10 s\nhead: r0001\n", tmp_path) == "1 target in 2.5 s"
    place = documents.Shell(text="", shown=(f"{documents.FOLDER}/x",))
    assert place.missing(f"{tmp_path}/x\n", tmp_path) is None


def properties(schema: object) -> Iterator[str]:
    """Every key that a JSON schema knows, at any depth."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from properties(value)


def test_every_key_of_the_registry_is_documented() -> None:
    text = (documents.ROOT / "docs" / "reference" / "tenants-yaml.md").read_text()
    missing = [key for key in dict.fromkeys(properties(registry.json_schema())) if f"`{key}`" not in text]
    assert not missing


EXAMPLES = [
    pytest.param(block.text, id=f"{path.name}:{number}")
    for path in PATHS
    for number, block in enumerate(documents.blocks(path.read_text()))
    if block.language == "yaml"
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_registry_are_valid(text: str) -> None:
    whole = text if "version: 1" in text else f"version: 1\n{text}"
    document = parse(whole, "tenants.yaml")
    problems = Problems(document)
    validate(document, Variables(documents.ROOT, {}), problems)
    assert not list(problems)
    assert not document.problems


def test_every_word_of_the_report_is_documented() -> None:
    text = (documents.ROOT / "docs" / "reference" / "report.md").read_text()
    outcome = testing.an_outcome(status=Status.FAILED)
    words = [
        *(word for kind in (Status, RunStatus, FailureKind, Standing, State) for word in kind),
        *outcome.to_json(),
        *testing.a_failure().to_json(),
        *testing.a_job().to_json(),
        *testing.a_plan().to_json(),
        *(event.__name__ for event in get_args(Event)),
    ]
    missing = [word for word in dict.fromkeys(map(str, words)) if f"`{word}`" not in text]
    assert not missing

"""The help pages: complete, one line per option, in plain words, and fast."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from orchestrator.cli import commands

SLOW = ("alembic", "sqlalchemy", "pydantic", "rich", "flask", "yaml")
VERBS = [
    "init",
    "tenants",
    "status",
    "plan",
    "upgrade",
    "downgrade",
    "stamp",
    "resume",
    "retry",
    "rollback",
    "pause",
    "continue",
    "skip",
    "abort",
    "revision",
    "runs",
    "doctor",
    "completion",
]


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*path, name))


EVERY_COMMAND = [pytest.param(command, path, id=" ".join(path) or "orchestrate") for path, command in walk(commands)]
EVERY_LEAF = [case for case in EVERY_COMMAND if case.id not in ("orchestrate", "tenants", "runs")]


def test_the_verbs_are_listed_in_the_order_of_a_projects_life() -> None:
    assert commands.list_commands(click.Context(commands)) == VERBS


@pytest.mark.parametrize(("command", "path"), EVERY_COMMAND)
def test_every_command_has_a_sentence_for_its_help(command: click.Command, path: tuple[str, ...]) -> None:
    first = (command.help or "").split("\n\n")[0]

    assert first.endswith(".")
    if path:
        assert command.short_help
        assert command.short_help.endswith(".")
        assert len(command.short_help) <= 60


@pytest.mark.parametrize(("command", "path"), EVERY_COMMAND)
def test_every_option_has_one_line_of_help(command: click.Command, path: tuple[str, ...]) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert "\n" not in parameter.help
            assert len(parameter.help) <= 70, parameter.help


@pytest.mark.parametrize(("command", "path"), EVERY_COMMAND)
def test_help_pages_fit_eighty_columns(command: click.Command, path: tuple[str, ...]) -> None:
    context = click.Context(command, info_name=" ".join(("orchestrate", *path)), terminal_width=80)

    assert max(map(len, command.get_help(context).splitlines())) <= 80


@pytest.mark.parametrize(("command", "path"), EVERY_COMMAND)
def test_the_options_of_every_command_are_on_every_command(command: click.Command, path: tuple[str, ...]) -> None:
    names = {name for parameter in command.params for name in parameter.opts}

    assert {"-c", "-f", "-n", "-x", "-q", "-v", "-o", "--report", "--no-color", "--ledger"} <= names


@pytest.mark.parametrize("verb", ["status", "plan", "upgrade", "downgrade", "stamp"])
def test_targeting_is_the_same_everywhere(verb: str) -> None:
    command = commands.get_command(click.Context(commands), verb)
    assert command is not None
    names = {name for parameter in command.params for name in parameter.opts}

    assert {
        "--all",
        "-t",
        "--exclude",
        "-l",
        "--database",
        "--from-file",
        "--limit",
        "--failed",
        "--failed-in",
    } <= names


def test_help_and_completion_import_nothing_slow() -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli import commands\n"
        "for words in (['--help'], ['upgrade', '--help'], ['tenants', 'list', '--help']):\n"
        "    try:\n"
        "        commands.main(words, prog_name='orchestrate')\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        f"print([name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)\n"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ended.stderr == "[]\n"
    assert ended.returncode == 0

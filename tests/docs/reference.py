"""`python -m tests.docs.reference`: write what the program knows of its commands into docs/reference/commands.md.

The text between `<!-- generated: upgrade -->` and `<!-- end -->` is usage and options of that command. What many have
stands once, under the name of its heading in `--help`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from orchestrator.cli import commands
from tests.docs.documents import ROOT

PATH = ROOT / "docs" / "reference" / "commands.md"

#: headings of options that many commands have, and the command whose help has all of them
SHARED = {"Files": "status", "Output": "tenants list", "Targets": "upgrade", "Rolling out": "upgrade"}
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def every_command() -> dict[str, click.Command]:
    """Commands by their names without `orchestrate`, groups left out."""
    return dict(_commands(commands, ""))


def generated(text: str) -> str:
    """The document with its generated parts as they should be."""
    return _BLOCK.sub(lambda found: f"{found[1]}{_part(found['name'])}{found[3]}", text)


def named(text: str) -> set[str]:
    """What the document has a generated part for."""
    return {found["name"] for found in _BLOCK.finditer(text)}


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        if found is not None and not found.hidden:
            yield from _commands(found, f"{name} {child}".strip())


def _part(name: str) -> str:
    if name in SHARED:
        return _table(_options(every_command()[SHARED[name]], name))
    command = every_command()[name]
    context = click.Context(command, info_name=f"orchestrate {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    return f"```text\norchestrate {name} {usage}\n```\n\n{_own(command)}"


def _own(command: click.Command) -> str:
    """Options that only this command has, then those that it shares."""
    shared = [record for heading, other in SHARED.items() for record in _options(every_command()[other], heading)]
    own = [record for record in _options(command, None) if record not in shared]
    table = f"{_table(own)}\n" if own else ""
    links = [
        _link(command, heading) for heading in SHARED if any(each in shared for each in _options(command, heading))
    ]
    return f"{table}Also: {', '.join(links)}.\n"


def _link(command: click.Command, heading: str) -> str:
    """The heading, and where the command has not all of its options, those that it has or those that it has not."""
    link = f"[{heading.lower()}](#{heading.lower().replace(' ', '-')})"
    every = [record[0] for record in _options(every_command()[SHARED[heading]], heading)]
    here = {record[0] for record in _options(command, heading)}
    missing = [option for option in every if option not in here]
    if len(missing) > len(here):
        return f"{', '.join(f'`{option}`' for option in every if option in here)} of {link}"
    return f"{link} without {', '.join(f'`{option}`' for option in missing)}" if missing else link


def _options(command: click.Command, heading: str | None) -> list[tuple[str, str]]:
    context = click.Context(command)
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    chosen = [option for option in options if heading is None or getattr(option, "heading", None) == heading]
    return [record for option in chosen if (record := option.get_help_record(context)) is not None]


def _table(records: list[tuple[str, str]]) -> str:
    rows = [f"| `{_cell(option)}` | {_cell(' '.join(text.split()))} |" for option, text in records]
    return "\n".join(["| option | meaning |", "| --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(generated(PATH.read_text()))

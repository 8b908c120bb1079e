"""Click classes of ours: commands loaded when needed, options under headings, and the one place where errors end."""

from __future__ import annotations

import contextlib
import importlib
import keyword
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from orchestrator import tracebacks
from orchestrator.cli import deferred, terminals
from orchestrator.errors import ExitCode, OrchestratorError
from orchestrator.redaction import first_line, scrub

#: what a shell shows for a process that SIGPIPE ended
BROKEN_PIPE = 141
_RELATIVE = re.compile(r"-\d+\Z")
#: stands before `-1` while click parses, which would take it for an option
_GUARD = "\N{WORD JOINER}"
_OTHER = "Options"


class Option(click.Option):
    """An option that is listed under a heading of the help page."""

    def __init__(self, *args: Any, heading: str = _OTHER, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.heading = heading


class RevisionType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on, not before
    """A revision as Alembic writes it, `-1` and `+2` among them."""

    name = "revision"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Take away the guard that `Command` put before a `-1`."""
        return str(value).removeprefix(_GUARD)


class Command(click.Command):
    """A command that takes `-1` for a revision and lists its options under headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Guard relative revisions, then parse."""
        if any(isinstance(parameter.type, RevisionType) for parameter in self.params):
            args = list(_guarded(args, self._options_with_value()))
        return super().parse_args(ctx, args)

    def _options_with_value(self) -> frozenset[str]:
        options = (parameter for parameter in self.params if isinstance(parameter, click.Option))
        return frozenset(name for option in options if not (option.is_flag or option.count) for name in option.opts)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one block per heading."""
        _format_options(self.get_params(ctx), ctx, formatter)


class Reporting(Command):
    """A command that answers with the report of a run, which has more forms than JSON."""


def _guarded(args: list[str], options_with_value: frozenset[str]) -> Iterator[str]:
    previous = ""
    for position, argument in enumerate(args):
        if argument == "--":
            yield from args[position:]
            return
        is_revision = _RELATIVE.match(argument) and previous not in options_with_value
        yield _GUARD + argument if is_revision else argument
        previous = argument


def _format_options(parameters: Sequence[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options under their headings, in the order in which these first appear."""
    blocks: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            blocks.setdefault(getattr(parameter, "heading", _OTHER), []).append(record)
    if _OTHER in blocks:
        blocks[_OTHER] = blocks.pop(_OTHER)  # last
    for heading, records in blocks.items():
        with formatter.section(heading):
            formatter.write_dl(records)


class Group(click.Group):
    """A group that lists its commands before its options, and these under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then one block of options per heading."""
        self.format_commands(ctx, formatter)
        _format_options(self.get_params(ctx), ctx, formatter)


class LazyGroup(Group):
    """Commands that live one to a module: `upgrade` is the attribute `command` of the package's module `upgrade`."""

    def __init__(self, *args: Any, package: str, summaries: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.package = package
        self.summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of a project's life, not of the alphabet."""
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the module of one command."""
        if cmd_name not in self.summaries:
            return None
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = importlib.import_module(f"{self.package}.{module}").command
        command.short_help = self.summaries[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """List the summaries: importing each command for its own would take most of the time of `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever goes wrong becomes a message and an exit code here and nowhere else."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except BaseException as error:  # noqa: BLE001 - the edge of the program
            ctx.exit(_end(ctx, error))


def _end(ctx: click.Context, error: BaseException) -> int:
    match error:
        case OrchestratorError():
            _complain(scrub(str(error)))
            return error.exit_code
        case BrokenPipeError():
            terminals.silence_stdout()
            return BROKEN_PIPE
        case KeyboardInterrupt() | click.Abort():
            terminals.end_line()
            _complain("interrupted; nothing was written")
            return ExitCode.INTERRUPTED
        case _:
            _report_bug(ctx, error)
            return ExitCode.INTERNAL


def _complain(message: str) -> None:
    prefix = "orchestrate: error: "
    with contextlib.suppress(BrokenPipeError):
        terminals.Screen().complain("\n".join(prefix + line for line in message.split("\n")), terminals.Mood.BAD)


def _report_bug(ctx: click.Context, error: BaseException) -> None:
    verbose = ctx.meta.get("orchestrator.cli", {}).get("verbose", False)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119 - a file name of a frame, maybe `<string>`
    _complain(scrub(f"internal error: {type(error).__name__} at {place}: {first_line(tracebacks.said(error))}"))
    screen = terminals.Screen()
    if verbose:
        # A traceback quotes what the driver said, and with it rows of the customer.
        screen.complain(deferred.logs.shown(tracebacks.format_exception(error)).rstrip())
    else:
        screen.complain("run with -v for the traceback")

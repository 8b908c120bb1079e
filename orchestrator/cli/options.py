"""Options that commands share, each written once, and what they add up to."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import click

from orchestrator import reports
from orchestrator.cli import deferred, suggestions, terminals
from orchestrator.cli.groups import Option, Reporting, RevisionType
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.project import Project
    from orchestrator.selectors import Selection
    from orchestrator.strategy import Budget

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

#: key of `click.Context.meta` under which the options of every level are gathered; the Flask extension may put
#: `config`, `registry` or `section` there before a command runs
META = "orchestrator.cli"
#: form of every command's answer
JSON_ENDING = ".json"
#: endings of `--report`; all but the first are for reports of runs
REPORT_ENDINGS = (JSON_ENDING, *reports.FORMS)
METRICS_ENDING = ".prom"


class Format(enum.StrEnum):
    """What standard output is for."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class ExecutorName(enum.StrEnum):
    """Where jobs run."""

    PROCESSES = "processes"
    INLINE = "inline"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Options of every command, wherever on the line they stood."""

    config: str | None = None
    registry: str | None = None
    section: str | None = None
    x: tuple[str, ...] = ()
    ledger: str | None = None
    accept_shrink: bool = False
    output: Format = Format.TEXT
    reports: tuple[Path, ...] = ()
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False

    @property
    def screen(self) -> terminals.Screen:
        """Where to write."""
        return terminals.Screen(quiet=self.quiet, no_color=self.no_color)


def current() -> Common:
    """The options of the command that is running; refuses a form that its answer does not have."""
    context = click.get_current_context()
    common = Common(**context.meta.get(META, {}))
    other = [path for path in common.reports if path.suffix != JSON_ENDING]
    if other and not isinstance(context.command, Reporting):
        raise UsageError(
            f"--report {other[0]}: only reports of runs have this form; the answer of `{context.command_path}` is "
            f"written as {JSON_ENDING}"
        )
    return common


def load_project(common: Common) -> Project:
    """Read the settings; the registry and the ledger are opened when they are needed. Tests put a fake here."""
    return deferred.project.Project.load(
        common.config,
        registry=common.registry,
        section=common.section,
        x=common.x,
        ledger=common.ledger,
        accept_shrink=common.accept_shrink,
    )


def open_project(common: Common) -> Project:
    """The project, closed when the command ends; what the registry has to say is said once."""
    project = open_records(common)
    for note in project.registry.notes:
        common.screen.say(f"note: {note}", terminals.Mood.WARNING)
    return project


def open_records(common: Common) -> Project:
    """The project for a command that needs its ledger or scripts only; the fleet's sources may be down."""
    return click.get_current_context().with_resource(load_project(common))


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a given value for `current`; what stands further right wins, `-x` adds up."""
    if not value:
        return
    kept = ctx.meta.setdefault(META, {})
    kept[param.name] = kept.get(param.name, ()) + value if isinstance(value, tuple) else value


def _check_report(ctx: click.Context, param: click.Parameter, value: tuple[Path, ...]) -> None:
    for path in value:
        _check_file(ctx, param, path, REPORT_ENDINGS)
    _remember(ctx, param, value)


def _check_metrics(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        _check_file(ctx, param, value, (METRICS_ENDING,))
    return value


def _check_file(ctx: click.Context, param: click.Parameter, path: Path, endings: Sequence[str]) -> None:
    """What is sure to fail after hours of work is refused before."""
    if path.suffix not in endings:
        known = ", ".join(endings[:-1]) + " or " + endings[-1] if len(endings) > 1 else endings[0]
        raise click.BadParameter(f"{path} has no supported ending; it must end in {known}", ctx, param)
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path}: the folder does not exist", ctx, param)


def _check_format(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    _remember(ctx, param, Format(value) if value else None)


def option(*names: str, heading: str, **attributes: Any) -> Decorator:
    """An option under a heading."""
    return click.option(*names, cls=Option, heading=heading, **attributes)


_kept = functools.partial(option, expose_value=False, callback=_remember)
_FILES, _OUTPUT, _TARGETS, _ROLLING = "Files", "Output", "Targets", "Rolling out"

_COMMON: Sequence[Decorator] = (
    _kept("-c", "--config", heading=_FILES, metavar="FILE", help="Alembic's settings.  [default: alembic.ini]"),
    _kept("-f", "--registry", heading=_FILES, metavar="FILE", help="The tenants.  [default: tenants.yaml beside it]"),
    _kept("-n", "--name", "section", heading=_FILES, metavar="SECTION", help="Section of alembic.ini to use."),
    _kept("-x", "x", heading=_FILES, metavar="KEY=VALUE", multiple=True, help="Value handed to env.py; repeatable."),
    _kept("--ledger", heading=_FILES, metavar="URL", help="Where runs are recorded, instead of the registry's ledger."),
    option(
        "-o",
        "--output",
        heading=_OUTPUT,
        type=click.Choice([form.value for form in Format]),
        expose_value=False,
        callback=_check_format,
        help="Form of standard output.  [default: text]",
    ),
    option(
        "--report",
        "reports",
        heading=_OUTPUT,
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        expose_value=False,
        callback=_check_report,
        help="Also write it to FILE.json, of a run .html, .xml or .md; repeatable.",
    ),
    _kept("-q", "--quiet", heading=_OUTPUT, is_flag=True, help="No progress and no messages, errors only."),
    _kept("-v", "--verbose", heading=_OUTPUT, is_flag=True, help="Everything in full, with tracebacks."),
    _kept("--no-color", heading=_OUTPUT, is_flag=True, help="No colour; NO_COLOR does the same."),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Targeting:
    """The targeting flags as they were typed."""

    everything: bool
    tenants: tuple[str, ...]
    exclude: tuple[str, ...]
    labels: str | None
    database: str | None
    from_file: TextIO | None
    limit: str | None
    failed: bool
    failed_in: str | None

    @property
    def is_given(self) -> bool:
        """Whether any flag says which targets are meant, as in `Selection.is_given`."""
        names = bool(self.tenants or self.labels or self.database or self.from_file)
        return names or self.everything or self.failed or self.failed_in is not None

    def demand(self, command: str) -> None:
        """Refuse a command that writes when nothing says to whom."""
        if not self.is_given:
            raise UsageError(
                f"say which targets to {command}: --all, -t NAME, -l SELECTOR, --database KEY, --from-file FILE "
                f"or --failed; for example `orchestrate {command} --all`"
            )

    def selection(self, project: Project) -> Selection:
        """The flags with names from files and from the ledger filled in."""
        failed = project.failed_targets(self.failed_in) if self.failed or self.failed_in else None
        if failed == ():
            run = f"run {self.failed_in}" if self.failed_in else "the latest finished run"
            raise UsageError(f"no target failed in {run}; name others with --all, -t NAME or -l SELECTOR")
        return deferred.selectors.Selection(
            everything=self.everything,
            names=_split(self.tenants),
            exclude=_split(self.exclude),
            labels=self.labels,
            database=self.database,
            listed=None if self.from_file is None else _lines(self.from_file),
            failed=failed,
            limit=self.limit,
        )


def _split(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for value in values for name in (part.strip() for part in value.split(",")) if name)


def _lines(file: TextIO) -> tuple[str, ...]:
    try:
        stripped = (line.strip() for line in file)
        return tuple(line for line in stripped if line and not line.startswith("#"))
    except UnicodeDecodeError as error:
        raise UsageError(f"--from-file {file.name}: not a text file with one name a line") from error


_TARGETING: Sequence[Decorator] = (
    option("--all", "everything", heading=_TARGETS, is_flag=True, help="Every target of the registry."),
    option(
        "-t",
        "--tenant",
        "tenants",
        heading=_TARGETS,
        metavar="NAME",
        multiple=True,
        shell_complete=suggestions.tenants,
        help="Names or patterns such as 'eu-*', with commas; repeatable.",
    ),
    option(
        "--exclude",
        heading=_TARGETS,
        metavar="NAME",
        multiple=True,
        shell_complete=suggestions.tenants,
        help="Names or patterns to leave out; repeatable.",
    ),
    option("-l", "--selector", "labels", heading=_TARGETS, metavar="LABELS", help="By labels: 'region=eu,tier!=free'."),
    option("--database", heading=_TARGETS, metavar="KEY", help="Only this database of tenants that have several."),
    option(
        "--from-file",
        heading=_TARGETS,
        type=click.File("r", encoding="utf-8"),
        metavar="FILE",
        help="Names from a file, one a line; - for standard input.",
    ),
    option("--limit", heading=_TARGETS, metavar="N|N%", help="Only so many of the targets with something to do."),
    option("--failed", heading=_TARGETS, is_flag=True, help="Those that failed in the latest finished run."),
    option(
        "--failed-in",
        heading=_TARGETS,
        metavar="RUN",
        shell_complete=suggestions.runs,
        help="Those that failed in that run.",
    ),
    _kept(
        "--accept-shrink", heading=_TARGETS, is_flag=True, help="Go on though the fleet is much smaller than before."
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """The flags that shape a plan, as they were typed."""

    strategy: str | None
    concurrency: int | None
    max_failures: Budget | None
    keep_going: bool
    provision: bool
    allow_ahead: bool
    each: bool
    outside_windows: bool
    deadline: float | None

    def check(self) -> None:
        """Refuse flags that exclude each other, before anything is read."""
        if self.keep_going and self.max_failures is not None:
            raise UsageError("--keep-going lifts every limit on failures: leave out either it or --max-failures")

    def arguments(self) -> dict[str, Any]:
        """Keywords of `Project.plan`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def _check_budget(ctx: click.Context, param: click.Parameter, value: str | None) -> Budget | None:
    if value is None:
        return None
    try:
        return deferred.strategy.Budget.parse(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is neither a number such as 3 nor a percent such as 2%", ctx, param
        ) from error


def _check_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return deferred.registry.read_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is {error}", ctx, param) from error


_PLANNING: Sequence[Decorator] = (
    option(
        "--strategy",
        heading=_ROLLING,
        metavar="NAME",
        shell_complete=suggestions.strategies,
        help="How to roll out, by its name in tenants.yaml.",
    ),
    option(
        "--concurrency",
        heading=_ROLLING,
        metavar="N",
        type=click.IntRange(min=1),
        help="Most targets at work at the same time.",
    ),
    option(
        "--max-failures",
        heading=_ROLLING,
        metavar="N|N%",
        callback=_check_budget,
        help="Stop starting when more have failed.  [default: 0]",
    ),
    option("--keep-going", heading=_ROLLING, is_flag=True, help="Do every target, however many fail."),
    option("--provision", heading=_ROLLING, is_flag=True, help="Create databases and schemas that do not exist."),
    option("--allow-ahead", heading=_ROLLING, is_flag=True, help="Accept targets at revisions unknown here."),
    option("--each", heading=_ROLLING, is_flag=True, help="Count +1 or -1 from each target's own revision."),
    option("--outside-windows", heading=_ROLLING, is_flag=True, help="Heed no maintenance window and no freeze."),
    option(
        "--deadline",
        heading=_ROLLING,
        metavar="TIME",
        callback=_check_duration,
        help="Start nothing more after that time, such as 2h.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The flags of commands that migrate, as they were typed."""

    confirm: str | None
    executor: str
    end_orphans: bool
    #: gauges for Prometheus, written by the command line itself
    metrics: Path | None
    on_pause: str | None

    def arguments(self) -> dict[str, Any]:
        """Keywords of `Project.run` and `Project.runs.resume`."""
        waits = "wait" if terminals.is_interactive() else "exit"
        return {
            "confirm": self.confirm,
            "executor": self.executor,
            "end_orphans": self.end_orphans,
            "on_pause": self.on_pause or waits,
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Running(Execution):
    """Those, and the flags of commands that show a plan first."""

    dry_run: bool
    yes: bool


confirming = option(
    "--confirm",
    heading=_ROLLING,
    metavar="ENVIRONMENT",
    help="Name the environment; a protected one demands it.",
)

_EXECUTION: Sequence[Decorator] = (
    confirming,
    option(
        "--executor",
        heading=_ROLLING,
        type=click.Choice([name.value for name in ExecutorName]),
        default=ExecutorName.PROCESSES.value,
        show_default=True,
        help="Where the work runs.",
    ),
    option(
        "--end-orphans",
        heading=_ROLLING,
        is_flag=True,
        help="End sessions that a dead run left on a server; do not wait.",
    ),
    option(
        "--metrics",
        heading=_ROLLING,
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="ORCHESTRATE_METRICS",
        callback=_check_metrics,
        help="Write gauges for Prometheus to FILE, which ends in .prom.",
    ),
    option(
        "--on-pause",
        heading=_ROLLING,
        type=click.Choice(["wait", "exit"]),
        help="Waiting for a person: stay, or exit 4.  [default: wait on a terminal]",
    ),
)

_RUNNING: Sequence[Decorator] = (
    option("--dry-run", heading=_ROLLING, is_flag=True, help="Show what would be done, and stop."),
    option("--yes", heading=_ROLLING, is_flag=True, help="Do not ask."),
    *_EXECUTION,
)


def _applied(function: Callable[..., Any], options: Sequence[Decorator]) -> Callable[..., Any]:
    for decorate in reversed(options):
        function = decorate(function)
    return function


def _gathered(argument: str, record: type, options: Sequence[Decorator]) -> Decorator:
    """Options that reach the function as one record."""
    names = [field.name for field in dataclasses.fields(record)]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **values: Any) -> Any:
            values[argument] = record(**{name: values.pop(name) for name in names})
            return function(*args, **values)

        return _applied(call, options)

    return decorate


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command."""
    return _applied(function, _COMMON)


targeting = _gathered("targeting", Targeting, _TARGETING)
planning = _gathered("planning", Planning, _PLANNING)
execution = _gathered("execution", Execution, _EXECUTION)
running = _gathered("running", Running, _RUNNING)


def revision_argument(**attributes: Any) -> Decorator:
    """The revision to go to."""
    return click.argument("revision", type=RevisionType(), **attributes)


def run_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The run that is meant; the latest that it can apply to unless it is named."""
    return click.argument("run", required=False, shell_complete=suggestions.runs)(function)

"""What `alembic/env.py` imports: the targets to migrate, and for each of them a connection and Alembic's options."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import URL, Connection, MetaData, inspect

from orchestrator import applications, databases, registry
from orchestrator.errors import EnvironmentError, OrchestratorError, UsageError  # noqa: A004 - Alembic's word
from orchestrator.outcomes import Failure, Reason
from orchestrator.selectors import Selection, select
from orchestrator.settings import Settings
from orchestrator.tenants import Target, Transaction

#: key in `Config.attributes` under which a worker hands over its job's target and connection
HANDOVER = "orchestrate.handover"


class Purpose(enum.Enum):
    """What Alembic's command wants of the databases."""

    #: upgrade, downgrade, stamp: under the tenant lock
    WRITE = "write"
    #: current: every target, without a trace
    READ = "read"
    #: revision, check, history -i: one target, without a trace
    COMPARE = "compare"
    #: `--sql`: no connection at all
    OFFLINE = "offline"


#: names of the functions that Alembic's commands hand to the environment context
_WRITING = frozenset({"upgrade", "downgrade", "do_stamp", "do_ensure_version"})
_READING = frozenset({"display_version"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What a worker passes to env.py: its target, and the connection that holds the tenant lock."""

    #: one; several databases of a tenant only to compare them in one revision file
    targets: tuple[Target, ...]
    #: None to compare or to write SQL: env.py then connects by itself
    connection: Connection | None = None
    purpose: Purpose = Purpose.WRITE


@contextmanager
def handed_over(config: Config, handover: Handover) -> Iterator[None]:
    """While the body runs, env.py gets its targets from here."""
    config.attributes[HANDOVER] = handover
    try:
        yield
    finally:
        del config.attributes[HANDOVER]


def how_it_ended(target: Target, ended: Sequence[Reason | None]) -> Reason | None:
    """Why env.py had nothing to run, None where it ran all; raises `EnvironmentError` where it ran less than that."""
    if not ended:
        raise EnvironmentError(
            f"{target.name}: env.py ended without running the migrations to their end; it has to call "
            "`context.run_migrations()`, and must let exceptions through"
        )
    return ended[0]


class EnvironmentTarget:
    """One target as env.py sees it."""

    def __init__(
        self,
        target: Target,
        purpose: Purpose,
        connect: Callable[[], AbstractContextManager[Connection]],
        outcome: Callable[[Target], AbstractContextManager[None]],
    ) -> None:
        self._target = target
        self._purpose = purpose
        self._connect = connect
        self._outcome = outcome

    @property
    def name(self) -> str:
        """`acme` or `acme/analytics`."""
        return self._target.name

    @property
    def tenant(self) -> str:
        """Name of the tenant."""
        return self._target.tenant.name

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of the tenant."""
        return self._target.labels

    @property
    def schema(self) -> str | None:
        """The tenant's own schema, None for a database per tenant."""
        return self._target.schema

    @property
    def bind(self) -> str | None:
        """Bind key in the Flask application, None for its main database."""
        return self._target.bind

    @property
    def url(self) -> URL:
        """URL of the database; its password is masked when it is printed."""
        return self._target.url

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection that is in no transaction; for commands that write it holds the tenant lock.

        Raises `EnvironmentError` when env.py leaves a transaction open: Alembic would have committed nothing.
        """
        with self._connect() as connection:
            yield connection
            left_open = connection.in_transaction() and not self._only_read(connection)
            connection.rollback()
            if left_open and self._purpose is Purpose.WRITE:
                raise EnvironmentError(
                    f"{self.name}: env.py left a transaction open, so nothing was committed; commit what it "
                    "executes before `context.configure`, or move it into `with context.begin_transaction()`"
                )

    def _only_read(self, connection: Connection) -> bool:
        """Whether the open transaction is just Alembic's look at the version, which it leaves open on MySQL."""
        if self._target.backend != "mysql":
            return False
        version = MigrationContext.configure(connection, opts=version_options(self._target, connection))
        seen = version.get_current_heads()
        connection.rollback()
        return seen == version.get_current_heads()

    def options(self, **keywords: Any) -> dict[str, Any]:
        """Keywords for `context.configure`: the version table is the target's, in everything else yours win."""
        target = self._target
        metadata = keywords.get("target_metadata")
        if metadata is None and target.app is not None:
            keywords["target_metadata"] = applications.metadata(applications.load(target.app), target.bind)
        defaults: dict[str, Any] = databases.backend_of(target).configure_options(target)
        defaults["transaction_per_migration"] = target.transaction is Transaction.REVISION
        # SQLite can alter a table by rebuilding it only.
        defaults["render_as_batch"] = target.backend == "sqlite"
        if self._purpose is Purpose.OFFLINE:
            defaults["dialect_opts"] = {"paramstyle": "named"}
        if self._purpose is Purpose.COMPARE:
            keywords = self._comparing(keywords)
        return {**defaults, **keywords, **version_options(target, keywords.get("connection"))}

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Run the body for this target alone: by hand its failure is kept for the end, so that the others go on."""
        with self._outcome(self._target), applications.active(self._target.app):
            yield

    def _comparing(self, keywords: dict[str, Any]) -> dict[str, Any]:
        """Options for autogenerate and check: only the tenant's own tables take part."""
        target = self._target
        if target.schema is not None and keywords.get("include_schemas"):
            raise EnvironmentError(
                f"{self.name}: `include_schemas=True` compares with the schemas of all tenants and would drop their "
                "tables; remove it from env.py"
            )
        own_tables = _hide_shared_schemas(target, keywords)
        keywords["include_object"] = _own_objects(target, keywords.get("include_object"), own_tables)
        return keywords


def targets(context: Any) -> Iterator[EnvironmentTarget]:
    """The targets of this run of env.py: the job's own under a worker, else the registry or the part that `-x` names.

    `-x tenant=NAME`, `-x selector=LABELS`, `-x database=KEY` and `-x exclude=NAME` narrow it; `-x confirm=ENVIRONMENT`
    allows writes where the registry is `protected`. Ends in a `CommandError` that lists the targets that failed.
    """
    environment: EnvironmentContext = context._proxy
    handover: Handover | None = environment.config.attributes.get(HANDOVER)
    each = _handed_over(handover) if handover is not None else _by_hand(environment)
    pristine = dict(environment.context_opts)
    for target in each:
        # Alembic keeps what the previous target configured wherever the next one passes None.
        environment.context_opts.clear()
        environment.context_opts.update(pristine)
        if target._purpose is not Purpose.WRITE:
            environment.context_opts["dont_mutate"] = True
        elif handover is None:
            environment.context_opts["fn"] = _journalled(pristine["fn"], target._target)
        yield target


def compared(chosen: Sequence[Target], scripts_folder: str) -> list[Target]:
    """What a revision is compared with: one target; all databases of a tenant where env.py names `upgrade_token`."""
    first = chosen[0]
    if "upgrade_token" not in (Path(scripts_folder) / "env.py").read_text(encoding="utf-8"):
        return [first]
    return [target for target in chosen if target.tenant is first.tenant and target.section == first.section]


def version_options(target: Target, connection: Connection | None = None) -> dict[str, Any]:
    """Where the target's version table is, as keywords of `context.configure`.

    On PostgreSQL the schema is named, if need be the one that the target's connection creates tables in: a table of
    that name further along the search path must not be found.
    """
    own_schema = None
    if target.backend == "postgresql":
        own_schema = target.schema or (connection.dialect.default_schema_name if connection is not None else None)
    return {"version_table": target.version_table, "version_table_schema": target.version_table_schema or own_schema}


def _journalled(steps: Callable[..., Iterable[Any]], target: Target) -> Callable[..., Iterator[Any]]:
    """What Alembic's own command would run, each revision under the target's journal."""

    def run(heads: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        assert context.connection is not None
        journal = databases.backend_of(target).journal(context.connection, target, found=tuple(heads))
        for step in steps(heads, context):
            script = getattr(step, "revision", None)
            if script is None:
                journal.forget()  # a stamp runs no statement of a revision
                yield step
                continue
            direction = "upgrade" if step.is_upgrade else "downgrade"
            with journal.revision(script.revision, source=Path(script.path).read_bytes(), direction=direction):
                yield step

    return run


def _handed_over(handover: Handover) -> Iterator[EnvironmentTarget]:
    with contextlib.closing(databases.Connections()) as connections:
        for target in handover.targets:
            yield EnvironmentTarget(
                target,
                handover.purpose,
                _connect_for(handover, target, connections),
                lambda _: contextlib.nullcontext(),
            )


def _connect_for(
    handover: Handover, target: Target, connections: databases.Connections
) -> Callable[[], AbstractContextManager[Connection]]:
    """The worker's connection, or one of our own that writes nothing."""
    given = handover.connection
    if given is not None:
        return lambda: contextlib.nullcontext(given)
    return lambda: connections.open(target, application_name=_application_name(target), read_only=True)


def _by_hand(environment: EnvironmentContext) -> Iterator[EnvironmentTarget]:
    """All targets of the section that Alembic runs with, for somebody who typed `alembic …`."""
    purpose = _purpose(environment)
    hand = _Hand(environment, purpose)
    try:
        chosen = _chosen(environment, purpose)
    except OrchestratorError as error:
        # Alembic's command line shows this one type as a message, and every other one as a traceback.
        raise CommandError(str(error)) from None
    try:
        for target in compared(chosen, environment.script.dir) if purpose is Purpose.COMPARE else chosen:
            yield EnvironmentTarget(target, purpose, hand.connect_to(target), hand.outcome)
    finally:
        hand.connections.close()
    hand.raise_for_failures(len(chosen))


class _Hand:
    """Connections, headings and failures of one command of Alembic's own command line."""

    def __init__(self, environment: EnvironmentContext, purpose: Purpose) -> None:
        self.environment = environment
        self.purpose = purpose
        self.connections = databases.Connections()
        self.failures: list[tuple[Target, Failure]] = []

    def connect_to(self, target: Target) -> Callable[[], AbstractContextManager[Connection]]:
        return lambda: self._connected(target)

    @contextmanager
    def _connected(self, target: Target) -> Iterator[Connection]:
        writing = self.purpose is Purpose.WRITE
        name = _application_name(target)
        with self.connections.open(target, application_name=name, read_only=not writing) as connection:
            locked = (
                databases.tenant_lock(connection, target, target.timeouts.tenant_lock)
                if writing
                else contextlib.nullcontext()
            )
            with locked:
                yield connection

    @contextmanager
    def outcome(self, target: Target) -> Iterator[None]:
        self._announce(target)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - one tenant's failure, whatever it is, must not stop the others
            failure = databases.classify(error, target)
            self.failures.append((target, failure))
            _tell(f"{target.name}: FAILED: {_sentence(failure)}")
            if self.purpose is Purpose.OFFLINE:
                self._write("ROLLBACK;\n\n")

    def raise_for_failures(self, number: int) -> None:
        if not self.failures:
            return
        names = ", ".join(target.name for target, _ in self.failures[:20])
        rest = len(self.failures) - 20
        more = f" and {rest} more" if rest > 0 else ""
        if number == 1:
            raise CommandError(f"{names}: {_sentence(self.failures[0][1])}")
        raise CommandError(f"{len(self.failures)} of {number} targets failed: {names}{more}")

    def _announce(self, target: Target) -> None:
        if self.purpose is Purpose.OFFLINE:
            heading = databases.backend_of(target).offline_heading(target)
            self._write(f"-- target {target.name}\n{heading}\n\n")
        elif self.purpose is Purpose.READ:
            self.environment.config.print_stdout(f"{target.name}:")
        else:
            _tell(f"{target.name} ({target.location})")

    def _write(self, text: str) -> None:
        buffer = self.environment.config.output_buffer or sys.stdout
        buffer.write(text)


def _chosen(environment: EnvironmentContext, purpose: Purpose) -> list[Target]:
    config = environment.config
    given = environment.get_x_argument(as_dictionary=True)
    settings = Settings.load(config.config_file_name, given.get("registry"), section=config.config_ini_section)
    fleet = registry.load(settings)
    for note in fleet.notes:
        _tell(note)
    if purpose is Purpose.WRITE:
        registry.refuse_unconfirmed(
            fleet.environment, given.get("confirm"), protected=fleet.protected, flag="-x confirm="
        )
    selection = Selection(
        everything=True,
        names=_comma_separated(given.get("tenant")),
        exclude=_comma_separated(given.get("exclude")),
        labels=given.get("selector"),
        database=given.get("database"),
    )
    return _of_section(select(fleet.targets, selection), config.config_ini_section)


def _of_section(selected: tuple[Target, ...], section: str) -> list[Target]:
    """Targets whose chain is the one that Alembic runs; another chain must not land in their databases."""
    today = datetime.datetime.now(datetime.UTC).date()
    chosen = [target for target in selected if target.section == section]
    others = sorted({target.section for target in selected} - {section})
    hint = ", ".join(f"-n {name}" for name in others)
    if not chosen:
        raise UsageError(f"no selected target has its chain in section [{section}]; run Alembic with {hint}")
    if others:
        _tell(f"{len(selected) - len(chosen)} targets have their chain in other sections: run them with {hint}")
    active = [target for target in chosen if target.tenant.takes_part(today)]
    for target in chosen:
        if target not in active:
            _tell(f"{target.name}: left out, {target.tenant.state}: {target.tenant.reason or 'no reason given'}")
    if not active:
        raise UsageError("every selected target is left out; select others, or make their tenants active again")
    return active


def _purpose(environment: EnvironmentContext) -> Purpose:
    if environment.is_offline_mode():
        return Purpose.OFFLINE
    name = getattr(environment.context_opts.get("fn"), "__name__", "")
    if name in _WRITING:
        return Purpose.WRITE
    return Purpose.READ if name in _READING else Purpose.COMPARE


def _hide_shared_schemas(target: Target, keywords: Mapping[str, Any]) -> frozenset[str] | None:
    """Names of the tables in the tenant's own schema; None where a target has none.

    Schemas that the models name are taken off the connection's search path: a foreign key to a table there is reflected
    with the schema's name only when it is needed to find it, and would otherwise differ from the models each time.
    """
    connection = keywords.get("connection")
    if target.schema is None or connection is None:
        return None
    models = keywords.get("target_metadata") or ()
    named = {
        table.schema for one in ([models] if isinstance(models, MetaData) else models) for table in one.tables.values()
    }
    path = tuple(schema for schema in target.search_path if schema not in named)
    narrowed = dataclasses.replace(target, search_path=path)
    databases.backend_of(target).prepare(connection, narrowed, _application_name(target))
    tables = frozenset(inspect(connection).get_table_names(schema=target.schema))
    connection.rollback()
    return tables


def _own_objects(
    target: Target, include: Callable[..., bool] | None, own_tables: frozenset[str] | None
) -> Callable[..., bool]:
    """A filter that leaves out the version table, shared tables, and those of the application's other binds."""
    others = applications.other_tables(applications.load(target.app), target.bind) if target.app else set()

    def is_strange(table: Any, name: str | None) -> bool:
        """Whether a table that is only in the database is none that the models could mean."""
        elsewhere = own_tables is not None and name not in own_tables
        ours = name in (target.version_table, databases.JOURNAL)
        return elsewhere or ours or (table.schema, name) in others

    def own(thing: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:  # noqa: FBT001
        if kind == "table":
            if reflected and compared is None and is_strange(thing, name):
                return False
            if own_tables is not None and thing.schema not in (None, target.schema):
                return False
        return include is None or include(thing, name, kind, reflected, compared)

    return own


def _application_name(target: Target) -> str:
    return f"orchestrate/by-hand/{target.name}"


def _comma_separated(text: str | None) -> tuple[str, ...]:
    return tuple(part for part in (text or "").split(",") if part)


def _sentence(failure: Failure) -> str:
    """Advice goes with a known code; what else there is to say, whoever types `alembic` has in the message."""
    if failure.code is None:
        return f"{failure.type}: {failure.message}"
    return f"{failure.type} {failure.code}: {failure.message.rstrip('.')}; {failure.advice}"


def _tell(text: str) -> None:
    """Beside Alembic's own output, never in it: standard output may be SQL."""
    sys.stderr.write(f"{text}\n")

"""`run_job`: bring one target to one revision, and say truthfully what happened. The only code that migrates."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from orchestrator import classic, databases, failpoints, logs
from orchestrator.environment import HANDOVER, Handover, version_options
from orchestrator.errors import EnvironmentError, ScriptsError  # noqa: A004 - Alembic's word
from orchestrator.outcomes import Failure, FailureKind, Outcome, Reason, Status
from orchestrator.plans import Command, Job, Route
from orchestrator.revisions import Scripts, load_config
from orchestrator.tenants import Target, keep_secret

logger = logging.getLogger(__name__)

#: held open for the life of a worker process
_printing = contextlib.ExitStack()
_DONE = {Command.UPGRADE: Status.UPGRADED, Command.DOWNGRADE: Status.DOWNGRADED, Command.STAMP: Status.STAMPED}

_CONCURRENT = Reason(code="concurrent", text="another runner, or a hand, brought it there first")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker process needs to know beside its jobs."""

    #: alembic.ini
    config: Path
    run: str
    log: Path
    #: Alembic's `-x key=value`
    x: tuple[str, ...] = ()
    #: runs of this ledger whose server sessions are orphans by now, and may be ended where they hold a tenant lock
    orphans: frozenset[str] = frozenset()
    #: end them instead of waiting for them
    end_orphans: bool = False


def prepare(settings: WorkerSettings) -> None:
    """Make this process ready for a run's jobs."""
    logs.configure(settings.log)
    # Files may have come since this process ran the last run.
    _scripts.cache_clear()


def prepare_process(settings: WorkerSettings) -> None:
    """Make a worker process ready: what revisions print goes to the log, not into somebody's report."""
    prepare(settings)
    _printing.enter_context(logs.capture_output())


def finish() -> None:
    """Close the warm connections of this process."""
    _connections().close()
    _printing.close()


def run_job(job: Job, target: Target, settings: WorkerSettings) -> Outcome:
    """Bring the target to the job's revision. Total: every failure is an `Outcome`, no exception leaves here."""
    started = datetime.datetime.now(datetime.UTC)
    clock = time.perf_counter()
    keep_secret(target.url, target.connect_args)
    failpoints.hit("job.before")
    with logs.bound(run=settings.run, target=job.target):
        attempt = Attempt(job, target, settings)
        try:
            outcome = attempt.run()
        except Exception as error:  # noqa: BLE001 - whatever a revision file raises is this target's failure
            outcome = attempt.failed(error)
        except SystemExit as error:
            outcome = attempt.failed(RuntimeError(f"env.py or a revision called sys.exit({error.code})"))
        failpoints.hit("job.after")
        _log(outcome)
    elapsed = (time.perf_counter() - clock) * 1000
    return dataclasses.replace(outcome, started_at=started, duration_ms=elapsed, attempts=1)


class Attempt:
    """One try of one job, from the first connection to the verified version."""

    def __init__(self, job: Job, target: Target, settings: WorkerSettings) -> None:
        self.job = job
        self.target = target
        self.settings = settings
        self.backend = databases.backend_of(target)
        #: heads under the lock, None until they were read
        self.found: tuple[str, ...] | None = None
        #: revision that is running, None before the first and after the last
        self.revision: str | None = None
        #: revisions that ran to their end, committed or not
        self.ran: list[str] = []
        #: what a failed attempt left in the database, in the way of the next one
        self.leftover: Failure | None = None

    @functools.cached_property
    def scripts(self) -> Scripts:
        """The revisions of the job's section, loaded once per process."""
        return _scripts(self.settings.config, self.job.section, self.settings.x)

    def run(self) -> Outcome:
        """Connect, lock, look again, migrate, verify; raises whatever goes wrong."""
        self._refuse_other_scripts()
        ours = self.scripts.uses_environment
        if self.job.provision:
            self.backend.provision(self.target)
        with self._connection() as connection:
            if not ours:
                return self._run_classic(connection)
            with databases.tenant_lock(connection, self.target, self.target.timeouts.tenant_lock):
                return self._run_ours(connection)

    def failed(self, error: BaseException) -> Outcome:
        """The outcome of a failure: what it was, and where the target stands after it."""
        failure = databases.classify(error, self.target, revision=self.revision)
        logger.error("%s", failure.message, exc_info=error, extra={"code": failure.code, "kind": failure.kind.value})
        at = self._settled()
        reached = at is not None and self._is_reached(at)
        # A lost lock is no lost answer: somebody else may have worked on the target at the same time.
        if failure.kind is FailureKind.AMBIGUOUS and reached and not isinstance(error, databases.LockLost):
            return self._reached_all_the_same(at)
        if self.leftover is not None:
            advice = f"{failure.advice} Before that, drop what it left behind: {self.leftover.message}."
            failure = dataclasses.replace(failure, advice=advice)
        return self._outcome(Status.FAILED, at=at, failure=failure)

    def _refuse_other_scripts(self) -> None:
        """A worker whose revision files are older than the plan's must not stop early and call it done."""
        missing = [head for head in (*self.job.wanted, *self.job.path) if not self.scripts.knows([head])]
        if missing:
            raise ScriptsError(
                f"[{self.job.section}]: the plan wants revision {missing[0]}, for which there is no file here; "
                "plan again, or bring the revision files of all workers to one state"
            )

    def _connection(self) -> contextlib.AbstractContextManager[Connection]:
        name = f"orchestrate/{self.settings.run}/{self.target.name}"
        return _connections().open(self.target, application_name=name)

    def _run_ours(self, connection: Connection) -> Outcome:
        """Under the tenant lock, through the env.py that takes its target and connection from us."""
        self.found = read_heads(connection, self.target)
        route = self._route()
        if isinstance(route, Reason):
            return self._not_due(route)
        handover = Handover(targets=(self.target,), connection=connection)
        with _handed_over(self.scripts, handover), logs.guarded():
            moved = self._run_environment(route)
        return self._not_due(moved) if moved else self._verified(connection)

    def _run_classic(self, connection: Connection) -> Outcome:
        """Through an env.py that reads `sqlalchemy.url` and makes its own connection, which takes the lock."""
        self.found = read_heads(connection, self.target)
        route = self._route()
        if isinstance(route, Reason):
            return self._not_due(route)
        name = f"orchestrate/{self.settings.run}/{self.target.name}"
        with classic.prepared(self.scripts.config, self.target, name), logs.guarded():
            moved = self._run_environment(route, **classic.options(self.target, connection))
        return self._not_due(moved) if moved else self._verified(connection)

    def _run_environment(self, route: Route, **options: Any) -> Reason | None:
        """Run env.py once, with the steps of the route as what Alembic calls the migrations function.

        Returns why nothing was due any more, when somebody else came between our look and Alembic's own.
        """
        purge = self.job.command is Command.STAMP and not self.scripts.knows(self.found or ())
        moved: list[Reason] = []

        def upgrade(heads: Sequence[str], context: MigrationContext) -> Iterator[Any]:
            if not self.scripts.uses_environment:
                classic.refuse_elsewhere(self.target, context.connection)
            way = route if purge else self._way_from(heads, route, context)
            if isinstance(way, Reason):
                moved.append(way)
                return
            journal = self._journal(context, heads)
            if self.job.command is Command.STAMP:
                journal.forget()
            for step in self.scripts.steps(self.job.command, way, heads):
                self.revision = str(step.to_revisions[0] if step.is_upgrade else step.from_revisions[0])
                with logs.bound(revision=self.revision), self._journalled(journal, self.revision):
                    yield step
                self.ran.append(self.revision)
            self.revision = None

        with EnvironmentContext(
            self.scripts.config,
            self.scripts.directory,
            fn=upgrade,
            as_sql=False,
            destination_rev=",".join(route.wanted),
            purge=purge,
            **options,
        ):
            self.scripts.directory.run_env()
        return moved[0] if moved else None

    def _journal(self, context: MigrationContext, heads: Sequence[str]) -> databases.Journal:
        assert context.connection is not None
        return self.backend.journal(context.connection, self.target, found=tuple(heads))

    def _journalled(self, journal: databases.Journal, revision: str) -> contextlib.AbstractContextManager[None]:
        """A stamp runs no statement of a revision."""
        if self.job.command is Command.STAMP:
            return contextlib.nullcontext()
        return journal.revision(revision, source=self.scripts.source(revision), direction=self.job.command.value)

    def _way_from(self, heads: Sequence[str], route: Route, context: MigrationContext) -> Route | Reason:
        """The way from what Alembic has read: not before that does a classic env.py, or SQLite, keep others out."""
        seen = tuple(sorted(heads))
        if seen == self.found:
            return route
        ours = version_options(self.target, context.connection)
        if (context.version_table, context.version_table_schema) != tuple(ours.values()):
            raise EnvironmentError(
                f"{self.target.name}: env.py reads another version table, {context.version_table!r}; take "
                "`version_table` out of it, and name the table in tenants.yaml"
            )
        self.found = seen
        return self._route()

    def _route(self) -> Route | Reason:
        """The planned way, or the way from where the target is now; a reason when there is nothing left to do."""
        job, found = self.job, self.found or ()
        if found == job.found:
            return Route(path=job.path, wanted=job.wanted)
        if job.command is Command.STAMP:
            return Route(path=(), wanted=job.wanted)
        if self._is_reached(found):
            return _CONCURRENT
        if job.command is Command.UPGRADE and self.scripts.knows(found):
            return self.scripts.route_to(found, job.wanted)
        return Reason(
            code="moved", text=f"is at {', '.join(found) or 'base'} now, not where the plan saw it; plan again"
        )

    def _not_due(self, reason: Reason) -> Outcome:
        status = Status.UNCHANGED if reason.code == "concurrent" else Status.SKIPPED
        return self._outcome(status, at=self.found, reason=reason)

    def _reached_all_the_same(self, at: tuple[str, ...] | None) -> Outcome:
        """The answer was lost, or somebody came between; the version says that it is where it should be."""
        if not self.ran:
            return self._outcome(Status.UNCHANGED, at=at, reason=_CONCURRENT)
        reason = Reason(code="verified", text="the connection was lost after the commit; the version was read again")
        return self._outcome(_DONE[self.job.command], at=at, reason=reason)

    def _is_reached(self, heads: Sequence[str]) -> bool:
        if self.job.command is Command.UPGRADE:
            return self.scripts.has_reached(heads, self.job.wanted)
        return tuple(sorted(heads)) == self.job.wanted

    def _verified(self, connection: Connection) -> Outcome:
        """Believe the version table, not the lack of an exception; nothing uncommitted may be seen here."""
        connection.rollback()
        driver = connection.connection.dbapi_connection
        if driver is not None:
            driver.rollback()
        at = read_heads(connection, self.target)
        failure = self.backend.verify(connection, self.target)
        if failure is None and not self._is_reached(at):
            failure = Failure(
                kind=FailureKind.PERMANENT,
                code="not_verified",
                type="NotVerified",
                message=f"Alembic reported success, but the version table says {', '.join(at) or 'nothing'}",
                advice="env.py may have left its transaction open, or moved another schema's version",
            )
        if failure is not None:
            failure = dataclasses.replace(failure, fingerprint=databases.fingerprint(failure, self.target))
            return self._outcome(Status.FAILED, at=at, failure=failure)
        return self._outcome(_DONE[self.job.command], at=at)

    def _settled(self) -> tuple[str, ...] | None:
        """Heads after a failure, read on a connection that nothing has touched; None when they cannot be read.

        Under the lock, so that a statement which the server still works on has ended by then.
        """
        if self.found is None:
            return None
        try:
            with (
                self._connection() as connection,
                databases.tenant_lock(connection, self.target, self.target.timeouts.lock),
            ):
                at = read_heads(connection, self.target)
                self.leftover = self.backend.verify(connection, self.target)
                return at
        except Exception:  # noqa: BLE001 - the first failure is the one to report; unknown is an honest answer here
            return None

    def _outcome(
        self,
        status: Status,
        *,
        at: tuple[str, ...] | None,
        reason: Reason | None = None,
        failure: Failure | None = None,
    ) -> Outcome:
        return self.job.outcome(
            status,
            found=self.found if self.found is not None else self.job.found,
            at=at,
            applied=self._applied(at),
            reason=reason,
            failure=failure,
        )

    def _applied(self, at: tuple[str, ...] | None) -> tuple[str, ...]:
        """What ran and stayed: a transaction that was rolled back took its revisions with it."""
        if at is None or self.job.command is Command.STAMP:
            return ()
        reached = self.scripts.reached(at)
        stays = self.job.command is Command.UPGRADE
        return tuple(revision for revision in self.ran if (revision in reached) is stays)


def read_heads(connection: Connection, target: Target) -> tuple[str, ...]:
    """Rows of the target's version table, sorted; leaves no transaction and never makes the table."""
    context = MigrationContext.configure(connection, opts=version_options(target, connection))
    heads = tuple(sorted(context.get_current_heads()))
    connection.rollback()
    return heads


def _log(outcome: Outcome) -> None:
    extra = {"status": outcome.status.value, "from": outcome.found, "at": outcome.at}
    logger.info("%s", outcome.status.value, extra=extra)


@contextlib.contextmanager
def _handed_over(scripts: Scripts, handover: Handover) -> Iterator[None]:
    scripts.config.attributes[HANDOVER] = handover
    try:
        yield
    finally:
        del scripts.config.attributes[HANDOVER]


@functools.cache
def _scripts(config: Path, section: str, x: tuple[str, ...]) -> Scripts:
    return Scripts(load_config(config, section, x))


@functools.lru_cache(maxsize=1)
def _connections() -> databases.Connections:
    """Warm connections of this process."""
    return databases.Connections()

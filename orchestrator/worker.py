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
from orchestrator.environment import Handover, handed_over, how_it_ended, version_options
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
_VERIFIED = Reason(code="verified", text="an earlier try had committed it; the version was read again")
_LOST_ANSWER = Reason(code="verified", text="the connection was lost after the commit; the version was read again")
#: seconds between the looks at a target whose connection was lost
_SETTLING = (0.2, 1.0, 3.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker process needs to know beside its jobs."""

    #: alembic.ini
    config: Path
    run: str
    log: Path
    #: Alembic's `-x key=value`
    x: tuple[str, ...] = ()
    #: runs of this ledger whose processes are dead: where a session of theirs holds a tenant lock, it is an orphan
    orphans: frozenset[str] = frozenset()
    #: end such sessions on the server instead of waiting for what they are doing
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


def rest() -> None:
    """Close the warm connections of a process without work: the server may have none left for others."""
    _connections().close()


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
        work = Work(job, target, settings)
        try:
            outcome = work.run()
        except KeyboardInterrupt:
            work.end_session()
            raise
        failpoints.hit("job.after")
        _log(outcome)
    elapsed = (time.perf_counter() - clock) * 1000
    return dataclasses.replace(outcome, started_at=started, duration_ms=elapsed)


class Work:
    """One job: as many tries as it takes, each from the first connection to the verified version."""

    def __init__(self, job: Job, target: Target, settings: WorkerSettings) -> None:
        self.job = job
        self.target = job.on(target)
        self.settings = settings
        self.backend = databases.backend_of(target)
        self.orphans = databases.Orphans(runs=settings.orphans, end=settings.end_orphans)
        self.ladder = databases.Ladder()
        #: heads before this job did anything, None until they were read
        self.found: tuple[str, ...] | None = None
        #: heads under the lock, as the present try read them last; None until it did
        self.heads: tuple[str, ...] | None = None
        #: revision that is running, None before the first and after the last
        self.revision: str | None = None
        #: revisions that were begun in any try, whether they stayed or not
        self.begun: dict[str, None] = {}
        #: whether the present try has begun any
        self.in_flight = False
        #: somebody who does not take the tenant lock moved the version under our feet
        self.overtaken = False
        #: what a failed try left in the database, in the way of the next one
        self.leftover: Failure | None = None
        #: the server's number for the session that migrates
        self.session: int | None = None

    @functools.cached_property
    def scripts(self) -> Scripts:
        """The revisions of the job's section, loaded once per process."""
        return _scripts(self.settings.config, self.job.section, self.settings.x)

    # -- tries --------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Try until it is done, or until another try at once would not help.

        Between two tries nothing is held, neither a transaction nor the tenant lock: whoever waits for either goes
        first. Each try reads the version again under the lock, so nothing is applied twice.
        """
        while True:
            outcome, pause = self._try()
            if pause is None:
                return dataclasses.replace(outcome, attempts=self.ladder.tries)
            time.sleep(pause)

    def end_session(self) -> None:
        """End what the server is still doing for a job that was cancelled: a driver may just have hung up on it."""
        if self.session is None:
            return
        try:
            with self._connection(self.target) as connection:
                holder = self.backend.lock_holder(connection, self.target)
                if holder is not None and holder.pid == self.session and self.backend.end_holder(connection, holder):
                    logger.warning("ended the session on the server: %s", holder)
        except Exception:
            logger.warning("the session on the server could not be ended: pid %s", self.session, exc_info=True)

    def _try(self) -> tuple[Outcome, float | None]:
        """What one try came to, and how long to wait before the next one; None when this was the last."""
        self.heads, self.revision, self.in_flight, self.leftover = None, None, False, None
        try:
            return self._attempt(), None
        except Exception as error:  # noqa: BLE001 - whatever a revision file raises is this target's failure
            return self._failed(error)
        except SystemExit as error:
            return self._failed(RuntimeError(f"env.py or a revision called sys.exit({error.code})"))

    def _failed(self, error: BaseException) -> tuple[Outcome, float | None]:
        """The outcome of a failure: what it was, and where the target stands after it."""
        number = self.ladder.tries
        failure = self._classified(error)
        details = {"code": failure.code, "kind": failure.kind.value, "try": number}
        told = {**details, "masked": failure.message, "statement": failure.statement}
        logger.error("%s", failure.message, exc_info=error, extra=told)
        self.overtaken = self.overtaken or failure.code == "version_moved"
        ambiguous = failure.kind is FailureKind.AMBIGUOUS
        at = self._settled(self.target.timeouts.tenant_lock) if ambiguous else None
        # A lost lock is no lost answer: somebody else may have worked on the target at the same time.
        if at is not None and self._is_reached(at) and not isinstance(error, databases.LockLost):
            return self._reached_all_the_same(at), None
        pause = self.ladder.pause_after(failure, settled=at is not None)
        if pause is not None:
            logger.warning("try %d failed, the next one is in %.2f s", number, pause, extra=details)
            if failure.code in databases.MOVED_CODES:
                rest()  # a session that is kept would lead to the old place
        elif not ambiguous:
            at = self._settled(self.target.timeouts.lock)
        return self._outcome(Status.FAILED, at=at, failure=self._advised(failure)), pause

    def _classified(self, error: BaseException) -> Failure:
        failure = databases.classify(error, self.target, revision=self.revision)
        lost = failure.kind is FailureKind.AMBIGUOUS and not isinstance(error, databases.LockLost)
        # Before the first revision nothing is in flight whose fate could be unknown.
        return dataclasses.replace(failure, kind=FailureKind.TRANSIENT) if lost and not self.in_flight else failure

    def _advised(self, failure: Failure) -> Failure:
        """The failure as it is reported: what nobody knows was worth one more try, and no more."""
        if failure.kind is FailureKind.TRANSIENT and failure.code is None:
            failure = dataclasses.replace(failure, kind=FailureKind.PERMANENT)
        if self.leftover is None:
            return failure
        advice = f"{failure.advice} Before that, drop what it left behind: {self.leftover.message}."
        return dataclasses.replace(failure, advice=advice)

    def _attempt(self) -> Outcome:
        """Connect, lock, look again, migrate, verify; raises whatever goes wrong."""
        self._refuse_other_scripts()
        ours = self.scripts.uses_environment
        if self.job.provision:
            self.backend.provision(self.target)
        with self._connection(self._hurried()) as connection:
            if not ours:
                return self._run_classic(connection)
            with databases.tenant_lock(connection, self.target, self.target.timeouts.tenant_lock, orphans=self.orphans):
                return self._run_ours(connection)

    def _refuse_other_scripts(self) -> None:
        """A worker whose files are older than the plan's, or in another order, must not stop half-way, or go astray."""
        missing = [head for head in (*self.job.wanted, *self.job.path) if not self.scripts.knows([head])]
        if missing:
            raise ScriptsError(
                f"[{self.job.section}]: the plan wants revision {missing[0]}, for which there is no file here; "
                "plan again, or bring the revision files of all workers to one state"
            )
        job = self.job
        way = (job.found, job.path, job.wanted)
        if job.command is Command.DOWNGRADE:
            way = (job.wanted, job.path[::-1], job.found)
        if job.command is not Command.STAMP and not self.scripts.leads(*way):
            raise ScriptsError(
                f"[{job.section}]: the files here know no such way as the plan's: {', '.join(job.path)}, from "
                f"{', '.join(job.found) or 'base'}; bring them back as they were when it was made, or plan again"
            )

    def _hurried(self) -> Target:
        """The target with as much patience for locks as the present try may have."""
        timeouts = self.target.timeouts
        shorter = dataclasses.replace(timeouts, lock=timeouts.lock * self.ladder.lock_share)
        return dataclasses.replace(self.target, timeouts=shorter)

    @property
    def _application(self) -> str:
        return f"orchestrate/{self.settings.run}/{self.target.name}"

    def _connection(self, target: Target) -> contextlib.AbstractContextManager[Connection]:
        return _connections().open(target, application_name=self._application)

    # -- one try ------------------------------------------------------------------------------------------------

    def _run_ours(self, connection: Connection) -> Outcome:
        """Under the tenant lock, through the env.py that takes its target and connection from us."""
        self._see(read_heads(connection, self.target))
        route = self._route()
        if isinstance(route, Reason):
            return self._concluded(connection, route)
        handover = Handover(targets=(self.target,), connection=connection)
        with handed_over(self.scripts.config, handover), logs.guarded():
            moved = self._run_environment(route)
        return self._concluded(connection, moved) if moved else self._verified(connection)

    def _run_classic(self, connection: Connection) -> Outcome:
        """Through an env.py that reads `sqlalchemy.url` and makes its own connection, which takes the lock."""
        self._see(read_heads(connection, self.target))
        route = self._route()
        if isinstance(route, Reason):
            return self._concluded(connection, route)
        config = self.scripts.config
        own = classic.prepared(config, self._hurried(), self._application, orphans=self.orphans)
        with own as connections, logs.guarded():
            moved = self._run_environment(route, connections, **classic.options(self.target, connection))
        return self._concluded(connection, moved) if moved else self._verified(connection)

    def _see(self, heads: tuple[str, ...]) -> None:
        """Take in what the version table says; where the job started from stays what it was once it has begun."""
        self.heads = heads
        if not self.begun:
            resumed = self.job.resumed and self._lies_on_the_way(heads)
            self.found = self.job.found if resumed else heads

    def _lies_on_the_way(self, heads: Sequence[str]) -> bool:
        """Whether an earlier try can have come from where the plan saw the target to these heads."""
        here, start = self.scripts.reached(heads), self.scripts.reached(self.job.found)
        if self.job.command is Command.UPGRADE:
            return start <= here
        return self.job.command is Command.STAMP or here <= start

    def _run_environment(
        self, route: Route, own: classic.OwnConnections | None = None, **options: Any
    ) -> Reason | None:
        """Run env.py once, with the steps of the route as what Alembic calls the migrations function."""
        purge = self.job.command is Command.STAMP and not self.scripts.knows(self.heads or ())
        ended: list[Reason | None] = []

        def upgrade(heads: Sequence[str], context: MigrationContext) -> Iterator[Any]:
            assert context.connection is not None
            if own is not None:
                own.refuse_others(context.connection)
            way = route if purge else self._way_from(heads, route, context)
            if isinstance(way, Reason):
                ended.append(way)
                return
            self.session = self.backend.session(context.connection)
            journal = self.backend.journal(context.connection, self.target, found=tuple(heads))
            if self.job.command is Command.STAMP:
                journal.forget()
            for step in self.scripts.steps(self.job.command, way, heads):
                self.revision = str(step.to_revisions[0] if step.is_upgrade else step.from_revisions[0])
                self.begun[self.revision], self.in_flight = None, True
                with logs.bound(revision=self.revision), self._journalled(journal, self.revision):
                    yield step
            self.revision = None
            ended.append(None)

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
        return how_it_ended(self.target, ended)

    def _journalled(self, journal: databases.Journal, revision: str) -> contextlib.AbstractContextManager[None]:
        """A stamp runs no statement of a revision."""
        if self.job.command is Command.STAMP:
            return contextlib.nullcontext()
        return journal.revision(revision, source=self.scripts.source(revision), direction=self.job.command.value)

    def _way_from(self, heads: Sequence[str], route: Route, context: MigrationContext) -> Route | Reason:
        """The way from what Alembic has read: not before that does a classic env.py, or SQLite, keep others out."""
        seen = tuple(sorted(heads))
        if seen == self.heads:
            return route
        ours = version_options(self.target, context.connection)
        if (context.version_table, context.version_table_schema) != tuple(ours.values()):
            raise EnvironmentError(
                f"{self.target.name}: env.py reads another version table, {context.version_table!r}; take "
                "`version_table` out of it, and name the table in tenants.yaml"
            )
        self._see(seen)
        return self._route()

    def _route(self) -> Route | Reason:
        """The planned way, or the way from where the target is now; a reason when there is nothing left to do."""
        job, heads = self.job, self.heads or ()
        if heads == job.found:
            return Route(path=job.path, wanted=job.wanted)
        if self._is_reached(heads):
            return _VERIFIED if (job.resumed or self.begun) and not self.overtaken else _CONCURRENT
        return self._rest_of_the_way(heads) or Reason(
            code="moved", text=f"is at {', '.join(heads) or 'base'} now, not where the plan saw it; plan again"
        )

    def _rest_of_the_way(self, heads: tuple[str, ...]) -> Route | None:
        """From where an earlier try, or somebody else, has brought the target; None when that is off the way."""
        job = self.job
        if job.command is Command.STAMP or not self.scripts.knows(heads):
            return None
        if job.command is Command.UPGRADE:
            return self.scripts.route_to(heads, job.wanted)
        rest = self.scripts.between(heads, job.wanted)
        on_the_way = self._lies_on_the_way(heads) and set(rest) <= set(job.path)
        return Route(path=rest, wanted=job.wanted) if on_the_way else None

    # -- conclusions --------------------------------------------------------------------------------------------

    def _concluded(self, connection: Connection, reason: Reason) -> Outcome:
        """Nothing is left to do: because of us, because of somebody else, or because it is not ours to do."""
        if reason is _VERIFIED:
            return self._verified(connection, reason)
        status = Status.UNCHANGED if reason is _CONCURRENT else Status.SKIPPED
        return self._outcome(status, at=self.heads, reason=reason)

    def _reached_all_the_same(self, at: tuple[str, ...]) -> Outcome:
        """The answer was lost, or somebody came between; the version says that it is where it should be."""
        if self.overtaken:
            return self._outcome(Status.UNCHANGED, at=at, reason=_CONCURRENT)
        if self.leftover is not None:
            return self._outcome(Status.FAILED, at=at, failure=self._fingerprinted(self.leftover))
        return self._outcome(_DONE[self.job.command], at=at, reason=_LOST_ANSWER)

    def _is_reached(self, heads: Sequence[str]) -> bool:
        if self.job.command is Command.UPGRADE:
            return self.scripts.has_reached(heads, self.job.wanted)
        return tuple(sorted(heads)) == self.job.wanted

    def _verified(self, connection: Connection, reason: Reason | None = None) -> Outcome:
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
            return self._outcome(Status.FAILED, at=at, failure=self._fingerprinted(failure))
        return self._outcome(_DONE[self.job.command], at=at, reason=reason)

    def _fingerprinted(self, failure: Failure) -> Failure:
        return dataclasses.replace(failure, fingerprint=databases.fingerprint(failure, self.target))

    def _settled(self, wait: float) -> tuple[str, ...] | None:
        """Heads after a failure, read on a connection that nothing has touched; None when they cannot be read.

        Under the lock, so that a statement which the server still works on has ended by then. Connecting is tried
        more than once: what cut off the first connection may well cut off the next.
        """
        if self.heads is None:
            return None
        for pause in (*_SETTLING, None):
            try:
                return self._look(wait)
            except Exception as error:  # noqa: BLE001 - the first failure is the one to report; unknown is honest here
                if pause is None or not self._may_pass(error):
                    return None
                time.sleep(pause)
        return None

    def _may_pass(self, error: Exception) -> bool:
        passing = (FailureKind.TRANSIENT, FailureKind.AMBIGUOUS, FailureKind.SERVER)
        return not isinstance(error, databases.TenantLocked) and self.backend.classify(error).kind in passing

    def _look(self, wait: float) -> tuple[str, ...]:
        """The one who holds the lock now may be our own session that we lost."""
        orphans = dataclasses.replace(self.orphans, runs=self.orphans.runs | {self.settings.run})
        with (
            self._connection(self.target) as connection,
            databases.tenant_lock(connection, self.target, wait, orphans=orphans),
        ):
            at = read_heads(connection, self.target)
            self.leftover = self.backend.verify(connection, self.target)
            return at

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
        earlier = self.job.path if self.job.resumed and self.found == self.job.found else ()
        reached = self.scripts.reached(at)
        stays = self.job.command is Command.UPGRADE
        return tuple(revision for revision in dict.fromkeys((*earlier, *self.begun)) if (revision in reached) is stays)


def read_heads(connection: Connection, target: Target) -> tuple[str, ...]:
    """Rows of the target's version table, sorted; leaves no transaction and never makes the table."""
    context = MigrationContext.configure(connection, opts=version_options(target, connection))
    heads = tuple(sorted(context.get_current_heads()))
    connection.rollback()
    return heads


def _log(outcome: Outcome) -> None:
    extra = {"status": outcome.status.value, "from": outcome.found, "at": outcome.at}
    logger.info("%s", outcome.status.value, extra=extra)


@functools.cache
def _scripts(config: Path, section: str, x: tuple[str, ...]) -> Scripts:
    return Scripts(load_config(config, section, x))


@functools.lru_cache(maxsize=1)
def _connections() -> databases.Connections:
    """Warm connections of this process."""
    return databases.Connections()

"""A project without files and databases, for tests of the command line."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from sqlalchemy import make_url

from orchestrator import plan_files
from orchestrator.differences import Difference
from orchestrator.errors import ExitCode, StalePlan, UsageError
from orchestrator.events import JobFinished, JobStarted, Listener, RunFinished, RunStarted, WaveStarted
from orchestrator.ledger import AuditEntry, MemoryLedger, Run
from orchestrator.notifications import Notifier, Subscription
from orchestrator.outcomes import FAILING, Failure, FailureKind, Outcome, Reason, Report, RunStatus, Status
from orchestrator.plans import Command, Condition, Found, Job, Plan, Wave
from orchestrator.records import Differing, Reconciliation
from orchestrator.runs import Aborted
from orchestrator.selectors import Selection, select
from orchestrator.settings import Settings
from orchestrator.standings import Standing, StatusReport, StatusRow
from orchestrator.strategy import Strategy
from orchestrator.tenants import State, Target, Tenant

NOON = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
PASSWORD = "hunter2-secret"

UNIQUE = Failure(
    kind=FailureKind.PERMANENT,
    code="23505",
    type="UniqueViolation",
    message='could not create unique index "uq_users_email"',
    revision="r007",
    statement='CREATE UNIQUE INDEX "uq_users_email" ON users (email)',
    advice="remove the duplicates, then run `orchestrate retry`",
    fingerprint="unique-users-email",
)


def target(name: str, **attributes: Any) -> Target:
    """A PostgreSQL schema."""
    tenant = Tenant(name=name, labels=attributes.pop("labels", {}), state=attributes.pop("state", State.ACTIVE))
    url = make_url(f"postgresql+psycopg://app:{PASSWORD}@db.internal/saas")
    return Target(**{"tenant": tenant, "url": url, "schema": f"tenant_{name}", **attributes})


def job(name: str, **attributes: Any) -> Job:
    """An upgrade from r006 to r007."""
    given: dict[str, Any] = {"command": Command.UPGRADE, "found": ("r006",), "wanted": ("r007",), "path": ("r007",)}
    return Job(target=name, tenant=name, server="db.internal:5432", wave="all", **{**given, **attributes})


def outcome(name: str, status: Status = Status.UPGRADED, **attributes: Any) -> Outcome:
    """What happened to a target of that name."""
    return Outcome(target=name, tenant=name, status=status, **attributes)


def skipped(name: str, code: str = "quarantined", text: str = "restoring a backup") -> Outcome:
    """A target that was left alone."""
    return outcome(name, Status.SKIPPED, reason=Reason(code=code, text=text))


def plan(*jobs: Job, settled: Sequence[Outcome] = (), **attributes: Any) -> Plan:
    """A plan of one wave."""
    given: dict[str, Any] = {
        "project": "billing",
        "environment": "staging",
        "command": jobs[0].command if jobs else Command.UPGRADE,
        "asked": "head",
        "revision": ("r007",),
        "strategy": "default",
        "waves": (Wave(name="all", jobs=jobs, concurrency=8, max_failures=None),) if jobs else (),
        "settled": tuple(settled),
    }
    return Plan(**{**given, **attributes})


def report(*outcomes: Outcome, status: RunStatus = RunStatus.SUCCEEDED, **attributes: Any) -> Report:
    """The report of a run."""
    given: dict[str, Any] = {
        "run": "r-20261122-120000-4f2a",
        "command": "upgrade",
        "revision": ("r007",),
        "project": "billing",
        "environment": "staging",
        "operator": "ada@host",
        "strategy": "default",
        "plan_digest": "sha256:0",
        "exit_code": ExitCode.OK if status is RunStatus.SUCCEEDED else ExitCode.FAILURES,
        "started_at": NOON,
        "duration_s": 12.4,
    }
    return Report(status=status, outcomes=outcomes, **{**given, **attributes})


def status_row(name: str, standing: Standing = Standing.AT_HEAD, **attributes: Any) -> StatusRow:
    """Where a target stands."""
    heads = attributes.pop("heads", ("r007",))
    found = Found(
        target=attributes.pop("target", None) or target(name),
        condition=attributes.pop("condition", Condition.VERSIONED),
        heads=heads,
        failure=attributes.pop("failure", None),
    )
    return StatusRow(found=found, standing=standing, wanted=("r007",), **{"behind_by": 0, **attributes})


@dataclasses.dataclass
class FakeProject:
    """Answers like `Project`, and remembers what it was asked."""

    root: Path
    targets: tuple[Target, ...] = (target("acme"), target("globex"), target("initech"))
    protected: bool = False
    notes: tuple[str, ...] = ()
    #: status of each target by its name after a run
    ends: dict[str, Status] = dataclasses.field(default_factory=dict)
    settled: tuple[Outcome, ...] = ()
    rows: tuple[StatusRow, ...] = (status_row("acme"),)
    checks: list[Any] = dataclasses.field(default_factory=list)
    forgotten: list[str] = dataclasses.field(default_factory=list)
    #: what has changed since a saved plan was made
    changes: tuple[Difference, ...] = ()
    #: raised instead of running anything
    refusal: Exception | None = None
    #: called in the middle of a run
    during: Callable[[Any], None] | None = None
    loaded_with: Any = None
    planned: dict[str, Any] = dataclasses.field(default_factory=dict)
    ran: dict[str, Any] = dataclasses.field(default_factory=dict)
    revised: dict[str, Any] = dataclasses.field(default_factory=dict)
    closed: bool = False
    #: whether the doctor was asked for trial messages
    tried: bool = False
    subscriptions: tuple[Subscription, ...] = ()
    complaints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.settings = Settings(config=self.root / "alembic.ini", registry=self.root / "tenants.yaml")
        self.ledger = MemoryLedger(project="billing", environment="staging")
        self.runs = FakeRuns(self)
        self.registry = SimpleNamespace(
            path=self.root / "tenants.yaml",
            project="billing",
            environment="staging",
            protected=self.protected,
            notes=self.notes,
            tenants=tuple({target.tenant.name: target.tenant for target in self.targets}.values()),
            targets=self.targets,
            strategies={"default": Strategy()},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def ledger_if_any(self) -> MemoryLedger | None:
        return self.ledger if self.ledger.runs() else None

    def select(self, selection: Selection, *, writing: bool = False) -> tuple[Target, ...]:
        return select(self.targets, selection)

    def failed_targets(self, run: str | None) -> tuple[str, ...]:
        return ("globex",) if run is None else ("initech",)

    def status(self, selection: Selection) -> StatusReport:
        self.planned = {"selection": selection}
        return StatusReport(project="billing", environment="staging", rows=self.rows, wanted={"alembic": ("r007",)})

    def plan(self, revision: str, *, command: Command, selection: Selection, **arguments: Any) -> Plan:
        self.planned = {"revision": revision, "command": command, "selection": selection, **arguments}
        chosen = select(self.targets, selection)
        jobs = [job(target.name, command=command) for target in chosen]
        return plan(*jobs, settled=self.settled, command=command, asked=revision)

    def sql(self, plan: Plan) -> list[tuple[tuple[Job, ...], str]]:
        return [(tuple(plan.jobs), "CREATE TABLE t (id int);")]

    def document(self, plan: Plan) -> dict[str, Any]:
        return plan_files.document(plan, operator="ada@host", sql=[])

    def compare(self, plan: Plan) -> tuple[Plan | None, tuple[Difference, ...]]:
        return (None if self.changes else plan), self.changes

    def verify(self, plan: Plan) -> Plan:
        if self.changes:
            raise StalePlan([change.text for change in self.changes])
        return plan

    def run(self, plan: Plan, *, listeners: Sequence[Listener], parent: str | None = None, **given: Any) -> Report:
        self.ran = {"plan": plan, "parent": parent, "listeners": listeners, **given}
        if self.refusal is not None:
            raise self.refusal
        run = self.ledger.open_run(plan, operator="ada@host", fleet=len(self.targets), parent=parent)
        tell(listeners, RunStarted(run=run.id, plan=plan))
        outcomes = []
        for wave in plan.waves:
            tell(listeners, WaveStarted(wave=wave.name, jobs=len(wave.jobs)))
            for one in wave.jobs:
                tell(listeners, JobStarted(job=one))
                if self.during is not None:
                    self.during(self)
                outcomes.append(self._ended(one))
                self.ledger.record(run.id, outcomes[-1])
                tell(listeners, JobFinished(outcome=outcomes[-1]))
        failed = any(one.status in FAILING for one in outcomes)
        status, code = (RunStatus.FAILED, ExitCode.FAILURES) if failed else (RunStatus.SUCCEEDED, ExitCode.OK)
        self.ledger.close_run(run.id, status, code)
        made = report(*outcomes, *plan.settled, status=status, run=run.id, parent=parent, command=plan.command.value)
        tell(listeners, RunFinished(report=made))
        return made

    def _ended(self, one: Job) -> Outcome:
        status = self.ends.get(one.target, Status.UPGRADED)
        return one.outcome(status, failure=UNIQUE if status is Status.FAILED else None)

    def report(self, run: str | None = None) -> Report:
        if not self.ledger.runs():
            raise UsageError("no run has been recorded yet")
        found = self.ledger.run(run)
        return report(*self.ledger.outcomes(found.id), status=found.status, run=found.id)

    def revise(self, message: str, **arguments: Any) -> list[Path]:
        self.revised = {"message": message, **arguments}
        return [] if arguments["autogenerate"] else [self.root / "abc_message.py"]

    def unregistered(self) -> list[str]:
        return self.forgotten

    def doctor(self, *, notify: bool = False) -> list[Any]:
        self.tried = notify
        return self.checks

    def notifier(self) -> Notifier:
        return Notifier(self.subscriptions, complaints=self.complaints)


class FakeRuns:
    """Answers like `Project.runs`, and remembers what it was asked."""

    def __init__(self, project: FakeProject) -> None:
        self._project = project
        self.asked: dict[str, Any] = {}
        #: what is left to resume, retry, or take back
        self.left: Plan = plan()
        self.live = False
        self.differing: tuple[Differing, ...] = ()
        self.settled: tuple[str, ...] = ()
        self.read: tuple[Outcome, ...] = ()
        self.entries: tuple[AuditEntry, ...] = ()

    def resume(self, run: str | None = None, **given: Any) -> Report | None:
        return self._go_on("resume", run, given)

    def retry(self, run: str | None = None, **given: Any) -> Report | None:
        return self._go_on("retry", run, given)

    def _go_on(self, verb: str, run: str | None, given: dict[str, Any]) -> Report | None:
        self.asked = {"verb": verb, "run": run}
        return self._project.run(self.left, **given) if self.left.waves else None

    def rollback_plan(self, run: str | None = None) -> tuple[Run, Plan]:
        self.asked = {"verb": "rollback", "run": run}
        return self._project.ledger.run(run), self.left

    def abort(self, run: str | None = None, **given: Any) -> Aborted:
        self.asked = {"verb": "abort", "run": run, **given}
        return Aborted(run=self._project.ledger.run(run), live=self.live)

    def reconcile(self) -> Reconciliation:
        book = self._project.ledger
        seen = plan(settled=self.read, command=Command.RECONCILE, revision=())
        run = book.open_run(seen, operator="ada@host", fleet=3)
        unreadable = tuple(one.target for one in self.read if one.status is Status.FAILED)
        return Reconciliation(run=run, differing=self.differing, settled=self.settled, unreadable=unreadable)

    def prune(self, **given: Any) -> tuple[str, ...]:
        self.asked = {"verb": "prune", **given}
        return ("r-20260101-000000-0001",)

    def audit(self, limit: int = 50) -> Sequence[AuditEntry]:
        return self.entries[:limit]


def tell(listeners: Sequence[Listener], event: Any) -> None:
    """All listeners hear the event."""
    for listener in listeners:
        listener(event)

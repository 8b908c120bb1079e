"""The one place that wires everything: alembic.ini, tenants.yaml, ledger and settings behind one facade."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from orchestrator import authoring, differences, heads, ledger, offline, plan_files, planner, questions, registry
from orchestrator.authoring import RevisionOptions
from orchestrator.control import Control
from orchestrator.diagnosis import Check, diagnose
from orchestrator.differences import Difference
from orchestrator.errors import Refused, ScriptsError, UsageError
from orchestrator.ledger import Ledger, Run
from orchestrator.notifications import Notifier
from orchestrator.offline import Written
from orchestrator.outcomes import FAILING, Report, RunStatus
from orchestrator.plans import Command, Condition, Files, Found, Job, Plan, Question, Route
from orchestrator.registry import Identity, Registry
from orchestrator.revisions import Scripts, load_config
from orchestrator.running import Manner, Options, drive, leased, operator_here
from orchestrator.runs import Runs
from orchestrator.selectors import Selection, select
from orchestrator.settings import Settings
from orchestrator.standings import StatusReport, StatusRow, stand
from orchestrator.strategy import AUTO_SERVER_CAP, Budget, Strategy
from orchestrator.tenants import Target

#: a fleet this much smaller than in the last run is refused (DESIGN 6.2)
SHRINK_TOLERANCE = 0.10
#: runs that a `--failed` may look back to
_CLOSED_OR_HALTED = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.HALTED, RunStatus.ABORTED})


class Project:
    """An Alembic environment with a fleet: plans, runs, and says who is where.

    Nothing is opened before it is needed. Not safe to be used from several threads at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._scripts: dict[str, Scripts] = {}
        self._ledger: Ledger | None = None

    @classmethod
    def load(
        cls,
        config: str | os.PathLike[str] | None = None,
        *,
        registry: str | os.PathLike[str] | None = None,
        section: str | None = None,
        x: Sequence[str] = (),
        ledger: str | None = None,
        accept_shrink: bool = False,
    ) -> Project:
        """The project of an alembic.ini; what is not given comes from the environment, then from defaults.

        Raises `SettingsError` when alembic.ini or tenants.yaml does not exist.
        """
        return cls(
            Settings.load(config, registry, section=section, x=tuple(x), ledger=ledger, accept_shrink=accept_shrink)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ledger; using the project again opens it again."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    # -- what there is ------------------------------------------------------------------------------------------

    @functools.cached_property
    def registry(self) -> Registry:
        """All tenants, validated; its sources are asked once. Raises `RegistryError` with every problem."""
        return registry.load(self.settings)

    @property
    def ledger(self) -> Ledger:
        """The ledger, made where there is none."""
        if self._ledger is None:
            self._ledger = self._open_ledger(create=True)
        assert self._ledger is not None
        return self._ledger

    def ledger_if_any(self) -> Ledger | None:
        """The ledger, or None where no run has made one: a command that reads makes none."""
        if self._ledger is None:
            self._ledger = self._open_ledger(create=False)
        return self._ledger

    def _open_ledger(self, *, create: bool) -> Ledger | None:
        """The fleet is not needed for it, so that runs can be looked up while a source is down."""
        whose: Registry | Identity = self.__dict__.get("registry") or registry.identify(self.settings)
        url = self.settings.ledger or whose.ledger
        return ledger.open_ledger(url, project=whose.project, environment=whose.environment, create=create)

    def scripts(self, section: str) -> Scripts:
        """The revisions of a section of alembic.ini; raises `ScriptsError` when they cannot be used."""
        if section not in self._scripts:
            self._scripts[section] = Scripts(load_config(self.settings.config, section, self.settings.x))
        return self._scripts[section]

    def select(self, selection: Selection, *, writing: bool = False) -> tuple[Target, ...]:
        """The targets that a selection means; for a command that writes the selection must say something."""
        if writing and not selection.is_given:
            raise UsageError("say which targets are meant: --all, -t NAME, -l SELECTOR, --from-file FILE or --failed")
        return select(self.registry.targets, selection)

    def shrinkage(self) -> str | None:
        """What to say when the registry is much smaller than at the last run, None when it is not."""
        book = self.ledger_if_any()
        before = book.fleet() if book else None
        now = len(self.registry.targets)
        if before is None or now >= before * (1 - SHRINK_TOLERANCE):
            return None
        return (
            f"the registry has {now:,} targets, {before - now:,} fewer than at the last run ({before:,}); "
            "when that is right, pass --accept-shrink"
        )

    def failed_targets(self, run: str | None = None) -> tuple[str, ...]:
        """Names that failed or were lost in a run, without one in the latest closed or halted run."""
        book = self.ledger_if_any()
        if book is None:
            raise UsageError("no run has been recorded yet, so none failed; use --all or -t NAME")
        chosen = book.run(run) if run is not None else self._latest_ended(book)
        return tuple(outcome.target for outcome in book.outcomes(chosen.id) if outcome.status in FAILING)

    @staticmethod
    def _latest_ended(book: Ledger) -> Run:
        runs = (run for run in book.runs(limit=1000) if run.command is not Command.RECONCILE)
        ended = next((run for run in runs if run.status in _CLOSED_OR_HALTED), None)
        if ended is None:
            raise UsageError("no run has ended yet; name one with --failed-in RUN, see `orchestrate runs list`")
        return ended

    # -- who is where -------------------------------------------------------------------------------------------

    def look(self, targets: Sequence[Target]) -> list[Found]:
        """Current heads of targets, read in bulk; writes nothing and takes no lock."""
        caps = {"*": AUTO_SERVER_CAP, **self.registry.server_caps}
        return heads.read(targets, max(Strategy().jobs_at_once(), *caps.values()), self.registry.server_caps)

    def status(self, selection: Selection | None = None) -> StatusReport:
        """Where each selected target stands, held against the heads of its scripts."""
        chosen = self.select(selection or Selection(everything=True))
        wanted = {section: self.scripts(section).heads for section in _sections(chosen)}
        rows: tuple[StatusRow, ...] = tuple(
            stand(found, self.scripts(found.target.section), _today()) for found in self.look(chosen)
        )
        fleet = self.registry
        return StatusReport(rows=rows, wanted=wanted, project=fleet.project, environment=fleet.environment)

    # -- planning -----------------------------------------------------------------------------------------------

    def plan(
        self,
        revision: str = "head",
        *,
        selection: Selection | None = None,
        tenants: Iterable[str] | None = None,
        selector: str | None = None,
        command: Command = Command.UPGRADE,
        strategy: str | None = None,
        concurrency: int | None = None,
        max_failures: Budget | int | str | None = None,
        keep_going: bool = False,
        provision: bool = False,
        allow_ahead: bool = False,
        each: bool = False,
        outside_windows: bool = False,
        deadline: float | None = None,
        accept_shrink: bool = False,
    ) -> Plan:
        """Decide what a run would do, without doing anything.

        The targets are those of `selection`, or of `tenants` and `selector`, or all. Raises `UsageError`,
        `ScriptsError` or `RegistryError` for a request that makes no sense, `Refused` when the fleet shrank.
        """
        wished = selection or _selection(tenants, selector)
        budget = _budget(max_failures)
        chosen = self.select(wished)
        if not accept_shrink:
            self._refuse_shrinkage()
        guide = _Guide(self, chosen, command, revision)
        book = self._strategy(strategy)
        request = planner.Request(
            project=self.registry.project,
            environment=self.registry.environment,
            command=command,
            asked=revision,
            today=_today(),
            strategy=book,
            server_caps=self.registry.server_caps,
            concurrency=concurrency,
            max_failures=budget,
            keep_going=keep_going,
            limit=wished.limit,
            provision=provision,
            allow_ahead=allow_ahead,
            each=each,
            outside_windows=outside_windows,
            deadline=deadline,
            sweep=wished.to_json() if wished.may_grow and not guide.is_step and command is Command.UPGRADE else None,
        )
        self._refuse_skipped_databases(chosen, guide, request)
        plan = planner.build(request, self.look(chosen), guide)
        if command is Command.DOWNGRADE:
            self.runs.refuse_irreversible(plan)
        question = Question(
            selection=wished.to_json(),
            strategy=strategy,
            concurrency=concurrency,
            max_failures=None if budget is None else str(budget),
            keep_going=keep_going,
            provision=provision,
            allow_ahead=allow_ahead,
            each=each,
            outside_windows=outside_windows,
            deadline=deadline,
        )
        return dataclasses.replace(plan, question=question, files=self._files(plan))

    def compare(self, plan: Plan) -> tuple[Plan | None, tuple[Difference, ...]]:
        """The plan that answers the question of an earlier one now, and what has changed between them.

        No plan where the question makes no sense any more: whoever was named has left, or the strategy has, or there
        are several heads where one was asked for. A fleet that shrank is no refusal here: who has left is what the
        changes say.
        """
        asked = questions.asked_by(plan)
        try:
            now = self.plan(**asked, accept_shrink=True)
        except (UsageError, ScriptsError) as error:
            changes = (Difference(kind=differences.Kind.GOAL, text=line) for line in str(error).splitlines())
            return None, tuple(changes)
        return now, differences.compare(plan, now)

    def verify(self, plan: Plan) -> Plan:
        """The same plan, made now: run this one.

        Raises `StalePlan` when anything that the plan rests on has changed since, and says what; `Refused` when the
        fleet shrank, though not by a target of the plan.
        """
        now, changes = self.compare(plan)
        if now is None or changes:
            raise questions.stale(plan, [change.text for change in changes], self.ledger_if_any())
        self._refuse_shrinkage()
        return now

    def _files(self, plan: Plan) -> dict[str, Files]:
        """What the files are that the jobs run, by section."""
        revisions: dict[str, set[str]] = {}
        for job in plan.jobs:
            revisions.setdefault(job.section, set()).update(job.path)
        return {section: self.scripts(section).digests(ids) for section, ids in revisions.items()}

    def sql(self, plan: Plan) -> Iterator[tuple[tuple[Job, ...], str]]:
        """The SQL of each distinct path of a plan, with the jobs that take it, written without a connection."""
        for jobs, written in self.scripted(plan):
            if written.text is None:
                raise ScriptsError(written.flaw)
            yield jobs, written.whole

    def scripted(self, plan: Plan) -> Iterator[tuple[tuple[Job, ...], Written]]:
        """The same, with what keeps a path from being written apart from its SQL; never raises for a path."""
        by_name = {target.name: target for target in self.registry.targets}
        groups: dict[tuple[object, ...], list[Job]] = {}
        for job in plan.jobs:
            key = (job.section, by_name[job.target].backend, job.found, job.wanted, job.path)
            groups.setdefault(key, []).append(job)
        for jobs in groups.values():
            first = jobs[0]
            yield tuple(jobs), offline.write_sql(first, first.on(by_name[first.target]), self.scripts(first.section))

    def document(self, plan: Plan, operator: str | None = None) -> dict[str, Any]:
        """The format `orchestrate.plan/1`, with the SQL of each path and who made it; see `plan_files.text`."""
        sql = (
            plan_files.sql_of(jobs[0], len(jobs), written.text, written.flaw) for jobs, written in self.scripted(plan)
        )
        return plan_files.document(plan, operator=operator or operator_here(), sql=sql)

    def _strategy(self, name: str | None) -> Strategy:
        known = self.registry.strategies
        if name is None:
            return known.get("default", Strategy())
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise UsageError(f"no strategy `{name}` in {self.settings.registry.name}; it has {names}")
        return known[name]

    def _refuse_shrinkage(self) -> None:
        shrinkage = self.shrinkage()
        if shrinkage is not None and not self.settings.accept_shrink:
            raise Refused(shrinkage)

    def _refuse_skipped_databases(self, chosen: Sequence[Target], guide: _Guide, request: planner.Request) -> None:
        """A database whose earlier sibling is left out, and is behind, would run before its turn."""
        names = {target.name for target in chosen}
        tenants = {target.tenant.name for target in chosen}
        earlier = {name for target in chosen for name in target.after if name not in names}
        siblings = [t for t in self.registry.targets if t.name in earlier and t.tenant.name in tenants]
        if not siblings or request.command is not Command.UPGRADE:
            return
        behind = [found.target.name for found in self.look(siblings) if not guide.is_done(found)]
        if behind:
            raise Refused(f"{', '.join(behind[:5])} comes first and is behind; select it as well, or upgrade it before")

    # -- running ------------------------------------------------------------------------------------------------

    def upgrade(self, plan: Plan, *, approved: str | None = None, **options: Unpack[Options]) -> Report:
        """Run an upgrade's plan; never raises for a tenant's failure, see `Report.raise_for_failures`."""
        if plan.command is not Command.UPGRADE:
            raise UsageError(f"this is the plan of a {plan.command}; use `Project.run`")
        return self.run(plan, approved=approved, **options)

    def run(
        self,
        plan: Plan,
        *,
        parent: str | None = None,
        action: str | None = None,
        approved: str | None = None,
        **options: Unpack[Options],
    ) -> Report:
        """Run a plan: written to the ledger before any work, its report is complete on every path.

        Open runs without a live runner are settled and superseded. Raises `LeaseHeld` while another run is live, and
        `Refused` for a protected environment unless `confirm` is its name, or `approved` the plan's digest; for a plan
        of another digest in any environment. `action` is what the audit table calls it.
        """
        manner = Manner.of(**options)
        fleet = self.registry
        questions.refuse_unapproved(plan, approved)
        protected = fleet.protected and approved is None
        registry.refuse_unconfirmed(fleet.environment, manner.confirm, protected=protected, flag="confirm=")
        with leased(self.ledger, manner) as lease:
            self.runs.refuse_held(self.ledger, plan, parent)
            detail = {"asked": plan.asked, "jobs": sum(1 for _ in plan.jobs), "digest": plan.digest}
            detail |= {} if approved is None else {"approved": approved}
            # First the new run, then the end of the old ones: whoever dies in between leaves one to be resumed.
            run = self.ledger.open_run(
                plan, operator=manner.operator, fleet=len(fleet.targets), parent=parent, lease=lease
            )
            self.ledger.note(manner.holder, action or plan.command.value, run=run.id, detail=detail)
            self.runs.supersede(lease, self.ledger, run.id)
            return drive(run, plan, self.runs.place(self.ledger, run.id, plan), manner)

    @functools.cached_property
    def control(self) -> Control:
        """What people say to a run while it is on: pause, continue, skip, tolerate more."""
        return Control(self, self.runs)

    @functools.cached_property
    def runs(self) -> Runs:
        """What can be done with recorded runs: resume, retry, roll back, abort, reconcile, prune."""
        return Runs(self)

    def report(self, run: str | None = None) -> Report:
        """The report of a recorded run, as far as it got; the latest without an id."""
        return self.runs.report(run)

    # -- writing revisions, and looking after things ------------------------------------------------------------

    def revise(
        self,
        message: str,
        *,
        autogenerate: bool = False,
        selection: Selection | None = None,
        options: RevisionOptions | None = None,
    ) -> list[Path]:
        """Write new revision files; with `autogenerate` what differs between the models and the first selected tenant.

        Each database of that tenant is compared for its own chain. No file is written where nothing differs.
        """
        given = options or RevisionOptions()
        if not autogenerate:
            scripts = self.scripts(self.settings.section)
            # Only a template that needs the application is worth asking all sources for it.
            app = self._app() if authoring.template_needs_application(scripts) else None
            return authoring.write_revision(scripts, message, given, app)
        chosen = self.select(selection or Selection(everything=True))
        first = [target for target in chosen if target.tenant == chosen[0].tenant]
        written: list[Path] = []
        for section in _sections(first):
            own = [target for target in first if target.section == section]
            self._refuse_absent(own)
            written += authoring.autogenerate(self.scripts(section), message, own, given)
            self._scripts.pop(section)
        return written

    def notifier(self, operator: str | None = None) -> Notifier:
        """A listener that tells whoever `notifications` of tenants.yaml names; close it when the run is over."""
        subscriptions, problems = registry.subscribe(self.registry.notifications, self.settings.root)
        complaints = [str(problem) for problem in problems]
        return Notifier(subscriptions, operator=operator or operator_here(), complaints=complaints)

    def unregistered(self) -> list[str]:
        """Schemas and databases that match the registry's templates, but belong to no tenant."""
        return registry.unregistered(self.registry)

    def doctor(self, *, notify: bool = False) -> list[Check]:
        """Look at everything that a run needs, and say what is missing; `notify` sends trial notifications."""
        return diagnose(self, notify=notify)

    def _app(self) -> str | None:
        return next((target.app for target in self.registry.targets if target.app), None)

    def _refuse_absent(self, targets: Sequence[Target]) -> None:
        for found in self.look(targets):
            if found.condition is Condition.ABSENT:
                name = found.target.tenant.name
                raise UsageError(
                    f"{found.target.name} does not exist yet, so there is nothing to compare with; "
                    f"run `orchestrate upgrade -t {name} --provision` first"
                )
            if found.condition is Condition.UNREACHABLE and found.failure is not None:
                raise UsageError(f"{found.target.name}: {found.failure.message}; {found.failure.advice}")


class _Guide:
    """Answers the planner's questions from the scripts of each target's section, each distinct question once."""

    def __init__(self, project: Project, targets: Sequence[Target], command: Command, asked: str) -> None:
        self._project = project
        self._asked = asked
        self._sections = _sections(targets)
        for section in self._sections:
            self._check(project.scripts(section), command, asked)

    def knows(self, target: Target, heads: tuple[str, ...]) -> bool:
        return self._project.scripts(target.section).knows(heads)

    def is_relative(self, target: Target, asked: str) -> bool:
        return self._project.scripts(target.section).is_relative(asked)

    def route(self, target: Target, command: Command, found: tuple[str, ...], asked: str) -> Route:
        return self._project.scripts(target.section).route(command, found, asked)

    @property
    def is_step(self) -> bool:
        """Whether what was asked for is counted from where each target is."""
        return any(self._project.scripts(section).is_relative(self._asked) for section in self._sections)

    def is_done(self, found: Found) -> bool:
        """Whether a target that was left out is where an upgrade would bring it.

        What was asked for may be a revision of another chain, or a step: such a target has to be at its own heads.
        """
        if found.condition not in (Condition.VERSIONED, Condition.EMPTY) or not self.knows(found.target, found.heads):
            return False
        asked = self._asked
        if found.target.section not in self._sections or self.is_relative(found.target, asked):
            asked = "heads"
        return not self.route(found.target, Command.UPGRADE, found.heads, asked).path

    @staticmethod
    def _check(scripts: Scripts, command: Command, asked: str) -> None:
        """Mistakes in what was asked for show before a database is opened."""
        if command is Command.STAMP and scripts.is_relative(asked):
            raise UsageError(f"`{asked}` is counted from where a target is; a stamp needs a revision")
        if not scripts.is_relative(asked) and not asked.endswith("@base"):
            scripts.resolve(asked)


def _selection(tenants: Iterable[str] | None, selector: str | None) -> Selection:
    names = tuple(tenants or ())
    return Selection(everything=not names and selector is None, names=names, labels=selector)


def _budget(given: Budget | int | str | None) -> Budget | None:
    if given is None or isinstance(given, Budget):
        return given
    try:
        return Budget.parse(given)
    except ValueError:
        raise UsageError(f"max_failures: `{given}` is neither a number such as 3 nor a percent such as 2%") from None


def _sections(targets: Sequence[Target]) -> list[str]:
    return list(dict.fromkeys(target.section for target in targets))


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()

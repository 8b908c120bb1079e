"""A ledger that is gone with the process: for tests, and for trying a rollout out."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.errors import ExitCode, LeaseLost, LedgerError
from orchestrator.ledger import leases
from orchestrator.ledger.audit import scrubbed
from orchestrator.ledger.identifiers import NAMED, new_run_id, no_such_run, several_runs
from orchestrator.ledger.leases import Entry, lost
from orchestrator.ledger.protocol import (
    Attempt,
    AuditEntry,
    Holder,
    Lease,
    News,
    Request,
    RequestKind,
    Run,
    StopRequest,
    WaveMark,
)
from orchestrator.ledger.pruning import OPEN, Candidate, prunable
from orchestrator.outcomes import Outcome, RunStatus, count
from orchestrator.plans import Command, Job, Plan


@dataclasses.dataclass(slots=True, kw_only=True)
class _Entry:
    """One run and all that was written about it."""

    run: Run
    plan: Plan
    #: target to place in the plan
    positions: dict[str, int]
    attempts: dict[str, list[Attempt]] = dataclasses.field(default_factory=dict)
    #: target to its latest outcome, in the order of writing
    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)
    #: every outcome, in the order of writing
    written: list[Outcome] = dataclasses.field(default_factory=list)
    requests: list[Request] = dataclasses.field(default_factory=list)
    #: by wave, in the order in which they were reached
    marks: dict[str, WaveMark] = dataclasses.field(default_factory=dict)

    def write(self, outcome: Outcome) -> Outcome:
        """Keep what a file would keep, so that the fake forgets what the real one forgets."""
        kept = Outcome.from_json(outcome.to_json())
        self.outcomes.pop(outcome.target, None)
        self.outcomes[outcome.target] = kept
        self.written.append(kept)
        return kept

    def conclude(self, outcome: Outcome) -> None:
        """Write the last word on a target, of its attempt if that is still open, unless it is the last word anyway."""
        tries = self.attempts.get(outcome.target)
        is_open = tries is not None and tries[-1].outcome is None
        if not is_open and self.outcomes.get(outcome.target) == Outcome.from_json(outcome.to_json()):
            return
        kept = self.write(outcome)
        if tries and is_open:
            tries[-1] = dataclasses.replace(tries[-1], finished_at=_now(), outcome=kept)


class MemoryStore:
    """What several `MemoryLedger` share, as several processes share a database."""

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}
        #: by project and environment
        self.leases: dict[str, Entry] = {}
        #: of all scopes, in the order of writing
        self.audit: list[tuple[str, AuditEntry]] = []
        self.request_ids = itertools.count(1)
        #: guards all of it: the heartbeat writes from a thread of its own
        self.lock = threading.RLock()


class _MemoryLeases:
    """The lease of one project and environment."""

    def __init__(self, store: MemoryStore, scope: str) -> None:
        self.scope = scope
        self._store = store

    def read(self) -> Entry | None:
        """The lease as it is now, None before the first holder."""
        entry = self._store.leases.get(self.scope)
        return None if entry is None else dataclasses.replace(entry, now=_now())

    def take(self, seen: Entry | None, holder: Holder) -> Lease | None:
        """Write a new holder down if nothing has changed since that was read; None when something has."""
        with self._store.lock:
            present = self._store.leases.get(self.scope)
            if (seen and seen.beat) != (present and present.beat):
                return None
            moment = _now()
            entry = Entry(
                token=1 if seen is None else seen.token + 1,
                holder=holder,
                run=None,
                acquired_at=moment,
                renewed_at=moment,
                now=moment,
                stop=None,
                released=False,
            )
            self._store.leases[self.scope] = entry
            return entry.lease

    def held(self, token: int) -> Entry:
        """The lease while that holder has it; raises `LeaseLost`."""
        entry = self._store.leases.get(self.scope)
        if entry is None or entry.token != token or entry.released:
            raise lost(entry, token, self.scope)
        return entry

    def change(self, token: int, **fields: Any) -> Entry:
        """Change the lease while that holder has it; raises `LeaseLost`."""
        with self._store.lock:
            entry = dataclasses.replace(self.held(token), **fields)
            self._store.leases[self.scope] = entry
            return entry


class MemoryLedger:
    """The contract of `Ledger` without a database."""

    def __init__(
        self,
        *,
        project: str = "default",
        environment: str = "default",
        store: MemoryStore | None = None,
    ) -> None:
        self._project = project
        self._environment = environment
        self._store = store or MemoryStore()
        self._leases = _MemoryLeases(self._store, self._scope)
        #: fencing number under which a run is written
        self._tokens: dict[str, int] = {}

    def acquire(self, holder: Holder, *, pause: Callable[[float], None] | None = None) -> Lease:
        """Take the lease of this project and environment; raises `LeaseHeld` while somebody alive holds it."""
        return leases.acquire(self._leases, holder, pause)

    def renew(self, lease: Lease) -> StopRequest | None:
        """Say that the holder lives; returns what was asked of it."""
        return self._leases.change(lease.token, renewed_at=_now()).stop

    def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens when it is another's already."""
        with contextlib.suppress(LeaseLost):
            self._leases.change(lease.token, released=True, run=None, stop=None)

    def live(self) -> Lease | None:
        """The lease as somebody alive holds it now, None when nobody does."""
        entry = leases.live(self._leases)
        return None if entry is None else entry.lease

    def request_stop(self, run: str, request: StopRequest) -> bool:
        """Ask the live runner of that run to stop; False when there is none."""
        with self._store.lock:
            entry = leases.live(self._leases)
            if entry is None or entry.run != run:
                return False
            self._leases.change(entry.token, stop=entry.stop if entry.stop is StopRequest.NOW else request)
            return True

    def request(self, run: str, holder: Holder, kind: RequestKind, detail: Mapping[str, Any] | None = None) -> Request:
        """Ask something of a run, whether a runner is live or comes later."""
        entry = self._entry(run)
        with self._store.lock:
            made = Request(
                id=next(self._store.request_ids),
                at=_now(),
                operator=holder.operator,
                kind=kind,
                detail=scrubbed(detail or {}),
            )
            entry.requests.append(made)
            return made

    def requests(self, run: str) -> Sequence[Request]:
        """What was asked of a run, first to last."""
        with self._store.lock:
            return list(self._entry(run).requests)

    def mark_wave(self, run: str, mark: WaveMark) -> None:
        """Write how far the run is with a wave, instead of what was written of that wave before."""
        with self._writing(run) as entry:
            entry.marks[mark.wave] = mark

    def wave_marks(self, run: str) -> Sequence[WaveMark]:
        """How far a run is with each wave that it has reached, in that order."""
        return list(self._entry(run).marks.values())

    def set_status(self, run: str, status: RunStatus) -> None:
        """Say that a live run is `paused`, or `running` again."""
        with self._writing(run) as entry:
            entry.run = dataclasses.replace(entry.run, status=status)

    def note(
        self, holder: Holder, action: str, *, run: str | None = None, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Add one row to the audit table."""
        entry = AuditEntry(
            at=_now(),
            operator=holder.operator,
            host=holder.host,
            action=action,
            run=run,
            detail=scrubbed(detail or {}),
        )
        self._store.audit.append((self._scope, entry))

    def audit(self, limit: int = 50) -> Sequence[AuditEntry]:
        """Rows of the audit table, latest first."""
        ours = (entry for scope, entry in reversed(self._store.audit) if scope == self._scope)
        return list(itertools.islice(ours, limit))

    def open_run(
        self, plan: Plan, *, operator: str, fleet: int, parent: str | None = None, lease: Lease | None = None
    ) -> Run:
        """Write the run, its jobs and the outcomes that are settled already, before any work; live under the lease."""
        jobs = tuple(plan.jobs)
        now = _now()
        candidates = (new_run_id(now) for _ in itertools.count())
        run = Run(
            id=next(candidate for candidate in candidates if candidate not in self._store.entries),
            parent=parent,
            project=self._project,
            environment=self._environment,
            command=plan.command,
            revision=plan.revision,
            strategy=plan.strategy,
            plan_digest=plan.digest,
            operator=operator,
            status=RunStatus.RUNNING,
            started_at=now,
            size=len(jobs) + len(plan.settled),
            fleet=fleet,
        )
        positions = {job.target: position for position, job in enumerate(jobs)}
        entry = _Entry(run=run, plan=Plan.from_json(plan.to_json()), positions=positions)
        for outcome in plan.settled:
            entry.write(outcome)
        with self._store.lock:
            self._follow(run.id, lease, live=True)
            self._store.entries[run.id] = entry
        return dataclasses.replace(self._told(entry), status=RunStatus.RUNNING)

    def adopt_run(self, run: str, lease: Lease, *, reopen: bool = False) -> Run:
        """Let later writes to a run of before stand under this lease; with `reopen` it is `running`, live, unended."""
        entry = self._entry(run)
        with self._store.lock:
            self._follow(run, lease, live=reopen)
            if reopen:
                entry.run = dataclasses.replace(entry.run, status=RunStatus.RUNNING, exit_code=None, finished_at=None)
        told = self._told(entry)
        return dataclasses.replace(told, status=RunStatus.RUNNING) if reopen else told

    def add_jobs(self, run: str, jobs: Sequence[Job]) -> None:
        """Add jobs to a run of before and to its plan, behind its own; those that it has already are left alone."""
        with self._writing(run) as entry:
            for job in jobs:
                entry.positions.setdefault(job.target, len(entry.positions))
            entry.plan = entry.plan.with_jobs(jobs)

    def start(self, run: str, job: Job) -> int:
        """Write the intent to run a job; returns the number of this attempt, from 1."""
        with self._writing(run) as entry:
            if job.target not in entry.positions:
                raise LedgerError(f"run {run} has no job for {job.target}; only what was planned is run")
            tries = entry.attempts.setdefault(job.target, [])
            tries.append(Attempt(number=len(tries) + 1, started_at=_now()))
            return len(tries)

    def record(self, run: str, outcome: Outcome) -> None:
        """Write what happened to a job."""
        with self._writing(run) as entry:
            kept = entry.write(outcome)
            tries = entry.attempts.get(outcome.target)
            if tries:
                tries[-1] = dataclasses.replace(tries[-1], finished_at=_now(), outcome=kept)

    def close_run(self, run: str, status: RunStatus, exit_code: ExitCode, outcomes: Sequence[Outcome] = ()) -> Run:
        """Write how the run ended, with those of the outcomes that it does not have yet."""
        with self._writing(run) as entry:
            for outcome in outcomes:
                entry.conclude(outcome)
            entry.run = dataclasses.replace(entry.run, status=status, exit_code=exit_code, finished_at=_now())
        return self._told(entry)

    def prune(self, *, keep: int = 0, before: datetime.datetime | None = None) -> Sequence[str]:
        """Delete closed runs but the `keep` latest runs, those of before that moment only; returns their ids."""
        runs = [
            Candidate(id=run.id, parent=run.parent, status=run.status, at=run.finished_at or run.started_at)
            for run in (entry.run for entry in self._latest_first())
        ]
        pruned = prunable(runs, keep=keep, before=before)
        for run in pruned:
            del self._store.entries[run]
        return pruned

    def runs(self, limit: int = 20) -> Sequence[Run]:
        """Runs of this project and environment, latest first."""
        return [self._told(entry) for entry in itertools.islice(self._latest_first(), limit)]

    def open_runs(self) -> Sequence[Run]:
        """Runs that are running, paused, interrupted or halted, latest first."""
        return [self._told(entry) for entry in self._latest_first() if entry.run.status in OPEN]

    def run(self, run: str | None = None) -> Run:
        """One run by its id or a unique beginning of it, the latest without one; `UsageError` when there is none."""
        matching = [entry for entry in self._latest_first() if run is None or entry.run.id.startswith(run)]
        if not matching:
            raise no_such_run(run, self._latest_ids(), self._scope)
        if run is not None and len(matching) > 1:
            raise several_runs(run, [entry.run.id for entry in matching])
        return self._told(matching[0])

    def plan(self, run: str) -> Plan:
        """The plan of a run as it was frozen, and the jobs that were added."""
        return self._entry(run).plan

    def outcomes(self, run: str) -> Sequence[Outcome]:
        """The latest outcome of each target of a run, in the plan's order; targets without one are left out."""
        entry = self._entry(run)
        last = len(entry.positions)
        return sorted(entry.outcomes.values(), key=lambda outcome: entry.positions.get(outcome.target, last))

    def unsettled(self, run: str) -> Sequence[str]:
        """Targets with an intent that no outcome followed, in the plan's order."""
        entry = self._entry(run)
        return [
            target for target in entry.positions if (tries := entry.attempts.get(target)) and tries[-1].outcome is None
        ]

    def news(self, run: str, *, after: int = 0) -> News:
        """What was written of a run behind `after`, and what is at work now."""
        with self._store.lock:
            entry = self._entry(run)
            tries = {target: tries[-1] for target, tries in entry.attempts.items()}
            at_work = {target: latest.started_at for target, latest in tries.items() if latest.outcome is None}
            since = dict(sorted(at_work.items(), key=lambda pair: pair[1]))
            return News(last=len(entry.written), outcomes=entry.written[after:], at_work=since)

    def attempts(self, run: str, target: str) -> Sequence[Attempt]:
        """All tries of one target in one run, first to last."""
        return tuple(self._entry(run).attempts.get(target, ()))

    def fleet(self) -> int | None:
        """Size of the whole registry at the latest run, or reconciliation where nothing was run; None before."""
        entries = sorted(self._latest_first(), key=lambda entry: entry.run.command is Command.RECONCILE)
        return next((entry.run.fleet for entry in entries), None)

    def close(self) -> None:
        """Nothing to release."""

    @property
    def _scope(self) -> str:
        return f"{self._project}/{self._environment}"

    def _latest_first(self) -> Iterator[_Entry]:
        scope = (self._project, self._environment)
        entries = reversed(self._store.entries.values())
        return (entry for entry in entries if (entry.run.project, entry.run.environment) == scope)

    def _latest_ids(self) -> list[str]:
        return [entry.run.id for entry in itertools.islice(self._latest_first(), NAMED)]

    def _entry(self, run: str) -> _Entry:
        found = next((entry for entry in self._latest_first() if entry.run.id == run), None)
        if found is None:
            raise no_such_run(run, self._latest_ids(), self._scope)
        return found

    @contextlib.contextmanager
    def _writing(self, run: str) -> Iterator[_Entry]:
        """A run that may be written to; raises `LeaseLost` when it stands under a lease that is another's by now."""
        entry = self._entry(run)
        with self._store.lock:
            if run in self._tokens:
                self._leases.held(self._tokens[run])
            yield entry

    def _follow(self, run: str, lease: Lease | None, *, live: bool) -> None:
        """Write to that run under that lease from now on."""
        if lease is None:
            return
        if live:
            self._leases.change(lease.token, run=run, renewed_at=_now())
        else:
            self._leases.held(lease.token)
        self._tokens[run] = lease.token

    def _told(self, entry: _Entry) -> Run:
        """A run that nobody alive drives was interrupted, though nobody could write that down."""
        run = dataclasses.replace(entry.run, counts=count(entry.outcomes.values()))
        if run.status is not RunStatus.RUNNING:
            return run
        lease = self.live()
        is_live = lease is not None and lease.run == run.id
        return run if is_live else dataclasses.replace(run, status=RunStatus.INTERRUPTED)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

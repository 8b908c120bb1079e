"""A ledger that is gone with the process: for tests, and for trying a rollout out."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Iterator, Sequence

from orchestrator.errors import ExitCode, LedgerError
from orchestrator.ledger.identifiers import NAMED, new_run_id, no_such_run, several_runs
from orchestrator.ledger.protocol import Attempt, Run
from orchestrator.outcomes import Outcome, RunStatus, count
from orchestrator.plans import Job, Plan


@dataclasses.dataclass(slots=True, kw_only=True)
class _Entry:
    """One run and all that was written about it."""

    run: Run
    #: target to place in the plan
    positions: dict[str, int]
    attempts: dict[str, list[Attempt]] = dataclasses.field(default_factory=dict)
    #: target to its latest outcome, in the order of writing
    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict)

    def write(self, outcome: Outcome) -> Outcome:
        """Keep what a file would keep, so that the fake forgets what the real one forgets."""
        kept = Outcome.from_json(outcome.to_json())
        self.outcomes.pop(outcome.target, None)
        self.outcomes[outcome.target] = kept
        return kept


class MemoryStore:
    """What several `MemoryLedger` share, as several processes share a database."""

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}


class MemoryLedger:
    """The contract of `Ledger` without a database."""

    def __init__(
        self, *, project: str = "default", environment: str = "default", store: MemoryStore | None = None
    ) -> None:
        self._project = project
        self._environment = environment
        self._store = store or MemoryStore()

    def open_run(self, plan: Plan, *, operator: str, fleet: int, parent: str | None = None) -> Run:
        """Write the run, its jobs and the outcomes that are settled already, before any work."""
        jobs = tuple(plan.jobs)
        now = datetime.datetime.now(datetime.UTC)
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
        entry = _Entry(run=run, positions={job.target: position for position, job in enumerate(jobs)})
        for outcome in plan.settled:
            entry.write(outcome)
        self._store.entries[run.id] = entry
        return _counted(entry)

    def start(self, run: str, job: Job) -> int:
        """Write the intent to run a job; returns the number of this attempt, from 1."""
        entry = self._entry(run)
        if job.target not in entry.positions:
            raise LedgerError(f"run {run} has no job for {job.target}; only what was planned is run")
        tries = entry.attempts.setdefault(job.target, [])
        tries.append(Attempt(number=len(tries) + 1, started_at=datetime.datetime.now(datetime.UTC)))
        return len(tries)

    def record(self, run: str, outcome: Outcome) -> None:
        """Write what happened to a job."""
        entry = self._entry(run)
        kept = entry.write(outcome)
        tries = entry.attempts.get(outcome.target)
        if tries:
            now = datetime.datetime.now(datetime.UTC)
            tries[-1] = dataclasses.replace(tries[-1], finished_at=now, outcome=kept)

    def close_run(self, run: str, status: RunStatus, exit_code: ExitCode, outcomes: Sequence[Outcome] = ()) -> Run:
        """Write how the run ended, with the outcomes of jobs that never started."""
        entry = self._entry(run)
        for outcome in outcomes:
            entry.write(outcome)
        now = datetime.datetime.now(datetime.UTC)
        entry.run = dataclasses.replace(entry.run, status=status, exit_code=exit_code, finished_at=now)
        return _counted(entry)

    def runs(self, limit: int = 20) -> Sequence[Run]:
        """Runs of this project and environment, latest first."""
        return [_counted(entry) for entry in itertools.islice(self._latest_first(), limit)]

    def run(self, run: str | None = None) -> Run:
        """One run by its id or a unique beginning of it, the latest without one; `UsageError` when there is none."""
        matching = [entry for entry in self._latest_first() if run is None or entry.run.id.startswith(run)]
        if not matching:
            raise no_such_run(run, self._latest_ids(), self._scope)
        if run is not None and len(matching) > 1:
            raise several_runs(run, [entry.run.id for entry in matching])
        return _counted(matching[0])

    def outcomes(self, run: str) -> Sequence[Outcome]:
        """The latest outcome of each target of a run, in the plan's order; targets without one are left out."""
        entry = self._entry(run)
        last = len(entry.positions)
        return sorted(entry.outcomes.values(), key=lambda outcome: entry.positions.get(outcome.target, last))

    def attempts(self, run: str, target: str) -> Sequence[Attempt]:
        """All tries of one target in one run, first to last."""
        return tuple(self._entry(run).attempts.get(target, ()))

    def fleet(self) -> int | None:
        """Size of the whole registry at the latest run, None before the first."""
        return next((entry.run.fleet for entry in self._latest_first()), None)

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


def _counted(entry: _Entry) -> Run:
    return dataclasses.replace(entry.run, counts=count(entry.outcomes.values()))

"""The frozen, printable decision of what will be done to whom."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from orchestrator.outcomes import Failure, Outcome, Status
from orchestrator.tenants import Target, Transaction

PLAN_FORMAT = "orchestrate.plan/1"
#: pause of a wave behind which a person must say that the run goes on
UNTIL_CONTINUED = "until-continued"


class Command(enum.StrEnum):
    """What a run does to its targets."""

    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    STAMP = "stamp"
    #: only reads: writes into the ledger what the version tables say
    RECONCILE = "reconcile"


class Condition(enum.StrEnum):
    """What a look at a target's version table found."""

    #: the version table has at least one row
    VERSIONED = "versioned"
    #: neither a version row nor any table of the tenant's
    EMPTY = "empty"
    #: tables, but no version row
    UNVERSIONED = "unversioned"
    #: the database, schema or file does not exist
    ABSENT = "absent"
    #: could not be read; `Found.failure` says why
    UNREACHABLE = "unreachable"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look at one target found, before anything is planned."""

    target: Target
    condition: Condition
    #: rows of the version table, sorted
    heads: tuple[str, ...] = ()
    failure: Failure | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way from some heads to others."""

    #: revisions to run, in order
    path: tuple[str, ...]
    #: rows of the version table at the end, sorted
    wanted: tuple[str, ...]
    #: nothing to run because the target is further than what was wanted
    past: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Bring one target to one revision. Plain values without secrets: the executor knows the target by its name."""

    target: str
    tenant: str
    database: str | None = None
    schema: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    server: str
    #: where the target is, as `Target.place`; None in a plan of before it was kept
    location: str | None = None
    #: section of alembic.ini
    section: str = "alembic"
    command: Command
    #: heads found when planning
    found: tuple[str, ...]
    #: concrete revision ids, never `head`
    wanted: tuple[str, ...]
    #: revisions that will run, in order
    path: tuple[str, ...]
    wave: str
    #: names of targets that must be done first
    after: tuple[str, ...] = ()
    #: create the database or schema first
    provision: bool = False
    #: the tenant's maintenance windows, as written; none means always
    window: tuple[str, ...] = ()
    #: how much one transaction holds, as the strategy says; None for what the target says
    transaction: Transaction | None = None
    #: an earlier try of this run may have done it, wholly or in part; no part of the plan
    resumed: bool = False

    @classmethod
    def of(cls, look: Found, route: Route, **fields: Any) -> Job:
        """Bring a target from where it was found along a route; the other fields are the caller's."""
        target = look.target
        return cls(
            target=target.name,
            tenant=target.tenant.name,
            database=target.database,
            schema=target.schema,
            labels=dict(target.labels),
            server=target.server,
            location=target.place,
            section=target.section,
            found=look.heads,
            wanted=route.wanted,
            path=route.path,
            after=target.after,
            **fields,
        )

    def to_json(self) -> dict[str, Any]:
        """As in a plan; field by field, since a plan may have ten thousand of them."""
        return {
            "target": self.target,
            "tenant": self.tenant,
            "database": self.database,
            "schema": self.schema,
            "labels": dict(self.labels),
            "server": self.server,
            "location": self.location,
            "section": self.section,
            "command": self.command.value,
            "found": list(self.found),
            "wanted": list(self.wanted),
            "path": list(self.path),
            "wave": self.wave,
            "after": list(self.after),
            "provision": self.provision,
            "window": list(self.window),
            "transaction": None if self.transaction is None else self.transaction.value,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """Undo `to_json`."""
        lists = {name: tuple(data.get(name, ())) for name in ("found", "wanted", "path", "after", "window")}
        said = data.get("transaction")
        transaction = None if said is None else Transaction(said)
        return cls(**{**data, **lists, "command": Command(data["command"]), "transaction": transaction})

    def on(self, target: Target) -> Target:
        """The target as this job migrates it."""
        if self.transaction is None:
            return target
        return dataclasses.replace(target, transaction=self.transaction)

    def outcome(self, status: Status, **fields: Any) -> Outcome:
        """What happened to this job: the job's own fields, the status, and whatever else is known."""
        same = ("target", "tenant", "database", "schema", "labels", "server", "wave", "found", "wanted")
        return Outcome(**{**{name: getattr(self, name) for name in same}, "status": status, **fields})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How long a run waits before it tries a job again."""

    #: seconds before each further try of a job that met a passing fault: a lock, a deadlock
    busy: tuple[float, ...] = (60.0, 300.0, 900.0)
    #: seconds before each probe of a server that is down
    server: tuple[float, ...] = (5.0, 10.0, 15.0, 30.0)
    #: further tries of a job whose worker died, or whose connection was lost with nothing known
    lost: int = 2

    def to_json(self) -> dict[str, Any]:
        """As in a plan."""
        return {"busy": list(self.busy), "server": list(self.server), "lost": self.lost}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Retries:
        """Undo `to_json`."""
        return cls(busy=tuple(data["busy"]), server=tuple(data["server"]), lost=data["lost"])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What must hold after a wave, as far as it may be shown; what is asked stands in the strategy."""

    #: `command`, `sql` or `http`
    kind: str
    #: the command line, the query, or the address, without secrets
    text: str
    #: of a query: `each` upgraded target, None for one database
    on: str | None = None
    #: seconds that one measurement may take
    timeout: float
    #: seconds between two measurements
    interval: float
    #: measurements that must all pass
    count: int
    #: changes with everything that is written of the gate
    digest: str

    def to_json(self) -> dict[str, Any]:
        """As in a plan."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Jobs that may run side by side; waves run in order."""

    name: str
    jobs: tuple[Job, ...]
    #: jobs in flight at once
    concurrency: int
    #: that many because of the cores of this machine: another machine may run more or less of them
    auto: bool = False
    #: label by whose value the jobs were put in order; else they stand as in the registry
    order_by: str | None = None
    #: the wave halts the run when its failures exceed this; None lifts it
    max_failures: int | None = None
    #: never more jobs in flight than failures left plus one
    strict: bool = False
    #: how long to wait after the wave: seconds, or `UNTIL_CONTINUED`
    pause: float | str | None = None
    #: what must hold after that
    gate: Gate | None = None
    #: when its jobs may start, as written; none means always
    window: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As in a plan."""
        return {
            "name": self.name,
            "concurrency": self.concurrency,
            "auto": self.auto,
            "order_by": self.order_by,
            "max_failures": self.max_failures,
            "strict": self.strict,
            "pause": self.pause,
            "gate": None if self.gate is None else self.gate.to_json(),
            "window": list(self.window),
            "jobs": [job.to_json() for job in self.jobs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Wave:
        """Undo `to_json`; a wave of before there were gates has none."""
        gate = data.get("gate")
        return cls(
            **{
                **data,
                "gate": None if gate is None else Gate(**gate),
                "window": tuple(data.get("window", ())),
                "jobs": tuple(Job.from_json(job) for job in data["jobs"]),
            }
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the files of one section of alembic.ini were when a plan was made, as SHA-256 of their bytes."""

    #: of env.py
    env: str
    #: of each revision that some job runs, by its id
    revisions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As in a plan."""
        return {"env": self.env, "revisions": dict(self.revisions)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Files:
        """Undo `to_json`."""
        return cls(env=data["env"], revisions=dict(data["revisions"]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a plan answers, with its command and revision: kept so that the same can be asked again.

    Values of `-x` are not in it, since they may be secrets.
    """

    #: as `Selection.to_json`
    selection: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: None where none was named
    strategy: str | None = None
    concurrency: int | None = None
    #: `3` or `2%`
    max_failures: str | None = None
    keep_going: bool = False
    provision: bool = False
    allow_ahead: bool = False
    each: bool = False
    outside_windows: bool = False
    #: seconds
    deadline: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As in a plan."""
        return {**dataclasses.asdict(self), "selection": dict(self.selection)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Question:
        """Undo `to_json`; raises TypeError for a value of another kind than the field's."""
        kinds: dict[str, tuple[type, ...]] = {"selection": (dict,), "concurrency": (int, NoneType)}
        kinds |= dict.fromkeys(("strategy", "max_failures"), (str, NoneType))
        kinds["deadline"] = (int, float, NoneType)
        for name, value in data.items():
            if not isinstance(value, kinds.get(name, (bool,))):
                raise TypeError(f"`{name}` is {value!r}")
        return cls(**data)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do: waves of jobs, and the targets for which nothing is to be done."""

    project: str
    environment: str
    command: Command
    #: what was asked for: `head`, `heads`, `+1`, an id
    asked: str
    #: concrete heads wanted, of all chains
    revision: tuple[str, ...]
    strategy: str
    waves: tuple[Wave, ...]
    #: outcomes known without running anything: unchanged, skipped, not provisioned, unreachable
    settled: tuple[Outcome, ...] = ()
    #: the run halts when its failures exceed this; None lifts it
    max_failures: int | None = 0
    #: most jobs in flight on each server; `*` for a server that is not named
    server_caps: Mapping[str, int] = dataclasses.field(default_factory=dict)
    retries: Retries = dataclasses.field(default_factory=Retries)
    #: targets ahead of the code do not make the run fail
    allow_ahead: bool = False
    #: days, and spans of days, on which nothing is started, as written
    freeze: tuple[str, ...] = ()
    #: seconds after which a runner starts nothing more
    deadline: float | None = None
    #: whose tenants that have joined meanwhile are taken in at the end: the selection, as `Selection.to_json`
    sweep: Mapping[str, Any] | None = None
    #: what the files of each section were; empty in a plan of before they were kept
    files: Mapping[str, Files] = dataclasses.field(default_factory=dict)
    #: what it answers; no part of the digest, and None where nobody asked for it in these words
    question: Question | None = None
    #: what the operator should know before it runs; no part of the digest
    notes: tuple[str, ...] = ()
    #: kept once it was asked for: ten thousand targets take a while
    _digest: str | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    @property
    def jobs(self) -> Iterator[Job]:
        """All jobs, wave by wave."""
        return (job for wave in self.waves for job in wave.jobs)

    def with_jobs(self, jobs: Sequence[Job]) -> Plan:
        """The plan with jobs for targets that it had none for, each at the end of its wave; a new wave comes last."""
        names = {job.target for job in self.jobs}
        new = [job for job in jobs if job.target not in names]
        waves = list(self.waves)
        known = {wave.name: place for place, wave in enumerate(waves)}
        for job in new:
            if job.wave not in known:
                known[job.wave] = len(waves)
                waves.append(_joining(job.wave, waves[-1] if waves else None))
        for name, place in known.items():
            joining = tuple(job for job in new if job.wave == name)
            if joining:
                waves[place] = dataclasses.replace(waves[place], jobs=(*waves[place].jobs, *joining))
        names = {job.target for job in new}
        settled = tuple(outcome for outcome in self.settled if outcome.target not in names)
        return dataclasses.replace(self, waves=tuple(waves), settled=settled) if new else self

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the plan decides; equal plans have equal digests, on every machine."""
        if self._digest is None:
            text = json.dumps(self.decided(), sort_keys=True, separators=(",", ":"))
            object.__setattr__(self, "_digest", "sha256:" + hashlib.sha256(text.encode()).hexdigest())
        return str(self._digest)

    def decided(self) -> dict[str, Any]:
        """What of the format is in the digest: no words for people, nothing of this machine, no order of equals."""
        data = dataclasses.replace(self, settled=(), question=None).to_json()
        waves = [_decided_of_wave(wave) for wave in data.pop("waves")]
        settled = sorted((_decided_of_settled(outcome) for outcome in self.settled), key=_target_of)
        return {**_plain(data), "waves": waves, "settled": settled}

    def to_json(self) -> dict[str, Any]:
        """The plan format `orchestrate.plan/1`, without its digest."""
        return {
            "format": PLAN_FORMAT,
            "project": self.project,
            "environment": self.environment,
            "command": self.command.value,
            "asked": self.asked,
            "revision": list(self.revision),
            "strategy": self.strategy,
            "max_failures": self.max_failures,
            "server_caps": dict(self.server_caps),
            "retries": self.retries.to_json(),
            "allow_ahead": self.allow_ahead,
            "freeze": list(self.freeze),
            "deadline": self.deadline,
            "sweep": None if self.sweep is None else dict(self.sweep),
            "files": {section: files.to_json() for section, files in self.files.items()},
            "question": None if self.question is None else self.question.to_json(),
            "waves": [wave.to_json() for wave in self.waves],
            "settled": [outcome.to_json() for outcome in self.settled],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Undo `to_json`; the notes are lost. What a plan of an earlier version has not is as it was usual then."""
        same = ("project", "environment", "asked", "strategy", "max_failures", "server_caps", "allow_ahead")
        return cls(
            **{name: data[name] for name in same},
            command=Command(data["command"]),
            revision=tuple(data["revision"]),
            retries=Retries.from_json(data["retries"]) if "retries" in data else Retries(),
            freeze=tuple(data.get("freeze", ())),
            deadline=data.get("deadline"),
            sweep=data.get("sweep"),
            files={section: Files.from_json(files) for section, files in data.get("files", {}).items()},
            question=None if data.get("question") is None else Question.from_json(data["question"]),
            waves=tuple(Wave.from_json(wave) for wave in data["waves"]),
            settled=tuple(Outcome.from_json(outcome) for outcome in data["settled"]),
        )


def _joining(name: str, last: Wave | None) -> Wave:
    """A wave that comes behind the last one, and starts its jobs when that one may."""
    if last is None:
        return Wave(name=name, jobs=(), concurrency=1)
    return Wave(
        name=name, jobs=(), concurrency=last.concurrency, auto=last.auto, strict=last.strict, window=last.window
    )


def _decided_of_wave(wave: dict[str, Any]) -> dict[str, Any]:
    jobs = sorted(wave.pop("jobs"), key=_target_of)
    concurrency = None if wave["auto"] else wave["concurrency"]
    # What may be shown of a gate differs with the secrets that a process knows; its digest has all that is written.
    gate = None if wave["gate"] is None else {**wave["gate"], "text": None}
    return {**_plain({**wave, "gate": gate}), "concurrency": concurrency, "jobs": jobs}


def _decided_of_settled(outcome: Outcome) -> dict[str, Any]:
    """Whichever target of a server is looked at first, and what exactly is wrong with it, is chance."""
    data = {name: getattr(outcome, name) for name in ("target", "tenant", "database", "schema", "labels", "server")}
    if outcome.is_unread:
        return {**data, "status": "unread", "wanted": outcome.wanted}
    reason = outcome.reason.code if outcome.reason else None
    heads = {"found": outcome.found, "wanted": outcome.wanted, "at": outcome.at}
    return {**data, **heads, "status": outcome.status.value, "reason": reason}


def _target_of(data: Mapping[str, Any]) -> str:
    return str(data["target"])


def _plain(value: Any) -> Any:
    """Numbers as every program writes them: 600, not 600.0."""
    match value:
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value

"""Tables of the SQL ledger as the code uses them; `migrations/` creates them, and a test holds the two together."""

from __future__ import annotations

import datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeDecorator


class Moment(TypeDecorator[datetime.datetime]):
    """A time in UTC, aware on both sides: SQLite forgets the zone, PostgreSQL answers in the session's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """In UTC."""
        del dialect
        return None if value is None else value.astimezone(datetime.UTC)

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """In UTC, aware."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


metadata = MetaData()

runs = Table(
    "orchestrate_runs",
    metadata,
    #: the order in which runs were opened: clocks step back, this does not
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("parent", Text),
    Column("project", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("revision", JSON, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("plan_digest", Text, nullable=False),
    #: the plan's JSON, compressed with zlib: some megabytes for a large fleet otherwise
    Column("plan", LargeBinary, nullable=False),
    Column("operator", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("exit_code", Integer),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("size", Integer, nullable=False),
    Column("fleet", Integer, nullable=False),
    #: outcomes by status as the run ended, null while it may get more of them
    Column("counts", JSON(none_as_null=True)),
    Index("orchestrate_runs_by_scope", "project", "environment", "number"),
)

jobs = Table(
    "orchestrate_jobs",
    metadata,
    Column("run", ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("target", Text, primary_key=True),
    #: place in the plan, from 0
    Column("position", Integer, nullable=False),
    Column("wave", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("database", Text),
    Column("schema", Text),
    Column("server", Text, nullable=False),
    Column("section", Text, nullable=False),
)

attempts = Table(
    "orchestrate_attempts",
    metadata,
    Column("run", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("started_at", Moment, nullable=False),
    ForeignKeyConstraint(["run", "target"], ["orchestrate_jobs.run", "orchestrate_jobs.target"], ondelete="CASCADE"),
)

#: only ever added to: the latest row of a target is what happened to it, the rows before it are its history
outcomes = Table(
    "orchestrate_outcomes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), nullable=False),
    Column("target", Text, nullable=False),
    #: null where nothing was tried
    Column("attempt", Integer),
    Column("recorded_at", Moment, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("wave", Text),
    Column("status", Text, nullable=False),
    Column("duration_ms", Float),
    #: the outcome as in the report
    Column("data", JSON, nullable=False),
    Index("orchestrate_outcomes_by_target", "run", "target", "id"),
)

failures = Table(
    "orchestrate_failures",
    metadata,
    Column("outcome", ForeignKey("orchestrate_outcomes.id", ondelete="CASCADE"), primary_key=True),
    Column("run", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("code", Text),
    Column("type", Text, nullable=False),
    Column("revision", Text),
    Column("fingerprint", Text, nullable=False),
    Index("orchestrate_failures_by_cause", "run", "fingerprint"),
)

#: one row for each project and environment; its latest holder stays in it, so that the next one's number is higher
leases = Table(
    "orchestrate_leases",
    metadata,
    Column("project", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    Column("token", Integer, nullable=False),
    #: the run that is live under it
    Column("run", Text),
    Column("operator", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("birth", Text, nullable=False),
    Column("acquired_at", Moment, nullable=False),
    Column("renewed_at", Moment, nullable=False),
    #: what somebody asked of the holder
    Column("stop", Text),
    Column("released", Boolean, nullable=False),
)

#: what people asked of a run; only ever added to
requests = Table(
    "orchestrate_requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), nullable=False),
    Column("at", Moment, nullable=False),
    Column("operator", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Index("orchestrate_requests_by_run", "run", "id"),
)

#: how far a run is with each wave that it has reached
waves = Table(
    "orchestrate_waves",
    metadata,
    Column("run", ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("wave", Text, primary_key=True),
    #: the order in which waves were reached, from 0
    Column("position", Integer, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    #: id of the latest request when the run began to wait behind it
    Column("heard", Integer, nullable=False),
    Column("gate", JSON(none_as_null=True)),
    Column("passed", Boolean, nullable=False),
)

#: only ever added to: triggers refuse everything else
audit = Table(
    "orchestrate_audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("project", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("action", Text, nullable=False),
    #: the run may be gone
    Column("run", Text),
    Column("detail", JSON, nullable=False),
    Index("orchestrate_audit_by_scope", "project", "environment", "id"),
)

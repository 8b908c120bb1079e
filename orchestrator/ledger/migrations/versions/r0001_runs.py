"""Runs, jobs, attempts, outcomes and failures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    _create_runs()
    _create_jobs()
    _create_outcomes()


def _create_runs() -> None:
    op.create_table(
        "orchestrate_runs",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("parent", sa.Text),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("revision", sa.JSON, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("plan_digest", sa.Text, nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("fleet", sa.Integer, nullable=False),
    )
    op.create_index("orchestrate_runs_by_scope", "orchestrate_runs", ["project", "environment", "number"])


def _create_jobs() -> None:
    op.create_table(
        "orchestrate_jobs",
        sa.Column("run", sa.Text, sa.ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("wave", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("database", sa.Text),
        sa.Column("schema", sa.Text),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("section", sa.Text, nullable=False),
    )
    op.create_table(
        "orchestrate_attempts",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["run", "target"], ["orchestrate_jobs.run", "orchestrate_jobs.target"], ondelete="CASCADE"
        ),
    )


def _create_outcomes() -> None:
    op.create_table(
        "orchestrate_outcomes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Text, sa.ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("wave", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("duration_ms", sa.Float),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_index("orchestrate_outcomes_by_target", "orchestrate_outcomes", ["run", "target", "id"])
    op.create_table(
        "orchestrate_failures",
        sa.Column(
            "outcome", sa.Integer, sa.ForeignKey("orchestrate_outcomes.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("revision", sa.Text),
        sa.Column("fingerprint", sa.Text, nullable=False),
    )
    op.create_index("orchestrate_failures_by_cause", "orchestrate_failures", ["run", "fingerprint"])

"""What people ask of a run, and how far it is with its waves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "orchestrate_requests",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Text, sa.ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_index("orchestrate_requests_by_run", "orchestrate_requests", ["run", "id"])
    op.create_table(
        "orchestrate_waves",
        sa.Column("run", sa.Text, sa.ForeignKey("orchestrate_runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("wave", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("heard", sa.Integer, nullable=False),
        sa.Column("gate", sa.JSON),
        sa.Column("passed", sa.Boolean, nullable=False),
    )

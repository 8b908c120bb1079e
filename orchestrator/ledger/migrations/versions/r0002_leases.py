"""The lease, the audit table, and the counts of runs that have ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_REFUSAL = "rows of orchestrate_audit are never changed and never removed"

_POSTGRESQL = (
    f"""
    CREATE FUNCTION orchestrate_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '{_REFUSAL}';
    END
    $$
    """,
    """
    CREATE TRIGGER orchestrate_audit_refuse_change BEFORE UPDATE OR DELETE ON orchestrate_audit
    FOR EACH ROW EXECUTE FUNCTION orchestrate_audit_refuse()
    """,
    """
    CREATE TRIGGER orchestrate_audit_refuse_truncate BEFORE TRUNCATE ON orchestrate_audit
    FOR EACH STATEMENT EXECUTE FUNCTION orchestrate_audit_refuse()
    """,
)
_SQLITE = (
    f"""
    CREATE TRIGGER orchestrate_audit_refuse_update BEFORE UPDATE ON orchestrate_audit
    BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
    """,
    f"""
    CREATE TRIGGER orchestrate_audit_refuse_delete BEFORE DELETE ON orchestrate_audit
    BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
    """,
    # REPLACE deletes the row that is in its way, and no trigger hears of that.
    f"""
    CREATE TRIGGER orchestrate_audit_refuse_replace BEFORE INSERT ON orchestrate_audit
    WHEN NEW.id IN (SELECT id FROM orchestrate_audit)
    BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
    """,  # noqa: S608 - our own words
)


def upgrade() -> None:
    """Create the tables, and what protects them."""
    op.add_column("orchestrate_runs", sa.Column("counts", sa.JSON))
    _create_leases()
    _create_audit()
    for statement in _POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def _create_leases() -> None:
    op.create_table(
        "orchestrate_leases",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("birth", sa.Text, nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stop", sa.Text),
        sa.Column("released", sa.Boolean, nullable=False),
    )


def _create_audit() -> None:
    op.create_table(
        "orchestrate_audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_index("orchestrate_audit_by_scope", "orchestrate_audit", ["project", "environment", "id"])

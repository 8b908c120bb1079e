"""Monthly invoices.

Revision ID: r0008_invoices
Revises: r0007_project_status
Create Date: 2026-05-11 15:35:00
"""

import sqlalchemy as sa
from alembic import op

revision = "r0008_invoices"
down_revision = "r0007_project_status"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "invoices",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("total_cents", sa.Integer, nullable=False),
        sa.Column("paid_at", sa.DateTime),
        sa.UniqueConstraint("account_id", "month", name="uq_invoices_account_month"),
    )
    op.create_index("ix_invoices_month", "invoices", ["month"])


def downgrade() -> None:
    op.drop_index("ix_invoices_month", table_name="invoices")
    op.drop_table("invoices")

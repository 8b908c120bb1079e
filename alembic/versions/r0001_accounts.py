"""Accounts and the plans they can be on.

Revision ID: r0001_accounts
Revises:
Create Date: 2026-01-12 09:30:00
"""

import sqlalchemy as sa
from alembic import op

revision = "r0001_accounts"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    plans = op.create_table(
        "plans",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
    )
    op.bulk_insert(
        plans,
        [
            {"name": "free", "price": 0},
            {"name": "team", "price": 29.5},
            {"name": "enterprise", "price": 499},
        ],
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("plan", sa.String(40), sa.ForeignKey("plans.name"), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=sa.func.current_timestamp()),
    )


def downgrade() -> None:
    op.drop_table("accounts")
    op.drop_table("plans")

"""Users of an account.

Revision ID: r0002_users
Revises: r0001_accounts
Create Date: 2026-01-19 14:05:00
"""

import sqlalchemy as sa
from alembic import op

revision = "r0002_users"
down_revision = "r0001_accounts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=sa.func.current_timestamp()),
    )


def downgrade() -> None:
    op.drop_table("users")

"""Projects of an account.

Revision ID: r0003_projects
Revises: r0002_users
Create Date: 2026-02-03 10:40:00
"""

import sqlalchemy as sa
from alembic import op

revision = "r0003_projects"
down_revision = "r0002_users"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("owner_id", sa.Integer, sa.ForeignKey("users.id")),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False, server_default=sa.func.current_timestamp()),
    )


def downgrade() -> None:
    op.drop_table("projects")

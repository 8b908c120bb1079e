"""The dashboard lists the newest projects of an account.

Revision ID: r0004_projects_index
Revises: r0003_projects
Create Date: 2026-02-17 16:20:00
"""

from alembic import op

revision = "r0004_projects_index"
down_revision = "r0003_projects"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_projects_account_created", "projects", ["account_id", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_projects_account_created", table_name="projects")

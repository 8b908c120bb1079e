"""Projects can be archived.

Revision ID: r0007_project_status
Revises: r0006_unique_email
Create Date: 2026-04-21 13:00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "r0007_project_status"
down_revision = "r0006_unique_email"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("status", sa.String(20), nullable=False, server_default="active"))
    with op.batch_alter_table("projects") as batch:
        batch.create_check_constraint("ck_projects_status", "status IN ('active', 'archived')")


def downgrade() -> None:
    with op.batch_alter_table("projects") as batch:
        batch.drop_constraint("ck_projects_status", type_="check")
        batch.drop_column("status")

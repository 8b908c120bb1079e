"""An address belongs to one user of an account.

Revision ID: r0006_unique_email
Revises: r0005_prices_in_cents
Create Date: 2026-03-30 08:50:00
"""

import sqlalchemy as sa
from alembic import op

revision = "r0006_unique_email"
down_revision = "r0005_prices_in_cents"
branch_labels = None
depends_on = None


def upgrade() -> None:
    users = sa.table("users", sa.column("email", sa.String))
    op.execute(users.update().values(email=sa.func.lower(sa.func.trim(users.c.email))))
    with op.batch_alter_table("users") as batch:
        batch.create_unique_constraint("uq_users_account_email", ["account_id", "email"])


def downgrade() -> None:
    with op.batch_alter_table("users") as batch:
        batch.drop_constraint("uq_users_account_email", type_="unique")

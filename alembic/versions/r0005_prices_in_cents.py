"""Prices are counted in cents.

Revision ID: r0005_prices_in_cents
Revises: r0004_projects_index
Create Date: 2026-03-09 11:15:00
"""

import sqlalchemy as sa
from alembic import op

revision = "r0005_prices_in_cents"
down_revision = "r0004_projects_index"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("plans", sa.Column("price_cents", sa.Integer))
    plans = sa.table("plans", sa.column("price", sa.Numeric(10, 2)), sa.column("price_cents", sa.Integer))
    op.execute(plans.update().values(price_cents=sa.cast(plans.c.price * 100, sa.Integer)))
    with op.batch_alter_table("plans") as batch:
        batch.alter_column("price_cents", existing_type=sa.Integer, nullable=False)
        batch.drop_column("price")


def downgrade() -> None:
    op.add_column("plans", sa.Column("price", sa.Numeric(10, 2)))
    plans = sa.table("plans", sa.column("price", sa.Numeric(10, 2)), sa.column("price_cents", sa.Integer))
    op.execute(plans.update().values(price=sa.cast(plans.c.price_cents, sa.Numeric(10, 2)) / 100))
    with op.batch_alter_table("plans") as batch:
        batch.alter_column("price", existing_type=sa.Numeric(10, 2), nullable=False)
        batch.drop_column("price_cents")

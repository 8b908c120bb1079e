"""Alembic runs this file: once per worker job, or once for the whole registry under plain `alembic upgrade head`."""

from alembic import context
from orchestrator import environment

target_metadata = None


def run_migrations_online(target):
    with target.connect() as connection:
        context.configure(**target.options(connection=connection, target_metadata=target_metadata))
        with context.begin_transaction():
            context.run_migrations()


def run_migrations_offline(target):
    context.configure(**target.options(url=target.url, literal_binds=True, target_metadata=target_metadata))
    with context.begin_transaction():
        context.run_migrations()


for target in environment.targets(context):
    with target.outcome():
        run_migrations_offline(target) if context.is_offline_mode() else run_migrations_online(target)

"""Alembic runs this file on a connection whose transaction, and whose lock, the caller holds."""

from alembic import context

from orchestrator.ledger.versions import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()

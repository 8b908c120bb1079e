"""Alembic environment of the ledger's own tables."""

"""Revisions of the ledger's own tables, in the order of `orchestrator.ledger.versions.VERSIONS`."""

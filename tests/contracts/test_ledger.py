"""Every ledger passes the contract that is shipped for third parties."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from orchestrator.ledger import Ledger, MemoryLedger, MemoryStore, open_ledger
from orchestrator.ledger.contract import LedgerContract


class TestMemoryLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _one_store(self) -> None:
        self.store = MemoryStore()

    def open(self, *, project: str = "billing", environment: str = "test") -> Ledger:
        return MemoryLedger(project=project, environment=environment, store=self.store)


class TestSqliteLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _one_store(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/ledger/ledger.db"

    def open(self, *, project: str = "billing", environment: str = "test") -> Ledger:
        return open_ledger(self.url, project=project, environment=environment)


class TestPostgresLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _one_store(self, postgres_database: URL) -> None:
        self.url = postgres_database

    def open(self, *, project: str = "billing", environment: str = "test") -> Ledger:
        return open_ledger(self.url, project=project, environment=environment)

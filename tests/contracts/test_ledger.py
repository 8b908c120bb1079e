"""Every ledger passes the contract that is shipped for third parties."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, select, update

from orchestrator.ledger import Ledger, MemoryLedger, MemoryStore, open_ledger, tables
from orchestrator.ledger.contract import LedgerContract


class TestMemoryLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _one_store(self) -> None:
        self.store = MemoryStore()

    def open(self, *, project: str = "billing", environment: str = "test") -> Ledger:
        return MemoryLedger(project=project, environment=environment, store=self.store)

    def pass_time(self, seconds: float) -> None:
        for scope, entry in self.store.leases.items():
            earlier = entry.renewed_at - datetime.timedelta(seconds=seconds)
            self.store.leases[scope] = dataclasses.replace(entry, renewed_at=earlier)


class SqlLedgerContract(LedgerContract):
    url: URL

    def open(self, *, project: str = "billing", environment: str = "test") -> Ledger:
        return open_ledger(self.url, project=project, environment=environment)

    def pass_time(self, seconds: float) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            (renewed_at,) = connection.execute(select(tables.leases.c.renewed_at)).scalars()
            earlier = renewed_at - datetime.timedelta(seconds=seconds)
            connection.execute(update(tables.leases).values(renewed_at=earlier))
        engine.dispose()


class TestSqliteLedger(SqlLedgerContract):
    @pytest.fixture(autouse=True)
    def _one_store(self, tmp_path: Path) -> None:
        self.url = URL.create("sqlite", database=f"{tmp_path}/ledger/ledger.db")


class TestPostgresLedger(SqlLedgerContract):
    @pytest.fixture(autouse=True)
    def _one_store(self, postgres_database: URL) -> None:
        self.url = postgres_database

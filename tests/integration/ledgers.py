"""Ledgers on real databases, for the tests of how they behave under several hands and on bad days."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, event, select, update
from sqlalchemy.engine import Engine

from orchestrator.ledger import tables

SCOPE = {"project": "billing", "environment": "test"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "project" / ".orchestrate" / "ledger.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, file: Path) -> URL:
    if request.param == "postgresql":
        database: URL = request.getfixturevalue("postgres_database")
        return database
    return URL.create("sqlite", database=str(file))


@pytest.fixture
def raw(url: URL) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def let_time_pass(raw: Engine, seconds: float) -> None:
    """Make the ledger believe that the holder of the lease has been silent for so long."""
    with raw.begin() as connection:
        (renewed_at,) = connection.execute(select(tables.leases.c.renewed_at)).scalars()
        earlier = renewed_at - datetime.timedelta(seconds=seconds)
        connection.execute(update(tables.leases).values(renewed_at=earlier))


@contextlib.contextmanager
def listening(place: str, listener: Callable[..., None]) -> Iterator[None]:
    """Hear what every engine of this process does for a while."""
    event.listen(Engine, place, listener)
    try:
        yield
    finally:
        event.remove(Engine, place, listener)


@contextlib.contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to any database meanwhile."""
    sent: list[str] = []
    with listening("before_cursor_execute", lambda *call: sent.append(call[2])):
        yield sent

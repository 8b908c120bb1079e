"""Fixtures over the session's servers: administrators' URLs, and fresh databases that are dropped afterwards."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.services import session
from tests.services.servers import connect_mariadb, connect_postgres


@pytest.fixture(scope="session")
def postgres_url() -> URL:
    """URL of an administrator of a real PostgreSQL server."""
    return _server("postgres")


@pytest.fixture(scope="session")
def mariadb_url() -> URL:
    """URL of an administrator of a real MariaDB server."""
    return _server("mariadb")


@pytest.fixture
def postgres_database(postgres_url: URL) -> Iterator[URL]:
    """URL of a fresh PostgreSQL database."""
    with fresh_postgres(postgres_url) as url:
        yield url


@pytest.fixture
def mariadb_database(mariadb_url: URL) -> Iterator[URL]:
    """URL of a fresh MariaDB database."""
    with fresh_mariadb(mariadb_url) as url:
        yield url


@contextlib.contextmanager
def fresh_postgres(server: URL, name: str | None = None) -> Iterator[URL]:
    """A PostgreSQL database for a while."""
    name = name or f"test_{uuid.uuid4().hex[:12]}"
    create_postgres(server, name)
    try:
        yield server.set(database=name)
    finally:
        drop_postgres(server, name)


@contextlib.contextmanager
def fresh_mariadb(server: URL, name: str | None = None) -> Iterator[URL]:
    """A MariaDB database for a while."""
    name = name or f"test_{uuid.uuid4().hex[:12]}"
    create_mariadb(server, name)
    try:
        yield server.set(database=name)
    finally:
        drop_mariadb(server, name)


def create_postgres(server: URL, *names: str) -> None:
    """Create databases."""
    with contextlib.closing(connect_postgres(server)) as connection:
        for name in names:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())


def drop_postgres(server: URL, *names: str) -> None:
    """Drop databases, whoever is still connected."""
    with contextlib.closing(connect_postgres(server)) as connection:
        for name in names:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


def create_mariadb(server: URL, *names: str) -> None:
    """Create databases."""
    with contextlib.closing(connect_mariadb(server)) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE DATABASE `{name}`")


def drop_mariadb(server: URL, *names: str) -> None:
    """Drop databases, whoever is still connected."""
    with contextlib.closing(connect_mariadb(server)) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (name,))
            for (connected,) in cursor.fetchall():
                with contextlib.suppress(Exception):  # it may have left by itself meanwhile
                    cursor.execute(f"KILL {int(connected)}")
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")


def _server(kind: str) -> URL:
    try:
        return session.server(kind)
    except RuntimeError as problem:
        pytest.fail(f"{problem}", pytrace=False)

"""Fixtures that every test can use; a missing database server fails the tests that need it, it never skips them."""

from __future__ import annotations

import os

import pytest

from tests.services import session
from tests.services.fixtures import mariadb_database, mariadb_url, postgres_database, postgres_url

__all__ = ["mariadb_database", "mariadb_url", "postgres_database", "postgres_url"]


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ and session.FOLDER not in os.environ:
        session.open_session()


def pytest_unconfigure(config: pytest.Config) -> None:
    session.close_session()

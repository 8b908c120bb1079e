"""Fixtures that every test can use; a missing database server fails the tests that need it, it never skips them."""

from __future__ import annotations

import os

import pytest

from tests.services import scratch, session
from tests.services.fixtures import mariadb_database, mariadb_url, postgres_database, postgres_url

__all__ = ["mariadb_database", "mariadb_url", "postgres_database", "postgres_url"]


#: variables of the machine that change what the command says or where it looks
_SURROUNDINGS = ("CI", "GITHUB_ACTIONS", "NO_COLOR", "FORCE_COLOR", "ALEMBIC_CONFIG", "FLASK_APP")


def pytest_configure(config: pytest.Config) -> None:
    for name in list(os.environ):
        is_ours = name.startswith("ORCHESTRATE_") and not name.startswith("ORCHESTRATE_TEST_")
        if name in _SURROUNDINGS or is_ours:
            del os.environ[name]
    scratch.use_memory()
    if "PYTEST_XDIST_WORKER" not in os.environ and session.FOLDER not in os.environ:
        session.open_session()


def pytest_unconfigure(config: pytest.Config) -> None:
    session.close_session()

"""A stage on the session's servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.faults.stage import Stage


@pytest.fixture
def stage(tmp_path: Path, postgres_url: URL, mariadb_url: URL) -> Stage:
    return Stage(folder=tmp_path, postgres=postgres_url, mariadb=mariadb_url)

"""Documents that need a PostgreSQL server, run as a reader would."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.docs import documents, run_documents

MARK = "<!-- run by CI with PostgreSQL -->"
PATHS = [path for path in documents.paths() if path.read_text().startswith(MARK)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_documents_run_as_written(path: Path, postgres_database: URL, capfd: pytest.CaptureFixture[str]) -> None:
    variables = {"SAAS_URL": postgres_database.render_as_string(hide_password=False)}
    status = run_documents.run(path, variables)
    assert status == 0, capfd.readouterr().err

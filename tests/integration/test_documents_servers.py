"""The document about what goes wrong on servers, run as a reader would, on PostgreSQL and MariaDB."""

from __future__ import annotations

import pytest
from sqlalchemy import URL

from tests.docs import documents, run_documents

PATH = documents.ROOT / "docs" / "how-to" / "recover-on-servers.md"


def test_the_document_runs_as_written(
    postgres_database: URL, mariadb_database: URL, capfd: pytest.CaptureFixture[str]
) -> None:
    variables = {
        "SAAS_URL": postgres_database.render_as_string(hide_password=False),
        "MARIA_URL": mariadb_database.render_as_string(hide_password=False),
    }
    assert PATH.read_text().startswith("<!-- run by CI with PostgreSQL and MariaDB -->")
    assert run_documents.run(PATH, variables) == 0, capfd.readouterr().err

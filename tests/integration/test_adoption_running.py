"""Projects that `orchestrate init` adopted, run: by `orchestrate`, by plain Alembic and by Flask-Migrate."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

REVISION = '''
"""first"""

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None


def upgrade() -> None:
    op.create_table("account", sa.Column("id", sa.Integer, primary_key=True))


def downgrade() -> None:
    op.drop_table("account")
'''
REGISTRY = """
version: 1
project: scratch
environment: test
defaults: {url: "sqlite:///{tenant}.db"}
tenants: {one: {}, two: {}}
"""
APPLICATION = """
import os
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()
url = os.environ.get("SCRATCH_URL", "sqlite:///{tenant}.db")


class Account(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    if os.environ.get("SCRATCH_MORE"):
        city = db.Column(db.String(50))


class Visit(db.Model):
    __bind_key__ = "logs" if "SCRATCH_BINDS" in os.environ else None
    id = db.Column(db.Integer, primary_key=True)
    if os.environ.get("SCRATCH_MORE"):
        city = db.Column(db.String(50))


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    if "SCRATCH_BINDS" in os.environ:
        app.config["SQLALCHEMY_BINDS"] = {"logs": url.replace(".db", "-logs.db")}
    db.init_app(app)
    Migrate(app, db, compare_server_default=True)
    return app
"""


class Folder:
    """A scratch project, and commands run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.variables: dict[str, str] = {}

    def run(self, *command: str, exit_status: int = 0, **variables: str) -> str:
        program = str(Path(sys.executable).parent / command[0])
        environ = {**os.environ, **self.variables, **variables}
        done = subprocess.run(
            [program, *command[1:]], cwd=self.path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == exit_status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def tables(self, name: str) -> dict[str, list[str]]:
        """Tables of a database with their columns."""
        connection = sqlite3.connect(f"file:{self.path / name}?mode=ro", uri=True)
        try:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                table: [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
                for table in sorted(names)
                if table != "alembic_version"
            }
        finally:
            connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("template", ["generic", "async", "pyproject"])
def test_an_adopted_template_migrates_two_tenants_both_ways(folder: Folder, template: str) -> None:
    folder.run("alembic", "init", "-t", template, "alembic")
    (folder.path / "alembic" / "versions").mkdir(exist_ok=True)
    (folder.path / "alembic" / "versions" / "first.py").write_text(REVISION.lstrip())
    folder.run("orchestrate", "init", "--yes")
    (folder.path / "tenants.yaml").write_text(REGISTRY)
    folder.run("orchestrate", "upgrade", "--all", "--provision")
    assert folder.tables("one.db") == folder.tables("two.db") == {"account": ["id"]}
    assert folder.run("alembic", "current").count("first (head)") == 2
    folder.run("alembic", "-x", "tenant=one", "downgrade", "base")
    assert folder.tables("one.db") == {}
    assert folder.tables("two.db") == {"account": ["id"]}
    assert "CREATE TABLE account" in folder.run("alembic", "-x", "tenant=two", "upgrade", "head", "--sql")


@pytest.mark.parametrize(
    ("options", "files"), [((), ["{}.db"]), (("--multidb",), ["{}.db", "{}-logs.db"])], ids=["single", "multidb"]
)
def test_an_application_of_flask_migrate_goes_on_with_many_tenants(
    folder: Folder, options: Sequence[str], files: Sequence[str]
) -> None:
    (folder.path / "scratch.py").write_text(APPLICATION)
    folder.variables = {"FLASK_APP": "scratch:create_app"} | ({"SCRATCH_BINDS": "1"} if options else {})
    folder.run("flask", "db", "init", *options, SCRATCH_URL="sqlite:///plain.db")
    folder.run("flask", "db", "migrate", "-m", "first", SCRATCH_URL="sqlite:///plain.db")
    folder.run("orchestrate", "init", "--yes")
    registry = folder.path / "migrations" / "tenants.yaml"
    app = 'app: "scratch:create_app"'
    registry.write_text(registry.read_text().replace(app, f"{app}, tenants: [one, two]"))

    folder.run("orchestrate", "upgrade", "--all", "--provision")
    more = {"SCRATCH_MORE": "1"}
    folder.run("orchestrate", "revision", "--autogenerate", "-m", "second", "-t", "one", **more)
    folder.run("orchestrate", "upgrade", "--all", **more)
    revisions = sorted(path.name for path in (folder.path / "migrations" / "versions").glob("*.py"))
    nothing = folder.run("orchestrate", "revision", "--autogenerate", "-m", "third", **more)

    tables = [table for name in files for table in folder.tables(f"instance/{name.format('two')}").items()]
    assert sorted(tables) == [("account", ["id", "city"]), ("visit", ["id", "city"])]
    assert len(revisions) == 2
    assert sorted(path.name for path in (folder.path / "migrations" / "versions").glob("*.py")) == revisions
    assert "nothing was written" in nothing
    assert folder.run("flask", "db", "current").count("(head)") == 2 * len(files)
    assert "nothing is due" in folder.run("flask", "tenants", "status")


def test_a_folder_of_scripts_may_be_a_package_of_the_librarys_name(folder: Folder) -> None:
    folder.run("alembic", "init", "alembic")
    (folder.path / "alembic" / "__init__.py").touch()
    (folder.path / "alembic" / "versions" / "first.py").write_text(REVISION.lstrip())
    folder.run("orchestrate", "init", "--yes")
    (folder.path / "tenants.yaml").write_text(REGISTRY)
    folder.run("orchestrate", "upgrade", "--all", "--provision")
    assert folder.tables("one.db") == folder.tables("two.db") == {"account": ["id"]}


def test_what_env_py_cannot_hand_over_still_runs_as_it_is(folder: Folder) -> None:
    folder.run("alembic", "init", "alembic")
    env = folder.path / "alembic" / "env.py"
    place = "        context.configure(\n            connection"
    env.write_text(
        env.read_text().replace(place, f"        print(connection.dialect.get_isolation_level_values)\n{place}")
    )
    env.write_text(env.read_text().replace("print(", "repr("))
    (folder.path / "alembic" / "versions" / "first.py").write_text(REVISION.lstrip())
    said = folder.run("orchestrate", "init", "--yes")
    (folder.path / "tenants.yaml").write_text(REGISTRY)
    folder.run("orchestrate", "upgrade", "--all", "--provision")
    assert "is left as it is" in said
    assert folder.tables("one.db") == folder.tables("two.db") == {"account": ["id"]}

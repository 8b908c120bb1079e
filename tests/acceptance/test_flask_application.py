"""A Flask application whose every tenant has a main database and two binds, each with a chain of its own."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

TENANTS = [f"tenant{number:02d}" for number in range(20)]
BINDS = {"main": None, "analytics": "analytics", "audit": "audit"}

APPLICATION = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


class Account(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    email = db.Column(db.String(320), nullable=False, unique=True)
    # account columns


class Invoice(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    account_id = db.Column(db.ForeignKey("account.id"), nullable=False, index=True)


class Visit(db.Model):
    __bind_key__ = "analytics"
    id = db.Column(db.Integer, primary_key=True)
    # visit columns


class Entry(db.Model):
    __bind_key__ = "audit"
    id = db.Column(db.Integer, primary_key=True)


def tenant_names():
    return [f"tenant{number:02d}" for number in range(20)]


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///{tenant}-main.db"
    app.config["SQLALCHEMY_BINDS"] = {
        "analytics": "sqlite:///{tenant}-analytics.db",
        "audit": {"url": "sqlite:///{tenant}-audit.db", "echo": False},
    }
    db.init_app(app)
    return app
"""
CONFIG = """
[DEFAULT]
prepend_sys_path = %(here)s
path_separator = os

[alembic]
script_location = %(here)s/alembic

[analytics]
script_location = %(here)s/alembic_analytics

[audit]
script_location = %(here)s/alembic_audit
"""
REGISTRY = """
version: 1
project: shop
environment: test
sources:
  - {type: flask, app: "shop:create_app", tenants: ["shop:tenant_names"]}
"""
COMPARE = """
import sys
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from shop import create_app, db

app = create_app()
for path in sys.argv[1:]:
    bind = path.rpartition("-")[2].removesuffix(".db")
    with create_engine(f"sqlite:///{path}").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        difference = compare_metadata(context, db.metadatas[None if bind == "main" else bind])
    assert not difference, (path, difference)
print(len(sys.argv) - 1, "alike")
"""


class Shop:
    """The application's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("shop.py", APPLICATION)
        self.write("alembic.ini", CONFIG)
        self.write("tenants.yaml", REGISTRY)
        self.write("compare.py", COMPARE)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text.lstrip())

    def add_columns(self) -> None:
        """Change a model of the main database and one of a bind."""
        text = (self.folder / "shop.py").read_text()
        text = text.replace(
            "# account columns", 'plan = db.Column(db.String(20), nullable=False, server_default="free")'
        )
        self.write("shop.py", text.replace("# visit columns", "seconds = db.Column(db.Integer)"))

    def run(self, *command: str) -> str:
        program = str(Path(sys.executable).parent / command[0])
        environ = {**os.environ, "FLASK_APP": "shop:create_app"}
        done = subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def autogenerate(self, message: str) -> list[Path]:
        """Files that were written, as the command says; the folders must agree."""
        before = set(self.revisions())
        output = self.run("orchestrate", "revision", "--autogenerate", "-m", message, "-t", TENANTS[0], "-o", "json")
        written = [Path(name) for name in json.loads(output)["files"]]
        assert set(self.revisions()) - before == set(written)
        return written

    def revisions(self) -> list[Path]:
        return list(self.folder.glob("alembic*/versions/*.py"))

    def upgrade(self, *options: str) -> dict[str, int]:
        report = json.loads(self.run("orchestrate", "upgrade", "--all", "-o", "json", *options))
        counts: dict[str, int] = report["counts"]
        return {status: count for status, count in counts.items() if count}

    def databases(self) -> list[str]:
        return [f"instance/{tenant}-{bind}.db" for tenant in TENANTS for bind in BINDS]

    def tables(self, tenant: str, bind: str) -> Sequence[str]:
        with create_engine(f"sqlite:///{self.folder}/instance/{tenant}-{bind}.db").connect() as connection:
            return sorted(inspect(connection).get_table_names())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_models_change_twice_and_every_tenant_follows(shop: Shop) -> None:
    shop.run("orchestrate", "init", "--yes")
    shop.run("orchestrate", "upgrade", "-t", TENANTS[0], "--provision")

    first = shop.autogenerate("first")
    assert sorted(path.parts[-3] for path in first) == ["alembic", "alembic_analytics", "alembic_audit"]
    assert shop.upgrade("--provision") == {"upgraded": 60}
    assert shop.tables(TENANTS[7], "main") == ["account", "alembic_version", "invoice"]
    assert shop.tables(TENANTS[7], "analytics") == ["alembic_version", "visit"]
    assert shop.tables(TENANTS[7], "audit") == ["alembic_version", "entry"]
    assert shop.autogenerate("nothing has changed") == []

    shop.add_columns()
    second = shop.autogenerate("second")
    assert sorted(path.parts[-3] for path in second) == ["alembic", "alembic_analytics"]
    assert shop.upgrade() == {"upgraded": 40, "unchanged": 20}
    assert shop.run("python", "compare.py", *shop.databases()) == "60 alike\n"
    assert shop.autogenerate("nothing has changed") == []
    assert shop.upgrade() == {"unchanged": 60}

    assert "nothing to resume" in shop.run("flask", "tenants", "resume")
    status = json.loads(shop.run("flask", "tenants", "status", "-o", "json"))
    assert [target["standing"] for target in status["targets"]] == ["at_head"] * 60
    assert "60  unchanged" in shop.run("flask", "tenants", "upgrade", "--all")


def test_tables_of_other_binds_are_left_alone(shop: Shop) -> None:
    """Where all binds use one database, a bind's tables are nothing that the main chain may drop."""
    name = TENANTS[0]
    entry = "{url: 'sqlite:///one.db', app: 'shop:create_app'}"
    shop.write("tenants.yaml", f"version: 1\nproject: shop\nenvironment: test\ntenants: {{{name}: {entry}}}\n")
    shop.run("orchestrate", "init", "--yes")
    with contextlib.closing(sqlite3.connect(shop.folder / "one.db")) as connection:
        connection.executescript("CREATE TABLE visit (id INTEGER); CREATE TABLE stray (id INTEGER)")
    shop.run("orchestrate", "stamp", "base", "--all", "--yes")
    (path,) = shop.autogenerate("first")
    upgrade = path.read_text().partition("def downgrade")[0]
    assert "op.create_table('account'" in upgrade
    assert "op.drop_table('stray')" in upgrade
    assert "visit" not in upgrade

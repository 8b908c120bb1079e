"""Flask applications by name: what they say about databases and tables, and what is said when they cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy

from orchestrator import applications
from orchestrator.errors import SettingsError

MODULE = """
from flask import Flask

app = Flask(__name__)

def create_app(name="plain"):
    made = Flask(__name__)
    made.config["NAME"] = name
    return made

def broken():
    raise RuntimeError("postgresql://app:hunter2@db/x is down\\nsecond line")

def leaving():
    raise SystemExit(3)

number = 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "scratch_application.py").write_text(MODULE)
    (tmp_path / "scratch_importing.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("scratch_application", "scratch_importing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    applications.load.cache_clear()
    return "scratch_application"


@pytest.mark.parametrize("attribute", [":app", ":create_app", ":create_app()", ""])
def test_an_application_is_found_by_name(module: str, attribute: str) -> None:
    assert isinstance(applications.load(module + attribute), Flask)


def test_a_factory_takes_literal_arguments(module: str) -> None:
    assert applications.load(f'{module}:create_app("eu")').config["NAME"] == "eu"


def test_an_application_is_made_once_per_process(module: str) -> None:
    assert applications.load(f"{module}:create_app") is applications.load(f"{module}:create_app")


def test_the_context_is_active_for_as_long_as_it_is_needed(module: str) -> None:
    with applications.active(f"{module}:create_app") as app:
        assert current_app.name == app.name
    assert not current_app
    with applications.active(None) as nothing:
        assert nothing is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scratch_absent:app", "no module `scratch_absent`"),
        ("scratch_application:absent", "Failed to find attribute 'absent'"),
        ("scratch_application:number", "A valid Flask application was not obtained"),
        ("scratch_application:broken", "RuntimeError: postgresql://app:***@db/x is down;"),
        ("scratch_application:leaving", "SystemExit: 3"),
        ("scratch_importing:app", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        (":app", "no module is named"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line_without_a_secret(module: str, name: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        applications.load(name)
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def configured(**values: object) -> Flask:
    app = Flask("scratch", instance_path="/srv/instance")
    app.config.update(values)
    return app


def test_main_database_and_binds_come_from_the_configuration() -> None:
    app = configured(
        SQLALCHEMY_DATABASE_URI="postgresql+psycopg://app:p%40ss@db/{tenant}",
        SQLALCHEMY_BINDS={
            "logs": {"url": "sqlite:///logs-{tenant}.db", "echo": True},
            "mail": "sqlite:////var/mail.db",
        },
    )
    databases = applications.databases(app)
    assert list(databases) == [None, "logs", "mail"]
    assert databases[None].database == "{tenant}"
    assert databases[None].password == "p@ss"
    assert databases["logs"].database == "/srv/instance/logs-{tenant}.db"
    assert databases["mail"].database == "/var/mail.db"


def test_relative_files_lie_where_flask_sqlalchemy_opens_them(tmp_path: Path) -> None:
    app = Flask("scratch", instance_path=str(tmp_path))
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///one.db"
    app.config["SQLALCHEMY_BINDS"] = {"two": "sqlite:///file:two.db?uri=true", "memory": "sqlite://"}
    db = SQLAlchemy(app)
    with app.app_context():
        opened = {key: engine.url.database for key, engine in db.engines.items()}
    assert {key: url.database for key, url in applications.databases(app).items()} == opened


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"SQLALCHEMY_DATABASE_URI": "not a url with hunter2"},
        {"SQLALCHEMY_BINDS": {"logs": {"echo": True}}},
    ],
)
def test_a_configuration_without_a_usable_url_is_an_error(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="SQLALCHEMY_") as caught:
        applications.databases(configured(**values))
    assert "hunter2" not in str(caught.value)


def test_each_bind_has_its_own_tables() -> None:
    db = SQLAlchemy()

    class Account(db.Model):  # type: ignore[misc,name-defined]
        id = db.Column(db.Integer, primary_key=True)

    class Visit(db.Model):  # type: ignore[misc,name-defined]
        __bind_key__ = "logs"
        id = db.Column(db.Integer, primary_key=True)

    app = configured(SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_BINDS={"logs": "sqlite://"})
    db.init_app(app)
    main, logs = applications.metadata(app, None), applications.metadata(app, "logs")
    assert main is not None
    assert logs is not None
    assert set(main.tables) == {"account"}
    assert set(logs.tables) == {"visit"}
    assert applications.other_tables(app, None) == {(None, "visit")}
    assert applications.other_tables(app, "logs") == {(None, "account")}
    assert applications.metadata(app, "absent") is None


def test_an_application_without_models_has_no_metadata() -> None:
    app = configured()
    assert applications.metadata(app, None) is None
    assert applications.other_tables(app, None) == set()

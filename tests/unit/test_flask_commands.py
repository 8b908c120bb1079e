"""`flask tenants`: found by Flask, cheap to list, and run on the application's own alembic.ini."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from flask import Flask, current_app
from flask.cli import ScriptInfo

from orchestrator import cli
from orchestrator.cli import options
from orchestrator.flask import tenants
from orchestrator.flask.commands import config_of


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ORCHESTRATE_CONFIG", "ALEMBIC_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def application(folder: Path, **configuration: object) -> Flask:
    app = Flask("scratch", root_path=str(folder), instance_path=str(folder))
    app.config.update(configuration)
    return app


def test_flask_finds_the_group_by_its_entry_point() -> None:
    (point,) = importlib.metadata.entry_points(group="flask.commands", name="tenants")
    assert point.load() is tenants


def test_listing_the_group_imports_nothing_heavy() -> None:
    """Flask imports every entry point before each of its commands."""
    code = "import orchestrator.flask, sys; print(*[name for name in sys.modules if name.partition('.')[0] in HEAVY])"
    heavy = "HEAVY = {'alembic', 'sqlalchemy', 'yaml', 'rich', 'pydantic', 'flask'}; "
    ended = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_it_has_the_commands_of_orchestrate() -> None:
    ctx = click.Context(cli.commands)
    assert tenants.list_commands(ctx) == cli.commands.list_commands(ctx)
    assert tenants.get_command(ctx, "status") is cli.commands.get_command(ctx, "status")


def run(app: Flask, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run a command that says what it sees."""
    seen: dict[str, object] = {}

    @click.command("look")
    @options.common
    def look() -> None:
        seen.update(app=current_app.name, config=options.current().config)

    monkeypatch.setattr(type(cli.commands), "get_command", lambda *_: look)
    done = CliRunner().invoke(tenants, ["look", *arguments], obj=ScriptInfo(create_app=lambda: app))
    assert done.exit_code == 0, done.output
    return seen


def test_commands_run_inside_the_application_on_its_alembic_ini(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alembic.ini").touch()
    seen = run(application(tmp_path / "package"), monkeypatch=monkeypatch)
    assert seen == {"app": "scratch", "config": str(tmp_path / "alembic.ini")}
    assert not current_app


def test_an_option_goes_before_the_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alembic.ini").touch()
    assert run(application(tmp_path), "-c", "mine.ini", monkeypatch=monkeypatch)["config"] == "mine.ini"


def test_the_environment_goes_before_the_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alembic.ini").touch()
    monkeypatch.setenv("ORCHESTRATE_CONFIG", "other.ini")
    assert run(application(tmp_path), monkeypatch=monkeypatch)["config"] is None


def test_the_group_explains_itself() -> None:
    done = CliRunner().invoke(tenants, ["--help"])
    assert done.exit_code == 0
    assert {"upgrade", "resume", "retry", "rollback", "abort"} <= set(done.output.split())


@pytest.mark.parametrize("place", ["alembic.ini", "migrations/alembic.ini"])
def test_alembic_ini_is_found_above_the_applications_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    package = tmp_path / "project" / "src" / "package"
    package.mkdir(parents=True)
    ini = tmp_path / "project" / place
    ini.parent.mkdir(exist_ok=True)
    ini.touch()
    assert config_of(application(package)) == ini


def test_the_configuration_of_the_application_names_it(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "fleet.ini").touch()
    (tmp_path / "alembic.ini").touch()
    inside = application(tmp_path / "conf", ORCHESTRATE_CONFIG="fleet.ini")
    assert config_of(inside) == tmp_path / "conf" / "fleet.ini"
    assert config_of(application(tmp_path, ORCHESTRATE_CONFIG="conf/fleet.ini")) == Path("conf/fleet.ini")


def test_without_any_alembic_ini_the_default_speaks(tmp_path: Path) -> None:
    assert config_of(application(tmp_path / "a" / "b" / "c" / "d" / "e")) is None

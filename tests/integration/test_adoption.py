"""`orchestrate init` on projects that the real tools have set up."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from orchestrator import registry
from orchestrator.adoption import Proposal, propose
from orchestrator.errors import SettingsError
from orchestrator.revisions import uses_environment
from orchestrator.settings import Settings

APPLICATION = """
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()

def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///main.db"
    app.config["SQLALCHEMY_BINDS"] = {"logs": "sqlite:///logs.db"}
    db.init_app(app)
    Migrate(app, db)
    return app
"""


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def adopted(folder: Path, config: Path | None = None) -> Proposal:
    """Propose and apply, and check what holds for every proposal."""
    before = contents(folder)
    proposal = propose(folder, config)
    assert contents(folder) == before, "a proposal writes nothing"
    proposal.apply()
    for change in proposal.changes:
        assert change.path.read_text() == change.after
    for path in folder.rglob("env.py"):
        compile(path.read_text(), str(path), "exec")
    again = propose(folder, config)
    assert again.is_empty
    assert again.diff() == ""
    return proposal


def alembic_init(folder: Path, template: str, name: str = "alembic") -> None:
    config = Config(str(folder / "alembic.ini"), toml_file=str(folder / "pyproject.toml"))
    command.init(config, str(folder / name), template=template)


@pytest.fixture(autouse=True)
def _no_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLASK_APP", raising=False)


def test_an_empty_folder_gets_everything(tmp_path: Path) -> None:
    proposal = adopted(tmp_path)
    assert set(contents(tmp_path)) == {
        "alembic.ini",
        "alembic/env.py",
        "alembic/script.py.mako",
        "alembic/versions/.gitkeep",
        "tenants.yaml",
    }
    assert proposal.complete
    assert proposal.config == tmp_path / "alembic.ini"
    assert proposal.diff().count("--- /dev/null\n") == 5
    assert not (tmp_path / "alembic" / "__init__.py").exists()


def test_the_new_environment_is_the_repositorys_own() -> None:
    root = Path(__file__).parents[2]
    templates = root / "orchestrator" / "templates"
    assert (root / "alembic" / "env.py").read_text() == (templates / "env.py.txt").read_text()
    assert (root / "alembic" / "script.py.mako").read_text() == (templates / "script.py.mako").read_text()
    assert (root / "alembic.ini").read_text() == (templates / "alembic.ini.txt").read_text()


@pytest.mark.parametrize("template", ["generic", "async", "pyproject", "pyproject_async", "multidb"])
def test_alembics_own_templates_are_adopted(tmp_path: Path, template: str) -> None:
    alembic_init(tmp_path, template)
    kept = {name: text for name, text in contents(tmp_path).items() if "env.py" not in name}
    proposal = adopted(tmp_path)
    assert proposal.complete
    assert [change.path.name for change in proposal.changes] == ["env.py", "tenants.yaml"]
    assert contents(tmp_path).items() >= kept.items()
    text = (tmp_path / "alembic" / "env.py").read_text()
    assert uses_environment(tmp_path / "alembic" / "env.py")
    assert not any(word in text for word in ("asyncio", "engine_from_config", "sqlalchemy.url"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), "**conf_args"), (("--multidb",), "context.run_migrations(engine_name=name)")],
)
def test_flask_migrates_templates_are_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    environ = {**os.environ, "FLASK_APP": "shop:create_app"}
    done = subprocess.run(
        [sys.executable, "-m", "flask", "db", "init", *options],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    monkeypatch.setenv("FLASK_APP", "./shop.py:create_app")
    proposal = adopted(tmp_path)
    text = (tmp_path / "migrations" / "env.py").read_text()
    assert proposal.complete
    assert expected in text
    assert "target_metadata = None" in text
    assert "get_engine" not in text
    assert '{type: flask, app: "shop:create_app"}' in (tmp_path / "migrations" / "tenants.yaml").read_text()
    config = Config(str(tmp_path / "migrations" / "alembic.ini"))
    assert config.get_main_option("script_location") == str(tmp_path / "migrations")
    done = subprocess.run(
        [sys.executable, "-m", "flask", "db", "heads"], cwd=tmp_path, env=environ, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_an_application_without_a_name_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "alembic.ini").write_text("[alembic]\n")
    template = resources.files("flask_migrate") / "templates" / "flask" / "env.py"
    (folder / "env.py").write_text(template.read_text())
    proposal = adopted(tmp_path)
    assert any("FLASK_APP" in note for note in proposal.notes)
    assert "\nsources:" not in (folder / "tenants.yaml").read_text()


def test_the_password_of_alembic_ini_goes_nowhere(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    ini = tmp_path / "alembic.ini"
    text = ini.read_text().replace(
        "driver://user:pass@localhost/dbname",
        "postgresql+psycopg://app:hunter2@db.x/saas?sslmode=require&sslpassword=hunter3",
    )
    ini.write_text(text.replace("%(here)s/alembic", "alembic"))
    proposal = adopted(tmp_path)
    registry = (tmp_path / "tenants.yaml").read_text()
    assert 'url: "postgresql+psycopg://app:${DB_PASSWORD}@db.x/{tenant}?sslmode=require"' in registry
    assert "  saas: {" in registry
    assert "hunter" not in proposal.diff() + registry
    assert "hunter2" in ini.read_text()


def test_what_env_py_said_about_the_version_table_moves(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    env = tmp_path / "alembic" / "env.py"
    mine = 'target_metadata=target_metadata, version_table="billing", transaction_per_migration=True'
    env.write_text(env.read_text().replace("target_metadata=target_metadata", mine))
    adopted(tmp_path)
    registry = (tmp_path / "tenants.yaml").read_text()
    assert '  version_table: "billing"\n  transaction: revision' in registry
    assert "billing" not in env.read_text()


def test_an_existing_registry_stays_and_is_told_what_to_add(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    (tmp_path / "tenants.yaml").write_text("version: 1\n")
    env = tmp_path / "alembic" / "env.py"
    env.write_text(env.read_text().replace("literal_binds=True", "literal_binds=True, version_table='billing'"))
    proposal = adopted(tmp_path)
    assert (tmp_path / "tenants.yaml").read_text() == "version: 1\n"
    assert any("add to tenants.yaml" in note and "version_table: billing" in note for note in proposal.notes)


def test_revisions_are_left_alone(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    command.revision(Config(str(tmp_path / "alembic.ini")), message="first")
    before = contents(tmp_path / "alembic" / "versions")
    adopted(tmp_path)
    assert before
    assert contents(tmp_path / "alembic" / "versions") == before


def test_an_environment_that_cannot_be_carried_is_left_as_it_is(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    env = tmp_path / "alembic" / "env.py"
    mine = env.read_text().replace(
        "        context.configure(\n            connection",
        "        prepare(connection)\n        context.configure(\n            connection",
    )
    env.write_text(mine)
    proposal = propose(tmp_path)
    proposal.apply()
    assert not proposal.complete
    assert env.read_text() == mine
    notes = "\n".join(proposal.notes)
    line = mine.splitlines().index("        prepare(connection)") + 1
    assert f"alembic/env.py:{line}: `prepare(connection)` would be lost" in notes
    assert "for target in environment.targets(context):" in notes
    assert "it works as it is for a database per tenant" in notes
    assert (tmp_path / "tenants.yaml").is_file()


def test_each_section_with_scripts_of_its_own_is_adopted(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic", "core")
    other = tmp_path / "elsewhere"
    other.mkdir()
    alembic_init(other, "async", "analytics")
    (other / "analytics").rename(tmp_path / "analytics")
    ini = tmp_path / "alembic.ini"
    ini.write_text(ini.read_text() + "\n[analytics]\nscript_location = %(here)s/analytics\n")
    adopted(tmp_path)
    assert uses_environment(tmp_path / "core" / "env.py")
    assert uses_environment(tmp_path / "analytics" / "env.py")


def test_sections_may_share_one_environment(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    ini = tmp_path / "alembic.ini"
    ini.write_text(ini.read_text() + "\n[other]\nscript_location = %(here)s/alembic\nfile_template = x_%%(rev)s\n")
    assert [change.path.name for change in adopted(tmp_path).changes] == ["env.py", "tenants.yaml"]


@pytest.mark.parametrize("location", ["shop_package.database:migrations", "shed_package:database:migrations"])
def test_scripts_inside_a_package_are_adopted_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    package = tmp_path / location[: len("shop_package")] / "database"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    alembic_init(package, "generic", "migrations")
    (package / "alembic.ini").write_text(f"[alembic]\nscript_location = {location}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    adopted(tmp_path, package / "alembic.ini")
    assert uses_environment(package / "migrations" / "env.py")
    assert (package / "tenants.yaml").is_file()
    assert location in (package / "alembic.ini").read_text()


def test_a_relative_location_is_found_from_everywhere(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    ini = tmp_path / "alembic.ini"
    ini.write_text("# mine\n[alembic]\nscript_location: alembic\nfile_template = %%(rev)s\n\n[loggers]\nkeys = root\n")
    adopted(tmp_path)
    assert ini.read_text() == (
        "# mine\n[alembic]\nscript_location = %(here)s/alembic\nfile_template = %%(rev)s\n\n[loggers]\nkeys = root\n"
    )


def test_scripts_beside_their_configuration_are_found_from_everywhere(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic", "migrations")
    ini = tmp_path / "migrations" / "alembic.ini"
    ini.write_text("[alembic]\nscript_location = .\n")
    (tmp_path / "alembic.ini").unlink()
    adopted(tmp_path)
    assert ini.read_text() == "[alembic]\nscript_location = %(here)s\n"
    assert uses_environment(tmp_path / "migrations" / "env.py")


def test_line_ends_and_modes_are_kept(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    env = tmp_path / "alembic" / "env.py"
    env.write_bytes(env.read_bytes().replace(b"\n", b"\r\n"))
    env.chmod(0o640)
    propose(tmp_path).apply()
    assert env.read_bytes().count(b"\n") == env.read_bytes().count(b"\r\n") > 0
    assert env.stat().st_mode & 0o777 == 0o640
    assert propose(tmp_path).is_empty


def test_a_file_that_changed_since_is_not_overwritten(tmp_path: Path) -> None:
    alembic_init(tmp_path, "generic")
    proposal = propose(tmp_path)
    env = tmp_path / "alembic" / "env.py"
    env.write_text("mine = 1\n")
    with pytest.raises(SettingsError, match="changed in the meantime"):
        proposal.apply()
    assert env.read_text() == "mine = 1\n"
    assert not (tmp_path / "tenants.yaml").exists()


@pytest.mark.parametrize(
    "text",
    ["no section", "[alembic]\nscript_location = %(nowhere)s\n", "[alembic]\nscript_location = absent_package:x\n"],
)
def test_an_unreadable_configuration_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "alembic.ini").write_text(text)
    with pytest.raises(SettingsError):
        propose(tmp_path)


@pytest.mark.parametrize(
    ("url", "names", "backend"),
    [
        (None, ["example"], "sqlite"),
        ("postgresql+asyncpg://app:hunter2@db.x/saas", ["saas"], "postgresql"),
        ("mysql+pymysql://app@db.x/Saas-1", ["example"], "mysql"),
        ("sqlite:///var/shop.db", ["shop"], "sqlite"),
        ("%(missing)s", ["example"], "sqlite"),
    ],
)
def test_the_registry_it_writes_can_be_used_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None, names: list[str], backend: str
) -> None:
    if url is not None:
        alembic_init(tmp_path, "generic")
        ini = tmp_path / "alembic.ini"
        ini.write_text(ini.read_text().replace("driver://user:pass@localhost/dbname", url))
    propose(tmp_path).apply()
    monkeypatch.setenv("DB_PASSWORD", "p@ss")
    fleet = registry.load(Settings.load(tmp_path / "alembic.ini"))
    assert [tenant.name for tenant in fleet.tenants] == names
    assert fleet.targets[0].backend == backend
    if backend == "postgresql":
        assert (fleet.targets[0].url.database, fleet.targets[0].url.password) == ("saas", "p@ss")


def test_the_registry_of_an_application_takes_its_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adopted_shop.py").write_text(APPLICATION)
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "alembic.ini").write_text("[alembic]\n")
    template = resources.files("flask_migrate") / "templates" / "flask-multidb" / "env.py"
    (tmp_path / "migrations" / "env.py").write_text(template.read_text())
    monkeypatch.setenv("FLASK_APP", "adopted_shop:create_app")
    propose(tmp_path).apply()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    fleet = registry.load(Settings.load())
    assert [(target.name, target.bind) for target in fleet.targets] == [
        ("adopted_shop/default", None),
        ("adopted_shop/logs", "logs"),
    ]
    assert {target.app for target in fleet.targets} == {"adopted_shop:create_app"}

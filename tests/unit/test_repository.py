"""What the repository itself must keep to."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

from tests import histories

ROOT = Path(__file__).parents[2]


def test_the_alembic_folder_does_not_shadow_the_library() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()
    found = importlib.util.find_spec("alembic")
    assert found is not None
    assert found.origin is not None
    assert not Path(found.origin).is_relative_to(ROOT / "alembic")


def test_the_demo_env_is_the_documented_one() -> None:
    text = (ROOT / "alembic" / "env.py").read_text()
    assert text.split("target_metadata = None", 1)[1] == histories.ENV.split("target_metadata = None", 1)[1]


def test_the_source_distribution_can_be_built_and_tested_as_a_clone_can() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"/tests", "/Makefile", "/constraints.txt"} <= set(packed)
    assert [path for path in packed if not (ROOT / path.lstrip("/")).exists()] == []

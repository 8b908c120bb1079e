"""Routes between revisions, and the mistakes that revision files can hold."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from orchestrator import redaction
from orchestrator.errors import ScriptsError, SettingsError
from orchestrator.plans import Command
from orchestrator.revisions import Scripts, load_config, uses_environment

INI = "[alembic]\nscript_location = %(here)s/alembic\npath_separator = os\n"


def write(folder: Path, **revisions: dict[str, object]) -> Scripts:
    """Scripts with revisions given as `id=dict(down=…, labels=…, depends=…)`."""
    versions = folder / "alembic" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    (folder / "alembic.ini").write_text(INI)
    for name, given in revisions.items():
        (versions / f"{name}.py").write_text(
            f'"""{name} does it."""\n'
            f"revision = {given.get('id', name)!r}\n"
            f"down_revision = {given.get('down')!r}\n"
            f"branch_labels = {given.get('labels')!r}\n"
            f"depends_on = {given.get('depends')!r}\n"
            "def upgrade():\n    pass\n"
            "def downgrade():\n    pass\n"
        )
    return Scripts(load_config(folder / "alembic.ini", "alembic"))


@pytest.fixture
def chain(tmp_path: Path) -> Scripts:
    return write(tmp_path, ae10={}, ae20={"down": "ae10"}, bf30={"down": "ae20"})


@pytest.fixture
def branches(tmp_path: Path) -> Scripts:
    """Two bases with labels; the second branch depends on the first's first revision."""
    return write(
        tmp_path,
        a1={"labels": ("accounts",)},
        a2={"down": "a1"},
        b1={"labels": ("billing",), "depends": "a1"},
        b2={"down": "b1"},
    )


@pytest.mark.parametrize(
    ("found", "asked", "path", "wanted"),
    [
        ((), "head", ("ae10", "ae20", "bf30"), ("bf30",)),
        (("ae10",), "heads", ("ae20", "bf30"), ("bf30",)),
        (("ae10",), "+1", ("ae20",), ("ae20",)),
        ((), "ae2", ("ae10", "ae20"), ("ae20",)),
        ((), "ae10+1", ("ae10", "ae20"), ("ae20",)),
        (("bf30",), "head", (), ("bf30",)),
    ],
)
def test_the_way_up(chain: Scripts, found: tuple[str, ...], asked: str, path: tuple[str, ...], wanted: object) -> None:
    route = chain.route(Command.UPGRADE, found, asked)
    assert (route.path, route.wanted, route.past) == (path, wanted, False)


def test_an_upgrade_never_goes_down(chain: Scripts) -> None:
    route = chain.route(Command.UPGRADE, ("bf30",), "ae10")
    assert (route.path, route.past) == ((), True)


@pytest.mark.parametrize(
    ("found", "asked", "path", "wanted"),
    [
        (("bf30",), "-1", ("bf30",), ("ae20",)),
        (("bf30",), "base", ("bf30", "ae20", "ae10"), ()),
        (("bf30",), "ae10", ("bf30", "ae20"), ("ae10",)),
        (("ae10",), "ae10", (), ("ae10",)),
    ],
)
def test_the_way_down(
    chain: Scripts, found: tuple[str, ...], asked: str, path: tuple[str, ...], wanted: object
) -> None:
    route = chain.route(Command.DOWNGRADE, found, asked)
    assert (route.path, route.wanted, route.past) == (path, wanted, False)


def test_a_downgrade_never_goes_up(chain: Scripts) -> None:
    route = chain.route(Command.DOWNGRADE, ("ae10",), "ae20")
    assert (route.path, route.past) == ((), True)


@pytest.mark.parametrize(("command", "asked"), [(Command.UPGRADE, "-1"), (Command.DOWNGRADE, "+1")])
def test_a_step_the_other_way_is_refused(chain: Scripts, command: Command, asked: str) -> None:
    with pytest.raises(ScriptsError, match="goes the other way"):
        chain.route(command, ("ae20",), asked)


def test_more_steps_than_there_are_is_an_error(chain: Scripts) -> None:
    with pytest.raises(ScriptsError, match="\\+9"):
        chain.route(Command.UPGRADE, ("ae10",), "+9")


def test_head_with_several_heads_suggests_heads(branches: Scripts) -> None:
    with pytest.raises(ScriptsError, match="ask for `heads`"):
        branches.route(Command.UPGRADE, (), "head")


def test_heads_of_all_branches(branches: Scripts) -> None:
    route = branches.route(Command.UPGRADE, (), "heads")
    assert set(route.path) == {"a1", "a2", "b1", "b2"}
    assert route.path.index("a1") < route.path.index("b1")
    assert route.wanted == ("a2", "b2")


def test_a_branch_brings_what_it_depends_on(branches: Scripts) -> None:
    route = branches.route(Command.UPGRADE, (), "billing@head")
    assert route.path == ("a1", "b1", "b2")
    assert route.wanted == ("b2",), "a1 has no row of its own: b1 stands for it"


def test_a_target_beyond_one_branch_is_at_it(branches: Scripts) -> None:
    assert branches.route(Command.UPGRADE, ("b2",), "a1").past
    assert not branches.route(Command.UPGRADE, ("b2",), "accounts@head").past


def test_a_branch_can_go_down_alone(branches: Scripts) -> None:
    route = branches.route(Command.DOWNGRADE, ("a2", "b2"), "billing@b1")
    assert (route.path, route.wanted) == (("b2",), ("a2", "b1"))


def test_a_merge_leaves_one_row(tmp_path: Path) -> None:
    scripts = write(tmp_path, a={}, b={"down": "a"}, c={"down": "a"}, m={"down": ("b", "c")})
    assert scripts.route(Command.UPGRADE, ("b",), "head").wanted == ("m",)
    assert scripts.route(Command.DOWNGRADE, ("m",), "a").wanted == ("a",)
    with pytest.raises(ScriptsError, match=r"[Aa]mbiguous"):
        scripts.route(Command.DOWNGRADE, ("m",), "-1")


def test_concrete_ids_are_reached_from_elsewhere(branches: Scripts) -> None:
    route = branches.route_to(("a1",), ("a2", "b2"))
    assert set(route.path) == {"a2", "b1", "b2"}
    assert route.path.index("b1") < route.path.index("b2")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptsError, match=r"'gone'.*no file has it"):
        write(tmp_path, a={}, c={"down": "gone"})


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScriptsError, match=r"[Cc]ycle"):
        write(tmp_path, a={"down": "c"}, b={"down": "a"}, c={"down": "b"})


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScriptsError, match="present more than once"):
        write(tmp_path, a={}, b={"id": "a"})


def test_an_id_too_long_for_the_version_table_is_refused(tmp_path: Path) -> None:
    name = "x" * 33
    with pytest.raises(ScriptsError, match="33 characters"):
        write(tmp_path, **{name: {}})


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, a={})
    (tmp_path / "alembic" / "versions" / "broken.py").write_text("revision = 'b'\ndef upgrade(:\n")
    with pytest.raises(ScriptsError, match=r"broken\.py:2"):
        Scripts(load_config(tmp_path / "alembic.ini", "alembic"))


def test_an_error_while_a_file_is_imported_names_it(tmp_path: Path) -> None:
    write(tmp_path, a={})
    (tmp_path / "alembic" / "versions" / "broken.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ScriptsError, match=r"broken\.py:1: ModuleNotFoundError"):
        Scripts(load_config(tmp_path / "alembic.ini", "alembic"))


def test_what_a_file_prints_while_it_is_imported_goes_aside_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    redaction.remember("hunter-22-secret")
    file = tmp_path / "alembic" / "versions" / "a1.py"
    write(tmp_path, a1={})
    file.write_text(
        "import sys\n"
        "secret = 'hunter-' + '22-secret'\n"
        "print('one', secret)\n"
        "sys.stdout.write(secret[:9])\n"
        "print(secret[9:], file=sys.stderr)\n"
        f"{file.read_text()}"
    )
    Scripts(load_config(tmp_path / "alembic.ini", "alembic"))
    assert capsys.readouterr() == ("", "one ***\n***\n")


def test_an_error_while_a_file_is_imported_holds_no_secret(tmp_path: Path) -> None:
    write(tmp_path, a1={})
    (tmp_path / "alembic" / "versions" / "a2.py").write_text(
        "raise RuntimeError('bad postgresql://app:hun' 'ter2@h/d')"
    )
    with pytest.raises(ScriptsError) as caught:
        Scripts(load_config(tmp_path / "alembic.ini", "alembic"))
    assert "bad postgresql://app:***@h/d" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_revision_that_cannot_be_undone_says_so(tmp_path: Path) -> None:
    scripts = write(tmp_path, a={}, b={})
    file = tmp_path / "alembic" / "versions" / "b.py"
    file.write_text(file.read_text().replace("def downgrade", "def not_yet"))
    scripts = Scripts(scripts.config)
    with pytest.raises(ScriptsError, match=r"b\.py has no function `downgrade`.*nothing was done"):
        scripts.route(Command.DOWNGRADE, ("b",), "-1")


def test_an_unknown_section_names_those_that_exist(tmp_path: Path) -> None:
    write(tmp_path, a={})
    with pytest.raises(SettingsError, match=r"no section \[billing\]; it has \[alembic\]"):
        load_config(tmp_path / "alembic.ini", "billing")


@pytest.mark.parametrize(
    ("source", "ours"),
    [
        ("from orchestrator import environment", True),
        ("from orchestrator import environment as fleet", True),
        ("from orchestrator.environment import targets", True),
        ("import orchestrator.environment", True),
        ("import orchestrator", False),
        ("# from orchestrator import environment", False),
        ("from alembic import context", False),
    ],
)
def test_whose_env_py_it_is_is_read_from_its_imports(tmp_path: Path, source: str, *, ours: bool) -> None:
    path = tmp_path / "env.py"
    path.write_text(source)
    assert uses_environment(path) is ours

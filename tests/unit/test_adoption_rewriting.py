"""An env.py turned into one that migrates every target: what is carried, what goes, what is left to its owner."""

from __future__ import annotations

import ast
import textwrap

import pytest

from orchestrator.adoption.rewriting import NotCarried, Rewritten, rewrite

HEAD = """
from logging.config import fileConfig
from alembic import context
from sqlalchemy import engine_from_config, pool
from myapp.models import Base

config = context.config
target_metadata = Base.metadata
"""
TAIL = """
if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
"""


def environment(configure: str = "", *, before: str = "", top: str = "", inside: str = "", offline: str = "") -> str:
    """An env.py as `alembic init` writes it, with additions."""
    online = f"""
def run_migrations_offline():
    url = config.get_main_option("sqlalchemy.url")
    context.configure(url=url, target_metadata=target_metadata, literal_binds=True, {offline})
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online():
    \"\"\"Run migrations in 'online' mode.\"\"\"
    connectable = engine_from_config(config.get_section(config.config_ini_section, {{}}), poolclass=pool.NullPool)
{textwrap.indent(textwrap.dedent(before), "    ")}
    with connectable.connect() as connection:
{textwrap.indent(textwrap.dedent(inside), "        ")}
        context.configure(connection=connection, target_metadata=target_metadata, {configure})
        with context.begin_transaction():
            context.run_migrations()
"""
    return HEAD + textwrap.dedent(top) + "\n" + online + TAIL


def carried(text: str) -> Rewritten:
    rewritten = rewrite(text, "env.py")
    compile(rewritten.text, "env.py", "exec")
    return rewritten


def functions(text: str) -> dict[str, str]:
    return {node.name: ast.unparse(node) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}


def options_of(text: str, function: str = "run_migrations_online") -> dict[str | None, str]:
    """Keywords that the rewritten function hands to `target.options`."""
    calls = [node for node in ast.walk(ast.parse(functions(text)[function])) if isinstance(node, ast.Call)]
    call = next(node for node in calls if ast.unparse(node.func) == "target.options")
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_the_loop_replaces_what_connects_and_nothing_else() -> None:
    text = carried(environment()).text
    assert options_of(text) == {"connection": "connection", "target_metadata": "target_metadata"}
    assert options_of(text, "run_migrations_offline") == {
        "url": "target.url",
        "literal_binds": "True",
        "target_metadata": "target_metadata",
    }
    assert text.endswith(
        "for target in environment.targets(context):\n"
        "    with target.outcome():\n"
        "        run_migrations_offline(target) if context.is_offline_mode() else run_migrations_online(target)\n"
    )
    assert "engine_from_config" not in text
    assert "is_offline_mode():" not in text
    assert "from myapp.models import Base" in text


def test_the_users_own_keywords_are_kept_on_each_side() -> None:
    text = carried(
        environment(
            "compare_type=True, include_object=include_object, render_as_batch=connection.dialect.name == 'sqlite'",
            offline="compare_server_default=True",
            top="""
            def include_object(thing, name, kind, reflected, compared):
                return name not in EXCLUDED

            EXCLUDED = {"spatial_ref_sys"}
            """,
        )
    ).text
    online = options_of(text)
    assert online["compare_type"] == "True"
    assert online["include_object"] == "include_object"
    assert online["render_as_batch"] == "connection.dialect.name == 'sqlite'"
    assert options_of(text, "run_migrations_offline")["compare_server_default"] == "True"
    assert "include_object" in functions(text)
    assert "EXCLUDED" in text


def test_the_users_name_for_the_connection_is_kept() -> None:
    text = environment("render_as_batch=conn.dialect.name == 'sqlite'").replace("as connection", "as conn")
    text = carried(text.replace("connection=connection", "connection=conn")).text
    assert "with target.connect() as conn:" in text
    assert options_of(text)["connection"] == "conn"


def test_names_that_only_the_function_knows_come_along() -> None:
    text = carried(
        environment(
            "process_revision_directives=skip_empty, **options",
            before="""
            # an empty revision helps nobody
            def skip_empty(context, revision, directives):
                if directives[0].upgrade_ops.is_empty():
                    directives[:] = []

            unrelated = 1
            options = {"compare_type": True}
            if unrelated:
                options["render_as_batch"] = True
            """,
        )
    ).text
    online = functions(text)["run_migrations_online"]
    assert "def skip_empty" in online
    assert "# an empty revision helps nobody" in text
    assert "options['render_as_batch'] = True" in online
    assert "unrelated = 1" in online  # the condition reads it
    assert options_of(text)[None] == "options"


def test_the_engine_and_the_url_can_still_be_asked() -> None:
    text = carried(
        environment("render_as_batch=connectable.dialect.name == 'sqlite'", offline="render_as_batch='sqlite' in url")
    ).text
    assert "connectable = connection.engine" in functions(text)["run_migrations_online"]
    assert "url = target.url.render_as_string(hide_password=False)" in functions(text)["run_migrations_offline"]


def test_what_belongs_to_the_registry_is_handed_over() -> None:
    rewritten = carried(
        environment(
            "version_table=TABLE, version_table_schema='meta', transaction_per_migration=True",
            top='TABLE = "billing_version"',
        )
    )
    assert rewritten.version_table == "billing_version"
    assert rewritten.version_table_schema == "meta"
    assert rewritten.per_revision
    assert set(options_of(rewritten.text)) == {"connection", "target_metadata"}


def test_include_schemas_is_kept_and_warned_about() -> None:
    rewritten = carried(environment("include_schemas=True"))
    assert options_of(rewritten.text)["include_schemas"] == "True"
    assert any("include_schemas" in note and note.startswith("env.py:") for note in rewritten.notes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fileConfig(config.config_file_name)", "fileConfig(config.config_file_name, disable_existing_loggers=False)"),
        (
            "fileConfig(\n    config.config_file_name,\n)",
            "fileConfig(config.config_file_name, disable_existing_loggers=False)",
        ),
        (
            "fileConfig('ü.ini', disable_existing_loggers=True)",
            "fileConfig('ü.ini', disable_existing_loggers=True)",
        ),
    ],
)
def test_logging_of_env_py_leaves_other_loggers_alone(before: str, after: str) -> None:
    tree = ast.parse(carried(environment(top=before)).text)
    assert after in [ast.unparse(node) for node in tree.body]


def test_a_url_that_env_py_sets_is_not_set_any_longer() -> None:
    text = carried(
        environment(
            top="""
            import os
            from myapp.settings import settings

            def get_url():
                return settings.url.replace("%", "%%")

            # the URL of the one database
            config.set_main_option("sqlalchemy.url", get_url())
            if os.environ.get("CI"):
                config.set_main_option("sqlalchemy.url", "sqlite://")
            """
        )
    ).text
    assert "sqlalchemy.url" not in text
    assert "get_url" not in text
    assert "the URL of the one database" not in text
    assert "import os" not in text
    assert "from myapp.settings import settings" in text  # importing somebody's module may do something


def test_functions_that_others_need_stay() -> None:
    text = carried(
        environment(
            "include_name=include_name",
            top="""
            def prefix():
                return "app_"

            def get_url():
                return "sqlite:///" + prefix()

            def include_name(name, kind, parents):
                return name.startswith(prefix())

            config.set_main_option("sqlalchemy.url", get_url())
            """,
        )
    ).text
    assert set(functions(text)) == {"prefix", "include_name", "run_migrations_online", "run_migrations_offline"}


def test_another_name_for_the_context_is_respected() -> None:
    text = environment().replace("from alembic import context", "from alembic import context as alembic_context")
    text = text.replace("context.", "alembic_context.")
    assert "for target in environment.targets(alembic_context):" in carried(text).text


@pytest.mark.parametrize(
    ("imported", "name"),
    [
        ("import alembic", "alembic.context"),
        ("import alembic.context", "alembic.context"),
        ("import alembic.context as migrations", "migrations"),
        ("import alembic as a", "a.context"),
    ],
)
def test_the_context_may_be_reached_through_its_package(imported: str, name: str) -> None:
    text = environment().replace("context.", f"{name}.").replace("from alembic import context", imported)
    text = carried(text).text
    assert f"for target in environment.targets({name}):" in text
    assert f"{imported}\nfrom orchestrator import environment\n" in text
    assert f"{name}.configure(**target.options(connection=connection, " in text


def test_an_environment_without_functions_is_adopted() -> None:
    text = carried(
        HEAD
        + """
connectable = engine_from_config(config.get_section("alembic"))
with connectable.connect() as connection:
    context.configure(connection=connection, target_metadata=target_metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
"""
    ).text
    assert options_of(text)["compare_type"] == "True"
    assert options_of(text, "run_migrations_offline")["compare_type"] == "True"


def test_an_open_connection_that_was_passed_in_is_no_longer_looked_for() -> None:
    text = carried(
        HEAD
        + """
def run_migrations_online():
    connectable = config.attributes.get("connection", None)
    if connectable is None:
        connectable = engine_from_config(config.get_section("alembic"))
        with connectable.connect() as connection:
            context.configure(connection=connection, target_metadata=target_metadata)
            with context.begin_transaction():
                context.run_migrations()
    else:
        context.configure(connection=connectable, target_metadata=target_metadata)
        with context.begin_transaction():
            context.run_migrations()

run_migrations_online()
"""
    ).text
    assert "config.attributes" not in text


def test_an_open_connection_may_end_the_function_early() -> None:
    text = carried(
        HEAD
        + """
def run_migrations_online():
    if given := config.attributes.get("connection"):
        migrate(given)
        return
    connectable = engine_from_config(config.get_section("alembic"))
    with connectable.connect() as connection:
        migrate(connection)

def migrate(connection):
    context.configure(connection=connection, target_metadata=target_metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()

run_migrations_online()
"""
    ).text
    assert options_of(text)["compare_type"] == "True"
    assert "config.attributes" not in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            environment(inside="connection.execute('SET ROLE owner')"),
            "`connection.execute('SET ROLE owner')` would be lost",
        ),
        (environment(inside="create_extensions(connection)"), "`create_extensions(connection)` would be lost"),
        (environment(inside="connection = connection.execution_options(x=1)"), "would be lost"),
        (environment(inside="connection.dialect.default_schema_name = 'x'"), "would be lost"),
        (environment(before="notify_the_team()"), "`notify_the_team()` would be lost"),
        (environment("version_table=make_name()"), "tenants.yaml needs its value"),
        (
            environment("compare_type=flag").replace("run_migrations_online():", "run_migrations_online(flag):", 1),
            "`flag`",
        ),
        (environment().replace(TAIL, "for name in names:\n    run_migrations_online()\n"), "a loop of its own"),
        (environment().replace(TAIL, "if ENABLED:\n    run_migrations_online()\n"), "decides whether to migrate"),
        (environment(before="if SKIPPED:\n    return"), "`if SKIPPED` decides whether to migrate"),
        (
            environment().replace(TAIL, "with maintenance():\n    run_migrations_online()\n"),
            "inside `with maintenance()`",
        ),
        ("print('nothing here')\n", "does not import `context`"),
        ("from alembic import context\n", "never calls `context.configure`"),
    ],
)
def test_what_cannot_be_carried_is_named_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(NotCarried) as caught:
        rewrite(text, "env.py")
    problems = [str(problem) for problem in caught.value.problems]
    assert any(reason in problem for problem in problems), problems
    assert all(problem.startswith("env.py:") for problem in problems)


def test_two_configurations_that_differ_are_left_to_their_owner() -> None:
    text = environment("compare_type=True")
    other = "\n        context.configure(connection=connection, target_metadata=target_metadata, compare_type=False)"
    place = text.index("        with context.begin_transaction", text.index("def run_migrations_online"))
    with pytest.raises(NotCarried, match="differs from the one before"):
        rewrite(text[:place] + other.lstrip("\n") + "\n" + text[place:], "env.py")


def test_a_name_of_the_users_is_not_taken_away() -> None:
    text = carried(environment(top="environment = 'production'")).text
    assert "from orchestrator import environment as orchestrate_environment" in text
    assert "for target in orchestrate_environment.targets(context):" in text


def test_a_byte_order_mark_does_no_harm() -> None:
    assert carried("\ufeff" + environment()).text == carried(environment()).text


def test_what_is_unpacked_may_hide_the_connection() -> None:
    hidden = "options = {'connection': connection}\n        context.configure(**options)"
    text = environment().replace("context.configure(connection=connection, target_metadata=target_metadata, )", hidden)
    assert hidden in text
    with pytest.raises(NotCarried, match="does not show what it connects to"):
        rewrite(text, "env.py")


def test_comments_and_order_of_what_stays_are_untouched() -> None:
    text = environment(top="# a word about naming\nNAMING = {}  # and one more\n")
    before = [line for line in text.splitlines() if "NAMING" in line or line.startswith("# a word")]
    assert [line for line in carried(text).text.splitlines() if line in before] == before


def test_the_result_has_no_ragged_spacing() -> None:
    assert "\n\n\n\n" not in carried(environment()).text

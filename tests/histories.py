"""Revision histories made for tests: portable over PostgreSQL, MariaDB and SQLite, with a marker row per revision.

`write(folder)` makes a whole environment. Some revisions are plain DDL, some move data, r006 adds a unique constraint
that `POISON` violates. The functions below it break a written history in one way each.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, text

#: the one that `orchestrate init` writes
ENV = (Path(__file__).parents[1] / "orchestrator" / "templates" / "env.py.txt").read_text(encoding="utf-8")

INI = """\
[DEFAULT]
path_separator = os

[alembic]
script_location = %(here)s/alembic
"""

TEMPLATE = '''\
"""${message}"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''

REVISION = '''\
"""{message}"""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down!r}
branch_labels = {labels!r}
depends_on = {depends!r}


def upgrade():
{upgrade}
    op.execute("INSERT INTO markers (revision) VALUES ('{revision}')")


def downgrade():
    op.execute("DELETE FROM markers WHERE revision = '{revision}'")
{downgrade}
'''

#: customer data that must never be echoed
CUSTOMER = "poisoned.customer@example.com"
#: after r001 and before r006: two rows that r006's unique constraint forbids
POISON = (
    f"INSERT INTO accounts (id, email) VALUES (900, '{CUSTOMER}')",
    f"INSERT INTO accounts (id, email) VALUES (901, '{CUSTOMER}')",
)
MEND = ("DELETE FROM accounts WHERE id >= 900",)


@dataclasses.dataclass(frozen=True)
class Body:
    """What one revision does, and the tables that it adds."""

    message: str
    upgrade: str
    downgrade: str
    tables: tuple[str, ...] = ()


BODIES = (
    Body(
        "accounts",
        """
        op.create_table("markers", sa.Column("revision", sa.String(40), nullable=False))
        op.create_table(
            "accounts",
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("email", sa.String(120), nullable=False),
        )
        op.execute("INSERT INTO accounts (id, email) VALUES (1, 'Ada@Example.com')")
        op.execute("INSERT INTO accounts (id, email) VALUES (2, 'bob@example.com')")
        """,
        """
        op.drop_table("accounts")
        op.drop_table("markers")
        """,
        ("markers", "accounts"),
    ),
    Body(
        "invoices of accounts",
        """
        op.create_table(
            "invoices",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("account_id", sa.Integer, nullable=False),
            sa.Column("cents", sa.Integer, nullable=False),
            sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="invoices_account", ondelete="CASCADE"),
        )
        op.execute("INSERT INTO invoices (account_id, cents) VALUES (1, 1250)")
        op.execute("INSERT INTO invoices (account_id, cents) VALUES (2, 990)")
        """,
        """
        op.drop_table("invoices")
        """,
        ("invoices",),
    ),
    Body(
        "a display name",
        """
        op.add_column("accounts", sa.Column("display_name", sa.String(120), nullable=True))
        """,
        """
        with op.batch_alter_table("accounts") as batch:
            batch.drop_column("display_name")
        """,
    ),
    Body(
        "an index on amounts",
        """
        op.create_index("invoices_cents", "invoices", ["cents"])
        """,
        """
        op.drop_index("invoices_cents", table_name="invoices")
        """,
    ),
    Body(
        "display names from addresses, with 10 % discount",
        """
        accounts = sa.table("accounts", sa.column("email"), sa.column("display_name"))
        op.execute(accounts.update().values(display_name=sa.func.lower(accounts.c.email)))
        op.execute("UPDATE invoices SET cents = cents - cents * 10 / 100")
        """,
        """
        op.execute("UPDATE accounts SET display_name = NULL")
        """,
    ),
    Body(
        "addresses are unique",
        """
        with op.batch_alter_table("accounts") as batch:
            batch.create_unique_constraint("accounts_email", ["email"])
        """,
        """
        with op.batch_alter_table("accounts") as batch:
            batch.drop_constraint("accounts_email", type_="unique")
        """,
    ),
    Body(
        "display names are required",
        """
        with op.batch_alter_table("accounts") as batch:
            batch.alter_column("display_name", existing_type=sa.String(120), nullable=False)
        """,
        """
        with op.batch_alter_table("accounts") as batch:
            batch.alter_column("display_name", existing_type=sa.String(120), nullable=True)
        """,
    ),
    Body(
        "notes",
        """
        op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))
        op.bulk_insert(sa.table("notes", sa.column("body", sa.Text)), [{"body": "50 % of it's: done"}, {"body": "b"}])
        """,
        """
        op.drop_table("notes")
        """,
        ("notes",),
    ),
)


def revision_ids(size: int, prefix: str = "r") -> list[str]:
    """`r001` … in order."""
    return [f"{prefix}{number:03d}" for number in range(1, size + 1)]


def tables_at(number: int) -> set[str]:
    """The tables of a target after that many revisions, without the version table."""
    return {table for index in range(1, number + 1) for table in _body(index).tables}


def write(
    folder: Path, *, size: int = 10, ini: str = INI, env: str = ENV, scripts: str = "alembic", prefix: str = "r"
) -> Path:
    """An environment with a linear history; returns the path of its `alembic.ini`."""
    versions = folder / scripts / "versions"
    versions.mkdir(parents=True)
    (folder / scripts / "env.py").write_text(env)
    (folder / scripts / "script.py.mako").write_text(TEMPLATE)
    ids = revision_ids(size, prefix)
    for number, revision in enumerate(ids, start=1):
        body = _body(number)
        down = ids[number - 2] if number > 1 else None
        write_revision(versions, revision, down, body.message, body.upgrade, body.downgrade)
    config = folder / "alembic.ini"
    if not config.exists():
        config.write_text(ini)
    return config


def write_revision(
    versions: Path,
    revision: str,
    down: str | tuple[str, ...] | None,
    message: str = "one more",
    upgrade: str = "",
    downgrade: str = "",
    *,
    labels: Sequence[str] | None = None,
    depends: str | tuple[str, ...] | None = None,
) -> Path:
    """One revision file that inserts its marker row after what `upgrade` does."""
    path = versions / f"{revision}_{message.split(' ', maxsplit=1)[0]}.py"
    path.write_text(
        REVISION.format(
            revision=revision,
            down=down,
            message=message,
            labels=list(labels) if labels else None,
            depends=depends,
            upgrade=_indented(upgrade),
            downgrade=_indented(downgrade),
        )
    )
    return path


def _body(number: int) -> Body:
    if number <= len(BODIES):
        return BODIES[number - 1]
    table = f"extra_{number:03d}"
    return Body(
        f"{table} is added",
        f'op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(40)))',
        f'op.drop_table("{table}")',
        (table,),
    )


def _indented(code: str) -> str:
    return textwrap.indent(textwrap.dedent(code).strip(), "    ")


# What can be wrong with a history


def _versions(folder: Path) -> Path:
    return folder / "alembic" / "versions"


def file_of(folder: Path, revision: str) -> Path:
    """The file of one revision."""
    (path,) = _versions(folder).glob(f"{revision}_*.py")
    return path


def edit(folder: Path, revision: str, old: str, new: str) -> None:
    """Replace text in a revision file."""
    path = file_of(folder, revision)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    forget_bytecode(path)


def forget_bytecode(path: Path) -> None:
    """Let the file be read again.

    Python takes its bytecode for current when the file has the same size and second of change: what was loaded and
    edited within a second would be run as it was.
    """
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def lose_revision(folder: Path, revision: str = "r004") -> None:
    """The file that the next revision goes on from is gone."""
    file_of(folder, revision).unlink()


def make_cycle(folder: Path) -> None:
    """The first revision comes after the last."""
    path = file_of(folder, "r001")
    last = max(_versions(folder).glob("r*.py")).name.split("_")[0]
    path.write_text(path.read_text().replace("down_revision = None", f"down_revision = {last!r}"))


def add_head(folder: Path, revision: str = "x001", down: str = "r004") -> None:
    """A second head: the history splits."""
    write_revision(_versions(folder), revision, down, "a-fork")


def break_syntax(folder: Path, revision: str = "r004") -> None:
    """A file that is no Python."""
    path = file_of(folder, revision)
    path.write_text(path.read_text().replace("def upgrade():", "def upgrade(:"))


def add_branches(folder: Path, down: str = "r004") -> None:
    """Two labelled branches from one revision; the second one's tip depends on the first one's."""
    versions = _versions(folder)
    write_revision(versions, "b001", down, "billing", _table("billing"), _drop("billing"), labels=["billing"])
    write_revision(versions, "s001", down, "search", _table("search"), _drop("search"), labels=["search"])
    write_revision(versions, "s002", "s001", "search-more", _table("more"), _drop("more"), depends="b001")


def add_autocommit(folder: Path, down: str, revision: str = "c001") -> None:
    """A revision that leaves the transaction for an index, as `CREATE INDEX CONCURRENTLY` needs."""
    upgrade = """
    with op.get_context().autocommit_block():
        op.create_index("accounts_email_look_up", "accounts", ["email"], postgresql_concurrently=True)
    """
    downgrade = """
    with op.get_context().autocommit_block():
        op.drop_index("accounts_email_look_up", table_name="accounts", postgresql_concurrently=True)
    """
    write_revision(_versions(folder), revision, down, "concurrently", upgrade, downgrade)


def _table(name: str) -> str:
    return f'op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))'


def _drop(name: str) -> str:
    return f'op.drop_table("{name}")'


# Starting points, made with Alembic itself and none of the code under test


class Starter:
    """Brings databases to a revision of one history, one after another."""

    def __init__(self, config: Path, *, section: str = "alembic") -> None:
        self.config = Config(config, ini_section=section)
        self.script = ScriptDirectory.from_config(self.config)

    def bring(
        self,
        url: URL,
        revision: str | None,
        *,
        schema: str | None = None,
        then: Collection[str] = (),
        **options: object,
    ) -> None:
        """Create the schema if there is one, upgrade to `revision` unless it is None, run the statements in `then`."""
        engine = create_engine(url)
        try:
            with engine.connect() as connection:
                if schema:
                    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
                    connection.execute(text(f'SET search_path TO "{schema}"'))
                    connection.commit()
                if revision:
                    self._upgrade(connection, revision, options)
                for statement in then:
                    connection.exec_driver_sql(statement)
                connection.commit()
        finally:
            engine.dispose()

    def _upgrade(self, connection: Connection, revision: str, options: dict[str, object]) -> None:
        def steps(current: object, _context: object) -> object:
            return self.script._upgrade_revs(revision, current)  # type: ignore[arg-type]

        with EnvironmentContext(self.config, self.script, fn=steps, destination_rev=revision) as environment:
            environment.configure(connection=connection, **options)  # type: ignore[arg-type]
            with environment.begin_transaction():
                environment.run_migrations()

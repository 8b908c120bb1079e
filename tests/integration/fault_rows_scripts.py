"""Rows of the table of faults that revision scripts and version tables provoke, in Alembic itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext

from orchestrator.revisions import Scripts, load_config
from tests import histories
from tests.integration.fault_grounds import AMBIGUOUS, PERMANENT, RUN, Ground, Row, Situation


def migrate(ground: Ground, revision: str = "head") -> None:
    """Plain Alembic, none of the code under test."""
    histories.Starter(ground.folder / "alembic.ini").bring(ground.target.url, revision)


def broken(spoil: Callable[[Path], None], *, size: int = 5) -> Callable[[Ground], None]:
    """Migrate by a history that was spoiled."""

    def provoke(ground: Ground) -> None:
        histories.write(ground.folder, size=size)
        spoil(ground.folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # as usual, where nobody makes an error of Alembic's hint
            migrate(ground)

    return provoke


def having(*spoil: str) -> Callable[[Ground], None]:
    """Migrate a target half-way, spoil it, and go on."""

    def provoke(ground: Ground) -> None:
        histories.write(ground.folder, size=5)
        migrate(ground, "r002")
        with ground.connect() as connection:
            for statement in spoil:
                connection.exec_driver_sql(statement)
            connection.commit()
        migrate(ground)

    return provoke


def insert(code: str) -> Callable[[Path], None]:
    """Spoil a history by a line at the beginning of its second upgrade."""

    def spoil(folder: Path) -> None:
        path = histories.file_of(folder, "r002")
        path.write_text(path.read_text().replace("def upgrade():\n", f"def upgrade():\n    {code}\n", 1))

    return spoil


def rename(old: str, new: str) -> Callable[[Ground], None]:
    """Load scripts in which a revision has another id."""

    def provoke(ground: Ground) -> None:
        histories.write(ground.folder, size=5)
        path = histories.file_of(ground.folder, old)
        path.write_text(path.read_text().replace(f"revision = {old!r}", f"revision = {new!r}", 1))
        Scripts(load_config(ground.folder / "alembic.ini", "alembic"))

    return provoke


def ask_for_the_one_row(ground: Ground) -> None:
    with ground.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num varchar(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('r001'), ('b001')")
        MigrationContext.configure(connection).get_current_revision()


def _row(situation: Situation, kind: Any, code: str | None, advice: str, provoke: Any) -> Row:
    return Row(situation=situation, kind=kind, codes=(code,), advice=advice, provoke=provoke)


S = Situation
MOVE = """op.execute("UPDATE alembic_version SET version_num = 'elsewhere'")"""
ROWS = (
    _row(S.VERSION_MOVED, AMBIGUOUS, "version_moved", "reads the version", broken(insert(MOVE))),
    _row(
        S.UNKNOWN_REVISION,
        PERMANENT,
        "unknown_revision",
        "never stamp",
        having("UPDATE alembic_version SET version_num = 'zz'"),
    ),
    _row(S.SEVERAL_HEADS, RUN, "multiple_heads", "alembic merge heads", broken(histories.add_head)),
    _row(S.SEVERAL_ROWS, PERMANENT, "several_rows", "delete the rows", ask_for_the_one_row),
    _row(
        S.SEVERAL_ROWS,
        PERMANENT,
        "several_rows",
        "delete the rows",
        having("INSERT INTO alembic_version VALUES ('r001')"),
    ),
    _row(S.FILE_MISSING, RUN, "missing_file", "bring it back", broken(histories.lose_revision)),
    _row(S.FILE_BROKEN, RUN, "broken_file", "every tenant", broken(histories.break_syntax)),
    _row(S.DUPLICATE_ID, RUN, "scripts", "Mend the revision scripts", rename("r004", "r002")),
    _row(S.ID_TOO_LONG, RUN, "scripts", "Mend the revision scripts", rename("r005", "r" * 33)),
    _row(S.CYCLE, RUN, "cycle", "down_revision", broken(histories.make_cycle)),
    _row(S.VERSION_ROW_GONE, PERMANENT, "1", "stamp", having("DELETE FROM alembic_version")),
    _row(S.NO_MESSAGE, PERMANENT, None, "log of this target", broken(insert("raise AssertionError"))),
)

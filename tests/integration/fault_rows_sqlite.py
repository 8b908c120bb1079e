"""Rows of the table of faults for SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.tenants import Timeouts
from tests.integration.fault_grounds import (
    PERMANENT,
    RUN,
    SECRET,
    SERVER,
    TRANSIENT,
    Ground,
    Row,
    Situation,
    connecting,
    statements,
)

#: what every ground of SQLite starts with
TABLES = (
    "CREATE TABLE customers (id integer PRIMARY KEY, mail text)",
    "CREATE TABLE orders (customer int REFERENCES customers (id))",
    "CREATE TABLE strict (a int NOT NULL, b int CHECK (b > 0))",
    "CREATE TABLE keyed (name text PRIMARY KEY)",
    "CREATE INDEX by_mail ON customers (mail)",
    "CREATE VIEW addresses AS SELECT mail FROM customers",
    f"INSERT INTO customers VALUES (1, '{SECRET}'), (2, '{SECRET}')",
    "INSERT INTO keyed VALUES ('a')",
)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


def file_of(ground: Ground) -> str:
    return ground.target.url.database or ""


@contextlib.contextmanager
def driver(ground: Ground) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(file_of(ground), isolation_level=None, timeout=0.05)) as connection:
        yield connection


def write_while_somebody_writes(ground: Ground) -> None:
    with driver(ground) as other, ground.connect(timeouts=Timeouts(lock=0.05)) as connection:
        other.execute("BEGIN IMMEDIATE")
        connection.exec_driver_sql("DELETE FROM orders")


def write_after_somebody_wrote(ground: Ground) -> None:
    with driver(ground) as other, driver(ground) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM customers").fetchall()
        other.execute("UPDATE customers SET mail = mail")
        connection.execute("UPDATE customers SET mail = mail")


def run_for_ever(ground: Ground) -> None:
    with ground.connect(timeouts=Timeouts(statement=0.05)) as connection:
        connection.exec_driver_sql(ENDLESS)


def write_read_only(ground: Ground) -> None:
    with ground.connections.open(ground.target, application_name="a", read_only=True) as connection:
        connection.exec_driver_sql("DELETE FROM orders")


def refer_to_nothing(ground: Ground) -> None:
    with driver(ground) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("INSERT INTO orders VALUES (99)")


def overwritten(change: Callable[[Path], None]) -> Callable[[Ground], None]:
    """Look at another file, after something was done to that."""

    def provoke(ground: Ground) -> None:
        path = Path(file_of(ground)).with_name("damaged.db")
        if not path.exists():
            with driver(ground) as whole, contextlib.closing(sqlite3.connect(path)) as copy:
                whole.backup(copy)
        change(path)
        with ground.connect(url=ground.target.url.set(database=str(path))) as connection:
            connection.exec_driver_sql("SELECT * FROM customers")
            connection.exec_driver_sql("SELECT * FROM addresses")

    return provoke


def write_over(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to look like one" * 100)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:2000] = b"\xff" * 1900
    path.write_bytes(data)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _row(situation: Situation, kind: Any, code: str, advice: str, provoke: Any, **more: Any) -> Row:
    return Row(situation=situation, kind=kind, codes=(code,), advice=advice, provoke=provoke, **more)


def _data(situation: Situation, code: str, advice: str, *texts: str) -> Row:
    return _row(situation, PERMANENT, code, advice, statements(*texts))


S = Situation
ROWS = (
    _row(S.UNKNOWN_DATABASE, PERMANENT, "absent", "--provision", connecting(database="/nowhere/at/all.db")),
    _row(S.LOCK_TIMEOUT, TRANSIENT, "5", "timeouts.lock", write_while_somebody_writes),
    _row(S.CONFLICT, TRANSIENT, "517", "changed the same rows", write_after_somebody_wrote),
    _row(S.STATEMENT_TIMEOUT, PERMANENT, "9", "timeouts.statement", run_for_ever),
    _row(S.READ_ONLY, PERMANENT, "8", "read-only", write_read_only),
    _row(
        S.DISK_FULL,
        SERVER,
        "13",
        "disk space",
        statements(
            "PRAGMA max_page_count = 1", "CREATE TABLE large (t text)", "INSERT INTO large VALUES (zeroblob(9e6))"
        ),
    ),
    _data(S.TABLE_EXISTS, "1", "stamp", "CREATE TABLE customers (id int)"),
    _data(S.COLUMN_EXISTS, "1", "stamp", "ALTER TABLE customers ADD mail text"),
    _data(S.INDEX_EXISTS, "1", "stamp", "CREATE INDEX by_mail ON customers (mail)"),
    _data(S.MISSING, "1", "healthy tenant", "SELECT * FROM nowhere"),
    _data(S.MISSING, "1", "healthy tenant", "DROP TABLE nowhere"),
    _row(S.SYNTAX, RUN, "1", "every tenant", statements("SELEC 1")),
    _data(S.DUPLICATES, "2067", "duplicate rows", "CREATE UNIQUE INDEX u ON customers (mail)"),
    _data(S.DUPLICATES, "1555", "duplicate rows", "INSERT INTO keyed VALUES ('a')"),
    _row(S.ORPHANS, PERMANENT, "787", "refer to nothing", refer_to_nothing),
    _data(
        S.ORPHANS,
        "foreign_key_check",
        "refer to nothing",
        "INSERT INTO orders VALUES (99)",
    ),
    _data(S.NULLS, "1299", "empty values", "INSERT INTO strict VALUES (NULL, 1)"),
    _data(S.NULLS, "1", "empty values", "ALTER TABLE customers ADD x int NOT NULL"),
    _data(S.CHECK, "275", "check", "INSERT INTO strict VALUES (1, -1)"),
    _data(S.UNFIT, "20", "do not fit", f"INSERT INTO customers VALUES ('{SECRET}', 'x')"),
    _data(S.DEPENDED, "1", "depends on it", "ALTER TABLE customers RENAME TO people", "ALTER TABLE people DROP mail"),
    _row(S.IN_TRANSACTION, RUN, "1", "autocommit_block", statements("VACUUM")),
    _row(
        S.VERSION_TABLE_RACE, TRANSIENT, "1", "tenant lock", statements(*["CREATE TABLE alembic_version (v text)"] * 2)
    ),
    _row(S.DAMAGED, PERMANENT, "26", "restore it from a backup", overwritten(write_over)),
    _row(S.DAMAGED, PERMANENT, "11", "restore it from a backup", overwritten(damage)),
    _row(S.DAMAGED, PERMANENT, "14", "permissions", overwritten(make_a_folder)),
)

"""How each kind of database is journalled: what its transactions hold, and what its errors say of an earlier try."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from orchestrator.databases import names
from orchestrator.databases.journal_tables import JournalTable, TableForm
from orchestrator.databases.statements import Dialect, Statement


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the journal has to know of a kind of database."""

    dialect: Dialect
    form: TableForm
    #: whether every revision is journalled, or only one that may commit before its end
    always: bool
    #: starts a transaction on a driver connection that commits by itself
    begin: str
    #: whether the driver's connection commits each statement by itself
    commits_by_itself: Callable[[Any], bool]
    #: whether an error says that a definition was there, or gone, already
    says_already: Callable[[Statement, BaseException], bool]
    #: whether the server refused a statement and has undone it
    is_refusal: Callable[[BaseException], bool]
    #: whether the server did not even begin with a statement
    is_misunderstanding: Callable[[BaseException], bool]
    #: whether a text of several statements is refused as a whole on this driver connection, before the first one
    takes_one: Callable[[Any], bool]
    #: whether the server refused a statement because no transaction may hold it
    wants_no_transaction: Callable[[BaseException], bool]
    #: what the object of a definition looks like now, None where that cannot be told
    probe: Callable[[JournalTable, Statement], str | None]
    #: whether a definition would be there twice, without an error, if it ran twice
    repeats_silently: Callable[[Statement], bool]
    #: whether nobody can tell afterwards if a definition has run
    is_unjudgeable: Callable[[Statement], bool]


def _never(_thing: object) -> bool:
    return False


def _never_of(_statement: Statement, _error: BaseException) -> bool:
    return False


def _no_probe(_table: JournalTable, _statement: Statement) -> None:
    return None


# MySQL and MariaDB

#: of the protocol: CLIENT_MULTI_STATEMENTS
_SEVERAL = 1 << 16
_ABSENT = hashlib.sha256(b"absent").hexdigest()
#: the next number of a table's key moves with its rows
_NEXT_NUMBER = re.compile(r" AUTO_INCREMENT=\d+")
#: what the error of a second execution is, by what a definition says; sources: the servers' own lists of messages
_MYSQL_ALREADY = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), frozenset(codes))
    for pattern, codes in (
        (r"^CREATE\b.*?\bTABLE\b", {1050}),
        (r"^CREATE\b.*?\b(?:VIEW|SEQUENCE)\b", {1050}),
        (r"^CREATE\b[\w\s]*?\bINDEX\b", {1061}),
        (r"^CREATE\b.*?\bTRIGGER\b", {1359}),
        (r"^CREATE\b.*?\b(?:PROCEDURE|FUNCTION|PACKAGE)\b", {1304}),
        (r"^CREATE\b.*?\bEVENT\b", {1537}),
        (r"^CREATE\s+(?:OR\s+REPLACE\s+)?(?:DATABASE|SCHEMA)\b", {1007}),
        (r"^(?:CREATE|DROP|RENAME)\s+(?:USER|ROLE)\b", {1396}),
        (r"^REVOKE\b", {1141, 1147}),
        (r"^DROP\s+TABLE\b", {1051}),
        (r"^DROP\s+VIEW\b", {1051, 4092}),
        (r"^DROP\s+SEQUENCE\b", {1051, 4091}),
        (r"^DROP\s+INDEX\b", {1091}),
        (r"^DROP\s+TRIGGER\b", {1360}),
        (r"^DROP\s+(?:PROCEDURE|FUNCTION|PACKAGE)\b", {1305}),
        (r"^DROP\s+EVENT\b", {1539}),
        (r"^DROP\s+(?:DATABASE|SCHEMA)\b", {1008}),
        (r"^RENAME\s+TABLES?\b", {1050, 1146}),
        (r"^ALTER\b.*?\bTABLE\b.*\bADD\s+(?!INDEX\b|KEY\b|UNIQUE\b|CONSTRAINT\b|FOREIGN\b|PRIMARY\b|CHECK\b)", {1060}),
        (r"^ALTER\b.*?\bTABLE\b.*\bADD\s+(?:UNIQUE|INDEX|KEY|FULLTEXT|SPATIAL|CONSTRAINT)\b", {1061}),
        (r"^ALTER\b.*?\bTABLE\b.*\bADD\s+(?:CONSTRAINT|FOREIGN|CHECK)\b", {1005, 1022, 1826, 3822}),
        (r"^ALTER\b.*?\bTABLE\b.*\bPRIMARY\s+KEY\b", {1068}),
        (r"^ALTER\b.*?\bTABLE\b.*\bDROP\b", {1091, 3821, 3940}),
        (r"^ALTER\b.*?\bTABLE\b.*\b(?:CHANGE|RENAME\s+COLUMN)\b", {1054}),
        (r"^ALTER\b.*?\bTABLE\b.*\bRENAME\s+(?:INDEX|KEY)\b", {1176}),
        (r"^ALTER\b.*?\bTABLE\b.*\bRENAME\s+(?!COLUMN\b|INDEX\b|KEY\b)", {1050, 1146}),
        (r"^ALTER\b.*?\bTABLE\b.*\bADD\s+PARTITION\b", {1517}),
        (r"^ALTER\b.*?\bTABLE\b.*\bDROP\s+PARTITION\b", {1507}),
    )
)
_MYSQL_NAMELESS = re.compile(
    r"\bADD\s+(?:CONSTRAINT\s+)?(?:(?:UNIQUE|FULLTEXT|SPATIAL)(?:\s+(?:INDEX|KEY))?|INDEX|KEY|FOREIGN\s+KEY|CHECK)\s*\(",
    re.IGNORECASE,
)
_MYSQL_SWAP = re.compile(
    r"\b(?:EXCHANGE\s+PARTITION|COALESCE\s+PARTITION|ADD\s+PARTITION\s+PARTITIONS)\b", re.IGNORECASE
)
_RENAMED = re.compile(r"([`\w.$]+)\s+TO\s+([`\w.$]+)", re.IGNORECASE)
_CHANGED = re.compile(r"\bCHANGE\s+(?:COLUMN\s+)?([`\w$]+)\s+([`\w$]+)", re.IGNORECASE)
#: ended from outside, by a limit or by a person; whether the statement had ended before is open
_MYSQL_CUT_OFF = frozenset({1053, 1077, 1079, 1317, 1927, 1969, 3024})
_MYSQL_NOT_BEGUN = frozenset({1064, 1149, 1295})
_CLIENT_ERRORS = range(2000, 3000)
_DUPLICATE_FILE = "errno: 121"


def _mysql_number(error: BaseException) -> int | None:
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) and number else None


def _mysql_says_already(statement: Statement, error: BaseException) -> bool:
    number = _mysql_number(error)
    if number == 1005 and _DUPLICATE_FILE not in str(error):
        return False
    return any(number in codes for pattern, codes in _MYSQL_ALREADY if pattern.search(statement.bare))


def _mysql_is_refusal(error: BaseException) -> bool:
    number = _mysql_number(error)
    return number is not None and number not in _MYSQL_CUT_OFF and number not in _CLIENT_ERRORS


def _mysql_probe(table: JournalTable, statement: Statement) -> str | None:
    if statement.object is None:
        return None
    try:
        rows = table.run(f"SHOW CREATE TABLE {statement.object.replace('%%', '%')}")
    except Exception as error:
        if not _mysql_is_refusal(error):
            raise
        return _ABSENT if _mysql_number(error) == 1146 else None
    return hashlib.sha256(_NEXT_NUMBER.sub("", str(rows[0][1])).encode()).hexdigest()


def _mysql_is_unjudgeable(statement: Statement) -> bool:
    """Whether a second execution would turn round what the first one did."""
    pairs = (_RENAMED if statement.bare[:6].upper() == "RENAME" else _CHANGED).findall(statement.bare)
    old = {before for before, after in pairs if before != after}
    return _MYSQL_SWAP.search(statement.bare) is not None or any(
        after in old for before, after in pairs if before != after
    )


MYSQL = Policy(
    dialect=Dialect.MYSQL,
    form=TableForm(
        quote=names.quoting(MySQLDialect),
        placeholder="%s",
        text="LONGTEXT",
        suffix=" ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
        is_missing=lambda error: _mysql_number(error) == 1146,
        transactional=False,
    ),
    always=True,
    begin="START TRANSACTION",
    commits_by_itself=lambda driver: bool(driver.get_autocommit()),
    says_already=_mysql_says_already,
    is_refusal=_mysql_is_refusal,
    is_misunderstanding=lambda error: _mysql_number(error) in _MYSQL_NOT_BEGUN,
    # mysqlclient does not say, and takes several unless told otherwise.
    takes_one=lambda driver: not int(getattr(driver, "client_flag", _SEVERAL)) & _SEVERAL,
    wants_no_transaction=_never,
    probe=_mysql_probe,
    repeats_silently=lambda statement: _MYSQL_NAMELESS.search(statement.bare) is not None,
    is_unjudgeable=_mysql_is_unjudgeable,
)


# PostgreSQL

_POSTGRESQL_ALREADY = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"^CREATE\b[\w\s]*?\bINDEX\b", "42P07"),
        (r"^DROP\s+INDEX\b", "42704"),
        (r"^CREATE\s+DATABASE\b", "42P04"),
        (r"^DROP\s+DATABASE\b", "3D000"),
        (r"^CREATE\s+TABLESPACE\b", "42710"),
        (r"^DROP\s+TABLESPACE\b", "42704"),
    )
)


def _sqlstate(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""


def _postgresql_says_already(statement: Statement, error: BaseException) -> bool:
    state = _sqlstate(error)
    return any(state == code for pattern, code in _POSTGRESQL_ALREADY if pattern.search(statement.bare))


POSTGRESQL = Policy(
    dialect=Dialect.POSTGRESQL,
    form=TableForm(
        quote=names.quoting(PGDialect),
        placeholder="%s",
        text="TEXT",
        present="SELECT 1 WHERE pg_catalog.to_regclass(%s) IS NOT NULL",
        is_missing=_never,
        transactional=True,
    ),
    always=False,
    begin="BEGIN",
    commits_by_itself=lambda driver: bool(driver.autocommit),
    says_already=_postgresql_says_already,
    is_refusal=lambda error: _sqlstate(error)[:2] not in ("", "08", "57"),
    is_misunderstanding=_never,
    takes_one=_never,
    wants_no_transaction=lambda error: _sqlstate(error) in ("25001", "2D000"),
    probe=_no_probe,
    repeats_silently=_never,
    is_unjudgeable=_never,
)


# SQLite: whatever it runs, a transaction holds

SQLITE = Policy(
    dialect=Dialect.SQLITE,
    form=TableForm(
        quote=names.quoting(SQLiteDialect),
        placeholder="?",
        text="TEXT",
        is_missing=lambda error: "no such table" in str(error),
        transactional=True,
    ),
    always=False,
    begin="BEGIN IMMEDIATE",
    commits_by_itself=lambda driver: not driver.in_transaction,
    says_already=_never_of,
    is_refusal=_never,
    is_misunderstanding=_never,
    takes_one=_never,
    wants_no_transaction=_never,
    probe=_no_probe,
    repeats_silently=_never,
    is_unjudgeable=_never,
)

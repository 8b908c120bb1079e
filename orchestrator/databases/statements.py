"""What kind of statement a text of SQL is, as far as its own words tell."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re

#: texts longer than this are cut before they are looked at: nobody writes a verb after a megabyte of values
_LOOKED_AT = 1_000_000
_REMEMBERED = 5_000
_SUMMARY = 90

_STRING = r"'(?:[^'\\]|\\.|'')*+'" + r'|"(?:[^"\\]|\\.|"")*+"'
_PLAIN_STRING = r"'(?:[^']|'')*+'"
_NAMES = r"`(?:[^`]|``)*+`" + r'|"(?:[^"]|"")*+"'
_BLOCK_COMMENT = r"/\*.*?\*/"

#: MySQL: comments that the server executes are code, double quotes hold text
_MYSQL_CODE = re.compile(rf"(?P<kept>{_STRING}|`(?:[^`]|``)*+`)|/\*M?!\d*(?P<code>.*?)\*/", re.DOTALL)
_MYSQL_NOISE = re.compile(
    rf"(?P<text>{_STRING})|(?P<name>`(?:[^`]|``)*+`)|{_BLOCK_COMMENT}|#[^\n]*|--(?=\s|$)[^\n]*", re.DOTALL
)
_STANDARD_NOISE = re.compile(
    rf"(?P<text>[eE]'(?:[^'\\]|\\.|'')*+'|{_PLAIN_STRING}|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|(?P<name>{_NAMES})"
    rf"|{_BLOCK_COMMENT}|--[^\n]*",
    re.DOTALL,
)

_NAME = r'(?:`[^`]+`|"[^"]+"|[\w$]+)(?:\s*\.\s*(?:`[^`]+`|"[^"]+"|[\w$]+))*'
_FIRST_WORD = re.compile(r"[\s(;]*([A-Za-z_]+)")
_WRITES = re.compile(r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|REPLACE\s+INTO|MERGE\s+INTO)\b", re.IGNORECASE)
_LOCKS_ROWS = re.compile(r"\b(?:FOR\s+(?:NO\s+KEY\s+)?UPDATE|ON\s+(?:DUPLICATE\s+KEY\s+)?UPDATE)\b", re.IGNORECASE)
_HAS_BODY = re.compile(
    r"^\s*(?:CREATE\b[^(;]*?\b(?:PROCEDURE|FUNCTION|TRIGGER|EVENT|PACKAGE)\b|BEGIN\s+NOT\s+ATOMIC\b)", re.IGNORECASE
)
_ENDS_INSIDE = re.compile(r";\s*(?:COMMIT|END|ABORT|ROLLBACK(?!\s+TO)|BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_SEVERAL = re.compile(r";\s*\S")
_TEMPORARY = re.compile(r"^\s*(?:CREATE|DROP)\b(?:\s+OR\s+REPLACE)?\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?\b", re.I)
_SELECTS = re.compile(r"\bSELECT\b", re.IGNORECASE)
_REMOVES = re.compile(
    r"^\s*(?:DROP\s+TABLE|TRUNCATE)\b|\b(?:CHANGE|MODIFY)\b"
    r"|^\s*ALTER\b.*\bDROP\s+(?!INDEX\b|KEY\b|FOREIGN\b|PRIMARY\b|CONSTRAINT\b|CHECK\b)",
    re.IGNORECASE | re.DOTALL,
)
_CATALOG = re.compile(
    r"^\s*(?:SHOW|DESC|DESCRIBE|EXPLAIN|PRAGMA)\b|\binformation_schema\b|\bpg_catalog\b|\bpg_class\b|\bpg_index\b"
    r"|\bto_regclass\b|\bsqlite_(?:master|schema)\b|^\s*SELECT\s+DATABASE\s*\(",
    re.IGNORECASE,
)
#: what a read leaves in the session, or tells of it: another session needs it again
_FOR_SESSION = re.compile(
    r"\b(?:GET_LOCK|RELEASE_(?:ALL_)?LOCKS?|SLEEP|CONNECTION_ID|pg_(?:try_)?advisory\w*|pg_backend_pid|pg_sleep"
    r"|set_config)\s*\(|:=|\bINTO\b",
    re.IGNORECASE,
)
_HOW = r"(?:\s+(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE|ONLY|OR\s+\w+))*"
_OBJECTS = tuple(
    re.compile(rf"^\s*{pattern}\s+({_NAME})", re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"(?:INSERT|REPLACE)\b{_HOW}(?:\s+INTO)?",
        rf"UPDATE\b{_HOW}",
        r"DELETE\b.*?\bFROM(?:\s+ONLY)?",
        r"(?:CREATE|ALTER|DROP|RENAME|TRUNCATE)\b[\w\s]*?\bTABLE(?:\s+IF\s+(?:NOT\s+)?EXISTS)?(?:\s+ONLY)?",
        r"(?:CREATE|DROP)\b.*?\bINDEX\b.*?\bON(?:\s+ONLY)?",
        r"TRUNCATE",
    )
)
_HEAD = re.compile(r"^[^(=,]*")


class StatementKind(enum.Enum):
    """What a journal has to do with a statement."""

    #: shows something, changes nothing
    READ = "read"
    #: changes nothing but the session, which is a new one on the next try
    SESSION = "session"
    #: changes rows, or whatever else the transaction holds together
    DATA = "data"
    #: commits by itself, before and after
    DEFINITION = "definition"
    #: commits what came before it, and may be run again
    COMMIT = "commit"
    #: gives up what came before it
    ROLLBACK = "rollback"
    #: nobody can say what it does
    OTHER = "other"


class Dialect(enum.Enum):
    """How a text is to be read."""

    MYSQL = "mysql"
    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A text of SQL, read."""

    kind: StatementKind
    #: without comments and without what stands between quotes
    bare: str
    #: what it works on, as it is written, where that is one thing
    object: str | None
    #: to be shown: its first words, never a value
    summary: str
    #: looks at what tables and columns there are, rather than at rows
    looks_at_catalog: bool = False
    #: a read that has to be done again in each session
    is_for_session: bool = False


def read(text: str, dialect: Dialect) -> Statement:
    """What the text says; short ones are remembered, since a fleet runs the same ones again and again."""
    return _remembered(text, dialect) if len(text) <= _REMEMBERED else _read(text, dialect)


def _read(text: str, dialect: Dialect) -> Statement:
    bare = strip(text, dialect)
    kind = _KINDS[dialect](bare)
    return Statement(
        kind=kind,
        bare=bare,
        object=_object(bare),
        summary=_summary(bare),
        looks_at_catalog=kind is StatementKind.READ and _CATALOG.search(bare) is not None,
        is_for_session=kind is StatementKind.READ and _FOR_SESSION.search(bare) is not None,
    )


_remembered = functools.lru_cache(maxsize=512)(_read)


def strip(text: str, dialect: Dialect) -> str:
    """The text without comments, and with nothing between the quotes of its strings."""
    text = text[:_LOOKED_AT]
    if dialect is Dialect.MYSQL:
        text = _MYSQL_CODE.sub(lambda found: found["kept"] or f" {found['code']} ", text)
    noise = _MYSQL_NOISE if dialect is Dialect.MYSQL else _STANDARD_NOISE
    return noise.sub(_quiet, text).strip().rstrip(";").rstrip()


def ends_transaction_inside(statement: Statement) -> bool:
    """Whether a text of several statements commits, or gives up, between two of them."""
    return _ENDS_INSIDE.search(statement.bare) is not None and not _HAS_BODY.search(statement.bare)


def is_parsed_at_once(statement: Statement) -> bool:
    """Whether a server that does not understand it has run nothing of it; of what it calls, a part may have run."""
    return _first_word(statement.bare) not in {"CALL", "EXECUTE", "BEGIN"}


def unquoted(name: str) -> str:
    """The last part of a name, without its quotes; lower case where it had none."""
    last = re.split(r"\s*\.\s*(?=(?:[^`\"]|`[^`]*`|\"[^\"]*\")*$)", name)[-1]
    return last[1:-1].replace('""', '"').replace("``", "`") if last[:1] in ('"', "`") else last.lower()


def is_temporary(statement: Statement) -> bool:
    """Whether it makes or drops a table that ends with the session."""
    return _TEMPORARY.search(statement.bare) is not None


def copies_rows(statement: Statement) -> bool:
    """Whether it fills a table from what a query finds."""
    return _SELECTS.search(statement.bare) is not None


def removes(statement: Statement) -> bool:
    """Whether rows, or a part of each, are gone after it."""
    return _REMOVES.search(statement.bare) is not None


def _quiet(found: re.Match[str]) -> str:
    if found["text"]:
        return "''"
    return found["name"] or " "


def _object(bare: str) -> str | None:
    for pattern in _OBJECTS:
        found = pattern.search(bare)
        if found:
            return found[1]
    return None


def _summary(bare: str) -> str:
    head = _HEAD.match(bare)
    words = " ".join((head[0] if head else "").split())
    return words if len(words) <= _SUMMARY else words[: _SUMMARY - 1] + "…"


def _first_word(bare: str) -> str:
    found = _FIRST_WORD.match(bare)
    return found[1].upper() if found else ""


_READS = frozenset({"SELECT", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "HELP", "VALUES", "TABLE", "CHECKSUM"})
_MYSQL_WORDS = {
    **dict.fromkeys(("INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD"), StatementKind.DATA),
    **dict.fromkeys(("CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE", "GRANT", "REVOKE"), StatementKind.DEFINITION),
    **dict.fromkeys(("USE", "DO", "KILL", "SAVEPOINT", "RELEASE", "PREPARE", "DEALLOCATE"), StatementKind.SESSION),
    **dict.fromkeys(("COMMIT", "BEGIN", "START", "LOCK", "UNLOCK"), StatementKind.COMMIT),
    **dict.fromkeys(("ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "FLUSH", "RESET", "CACHE"), StatementKind.COMMIT),
}
_INTO = re.compile(r"\bINTO\b", re.IGNORECASE)
_COMMITTING_SET = re.compile(r"\b(?:autocommit|PASSWORD)\b", re.IGNORECASE)


def _mysql_kind(bare: str) -> StatementKind:
    word = _first_word(bare)
    if _SEVERAL.search(bare) and not _HAS_BODY.search(bare):
        return StatementKind.OTHER
    if word == "WITH":
        return _of_expression(bare)
    if word == "SET":
        return StatementKind.COMMIT if _COMMITTING_SET.search(bare) else StatementKind.SESSION
    if word == "ROLLBACK":
        return _rollback(bare)
    if word == "BEGIN" and _HAS_BODY.search(bare):
        return StatementKind.OTHER
    if word in _READS:
        return StatementKind.READ
    kind = _MYSQL_WORDS.get(word, StatementKind.OTHER)
    if kind is StatementKind.DEFINITION and _TEMPORARY.search(bare):
        return StatementKind.SESSION
    return kind


_POSTGRESQL_SESSION = frozenset(
    {"SET", "RESET", "SAVEPOINT", "RELEASE", "LISTEN", "UNLISTEN", "NOTIFY", "PREPARE", "DEALLOCATE", "DISCARD", "LOCK"}
    | {"VACUUM", "ANALYZE", "CHECKPOINT", "CLUSTER", "DECLARE", "FETCH", "CLOSE", "REINDEX"}
)
#: statements that no transaction may hold; everything else is wrapped in one
_POSTGRESQL_ALONE = re.compile(
    r"^\s*(?:(?:CREATE|DROP)\b[\w\s]*?\bINDEX\s+CONCURRENTLY\b|(?:CREATE|DROP|ALTER)\s+DATABASE\b"
    r"|(?:CREATE|DROP)\s+TABLESPACE\b)",
    re.IGNORECASE,
)
_POSTGRESQL_UNKNOWN = re.compile(
    r"^\s*(?:CALL\b|ALTER\s+SYSTEM\b|ALTER\s+TABLE\b.*\bDETACH\s+PARTITION\b.*\b(?:CONCURRENTLY|FINALIZE)\b)",
    re.IGNORECASE | re.DOTALL,
)


def _postgresql_kind(bare: str) -> StatementKind:
    word = _first_word(bare)
    if word in {"COMMIT", "END", "BEGIN", "START"}:
        return StatementKind.COMMIT
    if word in {"ROLLBACK", "ABORT"}:
        return _rollback(bare)
    if word in _POSTGRESQL_SESSION:
        return StatementKind.SESSION
    if word == "SELECT" or word == "WITH":
        return StatementKind.DATA if _INTO.search(bare) or _writes(bare) else StatementKind.READ
    if word in _READS:
        return StatementKind.READ
    if _POSTGRESQL_ALONE.search(bare):
        return StatementKind.DEFINITION
    return StatementKind.OTHER if _POSTGRESQL_UNKNOWN.search(bare) else StatementKind.DATA


_SQLITE_SESSION = frozenset({"PRAGMA", "ATTACH", "DETACH", "VACUUM", "ANALYZE", "REINDEX", "SAVEPOINT", "RELEASE"})


def _sqlite_kind(bare: str) -> StatementKind:
    word = _first_word(bare)
    if word in {"COMMIT", "END", "BEGIN"}:
        return StatementKind.COMMIT
    if word == "ROLLBACK":
        return _rollback(bare)
    if word in _SQLITE_SESSION:
        return StatementKind.SESSION
    if word == "WITH":
        return _of_expression(bare)
    return StatementKind.READ if word in _READS else StatementKind.DATA


def _of_expression(bare: str) -> StatementKind:
    return StatementKind.DATA if _writes(bare) else StatementKind.READ


def _writes(bare: str) -> bool:
    return _WRITES.search(_LOCKS_ROWS.sub(" ", bare)) is not None


def _rollback(bare: str) -> StatementKind:
    """Back to a savepoint is no end of the transaction."""
    return StatementKind.SESSION if re.search(r"\bTO\b", bare, re.IGNORECASE) else StatementKind.ROLLBACK


_KINDS = {Dialect.MYSQL: _mysql_kind, Dialect.POSTGRESQL: _postgresql_kind, Dialect.SQLITE: _sqlite_kind}

# ruff: noqa: RUF001 - ambiguous letters are what this is about
"""Names that somebody may give a tenant, a schema or a database to get at another one."""

from __future__ import annotations

import random
import unicodedata

_KEYWORDS = (
    "select table user group order default primary references all analyze and any array as asc authorization both "
    "case cast check collate column constraint create current_user do else end except false fetch for foreign "
    "from grant having in into is join leading like limit not null offset on only or some then to true union "
    "unique using when where window with add alter call change condition database databases delete desc drop "
    "exists explain force index insert key kill load lock match mod natural option range read release rename "
    "repeat replace revoke schema set show sql start trigger truncate update usage use values write row rows "
    "system xor session current search_path none sqlite_master sqlite_sequence temp main information mysql sys "
    "performance_schema information_schema public pg_catalog pg_toast pg_temp pg_temp_1 pg_x PG_X Pg_Catalog "
    "template0 template1 postgres Public PUBLIC dual "
)
BROKEN = (
    "x'; DROP SCHEMA public CASCADE; --",
    'x"; DROP SCHEMA public CASCADE; --',
    "x`; DROP DATABASE mysql; --",
    "x' OR '1'='1",
    "x/*",
    "x--",
    "x;y",
    "x\\",
    "x\\'; DROP TABLE y",
    "x\0y",
    "\0",
    "x\ny",
    "x\r\ny",
    "x\ty",
    "\x1b[2Jx",
    "\x7f",
    "x y",
    " x",
    "x ",
    "",
    " ",
    ".",
    "..",
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "x/../y",
    "x/y",
    "x\\y",
    "~root",
    "-x",
    "--help",
    "-rf",
    "$x",
    "$$",
    "$user",
    "${HOME}",
    "$(id)",
    "`id`",
    "{tenant}",
    "{label.x}",
    "{{x}}",
    "{0}",
    "%s",
    "%(x)s",
    "%%",
    "%00",
    "x%27",
    "x%2e%2e",
    ":x",
    "?",
    "x?mode=memory",
    "x#y",
    "x@y",
    "x:y",
    "file:x",
    ":memory:",
    "x&y",
    "x|y",
    "x>y",
    "x*",
    "x[a]",
    "!x",
    "&x",
    "*x",
    "=x",
    "+x",
    "@x",
    "<img src=x onerror=alert(1)>",
    "=HYPERLINK(1)",
    "null",
    "true",
    "no",
    "012",
    "1:30",
    "1e3",
    "0x10",
    "nan",
    "\u202ex",
    "x\u202e\u2066y",
    "x\u200by",
    "x\ufeff",
    "\u2028",
    "x\u00a0y",
    "ªcme",
    "аcme",
    "acⅿe",
    "ａｃｍｅ",
    "İstanbul",
    "straße",
    "STRASSE",
    "ﬁne",
    "\ud7ff",
    "\U0001f4a3",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "K",
    "s\u0301",
    "．．",
    "／",
    "＇",
    "ʼ",
    "x\u037ey",
)
#: what hostile names are put together from
PIECES = (
    *"'\"`;\\\0\n\r\t/.%{}$()[]<>&|*?!@#=+,:-_ ~^",
    "--",
    "/*",
    "*/",
    "..",
    "${",
    "{tenant}",
    "DROP TABLE x",
    "public",
    "pg_",
    "select",
    "acme",
    "Acme",
    "ACME",
    "é",
    "e\u0301",
    "ß",
    "ss",
    "İ",
    "ı",
    "K",
    "k",
    "а",
    "\u202e",
    "\u200d",
    "\ufeff",
    "中",
    "\U0001f600",
    "0",
    "1",
    "9",
    "a",
    "b",
    "Z",
    "_",
    "x" * 20,
    "y" * 62,
    "z" * 63,
    "w" * 64,
)


def names(count: int, seed: int) -> list[str]:
    """So many different names, the known ones first; every third of the others is one that could be accepted."""
    chance = random.Random(seed)
    lengths = [
        letter * length for letter in ("a", "é", "中") for length in (20, 21, 31, 32, 62, 63, 64, 65, 99, 100, 101, 300)
    ]
    twins = [
        twin for word in ("acme", "Acme", "ACME", "aCme", "acme.", "acme_", "acme-") for twin in (word, f"{word}1")
    ]
    found = dict.fromkeys([*BROKEN, *_KEYWORDS.split(), *lengths, *twins])
    plain = [piece for piece in PIECES if piece.isascii() and (piece.isalnum() or piece in "_-$.")]
    while len(found) < count:
        pieces = plain if len(found) % 3 == 0 else PIECES
        found["".join(chance.choice(pieces) for _ in range(chance.randint(1, 6)))] = None
    return list(found)[:count]

"""What a statement returned, as text that a journal keeps, and back again with the types that the driver had given."""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: longest answer that is kept, in characters; of a longer one only what it was is known, not what was in it
_LONGEST = 1_000_000
_MOST_ROWS = 20_000
_DIGEST = "sha256:"

#: of drivers, by name; each value is written as one that JSON has, and read back from it
_WRITTEN: Mapping[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    bytearray: ("bytes", lambda value: base64.b64encode(value).decode()),
    memoryview: ("bytes", lambda value: base64.b64encode(value).decode()),
    decimal.Decimal: ("decimal", str),
    uuid.UUID: ("uuid", str),
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.time: ("time", datetime.time.isoformat),
    datetime.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    list: ("list", lambda value: [_plain(item) for item in value]),
    tuple: ("tuple", lambda value: [_plain(item) for item in value]),
    set: ("set", lambda value: sorted(_plain(item) for item in value)),
    dict: ("dict", lambda value: [[_plain(key), _plain(item)] for key, item in value.items()]),
}
_READ: Mapping[str, Callable[[Any], Any]] = {
    "bytes": base64.b64decode,
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda value: datetime.timedelta(*value),
    "list": lambda value: [_restored(item) for item in value],
    "tuple": lambda value: tuple(_restored(item) for item in value),
    "set": lambda value: {_restored(item) for item in value},
    "dict": lambda value: {_restored(key): _restored(item) for key, item in value},
}

#: names of the columns with the driver's codes of their types, and the rows
Answer = tuple[list[tuple[str, int | None]], list[tuple[Any, ...]]]


def written(description: Sequence[Sequence[Any]], rows: Sequence[tuple[Any, ...]]) -> str:
    """The answer; where it is too long, or holds what cannot be written, what tells whether another one is the same."""
    if len(rows) <= _MOST_ROWS:
        columns = [(column[0], column[1] if isinstance(column[1], int) else None) for column in description]
        try:
            text = json.dumps([columns, [[_plain(value) for value in row] for row in rows]])
        except TypeError:
            return _digest(rows)
        if len(text) <= _LONGEST:
            return text
    return _digest(rows)


def read(text: str) -> Answer | None:
    """The answer that was written; None when only its digest was."""
    if text.startswith(_DIGEST):
        return None
    columns, rows = json.loads(text)
    return [(name, code) for name, code in columns], [tuple(_restored(value) for value in row) for row in rows]


def _digest(rows: Sequence[tuple[Any, ...]]) -> str:
    """The same for the same rows."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(repr([bytes(value) if isinstance(value, memoryview) else value for value in row]).encode())
    return _DIGEST + sha.hexdigest()


def _plain(value: Any) -> Any:
    """Raises `TypeError` for what no driver is known to return."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    try:
        name, write = _WRITTEN[type(value)]
    except KeyError:
        raise TypeError(f"no way to keep a {type(value).__name__}") from None
    return {name: write(value)}


def _restored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    return _READ[name](inner)

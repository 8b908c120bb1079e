"""Where one message of a client ends and the next begins, and which of them are statements."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator
from typing import Protocol

#: what moves a version table; the commit of its transaction is the one that counts
_MOVES_VERSION = re.compile(rb"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+\S*alembic_version\b", re.IGNORECASE)
_ENDS = re.compile(rb"\s*(?:COMMIT|ROLLBACK)\b", re.IGNORECASE)
_COMMITS = re.compile(rb"\s*COMMIT\b", re.IGNORECASE)
#: statements that only frame others
_FRAMES = re.compile(rb"\s*(?:BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement on its way to the server."""

    #: number of the connection, from 1
    connection: int
    text: bytes
    #: a COMMIT of a transaction that moved a version table
    commits_version: bool

    @property
    def is_frame(self) -> bool:
        """BEGIN, COMMIT or ROLLBACK."""
        return _FRAMES.match(self.text) is not None


class Reader(Protocol):
    """Cuts a client's stream into messages."""

    def read(self, data: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Whole messages, each with the statement that it carries, if any."""


class PostgresReader:
    """Untyped messages until the start-up message, then typed ones: simple queries and parses carry statements."""

    _START_UP = 3 << 16

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self._prepared: dict[bytes, bytes] = {}

    def read(self, data: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        self._buffer += data
        while (size := self._size()) is not None and len(self._buffer) >= size:
            message, self._buffer = self._buffer[:size], self._buffer[size:]
            if self._started:
                yield message, self._statement(message)
            else:
                self._started = struct.unpack("!I", message[4:8])[0] == self._START_UP
                yield message, None

    def _size(self) -> int | None:
        offset = 1 if self._started else 0
        if len(self._buffer) < offset + 4:
            return None
        return offset + int(struct.unpack("!I", self._buffer[offset : offset + 4])[0])

    def _statement(self, message: bytes) -> bytes | None:
        """A prepared statement counts each time that it is bound."""
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            return body.rstrip(b"\0")
        if kind == b"P":
            name, text, *_ = body.split(b"\0")
            self._prepared[name] = text
            return None if name else text
        if kind == b"B":
            name = body.split(b"\0")[1]
            return self._prepared.get(name) if name else None
        return None


class MySQLReader:
    """Packets; a statement is a COM_QUERY, which begins a new sequence."""

    def __init__(self) -> None:
        self._buffer = b""

    def read(self, data: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        self._buffer += data
        while len(self._buffer) >= 4:
            size = 4 + int.from_bytes(self._buffer[:3], "little")
            if len(self._buffer) < size:
                return
            packet, self._buffer = self._buffer[:size], self._buffer[size:]
            yield packet, packet[5:] if packet[3:5] == b"\0\x03" else None


def postgres_refusal() -> bytes:
    """What a PostgreSQL server says while it starts up."""
    fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


def mysql_refusal() -> bytes:
    """What a MariaDB server says while it shuts down, instead of a greeting."""
    payload = b"\xff" + struct.pack("<H", 1053) + b"#08S01Server shutdown in progress"
    return len(payload).to_bytes(3, "little") + b"\0" + payload


REFUSALS = {"postgresql": postgres_refusal, "mysql": mysql_refusal}
READERS: dict[str, type[PostgresReader | MySQLReader]] = {"postgresql": PostgresReader, "mysql": MySQLReader}


class Transaction:
    """Whether the transaction of one connection has moved a version table."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._moved = False

    def statement(self, text: bytes) -> Statement:
        """Follow it, and describe it."""
        commits = self._moved and _COMMITS.match(text) is not None
        self._moved = not _ENDS.match(text) and (self._moved or _MOVES_VERSION.search(text) is not None)
        return Statement(connection=self._connection, text=text, commits_version=commits)

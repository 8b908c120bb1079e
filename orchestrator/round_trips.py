"""Failpoints around every round trip that SQLAlchemy makes, to tenants and to the ledger alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, Pool, event
from sqlalchemy.engine.default import DefaultDialect

from orchestrator import failpoints

#: of a statement, enough to know it by; what follows may be somebody's data
_WORDS = 3


@functools.cache
def pass_failpoints() -> None:
    """Let every engine of this process pass a failpoint before and after each round trip, where failpoints are on."""
    if not failpoints.ARMED:
        return
    event.listen(Engine, "do_connect", _before_connecting)
    event.listen(Pool, "connect", _after_connecting)
    event.listen(Engine, "before_cursor_execute", _before_statement)
    event.listen(Engine, "after_cursor_execute", _after_statement)
    # SQLAlchemy has an event before COMMIT and none after it; a rollback is what death does anyway.
    setattr(DefaultDialect, "do_commit", _surrounded("commit", DefaultDialect.do_commit))  # noqa: B010 - mypy: a method


def _before_connecting(*_details: Any) -> None:
    failpoints.hit("connect.before")


def _after_connecting(*_details: Any) -> None:
    failpoints.hit("connect.after")


def _before_statement(_connection: Any, _cursor: Any, statement: str, *_details: Any) -> None:
    failpoints.hit(f"sql.before {_beginning(statement)}")


def _after_statement(_connection: Any, _cursor: Any, statement: str, *_details: Any) -> None:
    failpoints.hit(f"sql.after {_beginning(statement)}")


def _surrounded(name: str, work: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(work)
    def surrounded(*arguments: Any) -> None:
        failpoints.hit(f"{name}.before")
        work(*arguments)
        failpoints.hit(f"{name}.after")

    return surrounded


def _beginning(statement: str) -> str:
    return " ".join(statement.split(maxsplit=_WORDS)[:_WORDS])

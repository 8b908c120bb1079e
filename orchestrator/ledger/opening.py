"""From a URL to a ledger that can be written to."""

from __future__ import annotations

from typing import Literal, overload

from sqlalchemy import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.ledger import addresses, versions
from orchestrator.ledger.protocol import Ledger
from orchestrator.ledger.sql import SqlLedger
from orchestrator.ledger.transactions import ledger_error


@overload
def open_ledger(url: str | URL, *, project: str, environment: str, create: Literal[True] = True) -> Ledger: ...


@overload
def open_ledger(url: str | URL, *, project: str, environment: str, create: bool) -> Ledger | None: ...


def open_ledger(url: str | URL, *, project: str, environment: str, create: bool = True) -> Ledger | None:
    """Open the ledger, bringing older tables up to date; `Refused` when they are newer than this code.

    Where there is none it is created, or None is returned with `create=False`: a command that only reads leaves no
    file behind.
    """
    address = addresses.parse(url)
    if create:
        addresses.create_file(address)
    elif not addresses.exists(address):
        return None
    place = addresses.place_of(address)
    engine = addresses.engine_for(address)
    try:
        ready = _prepare(engine, place, create=create)
    except SQLAlchemyError as error:
        engine.dispose()
        raise ledger_error(error, place) from None
    except BaseException:
        engine.dispose()
        raise
    if not ready:
        engine.dispose()
        return None
    return SqlLedger(engine, place=place, project=project, environment=environment)


def _prepare(engine: Engine, place: str, *, create: bool) -> bool:
    """Whether there is a ledger now."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        version = versions.read_version(connection)
    if version is None and not create:
        return False
    if not versions.is_current(version, place):
        versions.upgrade(engine, place)
    return True

"""Tells a pooler that changes the server session between two transactions from a server, and from one that does not."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

_log = logging.getLogger(__name__)

#: how many server sessions are kept busy at most, to see whether ours is among them
_PROBES = 6
#: how often we look, per probe, whether our own session is still the same
_LOOKS = 3
#: seconds until a probe that has no answer counts as waiting in the pooler's queue
_PATIENCE = 1.0
_PID = text("SELECT pg_catalog.pg_backend_pid()")


def changes_sessions(connection: Connection) -> bool:
    """Whether the connection, which is idle, shares server sessions with others.

    A pooler makes up the process id that it greets a client with, a server does not. Behind one, other connections are
    kept inside transactions until one was given our session, or ours was given another: then sessions are shared. A
    pool that has no session left for a probe, and yet serves us, keeps ours for us alone.
    """
    pid = _serving(connection)
    driver: Any = connection.connection.driver_connection
    if driver.info.backend_pid == pid:
        return False
    with contextlib.ExitStack() as probes:
        for _ in range(_PROBES):
            probe = _Probe(connection.engine, pid)
            probes.callback(probe.end)
            answered = probe.wait(_PATIENCE)
            if probe.met or any(_serving(connection) != pid for _ in range(_LOOKS)) or probe.met:
                return True
            if not answered and not probe.wait(0):
                return False
    return False


def _serving(connection: Connection) -> object:
    pid = connection.execute(_PID).scalar()
    connection.rollback()
    return pid


class _Probe:
    """Another connection, inside a transaction from when it is served until it is ended.

    Except by the session that it looks for: that one is left at once, since ours may be waiting for it.
    """

    def __init__(self, engine: Engine, wanted: object) -> None:
        #: whether it was served by the session that it looks for
        self.met = False
        self._wanted = wanted
        self._engine = engine
        self._connection: Connection | None = None
        self._served = threading.Event()
        self._ended = threading.Event()
        # A thread, because a pooler lets a statement wait for minutes, and drivers cannot be told for how long.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it has been served, or could not be, within so many seconds."""
        return self._served.wait(seconds)

    def end(self) -> None:
        """Give its session back, or stop waiting for one."""
        self._ended.set()
        if not self._served.is_set():
            self._hang_up()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            with self._engine.connect() as connection:
                self._connection = connection
                self.met = connection.execute(_PID).scalar() == self._wanted
                self._served.set()
                if not self.met:
                    self._ended.wait()
        except SQLAlchemyError:
            _log.debug("a probe for a pooler had no answer", exc_info=True)
        finally:
            self._served.set()

    def _hang_up(self) -> None:
        """Wake the thread that waits inside the driver."""
        if self._connection is None:
            return
        with contextlib.suppress(OSError, SQLAlchemyError):
            driver: Any = self._connection.connection.driver_connection
            with socket.socket(fileno=os.dup(driver.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)

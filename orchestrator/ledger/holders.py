"""Processes that hold the lease: named beyond doubt, and asked whether they live, as far as this machine can tell."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path

from orchestrator.ledger.protocol import Holder

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_MOST_PIDS = 2**31


@dataclasses.dataclass(frozen=True, slots=True)
class _Stat:
    """What Linux tells of a process."""

    state: str
    threads: int
    #: ticks since the machine was started
    start: str

    @property
    def ended(self) -> bool:
        """Nobody has asked yet how it ended; as long as a thread is left, that one may still write."""
        return self.state in {"Z", "X"} and self.threads <= 1


def this_process(operator: str) -> Holder:
    """The running process, on behalf of that operator."""
    pid, namespace = os.getpid(), _namespace()
    stat = _stat(pid)
    birth = f"{namespace}/{stat.start}" if namespace and stat else ""
    return Holder(operator=operator, host=socket.gethostname(), pid=pid, birth=birth)


def is_dead(holder: Holder) -> bool:
    """Whether that process is gone for certain; a process elsewhere never is."""
    return _lives(holder) is False


def is_alive(holder: Holder) -> bool:
    """Whether that process runs on this machine for certain."""
    return _lives(holder) is True


def _lives(holder: Holder) -> bool | None:
    """None where nobody here can know."""
    namespace, _, start = holder.birth.rpartition("/")
    known = namespace and holder.host == socket.gethostname() and namespace == _namespace()
    if not (known and 0 < holder.pid < _MOST_PIDS):
        return None
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Another user's process: it is there. /proc may be told to hide it, so its absence there says nothing.
        pass
    stat = _stat(holder.pid)
    return None if stat is None else stat.start == start and not stat.ended


def _namespace() -> str:
    """Where and since when pids of this process mean something; empty where the system does not tell."""
    try:
        return f"{_BOOT.read_text().strip()}/{_NAMESPACE.stat().st_ino}"
    except OSError:
        return ""


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name of the program comes second, in brackets, and may hold anything.
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], threads=int(fields[17]), start=fields[19])

"""A running `orchestrate` with all of its worker processes, and how to kill which of them."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.fleets import Done, Project, inherited

#: in the environment of every process of one command, whoever its parent is by now
_MARK = "SOAK_FAMILY"


class Victim(enum.StrEnum):
    """Who is killed."""

    ORCHESTRATOR = "orchestrator"
    WORKER = "worker"
    GROUP = "group"
    SERVER = "server"
    #: the orchestrator, by SIGTERM, once or twice
    TERMINATED = "terminated"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """A command that was started and not waited for."""

    process: subprocess.Popen[bytes]
    arguments: tuple[str, ...]
    mark: str
    out: Path

    def family(self) -> list[int]:
        """All processes of the command, itself first, the rest in the order in which they were started."""
        return sorted(_marked(self.mark), key=lambda pid: (pid != self.process.pid, pid))

    def kill(self, victim: Victim, chance: random.Random) -> bool:
        """SIGKILL; False when there was nobody left to kill."""
        family = [pid for pid in self.family() if self.process.poll() is None]
        if victim is Victim.WORKER:
            family = [pid for pid in family if _is_worker(pid)]
            family = [chance.choice(family)] if family else []
        elif victim is Victim.ORCHESTRATOR:
            family = family[:1]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(family)

    def terminate(self, chance: random.Random) -> bool:
        """SIGTERM, which lets what is in flight finish; in every other case again, which does not."""
        if self.process.poll() is not None:
            return False
        self.process.terminate()
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.5))
            self.process.terminate()
        return True

    def wait(self, seconds: float = 300) -> Done:
        """What it did; the text of one that was killed is what it had said until then."""
        self.process.wait(timeout=seconds)
        texts = [path.read_text() if path.exists() else "" for path in (self.out / "out", self.out / "err")]
        return Done(
            command=("orchestrate", *self.arguments),
            exit_status=self.process.returncode,
            output=texts[0],
            errors=texts[1],
        )

    def survivors(self, seconds: float = 30) -> list[int]:
        """Processes that are still there after so long."""
        deadline = time.monotonic() + seconds
        while (left := self.family()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def start(project: Project, *arguments: str) -> Running:
    """Start `orchestrate`, in a process group of its own."""
    mark = uuid.uuid4().hex
    out = project.folder.parent / f"out-{mark}"
    out.mkdir()
    with (out / "out").open("wb") as output, (out / "err").open("wb") as errors:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "orchestrate"), *arguments],
            cwd=project.folder,
            env={**inherited(), **project.environment, _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    return Running(process=process, arguments=arguments, mark=mark, out=out)


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and not _is_zombie(folder):
                yield int(folder.name)


def _is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _is_worker(pid: int) -> bool:
    """A child of the server that workers are forked from, which is a child of the command."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return b"forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:
        return False

"""Real `orchestrate` commands, each in a process forked from one that has imported everything and opened nothing.

Importing takes ten times as long as upgrading one tenant; whoever runs a thousand commands forks them instead. What is
forked is the same code, its death by a failpoint is a real SIGKILL, and nobody cleans up after it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator import failpoints
from tests.acceptance.fleets import Done, Project, inherited

#: packages whose import starts something, or needs more than this process has
_SKIPPED = ("orchestrator.flask", "orchestrator.registry.__main__", "orchestrator.ledger.migrations.env")
_DRIVERS = ("psycopg", "pymysql", "sqlite3", "concurrent_log_handler", "alembic.command", "mako.template")


class Launcher:
    """Runs one command after another; not for two threads at once."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pid = 0

    def orchestrate(self, project: Project, *arguments: str, failpoint: str = "", exit_status: int | None = 0) -> Done:
        """Run `orchestrate` in the project's folder; None accepts every exit status."""
        done = self.wait(self.start(project, *arguments, failpoint=failpoint), arguments)
        assert exit_status is None or done.exit_status == exit_status, f"{done}"
        return done

    def start(self, project: Project, *arguments: str, failpoint: str = "") -> Path:
        """Start it, in a process of its own; `wait` has to follow. Returns the folder with what it says."""
        output = Path(tempfile.mkdtemp(prefix="orchestrate-soak-"))
        request = {
            "arguments": arguments,
            "folder": str(project.folder),
            "environment": {**inherited(), **project.environment},
            "failpoint": failpoint or "0:off",
            "output": str(output),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        self._pid = int(self._answer())
        return output

    def kill(self) -> None:
        """SIGKILL for the command that runs now."""
        os.kill(self._pid, signal.SIGKILL)

    def ended(self) -> bool:
        """Whether the command that was started has ended."""
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def wait(self, output: Path, arguments: tuple[str, ...]) -> Done:
        """What it did."""
        answer = self._answer()
        texts = []
        for name in ("out", "err"):
            texts.append((output / name).read_text())
            (output / name).unlink()
        output.rmdir()
        return Done(command=("orchestrate", *arguments), exit_status=int(answer), output=texts[0], errors=texts[1])

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the launcher itself has ended"
        return answer.decode()


@contextlib.contextmanager
def launcher() -> Iterator[Launcher]:
    """A launcher that ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.launching"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, failpoints.VARIABLE: "0:off"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # so that `select` sees each line that was not asked for yet
    )
    try:
        yield Launcher(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


def main() -> None:
    """Answer each line on standard input, a request, with the id of the command's process, then its exit status."""
    _import_everything()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
            return
        print(child, flush=True)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


def _import_everything() -> None:
    import orchestrator

    for module in pkgutil.walk_packages(orchestrator.__path__, "orchestrator."):
        if not module.name.startswith(_SKIPPED):
            with contextlib.suppress(ImportError):  # whichever command needs it will say so
                importlib.import_module(module.name)
    for name in _DRIVERS:
        importlib.import_module(name)
    gc.freeze()


def _become(request: Mapping[str, Any]) -> None:
    """Be the command, to the end of this process."""
    from orchestrator import cli

    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['output']}/{name}", os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.argv = ["orchestrate", *request["arguments"]]
    failpoints.arm(request["failpoint"])
    cli.main()


if __name__ == "__main__":
    main()

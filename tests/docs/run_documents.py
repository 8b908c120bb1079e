"""`python -m tests.docs.run_documents [FILE…]`: run the shell blocks of documents as a reader would.

README.md runs beside a copy of the repository's own fleet. Every document below docs/ that starts with the comment
`<!-- run by CI -->` starts in an empty folder.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.docs.documents import ROOT, Shell, blocks, paths, shells
from tests.services import scratch

MARK = "<!-- run by CI -->"
#: what .ci/run does by itself
ELSEWHERE = ("make demo", "make test", "make check", ".ci/run")


def main(names: list[str]) -> int:
    """Run the documents named, else all that say so."""
    scratch.use_memory()
    chosen = [Path(name).resolve() for name in names] or [path for path in paths() if _is_run(path)]
    if not chosen:
        print("no document says that it is to be run", file=sys.stderr)
        return 1
    if len(chosen) == 1:
        return run(chosen[0])
    # Each in a process of its own, so that what they print does not mingle; they mostly wait for other processes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return max(pool.map(_run_apart, chosen))


def _run_apart(path: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_documents", str(path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, end="", flush=True)
    return done.returncode


def _is_run(path: Path) -> bool:
    return path.name == "README.md" or path.read_text().lstrip().startswith(MARK)


def run(path: Path, variables: Mapping[str, str] | None = None) -> int:
    """Run one document in an empty folder, with more variables in its environment; 0 when all of it was right."""
    done = 0
    with tempfile.TemporaryDirectory(prefix="orchestrate-document-") as scratch:
        folder = Path(scratch).resolve()
        if path.name == "README.md":
            _copy_fleet(folder)
        for block in blocks(path.read_text()):
            if block.directive == "file":
                _write(folder / block.argument, block.text)
            for shell in shells(block):
                if not _passes(shell, folder, path, variables or {}):
                    return 1
                done += 1
    print(f"{path.relative_to(ROOT)}: {done} blocks or commands ran as written")
    return 0


def _copy_fleet(folder: Path) -> None:
    for name in ("tenants.yaml", "alembic.ini"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _passes(shell: Shell, folder: Path, path: Path, variables: Mapping[str, str]) -> bool:
    if shell.text.strip().startswith(ELSEWHERE):
        return True
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **variables}
    print(f"$ {shell.text.strip()}", flush=True)
    script = ["bash", "-euo", "pipefail", "-c", shell.text]
    done = subprocess.run(
        script,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode != shell.exit_status:
        print(f"{path}: ended with {done.returncode}, expected {shell.exit_status}: {shell.text}", file=sys.stderr)
        return False
    missing = shell.missing(done.stdout, folder)
    if missing is not None:
        print(f"{path}: {shell.text}: does not print, or not in this order: {missing}", file=sys.stderr)
    return missing is None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

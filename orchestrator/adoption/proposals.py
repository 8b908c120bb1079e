"""What `orchestrate init` would write, to be looked at before it is written."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import tempfile
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.redaction import scrub


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file to be written or rewritten."""

    path: Path
    #: None for a new file
    before: str | None
    after: str

    def diff(self, directory: Path) -> str:
        """The change as a unified diff, without the passwords that its context may show."""
        name = os.path.relpath(self.path, directory)
        if self.before is None and not self.after:
            return f"--- /dev/null\n+++ b/{name}\n"
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            fromfile="/dev/null" if self.before is None else f"a/{name}",
            tofile=f"b/{name}",
        )
        text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
        return text if self.before is None else scrub(text)

    def write(self) -> None:
        """Put the new text in place in one step; an existing file keeps its line ends and its mode."""
        text = self.after.replace("\n", "\r\n") if self.before is not None and "\r\n" in read(self.path) else self.after
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            Path(temporary).chmod(mode)
            Path(temporary).replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """How a project would be started or adopted."""

    directory: Path
    #: the alembic.ini that `-c` names afterwards
    config: Path
    changes: tuple[Change, ...] = ()
    #: what the user should know or do
    notes: tuple[str, ...] = ()
    #: False when part of an env.py is left to be changed by hand
    complete: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.changes

    def diff(self) -> str:
        """All changes as one unified diff."""
        return "".join(change.diff(self.directory) for change in self.changes)

    def apply(self) -> None:
        """Write all files; refuses when one of them was changed since the proposal was made."""
        for change in self.changes:
            now = read(change.path).replace("\r\n", "\n") if change.path.exists() else None
            if now != change.before:
                raise SettingsError(f"{change.path}: was changed in the meantime; run `orchestrate init` again")
        for change in self.changes:
            try:
                change.write()
            except OSError as error:
                raise SettingsError(f"{change.path}: cannot be written: {error.strerror}") from error


def read(path: Path) -> str:
    """A text file with the line ends that it has."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text; save it as UTF-8 and run `orchestrate init` again") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

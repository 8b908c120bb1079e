"""Files that others read while we write them: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from orchestrator.errors import SettingsError


def write(path: Path, text: str, *, option: str) -> None:
    """Put the text in the file; raises `SettingsError` in the name of the option that asked for it.

    A link stays one, and the file that it leads to is written; what is no file, as /dev/stdout may be, is written to.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            _replace(Path(os.path.realpath(path)), text)
    except OSError as error:
        raise SettingsError(f"{option} {path}: {error.strerror or error}; name a file that can be written") from error


def _replace(path: Path, text: str) -> None:
    # Not the whole name: one of the longest that there may be leaves no room for more.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:32]}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, 0o666 & ~_umask())
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""The three forms of what a command answers: text, one JSON document, or one JSON line per row."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.cli.options import Common, Format
from orchestrator.cli.terminals import Line
from orchestrator.errors import SettingsError
from orchestrator.reports import workflow


def answer(
    common: Common, *, document: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], lines: Iterable[Line]
) -> None:
    """Write the answer to `--report`, and in the form that was asked for."""
    try:
        # The file first: standard output may be a full disk, or a reader that went away.
        if common.report is not None:
            write(common.report, document)
    finally:
        _say(common, document, rows, lines)


def _say(common: Common, document: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], lines: Iterable[Line]) -> None:
    match common.output:
        case Format.TEXT:
            common.screen.data(lines)
        case Format.JSON:
            common.screen.raw(_readable(json.dumps(document, indent=2)))
        case Format.JSONL:
            for row in rows:
                common.screen.raw(json_line(row))


def json_line(row: Mapping[str, Any]) -> str:
    """One line of JSON lines."""
    return _readable(json.dumps(row, separators=(",", ":")))


def _readable(text: str) -> str:
    """JSON fit for where it is shown: a workflow's runner reads standard output too."""
    return workflow.inert_json(text) if workflow.is_watching() else text


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Put the document in the file, whole or not at all."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, 0o666 & ~_umask())
            json.dump(document, file, indent=2)
            file.write("\n")
        Path(temporary).replace(path)
    except OSError as error:
        raise SettingsError(f"--report {path}: {error.strerror or error}; name a file that can be written") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""The three forms of what a command answers: text, one JSON document, or one JSON line per row."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator import reports
from orchestrator.cli.options import JSON_ENDING, Common, Format
from orchestrator.cli.terminals import Line
from orchestrator.errors import OrchestratorError, SettingsError, UsageError
from orchestrator.outcomes import Report
from orchestrator.reports import files, workflow


def answer(
    common: Common,
    *,
    document: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    lines: Iterable[Line],
    report: Report | None = None,
    nothing: str | None = None,
) -> None:
    """Write the answer to each `--report`, and in the form that was asked for.

    A `report`, or the sentence of a command that had `nothing` to do, can be written in every form; else there is JSON.
    """
    try:
        # The files first: standard output may be a full disk, or a reader that went away.
        _write_all(common.reports, functools.partial(_text, document=document, report=report, nothing=nothing))
    finally:
        _say(common, document, rows, lines)


def _write_all(paths: Sequence[Path], text: Callable[[Path], str]) -> None:
    """Write every file; one that cannot be written keeps none of the others from it."""
    problems = []
    for path in paths:
        try:
            files.write(path, text(path), option="--report")
        except OrchestratorError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError("\n".join(problems))


def _text(path: Path, document: Mapping[str, Any], report: Report | None, nothing: str | None) -> str:
    if path.suffix == JSON_ENDING:
        return json.dumps(document, indent=2) + "\n"
    if report is not None:
        return reports.render(report, path.suffix)
    if nothing is not None:
        return reports.nothing(nothing, path.suffix)
    raise UsageError(
        f"--report {path}: only the report of a run has this form; this answer is written as {JSON_ENDING}"
    )


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

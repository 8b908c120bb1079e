"""One log of JSON lines that all processes of a run write together, each record with its run, target and revision."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import datetime
import fcntl
import io
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from orchestrator.errors import SettingsError
from orchestrator.outcomes import format_time
from orchestrator.redaction import MASK, scrub
from orchestrator.tracebacks import format_exception

MAX_BYTES = 10 * 2**20
BACKUPS = 5

#: whose records the log holds; SQLAlchemy's engine would log parameters, and stays as it is
LOGGERS = ("orchestrator", "alembic")
_CONTEXT = ("run", "target", "revision")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_bound: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("orchestrate_log")


@dataclasses.dataclass(slots=True)
class _Current:
    """The log that this process writes: a file must have one handler per process, however often it is asked for."""

    path: Path | None = None
    handler: logging.Handler | None = None


#: set to 1 it keeps in the log, and nowhere else, what databases quote of their rows
DETAIL_VARIABLE = "ORCHESTRATE_LOG_DETAIL"


_current = _Current()


def configure(path: Path, *, max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> None:
    """Send the records of `LOGGERS` to that file; asking again for the same file changes nothing.

    All processes must name the same sizes. The root logger is the application's, and is left alone.
    """
    path = path.absolute()
    if _current.path != path:
        close()
        _create(path)
        _current.handler = _file_handler(path, max_bytes, backups)
        _current.path = path
    assert _current.handler is not None
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if _current.handler not in logger.handlers:
            logger.addHandler(_current.handler)
        if not logger.isEnabledFor(logging.INFO):
            logger.setLevel(logging.INFO)


def close() -> None:
    """Stop writing the log in this process."""
    handler, _current.handler, _current.path = _current.handler, None, None
    if handler is not None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def bound(*, run: str | None = None, target: str | None = None, revision: str | None = None) -> Iterator[None]:
    """Let every record inside carry these; what is not given stays as it was."""
    given = {"run": run, "target": target, "revision": revision}
    here = {name: value for name, value in given.items() if value is not None}
    token = _bound.set({**_bound.get({}), **here})
    try:
        yield
    finally:
        _bound.reset(token)


def read(path: Path, *, run: str | None = None, target: str | None = None) -> Iterator[dict[str, Any]]:
    """Records of the log, oldest first, rotated files included; a line that is not whole is left out.

    Customer data that the log was told to keep stays in its file.
    """
    wanted = {name: value for name, value in (("run", run), ("target", target)) if value is not None}
    # A search in the raw line spares most of the parsing in a log of many targets.
    marks = [f'"{name}": {json.dumps(value)}' for name, value in wanted.items()]
    with contextlib.ExitStack() as stack:
        for file in _open_all(path.absolute(), stack):
            for line in file:
                record = _parsed(line) if all(mark in line for mark in marks) else None
                if record is not None and all(record.get(name) == value for name, value in wanted.items()):
                    yield _without_detail(record)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Keep the logging of this process as it is, whatever `env.py` does to it.

    The usual `env.py` calls `fileConfig`, which closes every handler of the process and disables every logger that
    `alembic.ini` does not name, ours among them: inside, it does nothing. Whatever else was changed is put back.
    """
    import logging.config as configuration  # noqa: PLC0415 - only workers and `revision` come here

    snapshot = _Snapshot.take()
    functions = (configuration.fileConfig, configuration.dictConfig)
    configuration.fileConfig = configuration.dictConfig = _left_alone
    try:
        yield
    finally:
        configuration.fileConfig, configuration.dictConfig = functions
        snapshot.restore()


@contextlib.contextmanager
def capture_output() -> Iterator[None]:
    """Turn what is printed into records, line by line: the terminal of a worker belongs to its coordinator."""
    outputs = _Lines(sys.stdout, logging.INFO, "stdout"), _Lines(sys.stderr, logging.WARNING, "stderr")
    with contextlib.redirect_stdout(outputs[0]), contextlib.redirect_stderr(outputs[1]):
        try:
            yield
        finally:
            for output in outputs:
                output.finish()


class JsonFormatter(logging.Formatter):
    """One JSON object a line, without passwords and without the customer's data, which `detail` keeps beside it.

    A record that has `masked` says what stands in a traceback for the text of a driver's error.
    """

    def __init__(self, *, detail: bool = False) -> None:
        super().__init__()
        self._detail = detail

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; plain fields given as `extra` come last."""
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        masked = extra.pop("masked", None)
        message = _message(record)
        fields: dict[str, Any] = {
            "time": format_time(datetime.datetime.fromtimestamp(record.created, datetime.UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": shown(message),
            **{name: _plain(extra.pop(name, _bound.get({}).get(name))) for name in _CONTEXT},
            "process": record.process,
        }
        detail = {} if fields["message"] == scrub(message) else {"message": scrub(message)}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["exception"] = {"type": type(error).__name__, "traceback": shown(format_exception(error, masked))}
            detail["traceback"] = scrub("".join(traceback.format_exception(error)))
        for name, value in extra.items():
            if name not in fields and (value is None or isinstance(value, str | int | float | bool)):
                fields[name] = _plain(value)
        if self._detail and detail:
            fields[_DETAIL] = detail
        # ASCII only: no line separator of Unicode, and no half of a surrogate pair, can break the line.
        return json.dumps(fields)


def _plain(value: Any) -> Any:
    return shown(value) if isinstance(value, str) else value


#: the field that holds what databases quote of their rows, for whoever opens the file
_DETAIL = "detail"
#: lines of a driver's message that quote rows, in the languages that servers speak, and the lines that may follow them
_DATA = re.compile(
    r"[\s|]*(?:(?:DETAIL|DÉTAIL|DETALLE|DETALHE|DETTAGLI|DETALJ|SZCZEGÓŁY|ПОДРОБНОСТИ|詳細|详细信息"
    r"|CONTEXT|KONTEXT|CONTEXTE|CONTEXTO|CONTESTO|KONTEKST|КОНТЕКСТ)\s?:|\[SQL: |\[parameters: )"  # noqa: RUF001
)
_NO_DATA = re.compile(
    r"[\s|]*(?:(?:HINT|HINWEIS|ASTUCE|SUGERENCIA)\s?:|\(Background on|Traceback \(most|The above exc|During handling"
    r"|File \"|This led to:|In this group:)"
)
#: values that are quoted in the first line already: to the end of it, or to the name behind them
_QUOTED = re.compile(
    r"(?P<before>Duplicate entry |\bincorrect \w+ value: |invalid input (?:syntax for type|value for enum) [^:]+: "
    r"|value out of range: |malformed \w+ literal: |syntax error in ts\w+: |\bnear |illegal value |time zone: "
    r"|partition for value |could not convert string to float: |invalid literal for int\(\) with base \d+: "
    r"|isoformat string: |time data |date too \w+ \([^)]*\): |\bwith text )"
    r"(?P<value>(?!'…')['\"«»„“].*?)"
    r"(?P<after>(?<=['\"«»“”]) (?:for (?:key|column|function)|at (?:row|line)|does not match format) [^\n]*)?$",
    re.IGNORECASE,
)
#: a line after which no value goes on
_CLOSED = re.compile(r"['\"«»“”][\s)\"',:\]]*$|syntax error$")


def shown(text: str) -> str:
    """The text without passwords, and without the lines in which databases quote what their rows hold."""
    kept: list[str] = []
    dropping = False
    for line in text.split("\n"):
        dropping = bool(_DATA.match(line)) or (dropping and not _NO_DATA.match(line))
        if not dropping:
            kept.append(_QUOTED.sub(_without_value, line))
            quoted = _QUOTED.search(line)
            # A value with a line break in it goes on in the next line.
            dropping = quoted is not None and not quoted["after"] and not _CLOSED.search(line)
    return scrub("\n".join(kept))


def _without_value(match: re.Match[str]) -> str:
    return f"{match['before']}'{MASK}'{match['after'] or ''}"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # A caller's mistake must not cost the record.
        return f"{record.msg} {record.args!r}"


def _without_detail(value: Any) -> Any:
    """What was read from the log, fit to be shown."""
    if isinstance(value, dict):
        return {key: _without_detail(item) for key, item in value.items() if key != _DETAIL}
    return shown(value) if isinstance(value, str) else value


def _create(path: Path) -> None:
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _locks(path).mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError as error:
        raise SettingsError(
            f"the log {path} cannot be written: {error.strerror}; name another file with ORCHESTRATE_LOG"
        ) from error


def _locks(path: Path) -> Path:
    """Folder of the lock files, which stay for good: out of sight, and where every process of the project looks."""
    return path.parent / ".locks"


def _file_handler(path: Path, max_bytes: int, backups: int) -> logging.Handler:
    from concurrent_log_handler import (  # noqa: PLC0415 - takes longer to import than a run without work takes
        ConcurrentRotatingFileHandler,
    )

    handler: logging.Handler = ConcurrentRotatingFileHandler(
        str(path),
        maxBytes=max_bytes,
        backupCount=backups,
        encoding="utf-8",
        chmod=0o600,
        lock_file_directory=str(_locks(path)),
    )
    handler.setFormatter(JsonFormatter(detail=os.environ.get(DETAIL_VARIABLE) == "1"))
    handler.handleError = _Complaint(path)  # type: ignore[method-assign]
    return handler


class _Complaint:
    """Says once that the log cannot be written; a full disk for logs is no reason to print a traceback per record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = False

    def __call__(self, record: logging.LogRecord) -> None:
        del record
        cause = sys.exc_info()[1]
        if not self._said and sys.__stderr__ is not None:
            self._said = True
            reason = getattr(cause, "strerror", None) or type(cause).__name__
            sys.__stderr__.write(f"orchestrate: the log {self._path} cannot be written ({reason}); going on without\n")


def _open_all(path: Path, stack: contextlib.ExitStack) -> list[TextIO]:
    """The log's files, opened oldest first, while no process rotates them."""
    with contextlib.ExitStack() as locked:
        for lock in _locks(path).glob(f".__{path.name.removesuffix('.log')}.lock"):
            fcntl.flock(locked.enter_context(lock.open()), fcntl.LOCK_SH)
        rotated = [file for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdigit()]
        files = sorted(rotated, key=lambda file: int(file.suffix[1:]), reverse=True)
        return [
            stack.enter_context(file.open(encoding="utf-8", errors="replace"))
            for file in (*files, path)
            if file.is_file()
        ]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _left_alone(*arguments: object, **options: object) -> None:
    """Stand in for the functions that configure the logging of a whole process."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """The logging of this process at one moment."""

    #: of each logger: handlers, level, whether records go up, whether it is silenced
    loggers: Mapping[logging.Logger, tuple[list[logging.Handler], int, bool, bool]]
    threshold: int

    @classmethod
    def take(cls) -> _Snapshot:
        """Look at every logger there is, the root logger among them."""
        known = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
        return cls(
            loggers={
                each: (list(each.handlers), each.level, each.propagate, each.disabled)
                for each in (logging.root, *known)
            },
            threshold=logging.root.manager.disable,
        )

    def restore(self) -> None:
        """Put back what has changed since."""
        for logger, (handlers, level, propagate, disabled) in self.loggers.items():
            logger.handlers[:] = handlers
            logger.propagate, logger.disabled = propagate, disabled
            if logger.level != level:
                logger.setLevel(level)
        if logging.root.manager.disable != self.threshold:
            logging.disable(self.threshold)


#: set while a printed line is being logged, whichever stream it was printed to
_busy = threading.local()


class _Lines(io.TextIOBase):
    """A text stream whose lines become records."""

    def __init__(self, original: TextIO, level: int, name: str) -> None:
        self._original = original
        self._level = level
        self._name = name
        self._rest = ""

    def writable(self) -> bool:
        """As a stream must say."""
        return True

    def fileno(self) -> int:
        """For libraries that ask, and for child processes, which inherit it."""
        return self._original.fileno()

    def write(self, text: str) -> int:
        """Log the lines that are complete; what a log handler prints meanwhile goes where it went before."""
        if getattr(_busy, "now", False):
            return self._original.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log(line)
        return len(text)

    def finish(self) -> None:
        """Log a last line that was not ended."""
        rest, self._rest = self._rest, ""
        self._log(rest)

    def _log(self, line: str) -> None:
        if not line.strip():
            return
        _busy.now = True
        try:
            logging.getLogger("orchestrator.output").log(self._level, "%s", line.rstrip(), extra={"stream": self._name})
        finally:
            _busy.now = False

"""What a log record holds, and what `env.py` may not do to the logging of the process."""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc

from orchestrator import logs
from orchestrator.errors import SettingsError

logger = logging.getLogger("orchestrator.test")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log" / "orchestrate.jsonl"
    levels = {name: logging.getLogger(name).level for name in logs.LOGGERS}
    logs.configure(path)
    yield path
    logs.close()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def records(path: Path) -> list[dict[str, Any]]:
    return list(logs.read(path))


def test_a_record_carries_its_run_target_and_revision(log: Path) -> None:
    with logs.bound(run="r-1"):
        with logs.bound(target="acme"), logs.bound(revision="r007"):
            logger.info("creating %s", "an index", extra={"code": "23505", "tries": 2, "object": object()})
        logger.warning("outside")
    first, second = records(log)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert isinstance(first.pop("process"), int)
    assert first == {
        "level": "INFO",
        "logger": "orchestrator.test",
        "message": "creating an index",
        "run": "r-1",
        "target": "acme",
        "revision": "r007",
        "code": "23505",
        "tries": 2,
    }
    assert (second["level"], second["run"], second["target"], second["revision"]) == ("WARNING", "r-1", None, None)


def test_a_field_given_with_the_record_goes_before_the_bound_one(log: Path) -> None:
    with logs.bound(target="acme"):
        logger.info("lost", extra={"target": "globex"})
    assert records(log)[0]["target"] == "globex"


def test_alembic_is_logged_and_sql_is_not(log: Path) -> None:
    logging.getLogger("alembic.runtime.migration").info("Running upgrade")
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT INTO users VALUES ('bob')")
    assert [record["logger"] for record in records(log)] == ["alembic.runtime.migration"]


def test_configuring_twice_writes_once(log: Path) -> None:
    logs.configure(log)
    logs.configure(log.parent / ".." / "log" / "orchestrate.jsonl")
    logger.info("once")
    logs.configure(log)
    assert len(records(log)) == 1


def test_the_file_is_private_and_the_root_logger_untouched(tmp_path: Path) -> None:
    before = (list(logging.root.handlers), logging.root.level)
    path = tmp_path / "new" / "folder" / "orchestrate.jsonl"
    logs.configure(path)
    try:
        logger.info("hello")
        modes = {stat.S_IMODE(found.stat().st_mode) for found in path.parent.rglob("*") if found.is_file()}
        assert modes == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (list(logging.root.handlers), logging.root.level) == before
    finally:
        logs.close()


def test_nothing_but_the_log_lies_where_the_log_lies(log: Path) -> None:
    logger.info("hello")
    assert sorted(found.name for found in log.parent.iterdir()) == [".locks", "orchestrate.jsonl"]


def test_a_log_that_cannot_be_written_is_a_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="ORCHESTRATE_LOG"):
        logs.configure(tmp_path / "file" / "log" / "orchestrate.jsonl")


def test_a_traceback_holds_no_password_and_no_row(log: Path) -> None:
    text = (
        "duplicate key value violates unique constraint\n"
        "DETAIL:  Key (email)=(bob@example.org\nbob's second line) already exists.\n"
        "HINT:  look at the constraint\n"
        "[SQL: CREATE ROLE x PASSWORD 'canary-1']\n"
        "[parameters: {'email': 'bob@example.org'}]\n"
        "postgresql://app:canary-2@db/saas"
    )
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logger.exception("failed for mysql: (1062, \"Duplicate entry 'bob' for key 'email'\")")
    (record,) = records(log)
    assert record["exception"]["type"] == "RuntimeError"
    assert "test_logs.py" in record["exception"]["traceback"]
    assert "HINT:  look at the constraint" in record["exception"]["traceback"]
    assert "Duplicate entry '***' for key 'email'" in record["message"]
    raw = log.read_text()
    for secret in ("canary", "bob"):
        assert secret not in raw


@pytest.mark.parametrize(
    "line",
    [
        'psycopg.errors.InvalidText: invalid input syntax for type integer: "bob"',
        "(1366, \"Incorrect integer value: 'bob' for column `t`.`n` at row 1\")",
        "(1292, \"Truncated incorrect DOUBLE value: 'bob'\")",
        "(1062, \"Duplicate entry 'it's\nbob' for key 'mail'\")\nbob",
        'invalid input syntax for type json: "it"s\nbob\nbob"',
        "ungültige Eingabesyntax: near »bob«",
        "(1064, \"to use near 'bob' WHERE id = 1' at line 1\")",
        "ValueError: could not convert string to float: 'bob'",
        'near "bob": syntax error',
    ],
)
def test_values_quoted_by_a_database_are_masked(line: str) -> None:
    assert "bob" not in logs.shown(line)
    assert "'***'" in logs.shown(line)


@pytest.mark.parametrize("word", ["DETAIL:", "DÉTAIL :", "DETALLE:", "KONTEXT:", "CONTEXTE :", "[SQL:", "  | DETAIL:"])
def test_lines_with_rows_are_left_out_whatever_the_server_speaks(word: str) -> None:
    assert logs.shown(f"broken\n{word} (mail)=(bob)\nbob\nHINT:  look") == "broken\nHINT:  look"


class _Formatted:
    """What the log makes of an exception."""

    def __init__(self, error: BaseException, *, detail: bool = False, **extra: object) -> None:
        record = logging.LogRecord("orchestrator", logging.ERROR, "", 0, "broken", (), (type(error), error, None))
        vars(record).update(extra)
        self.line = logs.JsonFormatter(detail=detail).format(record)
        self.record = json.loads(self.line)


def raised(*errors: BaseException) -> BaseException:
    """The last of the errors, each raised while the one before it was handled."""
    if len(errors) == 1:
        return errors[0]
    try:
        try:
            raise raised(*errors[:-1])
        except type(errors[-2]):
            raise errors[-1]  # noqa: B904
    except type(errors[-1]) as error:
        return error


DRIVERS = sqlite3.OperationalError("it's\nno such bob 4711")
WRAPPED = sqlalchemy.exc.OperationalError("UPDATE t SET a = 'bob'", {"a": "bob"}, DRIVERS)


@pytest.mark.parametrize(
    "error",
    [
        DRIVERS,
        WRAPPED,
        sqlalchemy.exc.StatementError("no", "SELECT 'bob'", {}, TypeError("Not a boolean value: 'it's\nbob'")),
        ValueError("could not convert string to float: 'it's bob'"),
        KeyError("it's\nbob"),
        ArithmeticError("no 'bob'"),
        raised(WRAPPED, RuntimeError("see above")),
        raised(ValueError("no float: 'bob'"), RuntimeError("row 7: no float: 'bob'")),
        raised(KeyError("bob"), WRAPPED, ValueError("'bob'"), RuntimeError("see above")),
        ExceptionGroup("several", [WRAPPED, ExceptionGroup("more", [ValueError("'bob'")])]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_traceback_says_what_the_report_says(error: BaseException) -> None:
    told = _Formatted(error, masked="no such thing")
    assert "bob" not in told.line
    assert "4711" not in told.line
    assert type(error).__name__ in told.record["exception"]["traceback"]
    assert ("no such thing" in told.line) is ("OperationalError" in told.line)
    kept = _Formatted(error, masked="no such thing", detail=True)
    assert "bob" in kept.line
    assert "bob" not in json.dumps({**kept.record, "detail": None})


def test_what_is_kept_beside_it_is_not_read(log: Path) -> None:
    log.write_text(_Formatted(WRAPPED, detail=True).line + "\n")
    (record,) = records(log)
    assert "bob" not in json.dumps(record)
    assert "OperationalError" in record["exception"]["traceback"]


def test_a_traceback_without_rows_is_as_it_was(log: Path) -> None:
    try:
        try:
            raise KeyError(7)
        except KeyError as error:
            raise RuntimeError("a text of ours") from error
    except RuntimeError:
        logger.exception("broken")
    text = records(log)[0]["exception"]["traceback"]
    assert text.index("KeyError: 7") < text.index("This led to:") < text.index("RuntimeError: a text of ours")
    assert text.count("Traceback (most recent call last):\n  File ") == 2


@pytest.mark.parametrize("text", ["line\u2028separator", "half \ud800 of a pair", "nul \x00", "two\nlines", "größe"])
def test_any_text_is_one_line(log: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The test runner would send what it captured from one process to another, as UTF-8.
    monkeypatch.setattr(logging.getLogger("orchestrator"), "propagate", False)
    logger.info("%s", text)
    assert len(log.read_text().splitlines()) == 1
    assert records(log)[0]["message"] == text


def test_a_wrong_call_still_leaves_a_record(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("orchestrator"), "propagate", False)  # the test runner's handler would raise
    logger.info("%d tenants", "many")
    assert "many" in records(log)[0]["message"]


def test_reading_goes_oldest_first_and_over_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "orchestrate.jsonl"
    for name, numbers in (("orchestrate.jsonl.10", [1]), ("orchestrate.jsonl.2", [2, 3]), ("orchestrate.jsonl", [4])):
        lines = (json.dumps({"run": "r-1" if number % 2 else "r-2", "target": "a", "n": number}) for number in numbers)
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    with path.open("a") as file:
        file.write('[1, 2]\n{"run": "r-1", "target": "a", "n":')
    assert [record["n"] for record in logs.read(path)] == [1, 2, 3, 4]
    assert [record["n"] for record in logs.read(path, run="r-1")] == [1, 3]
    assert list(logs.read(path, run="r-1", target="b")) == []
    assert list(logs.read(tmp_path / "nowhere" / "log.jsonl")) == []


ALEMBIC_INI = """
[loggers]
keys = root,sqlalchemy,alembic
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = ERROR
handlers = console
[logger_sqlalchemy]
level = INFO
handlers =
qualname = sqlalchemy.engine
[logger_alembic]
level = DEBUG
handlers =
qualname = alembic
[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic
[formatter_generic]
format = %(message)s
"""


def state() -> object:
    loggers = [
        logging.root,
        *(logging.getLogger(name) for name in ("orchestrator.test", "alembic", "sqlalchemy.engine")),
    ]
    return [(list(each.handlers), each.level, each.propagate, each.disabled) for each in loggers]


def test_env_py_does_not_change_the_logging_while_it_runs(log: Path, tmp_path: Path) -> None:
    (tmp_path / "alembic.ini").write_text(ALEMBIC_INI)
    before = state()
    with logs.guarded():
        from logging.config import fileConfig

        fileConfig(str(tmp_path / "alembic.ini"))
        logging.getLogger("alembic.runtime.migration").info("Running upgrade")
        logger.info("ours")
        assert state() == before
    assert [record["message"] for record in records(log)] == ["Running upgrade", "ours"]
    assert logging.config.fileConfig.__name__ == "fileConfig"


def test_what_env_py_does_to_the_logging_otherwise_is_undone(log: Path, tmp_path: Path) -> None:
    (tmp_path / "alembic.ini").write_text(ALEMBIC_INI)
    before = state()
    original = logging.config.fileConfig  # as a module that was imported earlier holds it
    handlers, references = list(logging._handlerList), dict(logging._handlers)
    with logs.guarded():
        original(str(tmp_path / "alembic.ini"))
        logging.disable(logging.CRITICAL)
        assert logger.disabled
    logging._handlerList[:] = handlers
    logging._handlers.update(references)
    assert state() == before
    logger.info("still here")
    assert [record["message"] for record in records(log)] == ["still here"]


def test_printed_lines_become_records(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with logs.capture_output(), logs.bound(target="acme"):
        print("first\n\nsecond", end="")
        sys.stderr.write("warned\n")
    assert (sys.stdout, sys.stderr) == before
    found = [(record["message"], record["level"], record["stream"]) for record in records(log)]
    assert sorted(found) == [("first", "INFO", "stdout"), ("second", "INFO", "stdout"), ("warned", "WARNING", "stderr")]
    assert capsys.readouterr() == ("", "")


def test_a_handler_that_prints_does_not_go_round_in_circles(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logs.capture_output():
        console = logging.StreamHandler(sys.stderr)
        logging.getLogger("orchestrator").addHandler(console)
        try:
            print("hello")
        finally:
            logging.getLogger("orchestrator").removeHandler(console)
    assert [record["message"] for record in records(log)] == ["hello"]
    assert capsys.readouterr().err == "hello\n"


def test_a_full_disk_is_said_once(
    log: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (handler,) = (each for each in logging.getLogger("orchestrator").handlers if hasattr(each, "do_write"))

    def full(message: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handler, "do_write", full)
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    logger.info("one")
    logger.info("two")
    assert capfd.readouterr().err.count("No space left on device") == 1

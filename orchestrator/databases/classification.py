"""From an exception to a failure: what kind it is and what to do, without secrets and without the customer's data."""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath

from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, ResourceClosedError, StatementError

from orchestrator.databases import faults
from orchestrator.databases.errors import (
    BrokenReferences,
    JournalMismatch,
    LockLost,
    PasswordUnavailable,
    PoolerInTheWay,
    SchemaMismatch,
    SecondConnection,
    TargetAbsent,
    TenantLocked,
)
from orchestrator.databases.faults import Fault, Phrase
from orchestrator.databases.masks import (
    MESSAGE_LIMIT,
    mask_broken_statement,
    mask_message,
    mask_statement,
    reads_rows,
    shorten,
)
from orchestrator.errors import ScriptsError
from orchestrator.outcomes import Failure, FailureKind
from orchestrator.redaction import first_line, scrub
from orchestrator.tracebacks import text_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a driver's error means."""

    fault: Fault
    code: str | None = None
    #: without values; secrets may still be in it
    message: str
    #: what it quotes may be a name, or a value that was taken for one: not to be shown where a statement reads rows
    doubtful: bool = False
    #: nothing was sent yet, so nothing can have happened
    connecting: bool = False


#: None for an exception that is not the driver's
Diagnose = Callable[[BaseException], Diagnosis | None]

_OURS: Mapping[type[BaseException], tuple[str, Fault]] = {
    TargetAbsent: ("absent", faults.ABSENT),
    TenantLocked: (
        "tenant_locked",
        Fault(FailureKind.TRANSIENT, "Run again when the other one is done, or raise timeouts.tenant_lock."),
    ),
    LockLost: (
        "lock_lost",
        Fault(FailureKind.AMBIGUOUS, "Check that no pooler stands between here and the server, then run again."),
    ),
    SecondConnection: (
        "second_connection",
        Fault(FailureKind.PERMANENT, "Let the revision use op.get_bind() itself, not its engine."),
    ),
    SchemaMismatch: (
        "schema_mismatch",
        Fault(FailureKind.PERMANENT, "Grant the role USAGE on the schema, or correct `schema:` and `role:`."),
    ),
    BrokenReferences: ("foreign_key_check", faults.ORPHANS),
    PasswordUnavailable: (
        "password_command",
        Fault(FailureKind.PERMANENT, "Run the password command by hand, with the environment of this process."),
    ),
    PoolerInTheWay: (
        "pooler",
        Fault(FailureKind.RUN, "Give the server's own address in tenants.yaml, not the pooler's."),
    ),
    JournalMismatch: (
        "journal_mismatch",
        Fault(FailureKind.PERMANENT, "Bring back the revision file as it was when it stopped, then run again."),
    ),
    ScriptsError: ("scripts", faults.SCRIPTS),
}
#: unique indexes of the server's own
_CATALOGUE = re.compile(r"\bpg_(?:type|class|namespace)_\w+_index\b")
#: codes of statements that no server could read
_UNREADABLE = {"42601", "1064", "1"}


def failure_of(error: BaseException, diagnose: Diagnose, *, double_quotes_hold_text: bool = False) -> Failure:
    """The failure, without revision and fingerprint; total: what nobody knows is permanent."""
    for cause in _causes(error):
        failure = _recognise(cause, diagnose, double_quotes_hold_text=double_quotes_hold_text)
        if failure is not None:
            return failure
    return _failure(error, None, faults.UNKNOWN, _python_message(error))


def search(
    text: str, phrases: tuple[Phrase, ...], *, names: re.Pattern[str] | None = None
) -> tuple[Phrase, str] | None:
    """The first phrase that the text holds outside of names, and the line of the text that holds it."""
    read = text if names is None else names.sub(lambda found: " " * len(found[0]), text)
    for known in phrases:
        found = known.pattern.search(read)
        if found is not None:
            start = text.rfind("\n", 0, found.start()) + 1
            return known, first_line(text[start:])
    return None


def is_race(failure: Failure, version_table: str) -> bool:
    """Whether the failure says that somebody made the version table between Alembic's look and its own try.

    Under the tenant lock nobody of ours can.
    """
    if failure.code == "23505":
        return _CATALOGUE.search(failure.message) is not None
    named = rf"\b(?:relation|table)\W+{re.escape(version_table)}\W+already exists"
    return failure.code in faults.EXISTS_CODES and re.search(named, failure.message, re.IGNORECASE) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _recognise(error: BaseException, diagnose: Diagnose, *, double_quotes_hold_text: bool) -> Failure | None:
    for known, (code, fault) in _OURS.items():
        if isinstance(error, known):
            return _failure(error, code, fault, first_line(str(error)))
    alembic = _of_alembic(error)
    if alembic is not None:
        return alembic
    if isinstance(error, ResourceClosedError) and "first_connect" in _functions_of(error):
        # What SQLAlchemy says when the connection breaks under the first questions that it asks a server itself.
        return _failure(error, "cut_off", faults.CUT_OFF, "the connection was cut while it was being made")
    cause = error.orig if isinstance(error, StatementError) and error.orig is not None else error
    diagnosis = diagnose(cause)
    if diagnosis is None:
        return None
    statement = error.statement if isinstance(error, StatementError) else None
    hidden = diagnosis.doubtful and statement is not None and reads_rows(statement)
    message = first_line(mask_message(diagnosis.message) if hidden else diagnosis.message)
    failure = _failure(cause, diagnosis.code, _settled(error, diagnosis), message)
    if diagnosis.code in _UNREADABLE and diagnosis.fault is faults.SYNTAX:
        return dataclasses.replace(failure, statement=mask_broken_statement(statement))
    masked = mask_statement(statement, double_quotes_hold_text=double_quotes_hold_text)
    return dataclasses.replace(failure, statement=masked)


def _settled(error: BaseException, diagnosis: Diagnosis) -> Fault:
    """A connection lost in the middle leaves the answer open, whatever the error says; one that never was does not."""
    if diagnosis.connecting and diagnosis.fault.kind is FailureKind.AMBIGUOUS:
        return faults.CUT_OFF
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost and not diagnosis.connecting and diagnosis.fault.kind is not FailureKind.AMBIGUOUS:
        return faults.LOST
    return diagnosis.fault


def _of_alembic(error: BaseException) -> Failure | None:
    if isinstance(error, (CommandError, RevisionError)):
        found = search(str(error), faults.ALEMBIC_PHRASES)
        code, fault = (found[0].code, found[0].fault or faults.UNKNOWN) if found else (None, faults.UNKNOWN)
        return _failure(error, code, fault, first_line(str(error)))
    if isinstance(error, KeyError) and _raised_in(error).startswith("alembic.script"):
        return _failure(error, "missing_file", faults.MISSING_FILE, f"no revision file for {first_line(str(error))}")
    if isinstance(error, (SyntaxError, ImportError)):
        return _failure(error, "broken_file", faults.BROKEN_FILE, _python_message(error))
    return None


def _raised_in(error: BaseException) -> str:
    """Name of the module that raised it."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""


def _functions_of(error: BaseException) -> set[str]:
    """Names of the functions that it came through."""
    return {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}


def _python_message(error: BaseException) -> str:
    """First line of the text, values hidden; where it was raised when there is no text."""
    text = first_line(text_of(error))
    if text:
        return text
    frames = traceback.extract_tb(error.__traceback__)
    return f"raised in {PurePath(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "no message"


def _failure(error: BaseException, code: str | None, fault: Fault, message: str) -> Failure:
    return Failure(
        kind=fault.kind,
        code=code,
        type=type(error).__name__,
        message=shorten(scrub(message), MESSAGE_LIMIT),
        advice=fault.advice,
        crowded=fault.crowded,
    )

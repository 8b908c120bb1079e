"""Faults that are hard to provoke: by text, by code, by type; and nothing secret in what comes out."""

from __future__ import annotations

import importlib
import sqlite3

import psycopg
import psycopg2
import pymysql
import pytest
from alembic.util import CommandError
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from orchestrator import databases
from orchestrator.databases import TargetAbsent, TenantLocked, faults
from orchestrator.databases.faults import Fault
from orchestrator.databases.fingerprints import fingerprint
from orchestrator.databases.masks import mask_statement
from orchestrator.outcomes import Failure, FailureKind
from orchestrator.tenants import Target, Tenant

POSTGRES = Target(tenant=Tenant(name="acme"), url=make_url("postgresql+psycopg://app@db/saas"), schema="tenant_acme")
MYSQL = Target(tenant=Tenant(name="acme"), url=make_url("mysql+pymysql://app@db/acme"))
SQLITE = Target(tenant=Tenant(name="acme"), url=make_url("sqlite:///acme.db"))

#: what the drivers say while they connect, without any code
CONNECTING = 'connection to server at "db" (10.0.0.1), port 5432 failed: '


@pytest.mark.parametrize("driver", [psycopg, psycopg2])
@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        (CONNECTING + 'FATAL:  password authentication failed for user "app"', "28P01", "permanent"),
        (CONNECTING + "FATAL:  Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen", "28P01", "permanent"),
        (CONNECTING + "fe_sendauth: no password supplied", "28P01", "permanent"),
        (CONNECTING + 'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "app"', "28000", "permanent"),
        (CONNECTING + 'FATAL:  database "saas" does not exist', "3D000", "permanent"),
        (CONNECTING + "FATAL:  la base de données « saas » n'existe pas", "3D000", "permanent"),
        (CONNECTING + "FATAL:  no existe la base de datos «saas»", "3D000", "permanent"),
        (CONNECTING + "FATAL:  sorry, too many clients already", "53300", "transient"),
        (CONNECTING + 'FATAL:  too many connections for role "app"', "53300", "transient"),
        (CONNECTING + "FATAL:  remaining connection slots are reserved for superusers", "53300", "transient"),
        (CONNECTING + "FATAL:  the database system is starting up", "57P03", "server"),
        (CONNECTING + "Connection refused\n\tIs the server running on that host?", "08001", "server"),
        (CONNECTING + "timeout expired", "08001", "server"),
        (CONNECTING + "certificate verify failed", "08P01", "permanent"),
        (CONNECTING.replace("db", "pg-ssl.internal") + "Connection refused", "08001", "server"),
        (CONNECTING.replace("db", "pg-ssl.internal") + "timeout expired", "08001", "server"),
        (CONNECTING.replace("db", "pg-ssl.internal") + "server closed the connection", "08006", "transient"),
        (CONNECTING.replace("db", "pg-ssl.internal") + "SSL error: certificate verify failed", "08P01", "permanent"),
        ("failed to resolve host 'pg-tls.internal': Name or service not known", "08001", "permanent"),
        ("failed to resolve host 'nowhere': Name or service not known", "08001", "permanent"),
        ("failed to resolve host 'db': Temporary failure in name resolution", "08001", "transient"),
        (CONNECTING + "server closed the connection unexpectedly", "08006", "transient"),
        ("SSL SYSCALL error: EOF detected", "08006", "ambiguous"),
        ("SSL connection has been closed unexpectedly", "08006", "ambiguous"),
        ('could not translate host name "nowhere" to address: Name or service not known', "08001", "permanent"),
        (CONNECTING + "FATAL:  something nobody has seen", None, "transient"),
        ("terminating connection due to administrator command\nserver closed the connection", "57P01", "ambiguous"),
        ("server closed the connection unexpectedly", "08006", "ambiguous"),
        ("terminating connection due to idle-in-transaction timeout", "25P03", "ambiguous"),
        ("something nobody has seen", None, "permanent"),
    ],
)
def test_postgresql_without_a_code(driver: object, text: str, code: str | None, kind: str) -> None:
    error = OperationalError(None, None, driver.OperationalError(text))  # type: ignore[attr-defined]
    failure = databases.classify(error, POSTGRES)
    assert (failure.code, failure.kind.value) == (code, kind)
    assert failure.message in text
    assert "\n" not in failure.message
    assert failure.advice


def test_a_lost_connection_leaves_the_answer_open_unless_we_were_still_connecting() -> None:
    lost = OperationalError("SELECT 1", None, psycopg.errors.UndefinedTable("x"), connection_invalidated=True)
    assert databases.classify(lost, POSTGRES).kind is FailureKind.AMBIGUOUS
    connecting = psycopg2.OperationalError(CONNECTING + "Connection refused")
    refused = OperationalError(None, None, connecting, connection_invalidated=True)
    assert databases.classify(refused, POSTGRES).kind is FailureKind.SERVER


@pytest.mark.parametrize(
    ("number", "text", "kind"),
    [
        (1045, "Access denied for user 'app'@'10.0.0.9' (using password: YES)", "permanent"),
        (1040, "Too many connections", "transient"),
        (1213, "Deadlock found when trying to get lock", "transient"),
        (2003, "Can't connect to MySQL server on 'db' ([Errno 111] Connection refused)", "server"),
        (2003, "Can't connect to MySQL server on 'db' (timed out)", "server"),
        (2006, "MySQL server has gone away", "ambiguous"),
        (2013, "Lost connection to MySQL server during query", "ambiguous"),
        (1290, "The MySQL server is running with the --read-only option", "permanent"),
        (1969, "Query execution was interrupted (max_statement_time exceeded)", "permanent"),
        (1114, "The table 't' is full", "server"),
        (9999, "something nobody has seen", "permanent"),
    ],
)
def test_mysql_numbers(number: int, text: str, kind: str) -> None:
    failure = databases.classify(OperationalError(None, None, pymysql.err.OperationalError(number, text)), MYSQL)
    assert (failure.code, failure.kind.value, failure.message) == (str(number), kind, text)
    assert failure.advice


@pytest.mark.parametrize(
    ("number", "text", "kind"),
    [
        (1045, "Access denied for user 'app'@'10.0.0.9' (using password: YES)", "permanent"),
        (1226, "User 'app' has exceeded the 'max_user_connections' resource (current value: 1)", "transient"),
        (2002, "Can't connect to server on 'db' (115)", "server"),
        (2005, "Unknown server host 'nowhere' (-2)", "permanent"),
        (2013, "Lost connection to server during query", "ambiguous"),
    ],
)
def test_mysqlclient_is_read_like_pymysql(number: int, text: str, kind: str) -> None:
    """Its exceptions hold the number and the text as PyMySQL's do, and it has numbers of its own for connecting."""
    shape = type("OperationalError", (Exception,), {"__module__": "MySQLdb"})
    failure = databases.classify(OperationalError(None, None, shape(number, text)), MYSQL)
    assert (failure.code, failure.kind.value, failure.message) == (str(number), kind, text)
    assert failure.crowded is (number == 1226)


@pytest.mark.parametrize(
    ("cause", "fault"),
    [
        ("[Errno -2] Name or service not known", faults.UNKNOWN_HOST),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", faults.TLS),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol (_ssl.c:1006)", faults.CUT_OFF),
        ("[Errno 111] Connection refused", faults.REFUSED),
    ],
)
def test_pymysql_has_one_number_for_all_that_goes_wrong_while_it_connects(cause: str, fault: Fault) -> None:
    text = f"Can't connect to MySQL server on 'certificate.internal' ({cause})"
    failure = databases.classify(pymysql.err.OperationalError(2003, text), MYSQL)
    assert (failure.kind, failure.advice) == (fault.kind, fault.advice)


@pytest.mark.parametrize("code", ["42P10", "42702", "42830", "42P16", "42803", "42999"])
def test_one_drifted_tenant_does_not_stop_the_fleet(code: str) -> None:
    """Of all that a definition may be refused for, a mistake in its grammar alone is surely everybody's."""
    error = psycopg.ProgrammingError("something about a column")
    error.sqlstate = code
    failure = databases.classify(OperationalError("ALTER", None, error), POSTGRES)
    assert (failure.code, failure.kind) == (code, FailureKind.PERMANENT)


def test_a_connection_that_pymysql_closed_is_a_lost_one() -> None:
    failure = databases.classify(OperationalError("SELECT 1", None, pymysql.err.InterfaceError(0, "")), MYSQL)
    assert failure.kind is FailureKind.AMBIGUOUS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Duplicate entry 'bob's@mail.example-7' for key 'ix_email'", "Duplicate entry '…' for key 'ix_email'"),
        (
            "Incorrect integer value: 'bob' for column `db`.`t`.`a` at row 3",
            "Incorrect integer value: '…' for column `db`.`t`.`a` at row 3",
        ),
        ("Truncated incorrect DOUBLE value: 'bob'", "Truncated incorrect DOUBLE value: '…'"),
        ("Duplicate entry 'it's\nbob' for key 'ix_email'", "Duplicate entry '…' for key 'ix_email'"),
    ],
)
def test_values_in_mysql_messages_are_hidden_and_names_are_not(text: str, shown: str) -> None:
    number = 1062 if text.startswith("Duplicate") else 1366
    failure = databases.classify(pymysql.err.IntegrityError(number, text), MYSQL)
    assert failure.message == shown


@pytest.mark.parametrize(
    ("number", "text", "shown"),
    [
        (1064, "right syntax to use near 'bob's' x = 'y' at line 1", "right syntax to use near '…' at line 1"),
        (1298, "Unknown or incorrect time zone: 'bob'", "Unknown or incorrect time zone: '…'"),
        (1367, "Illegal double 'bob' value found during parsing", "Illegal double '…' value found during parsing"),
        (1525, "Incorrect DATE value: 'bob'", "Incorrect DATE value: '…'"),
        (1526, "Table has no partition for value 4711", "Table has no partition for value '…'"),
        (1644, "no such customer: 'bob'", "no such customer: '…'"),
        (1918, "Encountered illegal value 'bob' when converting to INT", "Encountered illegal value '…' when con"),
    ],
)
def test_numbers_of_mysql_under_which_values_are_quoted(number: int, text: str, shown: str) -> None:
    message = databases.classify(pymysql.err.OperationalError(number, text), MYSQL).message
    assert message.startswith(shown)
    assert "bob" not in message


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (CommandError("Can't locate revision identified by 'r99'"), "unknown_revision", "permanent"),
        (CommandError("Multiple head revisions are present for given argument 'head'"), "multiple_heads", "run"),
        (CommandError("Cycle is detected in revisions (r1, r2)"), "cycle", "run"),
        (
            CommandError("Online migration expected to match one row when updating 'r1' to 'r2' in 'alembic_version'"),
            "version_moved",
            "ambiguous",
        ),
        (CommandError("something else"), None, "permanent"),
        (SyntaxError("invalid syntax"), "broken_file", "run"),
        (ModuleNotFoundError("No module named 'myapp'"), "broken_file", "run"),
        (TargetAbsent("db:5432/saas: no such database"), "absent", "permanent"),
        (TenantLocked("acme: held by pid 7"), "tenant_locked", "transient"),
    ],
)
def test_alembics_errors_and_ours(error: Exception, code: str | None, kind: str) -> None:
    failure = databases.classify(error, SQLITE)
    assert (failure.code, failure.kind.value) == (code, kind)
    assert failure.type == type(error).__name__
    assert failure.message == str(error)


def test_a_missing_revision_file_is_told_from_a_missing_key_of_a_revision() -> None:
    tree = importlib.import_module("alembic.script.revision")
    source = compile("def find(): return {}['r2']", "revision.py", "exec")
    scope = {"__name__": tree.__name__}
    exec(source, scope)
    with pytest.raises(KeyError) as in_alembic:
        scope["find"]()  # type: ignore[operator]
    with pytest.raises(KeyError) as in_revision:
        _ = {}["bob@mail.example"]
    assert databases.classify(in_alembic.value, SQLITE).code == "missing_file"
    own = databases.classify(in_revision.value, SQLITE)
    assert own.code is None
    assert "bob" not in own.message


def test_a_value_in_what_an_error_was_raised_from_is_hidden() -> None:
    try:
        float("it's bob@mail.example")
    except ValueError as error:
        raised = RuntimeError(f"row 7 is broken: {error}")
        raised.__context__ = error
    assert databases.classify(raised, SQLITE).message == "row 7 is broken: could not convert string to float: '…'"


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("UPDATE accounts SET email = 'O'Brien' WHERE id = 1", "UPDATE accounts SET …"),
        ("-- why\nINSERT INTO accounts(email) VALUES (bob@mail)", "INSERT INTO accounts …"),
        ("'bob", "…"),
        ("ALTER TABLE t ADD COLUM n int", "ALTER TABLE t ADD COLUM n int"),
        ("ALTER TABLE t ADD n text DEFAULT 'O'Brien'", "ALTER TABLE t …"),
    ],
)
def test_of_a_statement_that_nobody_could_read_its_first_words_are_shown(statement: str, shown: str) -> None:
    error = OperationalError(statement, None, pymysql.err.ProgrammingError(1064, "near 'x' at line 1"))
    assert databases.classify(error, MYSQL).statement == shown


def test_an_error_without_a_message_says_where_it_was_raised() -> None:
    with pytest.raises(AssertionError) as caught:
        raise AssertionError
    message = databases.classify(caught.value, SQLITE).message
    assert message.startswith("raised in test_classify.py, line ")


def test_an_error_is_known_by_what_it_was_raised_from() -> None:
    error = RuntimeError("the backfill failed")
    error.__cause__ = OperationalError("SELECT 1", None, sqlite3.OperationalError("no such table: t"))
    error.__cause__.orig.sqlite_errorcode = sqlite3.SQLITE_ERROR  # type: ignore[union-attr]
    failure = databases.classify(error, SQLITE)
    assert (failure.code, failure.message) == ("1", "no such table: t")
    assert failure.advice == faults.MISSING.advice


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("INSERT INTO t (a1) VALUES ('bob''s', 17, E'x\\'y')", "INSERT INTO t (a1) VALUES (?, ?, ?)"),
        ("UPDATE t SET a = %(a_1)s, b = 'x' WHERE id = 3", "UPDATE t SET a = %(a_1)s, b = ? WHERE id = ?"),
        ("SELECT $tag$bob$tag$, $1", "SELECT ?, $1"),
        ("CREATE TABLE t (a varchar(20) DEFAULT 'x')", "CREATE TABLE t (a varchar(20) DEFAULT 'x')"),
        ("CREATE TABLE t AS SELECT 'bob' AS a", "CREATE TABLE t AS SELECT ? AS a"),
        ("CREATE ROLE a PASSWORD 's3cr3t'", "CREATE ROLE a PASSWORD '***'"),
        ('INSERT INTO "t" VALUES ("bob")', 'INSERT INTO "t" VALUES ("bob")'),
        ("INSERT INTO t VALUES ('unfinished", "INSERT INTO t VALUES (?"),
        ("SET LOCAL lock_timeout = 0; UPDATE t SET a = 'bob'", "SET LOCAL lock_timeout = ?; UPDATE t SET a = ?"),
        ("CREATE TEMP TABLE z AS SELECT 'bob'", "CREATE TEMP TABLE z AS SELECT ?"),
        ("create table z select 'bob'", "create table z select ?"),
        ("SET @x = (SELECT 'bob' FROM t)", "SET @x = (SELECT ? FROM t)"),
        ("SET @x = 'bob'", "SET @x = ?"),
        ("SET LOCAL lock_timeout = '1s'", "SET LOCAL lock_timeout = '1s'"),
        ("CREATE INDEX last_update ON t (a) WHERE a > 1", "CREATE INDEX last_update ON t (a) WHERE a > 1"),
    ],
)
def test_statements_are_shown_without_their_values(statement: str, shown: str) -> None:
    assert mask_statement(statement) == shown


def test_double_quotes_hold_text_on_mysql_and_long_statements_are_cut() -> None:
    assert (
        mask_statement('INSERT INTO `t` VALUES ("bob")', double_quotes_hold_text=True) == "INSERT INTO `t` VALUES (?)"
    )
    long = mask_statement("CREATE INDEX " + "x" * 1000)
    assert long is not None
    assert len(long) == 500
    assert mask_statement(None) is None


def test_failures_with_one_cause_share_a_fingerprint() -> None:
    def seen(name: str, revision: str = "r7", message: str = "") -> str:
        target = Target(tenant=Tenant(name=name), url=make_url(f"sqlite:////var/{name}.db"), schema=f"tenant_{name}")
        text = message or f'index "ix_tenant_{name}_email" of {name} at 0x7f{len(name)}a, row {len(name)} is odd'
        failure = Failure(kind=FailureKind.PERMANENT, code="1", type="E", message=text, revision=revision)
        return fingerprint(failure, target)

    names = ["acme", "a", "globex-0042", "users"]
    assert len({seen(name) for name in names}) == 1
    assert seen("acme") != seen("acme", revision="r8")
    assert seen("acme") != seen("acme", message="something else")
    assert len(seen("acme")) == 12


def test_no_row_of_the_tables_is_without_advice() -> None:
    for table in (faults.POSTGRESQL, faults.MYSQL, faults.SQLITE):
        assert all(fault.advice.endswith((".", ";")) for fault in table.values())
        assert all(isinstance(fault.kind, FailureKind) for fault in table.values())


def test_parameters_never_show() -> None:
    error = DBAPIError("INSERT INTO t VALUES (?)", ("bob@mail.example",), sqlite3.OperationalError("x"))
    assert "bob" not in repr(databases.classify(error, SQLITE))

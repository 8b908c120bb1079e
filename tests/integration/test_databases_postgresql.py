"""PostgreSQL for real: sessions, locks, looks, provisioning."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import URL, Connection, text

from orchestrator import databases
from orchestrator.databases import Connections, SchemaMismatch, TargetAbsent, TenantLocked, backend_of
from orchestrator.databases.passwords import current_password
from orchestrator.plans import Condition
from orchestrator.tenants import PasswordCommand, Target
from tests.integration.database_targets import run, scalar, target

SETTINGS = (
    "search_path",
    "lock_timeout",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "application_name",
    "role",
)


@pytest.fixture(params=["psycopg", "psycopg2"])
def database(postgres_database: URL, request: pytest.FixtureRequest) -> URL:
    """A fresh database, with each driver."""
    return postgres_database.set(drivername=f"postgresql+{request.param}")


@pytest.fixture
def admin(postgres_database: URL) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(postgres_database, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection
    engine.dispose()


@pytest.fixture
def connections() -> Iterator[Connections]:
    kept = Connections()
    yield kept
    kept.close()


@pytest.fixture
def role(admin: Connection, postgres_database: URL) -> Iterator[str]:
    name = f'{postgres_database.database}_Rôle "x"'
    quoted = '"' + name.replace('"', '""') + '"'
    admin.exec_driver_sql(f"CREATE ROLE {quoted} NOLOGIN")
    yield name
    admin.exec_driver_sql(f"DROP OWNED BY {quoted} CASCADE")
    admin.exec_driver_sql(f"DROP ROLE {quoted}")


def settings(connection: Connection) -> dict[str, str]:
    return {name: scalar(connection, "SELECT current_setting(:name)", name=name) for name in SETTINGS}


def schema_target(database: URL, schema: str, **fields: object) -> Target:
    return target(schema, database, schema=schema, **fields)


def test_a_session_is_the_tenants_own_and_is_given_back_as_it_was(
    database: URL, connections: Connections, admin: Connection, role: str
) -> None:
    acme = schema_target(database, 'we"ird %s :x', search_path=("extensions", "public"), role=role)
    backend_of(acme).provision(acme)
    admin.exec_driver_sql('GRANT USAGE ON SCHEMA "we""ird %%s :x" TO PUBLIC')
    plain = sqlalchemy.create_engine(database, poolclass=sqlalchemy.NullPool)
    with plain.connect() as connection:
        before = settings(connection)
    with connections.open(acme, application_name="orchestrate/r-1/" + "ä" * 40) as connection:
        assert not connection.in_transaction()
        assert connection.dialect.default_schema_name == acme.schema
        assert scalar(connection, "SELECT current_schema()") == acme.schema
        inside = settings(connection)
        pid = scalar(connection, "SELECT pg_backend_pid()")
        if scalar(connection, "SHOW server_version_num") >= "140000":
            assert scalar(connection, "SHOW client_connection_check_interval") == "1s"
    assert inside["search_path"] == '"we""ird %s :x", "extensions", "public"'
    assert (inside["lock_timeout"], inside["statement_timeout"]) == ("1s", "5s")
    assert inside["role"] == role
    assert len(inside["application_name"].encode()) <= 63
    # The same session, without a prepare of its own: nothing of the tenant is left in it.
    engine = next(iter(connections._kept.values()))
    with engine.connect() as connection:
        assert scalar(connection, "SELECT pg_backend_pid()") == pid
        assert settings(connection) == before
        assert connection.dialect.default_schema_name == "public"


def test_one_warm_connection_serves_schema_after_schema(database: URL, connections: Connections) -> None:
    fleet = [schema_target(database, f"tenant_{number}") for number in range(3)]
    pids = set()
    for each in fleet:
        backend_of(each).provision(each)
        with connections.open(each, application_name="a") as connection:
            run(connection, "CREATE TABLE t (a int)", "CREATE TEMPORARY TABLE scratch (a int)")
            assert scalar(connection, "SELECT to_regclass('t')::text") is not None
            pids.add(scalar(connection, "SELECT pg_backend_pid()"))
    assert len(pids) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "SET datestyle TO 'German'",
        "-- for old dumps\n/* * / */ SET datestyle TO 'German'",
        "DO $$ BEGIN SET datestyle TO 'German'; END $$",
        "SELECT set_config('datestyle', 'German', false)",
        "SELECT pg_advisory_lock(42)",
        "SELECT 1; PREPARE p AS SELECT 1",
    ],
)
def test_a_session_that_a_revision_changed_is_not_given_to_the_next_tenant(
    database: URL, connections: Connections, statement: str
) -> None:
    acme = schema_target(database, "acme")
    backend_of(acme).provision(acme)
    with connections.open(acme, application_name="a") as connection:
        pid = scalar(connection, "SELECT pg_backend_pid()")
        run(connection, statement)
    with connections.open(acme, application_name="a") as connection:
        assert scalar(connection, "SELECT pg_backend_pid()") != pid
        assert scalar(connection, "SHOW datestyle").startswith("ISO")


def test_a_connection_that_died_while_idle_is_replaced(
    database: URL, connections: Connections, admin: Connection
) -> None:
    acme = schema_target(database, "acme")
    backend_of(acme).provision(acme)
    with connections.open(acme, application_name="a") as connection:
        pid = scalar(connection, "SELECT pg_backend_pid()")
    admin.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with connections.open(acme, application_name="a") as connection:
        assert scalar(connection, "SELECT pg_backend_pid()") != pid


def test_an_absent_schema_and_an_absent_database_are_absent(database: URL, connections: Connections) -> None:
    for absent in (schema_target(database, "nobody"), target("acme", database.set(database="no_such_database"))):
        with pytest.raises(TargetAbsent), connections.open(absent, application_name="a"):
            pass


def test_a_schema_that_the_role_may_not_use_is_a_mismatch(database: URL, connections: Connections, role: str) -> None:
    acme = schema_target(database, "acme")
    backend_of(acme).provision(acme)
    forbidden = schema_target(database, "acme", role=role, search_path=("public",))
    with pytest.raises(SchemaMismatch, match="USAGE"), connections.open(forbidden, application_name="a"):
        pass


def test_a_read_only_connection_writes_nothing(database: URL, connections: Connections) -> None:
    acme = schema_target(database, "acme")
    backend_of(acme).provision(acme)
    with connections.open(acme, application_name="a", read_only=True) as connection:
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            run(connection, "CREATE TABLE t (a int)")
        assert databases.classify(caught.value, acme).code == "25006"
        connection.rollback()
        connection.execute(text("SELECT 1"))


def test_the_tenant_lock_keeps_others_out_and_says_who_holds_it(database: URL, connections: Connections) -> None:
    acme, globex = schema_target(database, "acme"), schema_target(database, "globex")
    for each in (acme, globex):
        backend_of(each).provision(each)
    others = Connections()
    with connections.open(acme, application_name="first") as one, others.open(acme, application_name="second") as two:
        with databases.tenant_lock(one, acme, 1):
            assert not one.in_transaction()
            refused = pytest.raises(TenantLocked, match=r"pid \d+ \(first")
            with refused as caught, databases.tenant_lock(two, acme, 0.1):
                pass
            assert databases.classify(caught.value, acme).code == "tenant_locked"
            assert not two.in_transaction()
            with databases.tenant_lock(two, globex, 0.1):  # another schema is another lock
                pass
        with databases.tenant_lock(two, acme, 1):
            pass
        with pytest.raises(databases.LockLost), databases.tenant_lock(one, acme, 1):
            run(one, "SELECT pg_advisory_unlock_all()")
        with contextlib.suppress(ValueError), databases.tenant_lock(one, acme, 1):
            one.execute(text("SELECT 1"))
            raise ValueError
        with databases.tenant_lock(two, acme, 1):  # given back though the block failed in a transaction
            pass
    others.close()


def test_a_look_tells_every_condition_apart(database: URL, admin: Connection) -> None:
    rows = "CREATE TABLE {0}.alembic_version (version_num varchar(32)); INSERT INTO {0}.alembic_version VALUES {1}"
    schemas = ["bare", "empty_table", "filled", "zeroed", "here", "two", "second_chain", "moved", "lib", "versions"]
    for schema in schemas:
        run(admin, f"CREATE SCHEMA {schema}")
    run(
        admin,
        rows.format("here", "('r2')"),
        rows.format("two", "('b'), ('a')"),
        "CREATE TABLE empty_table.alembic_version (version_num varchar(32))",
        "CREATE TABLE filled.customers (id int)",
        "CREATE TABLE zeroed.alembic_version (version_num varchar(32))",
        "CREATE TABLE zeroed.customers (id int)",
        rows.format("second_chain", "('core1')"),
        "CREATE TABLE second_chain.customers (id int)",
        'CREATE TABLE versions."Odd %%s" (version_num varchar(32))',
        "INSERT INTO versions.\"Odd %%s\" VALUES ('m1')",
        # a table that an extension brought along is not the tenant's
        "CREATE TABLE lib.of_extension (id int)",
        "CREATE EXTENSION citext SCHEMA lib",
        "ALTER EXTENSION citext ADD TABLE lib.of_extension",
    )
    fleet = [
        schema_target(database, "bare"),
        schema_target(database, "empty_table"),
        schema_target(database, "filled"),
        schema_target(database, "zeroed"),
        schema_target(database, "here"),
        schema_target(database, "two"),
        schema_target(database, "second_chain", version_table="analytics_version"),
        schema_target(database, "moved", version_table="Odd %s", version_table_schema="versions"),
        schema_target(database, "lib"),
        schema_target(database, "nobody"),
        target("whole", database),
    ]
    tables_before = scalar(admin, "SELECT count(*) FROM pg_class")
    found = list(backend_of(fleet[0]).look(fleet))
    assert [each.target for each in found] == fleet
    assert {each.target.name: each.condition.value for each in found} == {
        "bare": "empty",
        "empty_table": "empty",
        "filled": "unversioned",
        "zeroed": "unversioned",
        "here": "versioned",
        "two": "versioned",
        "second_chain": "empty",
        "moved": "versioned",
        "lib": "empty",
        "nobody": "absent",
        "whole": "empty",
    }
    assert [each.heads for each in found if each.heads] == [("r2",), ("a", "b"), ("m1",)]
    assert scalar(admin, "SELECT count(*) FROM pg_class") == tables_before


def test_one_version_table_that_cannot_be_read_does_not_spoil_the_others(
    database: URL, admin: Connection, role: str
) -> None:
    quoted = '"' + role.replace('"', '""') + '"'
    fleet = []
    for number in range(4):
        run(
            admin,
            f"CREATE SCHEMA s{number}",
            f"CREATE TABLE s{number}.alembic_version AS SELECT 'r{number}' AS version_num",
            f"GRANT USAGE ON SCHEMA s{number} TO {quoted}",
        )
        if number != 2:
            run(admin, f"GRANT SELECT ON s{number}.alembic_version TO {quoted}")
        fleet.append(schema_target(database, f"s{number}", role=role))
    found = list(backend_of(fleet[0]).look(fleet))
    assert [each.heads for each in found] == [("r0",), ("r1",), (), ("r3",)]
    assert found[2].condition is Condition.UNREACHABLE
    assert found[2].failure is not None
    assert found[2].failure.code == "42501"


def test_provisioning_makes_database_and_schema_for_their_owner(
    database: URL, admin: Connection, connections: Connections, role: str
) -> None:
    name = f'{database.database} "new" 100%'
    acme = target("acme", database.set(database=name), schema="mine", role=role)
    try:
        backend_of(acme).provision(acme)
        backend_of(acme).provision(acme)
        with connections.open(acme, application_name="a") as connection:
            run(connection, "CREATE TABLE t (a int)")
            owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'mine'"
            assert scalar(connection, owner) == role
        connections.close()
    finally:
        escaped = name.replace('"', '""').replace("%", "%%")
        admin.exec_driver_sql(f'DROP DATABASE IF EXISTS "{escaped}" WITH (FORCE)')


def test_places_leave_the_systems_own_out(database: URL) -> None:
    acme = schema_target(database, "acme")
    backend = backend_of(acme)
    backend.provision(acme)
    assert backend.places(database, {}, schemas=True) == ["acme", "public"]
    names = backend.places(database, {}, schemas=False)
    assert database.database in names
    assert not {"postgres", "template0", "template1"} & set(names)


def test_a_failed_concurrent_build_is_found(database: URL, connections: Connections, admin: Connection) -> None:
    acme = schema_target(database, "acme")
    backend = backend_of(acme)
    backend.provision(acme)
    run(admin, "CREATE TABLE acme.t (a int)", "INSERT INTO acme.t VALUES (1), (1)")
    with connections.open(acme, application_name="a") as connection:
        assert backend.verify(connection, acme) is None
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            admin.exec_driver_sql("CREATE UNIQUE INDEX CONCURRENTLY broken ON acme.t (a)")
        failure = backend.verify(connection, acme)
        assert failure is not None
        assert (failure.code, failure.message) == ("invalid_index", 'index "broken" on table "t" is invalid')
        assert "DROP INDEX" not in failure.advice, "its revision would not make it again"
        assert not connection.in_transaction()
        run(admin, "DELETE FROM acme.t WHERE ctid = '(0,1)'", "SET search_path TO acme")
        admin.exec_driver_sql(re.search('REINDEX .* "broken"', failure.advice)[0])
        assert backend.verify(connection, acme) is None


def test_a_password_comes_from_its_command_and_is_asked_for_again_when_it_ran_out(
    database: URL, connections: Connections, tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("outdated\n")
    acme = target(
        "acme",
        URL.create(database.drivername, database.username, None, database.host, database.port, database.database),
        password=PasswordCommand(command=("cat", str(passwords))),
    )
    with pytest.raises(sqlalchemy.exc.OperationalError) as caught, connections.open(acme, application_name="a"):
        pass
    failure = databases.classify(caught.value, acme)
    assert failure.code == "28P01"
    assert "outdated" not in repr(failure)
    assert current_password(acme.password) == "outdated"  # remembered, so that the next try starts with it
    passwords.write_text(f"{database.password}\n")
    with connections.open(acme, application_name="a") as connection:
        assert scalar(connection, "SELECT 1") == 1


def test_a_database_of_its_own_searches_further_schemas_after_what_the_server_says(
    database: URL, connections: Connections, admin: Connection
) -> None:
    run(admin, 'CREATE SCHEMA "ext""ra"')
    acme = target("acme", database, search_path=('ext"ra', "public"))
    with connections.open(acme, application_name="a") as connection:
        assert scalar(connection, "SHOW search_path") == '"$user", public, "ext""ra", "public"'
        assert scalar(connection, "SELECT current_schema()") == "public"
    heading = backend_of(acme).offline_heading(acme).partition("\n")[2]
    assert scalar(admin, heading) == '"$user", public, "ext""ra", "public"'


def test_headings() -> None:
    acme = target("acme", "postgresql+psycopg://u@h/db", schema='te"n', search_path=("public",), role="m")
    backend = backend_of(acme)
    assert backend.offline_heading(acme) == 'SET search_path TO "te""n", "public";\nSET ROLE "m";'
    assert backend.offline_heading(target("b", "postgresql+psycopg://u@h/my%25db")) == '\\connect "my%db"'

"""MariaDB for real: sessions, locks, looks, provisioning."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator

import pytest
import sqlalchemy
from sqlalchemy import URL, Connection, text

from orchestrator import databases
from orchestrator.databases import Connections, TargetAbsent, TenantLocked, backend_of
from orchestrator.plans import Condition
from orchestrator.tenants import PasswordCommand
from tests.integration.database_targets import run, scalar, target
from tests.services import binaries, servers


@pytest.fixture
def connections() -> Iterator[Connections]:
    kept = Connections()
    yield kept
    kept.close()


@pytest.fixture
def admin(mariadb_database: URL) -> Iterator[Connection]:
    engine = sqlalchemy.create_engine(mariadb_database, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_a_session_has_the_targets_timeouts_and_name(mariadb_database: URL, connections: Connections) -> None:
    acme = target("acme", mariadb_database)
    with connections.open(acme, application_name="orchestrate/r-1/acme") as connection:
        assert not connection.in_transaction()
        assert connection.dialect.default_schema_name == mariadb_database.database
        values = connection.execute(
            text("SELECT @@lock_wait_timeout, @@innodb_lock_wait_timeout, @@max_statement_time")
        ).one()
        assert tuple(values) == (1, 1, 5)
        connection.rollback()


@pytest.fixture
def encrypting() -> Iterator[URL]:
    user = binaries.unprivileged("mysql")
    with servers.service_folder("certificate", user) as folder:
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            [binaries.openssl(), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
             "-days", "1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        if user:
            shutil.chown(key, user)
        with servers.mariadb_server(ssl_cert=certificate, ssl_key=key) as server:
            yield server.url.set(database="mysql")


def test_a_connection_is_encrypted_where_the_server_can(encrypting: URL, connections: Connections) -> None:
    cipher = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'ssl_cipher'"
    with connections.open(target("acme", encrypting), application_name="a") as connection:
        assert scalar(connection, cipher)
    plain = target("acme", encrypting, connect_args={"ssl_disabled": True})
    with connections.open(plain, application_name="a") as connection:
        assert not scalar(connection, cipher)
    strict = target("acme", encrypting, connect_args={"ssl": ssl.create_default_context()})
    with (
        pytest.raises(sqlalchemy.exc.OperationalError, match="CERTIFICATE_VERIFY_FAILED") as refusal,
        connections.open(strict, application_name="a"),
    ):
        pass
    assert databases.classify(refusal.value, strict).advice == databases.faults.TLS.advice


def test_an_absent_database_is_absent(mariadb_url: URL, connections: Connections) -> None:
    absent = target("acme", mariadb_url.set(database="no_such_database"))
    with pytest.raises(TargetAbsent, match="no_such_database"), connections.open(absent, application_name="a"):
        pass
    assert [each.condition for each in backend_of(absent).look([absent])] == [Condition.ABSENT]


def test_a_read_only_connection_writes_nothing(mariadb_database: URL, connections: Connections) -> None:
    acme = target("acme", mariadb_database)
    with connections.open(acme, application_name="a", read_only=True) as connection:
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            run(connection, "CREATE TABLE t (a int)")
        assert databases.classify(caught.value, acme).code == "1792"


def test_the_tenant_lock_keeps_others_out_and_says_who_holds_it(
    mariadb_database: URL, connections: Connections
) -> None:
    acme = target("acme", mariadb_database)
    with (
        connections.open(acme, application_name="first") as one,
        connections.open(acme, application_name="second") as two,
    ):
        holder = scalar(one, "SELECT CONNECTION_ID()")
        with databases.tenant_lock(one, acme, 1):
            assert not one.in_transaction()
            with pytest.raises(TenantLocked, match=f"pid {holder} "), databases.tenant_lock(two, acme, 0.1):
                pass
        with databases.tenant_lock(two, acme, 1):
            assert not two.in_transaction()
        with pytest.raises(databases.LockLost), databases.tenant_lock(one, acme, 1):
            run(one, "DO RELEASE_ALL_LOCKS()")


def test_a_look_tells_every_condition_apart(mariadb_database: URL, admin: Connection) -> None:
    acme = target("acme", mariadb_database)

    def look(**fields: object) -> tuple[Condition, tuple[str, ...]]:
        (found,) = backend_of(acme).look([target("acme", mariadb_database, **fields)])
        assert found.failure is None
        return found.condition, found.heads

    assert look() == (Condition.EMPTY, ())
    run(admin, "CREATE TABLE alembic_version (version_num varchar(32))")
    assert look() == (Condition.EMPTY, ())
    run(admin, "CREATE TABLE customers (id int)")
    assert look() == (Condition.UNVERSIONED, ())
    run(admin, "INSERT INTO alembic_version VALUES ('b'), ('a')")
    assert look() == (Condition.VERSIONED, ("a", "b"))
    assert look(version_table="analytics_version") == (Condition.EMPTY, ())
    run(admin, "CREATE TABLE `odd %%s` (version_num varchar(32))", "INSERT INTO `odd %%s` VALUES ('m')")
    elsewhere = {"version_table": "odd %s", "version_table_schema": mariadb_database.database}
    assert look(**elsewhere) == (Condition.VERSIONED, ("m",))
    assert (
        len(
            scalar(
                admin, "SELECT GROUP_CONCAT(table_name) FROM information_schema.tables WHERE table_schema = DATABASE()"
            ).split(",")
        )
        == 3
    )


def test_provisioning_and_places(mariadb_database: URL, admin: Connection, connections: Connections) -> None:
    name = f"{mariadb_database.database} 100%"
    acme = target("acme", mariadb_database.set(database=name))
    backend = backend_of(acme)
    backend.provision(acme)
    backend.provision(acme)
    try:
        with connections.open(acme, application_name="a") as connection:
            assert scalar(connection, "SELECT DATABASE()") == name
        names = backend.places(mariadb_database, {}, schemas=False)
        assert {name, mariadb_database.database} <= set(names)
        assert not {"mysql", "information_schema"} & set(names)
    finally:
        admin.exec_driver_sql(f"DROP DATABASE `{name.replace('%', '%%')}`")


def test_a_password_comes_from_its_command(mariadb_database: URL, connections: Connections) -> None:
    acme = target(
        "acme",
        mariadb_database.set(password="wrong"),
        password=PasswordCommand(command=("printf", "%s\\n", mariadb_database.password or "")),
    )
    with connections.open(acme, application_name="a") as connection:
        assert scalar(connection, "SELECT 1") == 1


def test_headings() -> None:
    acme = target("acme", "mysql+pymysql://u@h/te`n%25")
    backend = backend_of(acme)
    assert backend.offline_heading(acme) == "USE `te``n%`;"

"""The fixtures give real servers that ask for a password, and databases of their own."""

from __future__ import annotations

import psycopg
import pymysql
import pytest
from sqlalchemy import URL

from tests.services.servers import connect_mariadb, connect_postgres


def test_postgres_answers_in_a_fresh_database(postgres_database: URL) -> None:
    with connect_postgres(postgres_database) as connection:
        row = connection.execute("SELECT current_database()").fetchone()
    assert row == (postgres_database.database,)


def test_mariadb_answers_in_a_fresh_database(mariadb_database: URL) -> None:
    connection = connect_mariadb(mariadb_database)
    with connection.cursor() as cursor:
        cursor.execute("SELECT database(), version()")
        database, version = cursor.fetchone() or ("", "")
    connection.close()
    assert database == mariadb_database.database
    assert version


def test_postgres_wants_the_password(postgres_url: URL) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect_postgres(postgres_url.set(password="wrong"))


def test_mariadb_wants_the_password(mariadb_url: URL) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        connect_mariadb(mariadb_url.set(password="wrong"))

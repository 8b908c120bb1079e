"""No secret comes out of a text that is shown, whatever the secret, the text, and the way that it is written there."""

from __future__ import annotations

import configparser
import json
import logging
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg.conninfo
import pytest
from hypothesis import HealthCheck, assume, example, given, seed, settings
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn
from sqlalchemy import URL, make_url

from orchestrator import databases, logs, redaction
from orchestrator.ledger import addresses
from orchestrator.registry.urls import parse_url
from orchestrator.settings import Settings
from orchestrator.tenants import Hidden, PasswordCommand, Target, Tenant, keep_secret
from tests.security import secrets

EXAMPLES = 20_000 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 2_000
SEED = int(os.environ.get("SEED", "20261122"))
COMMON = settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=list(HealthCheck), database=None)

#: what parsers and shells stumble over
HOSTILE = "@/%#?:;'\"\\&= \t[]{}()$`!*,<>|~^+"
PIECES = st.text("abcXYZ019" + HOSTILE + "äλ中\u202e", max_size=6)
PASSWORDS = st.lists(PIECES, min_size=1, max_size=4).map(lambda pieces: secrets.MARK + secrets.MARK.join(pieces))
ANYTHING = st.text(min_size=redaction.SHORTEST, max_size=40)

#: how a text may hold a secret
WRITINGS: list[Callable[[str], str]] = [
    lambda one: one,
    lambda one: f"failed to resolve host '{one}@db': Name or service not known",
    lambda one: f"connection to {urllib.parse.quote(one)} failed",
    lambda one: f"postgresql://u:{urllib.parse.quote_plus(one)}@h/d",
    lambda one: f"mysql://u:{one}@h/d?x=y and more",
    lambda one: URL.create("postgresql", "u", one, "h", 5432, "d").render_as_string(hide_password=False),
    lambda one: URL.create("mysql", "u", one, "h").render_as_string(hide_password=False).replace("%", "%%"),
    lambda one: repr({"user": "u", "password": one}),
    lambda one: repr({"opaque": one.encode(errors="replace")}),
    lambda one: ascii([one]),
    lambda one: json.dumps({"dsn": one, "more": [1, 2]}),
    lambda one: json.dumps(json.dumps({"dsn": one}, ensure_ascii=False), ensure_ascii=False),
    lambda one: "CREATE ROLE a PASSWORD '" + one.replace("'", "''") + "' LOGIN",
    lambda one: "[SQL: SELECT CAST('" + one.replace("'", "''").replace("%", "%%") + "' AS integer)]",
    lambda one: f"[SQL: SELECT '{one}']\n(Background on this error)",
    lambda one: f'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    connect({one!r})\n',
    lambda one: f"token={one}\nAuthorization: Bearer {one}",
]

#: how a text may say that something is a secret, to somebody who never saw it
SHAPES: list[Callable[[str], str]] = [
    lambda one: URL.create("postgresql+psycopg", "u", one, "h", 5432, "d").render_as_string(hide_password=False),
    lambda one: f"bad URL '{URL.create('mysql', 'u', one, 'h').render_as_string(hide_password=False)}' given",
    lambda one: f"could not use {URL.create('mysql', 'u', one, 'h').render_as_string(hide_password=False)!r}",
    lambda one: f"sqlalchemy.url = {URL.create('mysql', 'u', one, 'h').render_as_string(hide_password=False)}\nx",
    lambda one: f"connect(host='h', password={one!r}, dbname='d')",
    lambda one: repr({"host": "h", "password": one, "dbname": "d"}),
    lambda one: json.dumps({"host": "h", "db_password": one, "dbname": "d"}),
    lambda one: json.dumps({"api_token": one}, ensure_ascii=False, indent=1),
    lambda one: make_dsn(host="h", user="u", password=one, dbname="d"),
    lambda one: psycopg.conninfo.make_conninfo(host="h", user="u", password=one, dbname="d"),
    lambda one: "ALTER ROLE a WITH PASSWORD '" + one.replace("\\", "").replace("'", "''") + "' VALID UNTIL 'x'",
    lambda one: "CREATE USER a IDENTIFIED BY '" + one.replace("\\", "\\\\").replace("'", "\\'") + "'",
    lambda one: "CREATE USER a IDENTIFIED VIA ed25519 USING PASSWORD('" + one.replace("\\", "").replace("'", "") + "')",
    lambda one: f"ALTER ROLE a PASSWORD $x${one.replace('$', '')}$x$; SELECT 1",
    lambda one: f"PGPASSWORD={one.replace(' ', '').replace(chr(9), '').strip(chr(34) + chr(39))} psql",
]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    redaction.forget()
    yield
    redaction.forget()


@seed(SEED)
@COMMON
@given(one=st.one_of(ANYTHING, PASSWORDS), write=st.sampled_from(WRITINGS), around=st.text(max_size=20))
@example(one="p@ss/wörd", write=WRITINGS[2], around="")
def test_a_secret_of_this_process_is_in_no_text(one: str, write: Callable[[str], str], around: str) -> None:
    usable = one.strip() and redaction.MASK not in one and len(set(one)) > 1
    assume(usable and one.lower() not in write("") + redaction.MASK and not one.isspace())
    assume(one.encode("utf-8", "ignore").decode() == one and one.lower() not in redaction._WORDS)
    redaction.forget()
    redaction.remember(one)

    for text in (write(one), f"{around}{write(one)}{around}"):
        shown = redaction.scrub(text)
        assert one not in shown.replace(around, "") or one in around
        if secrets.MARK in one:
            assert not secrets.found(shown.replace(around, ""), one)


@seed(SEED)
@COMMON
@given(one=PASSWORDS, write=st.sampled_from(SHAPES))
def test_what_a_text_calls_a_secret_is_not_shown(one: str, write: Callable[[str], str]) -> None:
    redaction.forget()

    assert not secrets.found(redaction.scrub(write(one)), one)


def _parse_url(text: str) -> None:
    make_url(text).get_dialect()


def _parse_port(text: str) -> None:
    _ = urllib.parse.urlsplit(text).port
    int(text.rpartition(":")[2])


def _interpolate(text: str) -> None:
    parser = configparser.ConfigParser()
    parser.add_section("alembic")
    parser.set("alembic", "sqlalchemy.url", text)


def _execute(text: str) -> None:
    raise RuntimeError(f"cannot use {text}") from ValueError(text)


PARSERS: list[Callable[[str], object]] = [
    _parse_url,
    _parse_port,
    _interpolate,
    _execute,
    psycopg.conninfo.conninfo_to_dict,
    make_dsn,
    lambda text: psycopg.conninfo.conninfo_to_dict(text.replace("postgresql://u:", "host=h user=u password=")),
    lambda text: make_dsn(text.replace("postgresql://u:", "host=h user=u password=")),
]


@seed(SEED)
@COMMON
@given(one=PASSWORDS, parse=st.sampled_from(PARSERS), known=st.booleans())
def test_what_parsers_say_of_an_address_that_nobody_escaped(
    one: str, parse: Callable[[str], object], known: bool
) -> None:
    redaction.forget()
    assume(known or not any(character.isspace() for character in one))
    if known:
        redaction.remember(one)
    try:
        parse(f"postgresql://u:{one}@127.0.0.1:5432/d")
    except Exception as error:  # noqa: BLE001 - whatever it raises
        target = Target(tenant=Tenant(name="acme"), url=URL.create("postgresql+psycopg", "u", host="h", database="d"))
        failure = databases.classify(error, target)
        record = logging.LogRecord("orchestrator", logging.ERROR, "", 0, "%s", (error,), sys.exc_info())
        for text in (str(failure), redaction.scrub(str(error)), logs.JsonFormatter().format(record)):
            assert not secrets.found(text, one), text


@seed(SEED)
@COMMON
@given(one=PASSWORDS)
def test_records_of_ours_print_no_secret(one: str) -> None:
    arguments = Hidden({"password": one, "options": {"sslpassword": one}})
    url = URL.create("postgresql+psycopg", "u", one, "h", 5432, "d")
    target = Target(tenant=Tenant(name="acme"), url=url, connect_args=arguments)
    redaction.forget()
    keep_secret(url, arguments)

    for text in (repr(target), str(target), target.location, target.server, f"{arguments}"):
        assert not secrets.found(text, one)
    assert not secrets.found(redaction.scrub(repr(dict(arguments))), one)


@pytest.mark.parametrize(
    "text",
    [
        "{'DB_PASS': 'hunter22'}",
        "DB_PASS=hunter22",
        "export AWS_SECRET_ACCESS_KEY=hunter22",
        "access-key = hunter22",
        '{"credentials": "hunter22"}',
        "GOOGLE_CREDENTIALS='hunter22 and more'",
        "X-Api-Key: hunter22",
        "curl -H 'Cookie: session=hunter22; other=hunter22' https://h",
        "Set-Cookie: a=b; hunter22",
        "password: hunter22",
        "  db_password: hunter22 with more",
        "+password: 'hunter22'",
        "private_key='hunter22'",
        " # database\n-db_pass   = hunter22\n",
    ],
)
def test_what_a_key_calls_a_secret_is_not_shown(text: str) -> None:
    redaction.forget()
    shown = redaction.scrub(text)
    assert "hunter22" not in shown
    assert redaction.MASK in shown


@pytest.mark.parametrize("written", ["p%2fSs%40Hunter-2!", "p%2FSs%40Hunter-2!", "p%2fSs%40Hunter%2D2%21"])
@pytest.mark.parametrize("parse", [parse_url, addresses.parse])
def test_a_password_is_known_as_its_user_escaped_it(written: str, parse: Callable[[str], URL]) -> None:
    url = f"postgresql+psycopg://app:{written}@h/d"
    keep_secret(parse(url))
    for one in (urllib.parse.urlsplit(url).password, "p/Ss@Hunter-2!", "p%2fSs%40Hunter-2%21", "p%2FSs%40Hunter-2%21"):
        assert redaction.scrub(f"at {one} in vain") == "at *** in vain"


def test_records_that_may_hold_a_secret_do_not_print_it() -> None:
    settings = Settings(
        config=Path("alembic.ini"), registry=Path("tenants.yaml"), ledger="postgresql://a:Hunter-2!@h/d"
    )
    assert "Hunter-2!" not in repr((settings, PasswordCommand(command=("get", "--token=Hunter-2!"))))


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "app"',
        "Access denied for user 'app'@'localhost' (using password: YES)",
        "Can't locate revision identified by 'abc123'",
        "https://alembic.sqlalchemy.org/en/latest/ and user@example.com",
        'syntax error at or near "token"',
        "could not connect to db.internal:5432",
        "the secret is that there is none",
        "Basic authentication is off",
        'relation "passwords" does not exist',
        "passed = 17, compass = north, by_passenger=3",
        "could not open the key: no such file",
        'CREATE VIRTUAL TABLE f USING fts5(body, tokenize = "porter")',
        'duplicate key value violates unique constraint "uq_api_keys"',
        "tenants.yaml:3:5: password: not set",
        "(using password: YES)",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    redaction.remember("postgres", "secret", "abc", "password")
    assert redaction.scrub(text) == text


def test_a_password_that_names_the_user_hides_no_user() -> None:
    keep_secret(URL.create("postgresql", "fleet_app", "fleet_app", "h", database="d"))
    assert redaction.scrub('role "fleet_app" does not exist') == 'role "fleet_app" does not exist'


def test_each_line_of_a_secret_of_several_lines_is_one() -> None:
    redaction.remember("-----BEGIN KEY-----\nK4nary-first\nK4nary-second\n")
    assert not secrets.found(redaction.scrub("cannot load K4nary-first"))


def test_one_of_ten_thousand_secrets_is_found() -> None:
    made = [f"{number * 7919:x}-{secrets.MARK}-{number:05d}" for number in range(10_000)]
    redaction.remember(*made)
    assert redaction.scrub(f"before {made[42]} after") == f"before {redaction.MASK} after"


def test_headers_are_secret_by_name_or_by_variable() -> None:
    """And what everybody writes in them stays legible."""
    written = {
        "Authorization": "Bearer literal-4711",
        "X-Api-Key": "word-0815",
        "X-Room": "${ROOM}",
        "X-Stage": "production",
    }
    redaction.remember_headers(written, {**written, "X-Room": "back-room-7"})
    try:
        told = redaction.scrub("literal-4711 word-0815 back-room-7 production")
    finally:
        redaction.forget()
    assert told == "*** *** *** production"

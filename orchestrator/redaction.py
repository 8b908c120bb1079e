"""Texts that may be shown: no password, no customer data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

#: what stands where a secret stood
MASK = "***"
#: a shorter secret is part of too many words to be taken out of every text
SHORTEST = 6
#: what servers say themselves; whoever takes one of these for a password has no secret
_WORDS = frozenset({"password", "postgres", "postgresql", "mariadb", "database", "secret", "server"})
#: characters by which a text is searched for secrets
_GRAM = 4

#: HTTP headers whose value is a secret, though their name does not sound like it
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})

_QUOTED = r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)"
#: what the name of a secret has in it; what is a path, a count or a word that only sounds like it is left alone
_TELLTALE = (
    r"(?:(?<!com)(?<!by)(?<!sur)pass(?!ive|file|_?through|ed\b|es\b|enger|age|ing|ion)|pwd|secret(?!ar)|token(?!i[sz]e)"
    r"|(?:api|access|private)[_-]?key(?!file)|credential)"
)
_KEY = rf"[a-z0-9_-]*{_TELLTALE}[a-z0-9_-]*"
_SQL_SECRET = re.compile(
    # Alembic's "Can't locate revision identified by 'x'" holds no secret.
    r"(?i)((?<!['\"])\b(?:PASSWORD|(?<!revision )IDENTIFIED\s+(?:(?:WITH|VIA)\s+\S+\s+)?(?:BY|AS|USING))"
    r"\s*(?:=\s*)?(?:\(\s*)?)"
    r"([EN]?'(?:[^'\\]|''|\\.)*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|(?P<tag>\$\w*\$).*?(?:(?P=tag)|\Z))",
    re.DOTALL,
)
_URL_SECRET = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)(\S*)@")
#: one with blanks goes to the last @ of the line, unless what stands there is a port
_URL_SECRET_WITH_BLANKS = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)(?!\d{1,5}(?:[/\s?#]|\Z))[^\n]*@")
_PAIR_SECRET = re.compile(rf"(?i)\b({_KEY})([ \t]*=[ \t]*)({_QUOTED}|\S+)", re.DOTALL)
_ITEM_SECRET = re.compile(rf"(?i)((?P<quote>['\"]){_KEY}(?P=quote)\s*:\s*)({_QUOTED}|[^\s,}}]+)", re.DOTALL)
#: a line of YAML, of a header, or of a difference between two files
_LINE_SECRET = re.compile(rf"(?im)^([\s>+-]*{_KEY}[ \t]*:[ \t]+)(?!\*)\S[^\n]*")
_COOKIE = re.compile(r"(?i)(\b(?:set-)?cookie['\"]?\s*[:=]\s*['\"]?)[^'\"\n]+")
_HEADER_SECRET = re.compile(r"(?i)(\bAuthorization\b['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?|\bBearer\s+(?=\S*\d))[^\s'\"]+")
#: what parsers say of a URL or DSN that they cut in the wrong place, before they quote a piece of it as it is
_PIECES = re.compile(
    r"(?i)(missing \"=\" after |invalid percent-encoded token: |invalid integer value |invalid port number: "
    r"|unexpected spaces found in |key/value separator \"=\" in URI query parameter: |invalid URI query parameter: "
    r"|invalid connection option |invalid literal for int\(\) with base 10: |could not be cast to integer value as "
    r"|in URI \([^)]*\): |in (?:IPv6 host address in )?URI: |in percent-encoded value: |\bnetloc )['\"].*"
)
_ADDRESS = re.compile(r"(['\"]).*\1(?= does not appear to be an IPv)")
_HOST_WITH_PIECE = re.compile(r"(?i)(\bhost(?: ?name)?:? ['\"])[^\n]*@(?=[^@'\"\n]*['\"])")


#: without one of these in it, no pattern above fits a text: most texts are ready after looking for them
_SIGNS = (
    "://", "pass", "pwd", "secret", "token", "credential", "cookie", "apikey", "api_key", "api-key", "accesskey",
    "access_key", "access-key", "privatekey", "private_key", "private-key", "identified", "authorization",
    "bearer", "host", "missing \"=", "invalid ", "unexpected spaces", "in uri", "in percent-encoded", "netloc",
    "ip address", "could not be cast", "does not appear", "key/value", "line ",
)  # fmt: skip


#: PostgreSQL's excerpt of a statement, which may begin and end within a secret
_EXCERPT = re.compile(r"(?m)(\bLINE \d+: ).*")


class _Secrets:
    """The secrets that this process works with, in each way that texts write them."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self._forms: set[str] = set()
        #: by their first few characters: a text is searched once, not once for each of ten thousand
        self._by_gram: dict[str, set[str]] = {}

    def clear(self) -> None:
        self.known.clear()
        self._forms.clear()
        self._by_gram.clear()

    def add(self, secret: str) -> None:
        self.known.add(secret)
        for form in _forms(secret):
            self._forms.add(form)
            self._by_gram.setdefault(form[:_GRAM], set()).add(form)

    def hidden_in(self, text: str) -> str:
        found = [form for form in self._possible(text) if form in text]
        # The longest first: a form may be part of another one.
        for form in sorted(found, key=len, reverse=True):
            text = text.replace(form, MASK)
        return text

    def _possible(self, text: str) -> Iterable[str]:
        if len(self._forms) <= len(text):
            return self._forms
        grams = {text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)}
        return [form for gram in grams & self._by_gram.keys() for form in self._by_gram[gram]]


_secrets = _Secrets()


def remember(*secrets: str | None) -> None:
    """Take these out of every text that is scrubbed in this process from now on, however they are written there."""
    for secret in secrets:
        # Texts are cut to their first line here and there; so are secrets of several lines.
        for part in {secret, *secret.splitlines()} if secret else ():
            if len(part) >= SHORTEST and part.lower() not in _WORDS and part not in _secrets.known:
                _secrets.add(part)


def remember_arguments(arguments: Mapping[str, Any]) -> None:
    """Remember what stands under the keys of a driver's arguments that name a secret."""
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            remember_arguments(value)
        elif isinstance(value, str) and is_secretive(key):
            remember(value)


def remember_headers(written: Mapping[str, str], filled: Mapping[str, str]) -> None:
    """Take secrets out of HTTP headers: by the header's name, or because a variable was filled in.

    Not every value: with `X-Environment: production` nobody could read of production any more.
    """
    for name, value in filled.items():
        if is_secretive(name) or name.lower() in _SECRET_HEADERS or "${" in written[name]:
            remember(value, *value.split())


def is_secretive(name: str) -> bool:
    """Whether a setting, an argument or a variable of that name holds a secret."""
    return re.search(rf"(?i){_TELLTALE}", name) is not None


def forget() -> None:
    """Drop what was remembered."""
    _secrets.clear()


def scrub(text: str) -> str:
    """The text with `***` for the secrets of this process, and for what SQL, a URL or a pair shows as one."""
    text = _secrets.hidden_in(text)
    lowered = text.lower()
    if not any(sign in lowered for sign in _SIGNS):
        return text
    text = _EXCERPT.sub(rf"\1{MASK}", text)
    text = _SQL_SECRET.sub(rf"\1'{MASK}'", text)
    text = _URL_SECRET_WITH_BLANKS.sub(rf"\1{MASK}@", text)
    text = _URL_SECRET.sub(rf"\1{MASK}@", text)
    text = _ITEM_SECRET.sub(rf"\1{MASK}", text)
    text = _PAIR_SECRET.sub(rf"\1\2{MASK}", text)
    text = _LINE_SECRET.sub(rf"\1{MASK}", text)
    text = _COOKIE.sub(rf"\1{MASK}", text)
    text = _HEADER_SECRET.sub(rf"\1{MASK}", text)
    text = _PIECES.sub(rf"\1'{MASK}'", text)
    text = _ADDRESS.sub(f"'{MASK}'", text)
    return _HOST_WITH_PIECE.sub(rf"\1{MASK}@", text)


def first_line(text: str) -> str:
    """The first line that says something; the lines after it (DETAIL, HINT, SQL) may hold customer data."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _forms(secret: str) -> frozenset[str]:
    """The secret as it may stand in a text: as it is, in a URL, in JSON, in a literal, in one within another."""
    plain = {secret, secret.strip(), re.sub(r"\s+", " ", secret)}
    in_urls = {quote(one, safe=safe) for one in plain for safe in ("", "/", " +")} | {quote_plus(one) for one in plain}
    # Whoever escapes by hand may write small letters.
    in_urls |= {re.sub(r"%[0-9A-F]{2}", lambda escape: escape[0].lower(), one) for one in in_urls}
    # Quotes are doubled in SQL; percent signs for a driver, or for alembic.ini.
    quoted = {form for one in plain | in_urls for form in (one, one.replace("'", "''"))}
    forms = {form for one in quoted for form in (one, one.replace("%", "%%"))}
    for _ in range(2):
        forms |= {form for one in forms for form in _literals(one)}
    return frozenset(form for form in forms if len(form) >= _GRAM)


def _literals(text: str) -> Iterator[str]:
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    yield ascii(text)[1:-1]
    yield repr(text.encode(errors="replace"))[2:-1]
    yield text.replace("\\", "\\\\").replace("'", "\\'")
    yield text.replace("\\", "\\\\").replace('"', '\\"')

"""What exceptions say, as far as it may be shown: Python and the drivers quote the rows that they stumble over."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from orchestrator.redaction import first_line, scrub

#: packages whose exceptions quote what a server said
_DRIVERS = ("psycopg", "psycopg2", "pymysql", "MySQLdb", "mysql", "sqlite3")
#: exceptions of Python whose text quotes the value that did not fit
_QUOTING = (ValueError, LookupError, ArithmeticError)
#: the marks that servers and Python put around a value, whatever language they speak
_QUOTES = "'\"«»„“”‚‘’‹›「」『』"  # noqa: RUF001
#: what differs in an exception group from an exception
_MEMBERS = "exceptions"


def is_from(error: BaseException, *packages: str) -> bool:
    """Whether the exception's class, or one that it inherits from, is defined in one of these packages."""
    return any(base.__module__.partition(".")[0] in packages for base in type(error).__mro__)


def hide_quoted(text: str, quotes: str = _QUOTES) -> str:
    """Hide from the first quote to the last, or to the end: no server escapes the quotes that a value holds."""
    places = [place for place, character in enumerate(text) if character in quotes]
    if not places:
        return text
    return f"{text[: places[0]]}'…'{text[places[-1] + 1 :] if len(places) > 1 else ''}"


def text_of(error: BaseException) -> str:
    """The whole text of an exception that is not a driver's, without secrets and without the values that it quotes."""
    wrapped = _wrapped(error)
    if wrapped is not None and not is_from(wrapped, "sqlalchemy"):
        # The converters that SQLAlchemy runs on parameters raise anything, and what they raise names the value.
        kind = type(wrapped)
        return f"({kind.__module__}.{kind.__name__}) {hide_quoted(scrub(str(wrapped)))}"
    text = scrub(str(error) if wrapped is None else str(wrapped))
    return hide_quoted(text) if isinstance(error, _QUOTING) else _without_text_of_causes(error, text)


def said(error: BaseException, masked: str | None = None) -> str:
    """What any exception says, as far as it may be shown; `masked` stands for a driver's own text."""
    driver = is_from(error, *_DRIVERS) or is_from(_wrapped(error) or error, *_DRIVERS)
    if driver:
        return masked if masked is not None else first_line(hide_quoted(scrub(str(_wrapped(error) or error))))
    text = text_of(error)
    return first_line(text) if isinstance(error, _QUOTING) else text


def format_exception(error: BaseException, masked: str | None = None) -> str:
    """The traceback, with `masked` where a driver's own text would stand, and no row of a customer elsewhere."""
    return "\n".join(_lines(error, masked, set()))


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it, as a traceback shows them."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _wrapped(error: BaseException) -> BaseException | None:
    """What SQLAlchemy wrapped, None for an exception that wraps nothing."""
    orig = getattr(error, "orig", None) if is_from(error, "sqlalchemy") else None
    return orig if isinstance(orig, BaseException) else None


def _without_text_of_causes(error: BaseException, text: str) -> str:
    """`raise RuntimeError(f"row is broken: {error}") from error` repeats what its cause quotes."""
    for cause in (one for one in chain(error) if one is not error and isinstance(one, _QUOTING)):
        said = scrub(str(cause))
        if said:
            text = text.replace(said, hide_quoted(said))
    return text


def _lines(error: BaseException, masked: str | None, seen: set[int]) -> Iterator[str]:
    for number, one in enumerate(reversed([each for each in chain(error) if id(each) not in seen])):
        seen.add(id(one))
        if number:
            yield "\nThis led to:\n"
        if one.__traceback__ is not None:
            yield "Traceback (most recent call last):"
            yield "".join(traceback.format_tb(one.__traceback__)).rstrip("\n")
        name = f"{type(one).__module__}.".removeprefix("builtins.") + type(one).__qualname__
        yield f"{name}: {said(one, masked)}".removesuffix(": ")
        yield from (scrub(str(note)) for note in getattr(one, "__notes__", ()))
        for member in getattr(one, _MEMBERS, ()) if isinstance(one, BaseExceptionGroup) else ():
            yield "\nIn this group:\n"
            yield from _lines(member, masked, seen)

"""YAML text to plain data that remembers where each part stood."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import yaml
from yaml.resolver import Resolver

from orchestrator.errors import Problem, RegistryError

#: keys and list indexes from the top of the document
Path: TypeAlias = tuple[str | int, ...]
#: line and column, counted from 1
Position: TypeAlias = tuple[int, int]

LARGEST_FILE = 32 * 1024 * 1024
DEEPEST_NESTING = 40
#: below these keys stand secrets, which no problem may show
SECRETIVE = frozenset({"password", "connect_args", "headers", "url", "http", "ledger", "webhook", "apprise", "secret"})
#: aliases that are told one by one
MOST_ALIASES = 50

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Any = Resolver()
#: whole numbers that any setting could mean; a longer one is text that nobody quoted
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_TAG = "tag:yaml.org,2002:"
#: what YAML 1.1 makes of an unquoted scalar, in words
_MEANINGS = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}


@dataclasses.dataclass(frozen=True, slots=True)
class Unquoted:
    """A plain scalar that YAML 1.1 would turn into something its author did not write: `no`, `012`, `1:30`."""

    text: str
    #: what YAML reads it as
    meaning: str


class Mapping(dict[str, Any]):
    """A YAML mapping with the positions of its keys and values."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.keys_at: dict[str, Position] = {}
        self.values_at: dict[str, Position] = {}
        #: keys that YAML 1.1 reads as something else than text, and as what: fine for `on:`, wrong for a name
        self.misread: dict[str, str] = {}


class Items(list[Any]):
    """A YAML list with the positions of its items."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.items_at: list[Position] = []


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One parsed file."""

    #: as shown in problems
    name: str
    data: Any
    #: what the text itself has wrong, which did not keep it from being read
    problems: tuple[tuple[Position, str, str], ...] = ()

    def only(self, keys: frozenset[str]) -> Document:
        """The document with these keys of its top level, everything else left out."""
        if not isinstance(self.data, Mapping):
            return self
        kept = Mapping(self.data.position)
        for key in keys & self.data.keys():
            kept[key] = self.data[key]
            kept.keys_at[key], kept.values_at[key] = self.data.keys_at[key], self.data.values_at[key]
        return dataclasses.replace(self, data=kept)

    def position(self, path: Path, *, at_key: bool = False) -> Position:
        """Where a value (or its key) stands; parts of the path that the document does not have are passed over."""
        here, found = self.data, (1, 1)
        if isinstance(here, (Mapping, Items)):
            found = here.position
        for part in path:
            if isinstance(here, Mapping) and part in here:
                key = str(part)
                found = here.keys_at[key] if at_key or here[key] is None else here.values_at[key]
                here = here[key]
            elif isinstance(here, Items) and isinstance(part, int) and part < len(here):
                found, here = here.items_at[part], here[part]
        return found


def misread_keys(data: Any, path: Path = ()) -> Iterator[tuple[Path, str, str]]:
    """Keys that YAML 1.1 reads as something else than text: path of their mapping, key, and as what."""
    if isinstance(data, Mapping):
        for key, meaning in data.misread.items():
            yield path, key, meaning
        for key, value in data.items():
            yield from misread_keys(value, (*path, key))
    elif isinstance(data, Items):
        for number, value in enumerate(data):
            yield from misread_keys(value, (*path, number))


def parse(text: str, name: str) -> Document:
    """Read one YAML document, or raise `RegistryError` where nothing of it can be used."""
    reader = _Reader(yaml.parse(text, Loader=_LOADER))
    try:
        data = reader.document()
    except yaml.MarkedYAMLError as error:
        last = _syntax_problem(error, name)
    except yaml.YAMLError as error:
        last = _character_problem(error, text, name)
    except _Unusable as error:
        last = _problem(name, error.position, error.text, error.remedy)
    else:
        return Document(name=name, data=data, problems=tuple(reader.problems))
    raise RegistryError([*(_problem(name, *noted) for noted in reader.problems), last])


class _Unusable(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, position: Position, text: str, remedy: str) -> None:
        self.position, self.text, self.remedy = position, text, remedy
        super().__init__(text)


class _Reader:
    """Builds plain data from the parser's events: nothing is resolved, referred to or constructed on the way."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._depth = 0
        self._aliases = 0
        #: within the value of a key below which secrets stand: one may begin like an alias, an anchor or a tag
        self._within_secret = False
        #: values of anchors without an alias in them, so that following aliases cannot grow beyond the file's own size
        self._anchored: dict[str, Any] = {}
        self.problems: list[tuple[Position, str, str]] = []

    def document(self) -> Any:
        """The only document of the stream."""
        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unusable(_position(event), "a second YAML document starts here", "keep one, remove `---`")
                data = self._value(next(self._events))
        return data

    def _value(self, event: Any) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._refuse_features(event)
        before = self._aliases
        value = self._scalar(event) if isinstance(event, yaml.ScalarEvent) else self._collection(event)
        if event.anchor is not None and self._aliases == before:
            self._anchored[event.anchor] = value
        return value

    def _value_of(self, key: str | None, event: Any) -> Any:
        before = self._within_secret
        self._within_secret = before or key in SECRETIVE
        try:
            return self._value(event)
        finally:
            self._within_secret = before

    def _named(self, sign: str, name: str) -> str:
        return "" if self._within_secret else f" `{sign}{name}`"

    def _quote(self, remedy: str) -> str:
        return "put the value in quotes" if self._within_secret else remedy

    def _alias(self, event: Any) -> Any:
        """What an alias means, though it is refused: without it, half of the file would look wrong as well."""
        self._aliases += 1
        text, remedy = f"alias{self._named('*', event.anchor)}: aliases are not read", self._quote("repeat the value")
        if self._aliases > MOST_ALIASES:
            raise _Unusable(_position(event), text, remedy)
        self._note(event, text, remedy)
        return self._anchored.get(event.anchor)

    def _collection(self, event: Any) -> Any:
        self._depth += 1
        if self._depth > DEEPEST_NESTING:
            raise _Unusable(_position(event), "nested too deep", f"at most {DEEPEST_NESTING} levels are read")
        value = self._mapping(event) if isinstance(event, yaml.MappingStartEvent) else self._items(event)
        self._depth -= 1
        return value

    def _mapping(self, start: Any) -> Mapping:
        mapping = Mapping(_position(start))
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, meaning = self._key(event)
            value_event = next(self._events)
            value = self._value_of(key, value_event)
            if key is None:
                continue
            if key in mapping:
                line, _ = mapping.keys_at[key]
                self._note(event, f"duplicate key `{key}`, first written in line {line}", "keep one of the two")
                continue
            mapping[key] = value
            if meaning is not None:
                mapping.misread[key] = meaning
            mapping.keys_at[key] = _position(event)
            mapping.values_at[key] = _position(value_event)
        return mapping

    def _items(self, start: Any) -> Items:
        items = Items(_position(start))
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.items_at.append(_position(event))
            items.append(self._value(event))
        return items

    def _key(self, event: Any) -> tuple[str | None, str | None]:
        """The key as text, None where it cannot be one; and what YAML reads it as, where that is not text."""
        key = self._value(event)
        if isinstance(event, yaml.AliasEvent):
            return None, None
        if not isinstance(event, yaml.ScalarEvent):
            self._note(event, "a mapping or list is no key", "write a name")
            return None, None
        if key == "<<" and not event.style:
            self._note(event, "merge keys (`<<`) are not read", "repeat the keys, or move them to `defaults`")
            return None, None
        if isinstance(key, str):
            return key, None
        return event.value, key.meaning if isinstance(key, Unquoted) else "a number, a truth value or nothing"

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style or event.tag is not None:  # the C parser says '' for plain, the other None
            return text
        kind = _kind(text)
        if kind == "null":
            return None
        if kind == "bool" and text in ("true", "false"):
            return text == "true"
        if kind == "int" and _INTEGER.fullmatch(text):
            return int(text)
        if kind == "float" and _DECIMAL.fullmatch(text):
            return float(text)
        return Unquoted(text, _MEANINGS[kind]) if kind in _MEANINGS else text

    def _refuse_features(self, event: Any) -> None:
        if event.anchor is not None:
            text = f"anchor{self._named('&', event.anchor)}: anchors are not read"
            self._note(event, text, self._quote("remove it; `profiles` share settings"))
        if event.tag is not None:
            text = f"tag{self._named('', event.tag.replace(_TAG, '!!'))}: tags are not read"
            self._note(event, text, self._quote("remove it, and quote the value if it is text"))

    def _note(self, event: Any, text: str, remedy: str) -> None:
        self.problems.append((_position(event), text, remedy))


@functools.lru_cache(maxsize=4096)
def _kind(text: str) -> str:
    """What YAML 1.1 takes a plain scalar for."""
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    return tag.removeprefix(_TAG)


def _position(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _problem(name: str, position: Position, text: str, remedy: str) -> Problem:
    return Problem(place=f"{name}:{position[0]}:{position[1]}", text=text, remedy=remedy)


def _syntax_problem(error: yaml.MarkedYAMLError, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    position = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return _problem(
        name, position, f"not valid YAML: {error.problem or error.context}", "check indentation, quotes and brackets"
    )


def _character_problem(error: yaml.YAMLError, text: str, name: str) -> Problem:
    offset = getattr(error, "position", 0)
    before = text[:offset]
    position = (before.count("\n") + 1, offset - before.rfind("\n"))
    return _problem(name, position, "a character that YAML does not allow", "remove control characters")

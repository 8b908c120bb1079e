"""Parsed data to models: every error of it, each at its line and with its remedy."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.registry.documents import Document, Path, Unquoted, misread_keys
from orchestrator.registry.models import PASSWORD_FORMS, RegistryFile
from orchestrator.registry.problems import Problems, close_to, nearest
from orchestrator.registry.variables import Variables

#: text of a problem, and its remedy
Words: TypeAlias = tuple[str, str]

#: parts of a location that pydantic adds: of a key, and of the two ways to write a password
_NO_KEYS = frozenset({"[key]", *PASSWORD_FORMS})
#: below these keys stand secrets, which no problem may show
_SECRETIVE = frozenset({"password", "connect_args", "headers", "webhook", "apprise", "secret"})
#: errors of which the words would show the value
_SHOWING = frozenset({"string_type", "model_type", "model_attributes_type"})

#: an error can hide another one (a model's own checks run last), but not for long
_ROUNDS = 6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """What of the file can be used."""

    file: RegistryFile
    #: top-level keys of which something had to be left out
    broken: frozenset[str]


def validate(document: Document, variables: Variables, problems: Problems) -> Validated:
    """The file as models, without the parts that are wrong; what is wrong with them is in `problems`."""
    data = document.data if document.data is not None else {}
    if not isinstance(data, dict):
        problems.add((), "the file is not a mapping of keys", "start it with `version: 1`")
        problems.raise_if_any()
    for path, key, meaning in misread_keys(data):
        if key not in known_keys(path):
            problems.add((*path, key), f"`{key}` is read as {meaning} by YAML", f'quote it: "{key}"', at_key=True)
    broken: set[str] = set()
    for _ in range(_ROUNDS):
        try:
            file = RegistryFile.model_validate(data, context={"variables": variables})
        except ValidationError as error:
            details = error.errors(include_url=False)
        else:
            return Validated(file=file, broken=frozenset(broken))
        for detail in _without_echoes(details):
            _note(detail, problems)
        broken |= {str(detail["loc"][0]) for detail in details if detail["loc"]}
        data = _without(data, [_real(detail["loc"], data) for detail in details])
    problems.raise_if_any()
    raise AssertionError("data that cannot be validated has problems")


def describe(error: ValidationError) -> Iterator[str]:
    """The errors of one row of a source: which key, and what is wrong with it."""
    for detail in error.errors(include_url=False):
        text, remedy = _words(detail, ("tenants", "any", *detail["loc"]))
        key = ".".join(str(part) for part in detail["loc"] if part not in _NO_KEYS)
        where = f"`{key}`: " if key and detail["type"] != "extra_forbidden" else ""
        yield f"{where}{text}; {remedy}" if remedy else f"{where}{text}"


def _without_echoes(details: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """The errors without missing keys that stand there misspelled: one mistake is one problem."""
    misspelled = {
        (*detail["loc"][:-1], close)
        for detail in details
        if detail["type"] == "extra_forbidden"
        for close in close_to(str(detail["loc"][-1]), known_keys(detail["loc"][:-1]))
    }
    return (detail for detail in details if detail["type"] != "missing" or detail["loc"] not in misspelled)


def _note(detail: ErrorDetails, problems: Problems) -> None:
    text, remedy = _words(detail, detail["loc"])
    path = tuple(part for part in detail["loc"] if part not in _NO_KEYS)
    at_key = detail["type"] == "extra_forbidden" or "[key]" in detail["loc"]
    problems.add(path, text, remedy, at_key=at_key)


def _words(detail: ErrorDetails, path: Path) -> Words:
    """One pydantic error in words that name the cause; values are not shown, they may be secrets."""
    kind, value = detail["type"], detail.get("input")
    key = next((str(part) for part in reversed(path) if isinstance(part, str) and part not in _NO_KEYS), "")
    if _SECRETIVE.intersection(path) and kind in _SHOWING:
        return _secretive_words(value, key)
    if (
        isinstance(value, (Unquoted, int, float))
        and kind != "value_error"
        and (shown := _scalar_words(kind, value, key))
    ):
        return shown
    if kind == "extra_forbidden":
        known = known_keys(path[:-1])
        return f"unknown key `{key}`", nearest(key, known, "known are " + ", ".join(known) if known else "remove it")
    if kind == "value_error":
        text, _, remedy = detail["msg"].removeprefix("Value error, ").partition("; ")
        return f"`{key}`: {text}", remedy
    if "[key]" in path:
        return (
            f"`{key}` cannot be a name here",
            "letters, digits, `_`, `.` and `-`, at most 100, and no `.` or `-` first",
        )
    return _plain_words(detail, key)


def _secretive_words(value: Any, key: str) -> Words:
    if isinstance(value, Unquoted):
        return f"`{key}` is read as {value.meaning} by YAML", "quote it"
    form = "text, or a mapping with `command`" if key == "password" else "text"
    return f"`{key}` must be {form}", "quote it"


def _scalar_words(kind: str, value: Any, key: str) -> Words | None:
    """A scalar that is not what its author meant, with the scalar; None for other errors."""
    if isinstance(value, Unquoted) and kind != "value_error":
        return f"`{value.text}` is read as {value.meaning} by YAML", _quote(kind, value.text)
    if kind == "string_type" and isinstance(value, (int, float)):
        written = str(value).lower()
        return f"`{key}` must be text, and `{written}` is not", f'quote it: "{written}"'
    return None


def _plain_words(detail: ErrorDetails, key: str) -> Words:
    kind, value, expected = detail["type"], detail.get("input"), detail.get("ctx", {}).get("expected", "")
    if kind == "missing":
        return f"`{key}` is missing", f"add `{key}:`" if key != "version" else "add `version: 1`"
    if kind in ("enum", "literal_error"):
        choices = [choice.strip(" '") for choice in str(expected).replace(" or ", ", ").split(",")]
        written = f" `{value}`" if isinstance(value, str) and len(value) < 30 else ""
        remedy = f"write {' or '.join(choices)}"
        if value in choices:
            return f"`{key}` cannot be text", f"{remedy} without quotes"
        return f"`{key}` cannot be{written}", nearest(str(value), choices, remedy)
    if kind == "union_tag_invalid":
        choices = [choice.strip(" '") for choice in str(detail.get("ctx", {}).get("expected_tags", "")).split(",")]
        tag = str(detail.get("ctx", {}).get("tag", ""))
        return f"unknown type `{tag}` of source", nearest(tag, choices, f"known are {', '.join(choices)}")
    if kind == "union_tag_not_found":
        return "a source without `type`", "add `type:` with sql, schemas, command, http, python or flask"
    return _types(kind, key)


def _types(kind: str, key: str) -> Words:
    remedies = {
        "string_type": ("must be text", "write one value"),
        "bool_type": ("must be true or false", "write true or false"),
        "list_type": ("must be a list", "write it like [one, two]"),
        "too_short": ("must not be empty", "name at least one"),
        "string_too_short": ("must not be empty", "write a value, or `null` to unset what is inherited"),
        "string_pattern_mismatch": ("is not written as it should be", "see the reference of tenants.yaml"),
        "dict_type": ("must be a mapping of keys", f"write it like `{key}: {{key: value}}`"),
        "model_type": ("must be a mapping of keys", f"write it like `{key}: {{key: value}}`"),
        "model_attributes_type": ("must be a mapping of keys", f"write it like `{key}: {{key: value}}`"),
    }
    what, remedy = remedies.get(kind, ("is not right", "see the reference of tenants.yaml"))
    return f"`{key}` {what}", remedy


def _quote(kind: str, text: str) -> str:
    return "write true or false" if kind.startswith("bool") else f'quote it: "{text}"'


def _real(loc: Path, data: Any) -> Path:
    """The part of a location that the data has: pydantic mixes in names of union members."""
    path: list[str | int] = []
    for part in loc:
        is_item = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if is_item or (isinstance(data, dict) and part in data):
            path.append(part)
            data = data[part]
    return tuple(path)


def _without(data: dict[str, Any], paths: list[Path]) -> dict[str, Any]:
    """The data without each entry that has an error: a whole tenant, source or profile, else the top-level key."""
    kept: dict[str, Any] = dict(data) | {"version": 1}
    for path in sorted(set(paths), key=str, reverse=True):
        head = path[0] if path else None
        below = kept.get(str(head))
        if len(path) > 1 and isinstance(below, dict) and head in ("tenants", "profiles", "servers", "strategies"):
            kept[str(head)] = {key: value for key, value in below.items() if key != path[1]}
        elif head == "sources" and len(path) > 1:
            kept.pop("sources", None)
        elif head is not None and head != "version":
            kept.pop(str(head), None)
    return kept


@functools.cache
def _json_schema() -> dict[str, Any]:
    return RegistryFile.model_json_schema()


def known_keys(path: Path) -> list[str]:
    """Keys that the mapping at a path may hold."""
    whole = _json_schema()
    at: list[dict[str, Any]] = [whole]
    for part in path:
        step = [found for schema in at for found in _below(schema, part, whole)]
        at = step or _tagged(at, part, whole)
    return list(
        dict.fromkeys(key for schema in at for one in _plain(schema, whole) for key in one.get("properties", {}))
    )


def _plain(schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives that a schema offers, references followed."""
    if "$ref" in schema:
        yield from _plain(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    for choices in ("anyOf", "oneOf"):
        for choice in schema.get(choices, []):
            yield from _plain(choice, whole)
    if "properties" in schema or "additionalProperties" in schema or "patternProperties" in schema or "items" in schema:
        yield schema


def _below(schema: dict[str, Any], part: str | int, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in _plain(schema, whole):
        if isinstance(part, int):
            found = [one.get("items")]
        elif part in one.get("properties", {}):
            found = [one["properties"][part]]
        else:
            found = [one.get("additionalProperties"), *one.get("patternProperties", {}).values()]
        yield from (schema for schema in found if isinstance(schema, dict))


def _tagged(at: list[dict[str, Any]], tag: str | int, whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the alternatives, the one whose `type` is the tag; all of them where the part is no tag."""
    plain = [one for schema in at for one in _plain(schema, whole)]
    return [one for one in plain if one.get("properties", {}).get("type", {}).get("const") == tag] or at

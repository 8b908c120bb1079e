"""Kinds of scalars in tenants.yaml: how each is read, checked and described to editors."""

from __future__ import annotations

import datetime
import functools
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, StrictBool, StringConstraints, ValidationInfo, WithJsonSchema

from orchestrator import windows
from orchestrator.errors import UsageError
from orchestrator.registry.documents import Unquoted
from orchestrator.registry.problems import Mistake
from orchestrator.registry.variables import Variables
from orchestrator.selectors import parse_labels
from orchestrator.strategy import Budget

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"[1-9][0-9]*|[0-9]+(?:\.[0-9]+)?%")

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"


def _filled(value: Any, info: ValidationInfo) -> Any:
    """Put variables in: these scalars are read before the others are."""
    variables: Variables | None = (info.context or {}).get("variables")
    if variables is None or not isinstance(value, str) or "${" not in value:
        return value
    try:
        return variables.text(value)
    except Mistake as mistake:
        raise ValueError(f"{mistake.text}; {mistake.remedy}") from None


def read_duration(value: Any) -> float:
    """Seconds of `500ms`, `10s`, `1h30m`, or of a plain number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _AMOUNT.findall(value))
    else:
        raise ValueError("not a duration; write it like 500ms, 10s, 15m or 2h")
    if not 0 < seconds < 10**9:
        raise ValueError("a duration is more than nothing and less than thirty years; write it like 10s")
    return seconds


def _read_count(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a whole number; write it like 8")
    return value


def _at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def _read_date(value: Any) -> datetime.date | None:
    if value is None or isinstance(value, datetime.date):
        return value.date() if isinstance(value, datetime.datetime) else value
    try:
        return datetime.date.fromisoformat(value.text if isinstance(value, Unquoted) else value)
    except (TypeError, ValueError):
        raise ValueError("not a date; write it like 2026-12-01") from None


def _read_budget(value: Any) -> Budget:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return Budget.parse(value)
        except ValueError:
            pass  # said below, in words that help
    raise ValueError("not a number of failures; write it like 3 or 2%")


def _read_size(value: Any) -> str:
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not _SIZE.fullmatch(text) or (text.endswith("%") and not 0 < float(text[:-1]) <= 100):
        raise ValueError("not a size; write it like 10 or 10%")
    return text


def _read_concurrency(value: Any) -> int | None:
    if value is None or value == "auto":
        return None
    try:
        return _at_least_one(_read_count(value))
    except ValueError:
        raise ValueError("not a number of jobs; write it like 8, or auto") from None


def _read_pause(value: Any) -> float | str | None:
    if value is None or value == "until-continued":
        return None if value is None else "until-continued"
    try:
        return read_duration(value)
    except ValueError:
        raise ValueError("not a pause; write it like 10m, or until-continued") from None


def _read_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _read_days(value: Any) -> Any:
    """Days, which YAML would take for dates unless somebody quotes them: here they are what is meant."""
    items = value if isinstance(value, list) else [value]
    return [item.text if isinstance(item, Unquoted) and item.meaning == "a date" else item for item in items]


@functools.lru_cache(maxsize=4096)
def check_window(text: str) -> str:
    """The text of a window, or a ValueError that says what to write."""
    windows.Window.parse(text)
    return text


def _check_freeze(text: str) -> str:
    windows.Freeze.parse(text)
    return text


def _read_status(value: Any) -> int:
    status = _read_count(value)
    if not 100 <= status <= 599:
        raise ValueError("not a status of HTTP; write it like 204")
    return status


def _read_place(value: Any) -> str:
    """A word of which nothing is shown: who writes a URL here writes its password."""
    if value != "each":
        raise ValueError("only `each` can stand here; a database of its own goes under `url`")
    return "each"


def _check_selector(value: str) -> str:
    try:
        parse_labels(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return value


def _plain(value: Any) -> Any:
    """Refuse what YAML would misread anywhere inside free-form values, which may be secrets."""
    if isinstance(value, Unquoted):
        raise ValueError(f"it is read as {value.meaning} by YAML; quote it")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


_TEXT_OR_NUMBER = {"type": ["string", "number"]}

Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,251}[A-Za-z0-9])?$")]
Flag = StrictBool
Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    BeforeValidator(_filled),
    WithJsonSchema(_TEXT_OR_NUMBER | {"description": "a duration: 500ms, 10s, 15m, 2h, or seconds"}),
]
Count = Annotated[
    int,
    BeforeValidator(_read_count),
    BeforeValidator(_filled),
    WithJsonSchema({"type": ["string", "integer"], "minimum": 0}),
]
Positive = Annotated[
    int,
    AfterValidator(_at_least_one),
    BeforeValidator(_read_count),
    BeforeValidator(_filled),
    WithJsonSchema({"type": ["string", "integer"], "minimum": 1}),
]
Day = Annotated[
    datetime.date | None,
    BeforeValidator(_read_date),
    BeforeValidator(_filled),
    WithJsonSchema({"type": ["string", "null"], "description": "a date: 2026-12-01"}),
]
Failures = Annotated[
    Any, BeforeValidator(_read_budget), BeforeValidator(_filled), WithJsonSchema({"type": ["string", "integer"]})
]
Size = Annotated[
    Any, BeforeValidator(_read_size), BeforeValidator(_filled), WithJsonSchema({"type": ["string", "integer"]})
]
Concurrency = Annotated[
    int | None,
    BeforeValidator(_read_concurrency),
    BeforeValidator(_filled),
    WithJsonSchema({"type": ["string", "integer"], "description": "jobs at once: 8, or auto"}),
]
Pause = Annotated[
    Any,
    BeforeValidator(_read_pause),
    BeforeValidator(_filled),
    WithJsonSchema({"type": ["string", "number"], "description": "a duration, or until-continued"}),
]
_LIST = WithJsonSchema({"type": ["string", "array"], "items": {"type": "string"}})
Texts = Annotated[list[Text], BeforeValidator(_read_list), _LIST]
Windows = Annotated[
    list[Annotated[str, AfterValidator(check_window), BeforeValidator(_filled)]], BeforeValidator(_read_list), _LIST
]
Freezes = Annotated[
    list[Annotated[str, AfterValidator(_check_freeze), BeforeValidator(_filled)]], BeforeValidator(_read_days), _LIST
]
Status = Annotated[
    int,
    BeforeValidator(_read_status),
    BeforeValidator(_filled),
    WithJsonSchema({"type": ["string", "integer"], "minimum": 100, "maximum": 599}),
]
EachTarget = Annotated[str, BeforeValidator(_read_place), WithJsonSchema({"const": "each"})]
LabelSelector = Annotated[str, AfterValidator(_check_selector)]
Anything = Annotated[Any, BeforeValidator(_plain), WithJsonSchema({})]

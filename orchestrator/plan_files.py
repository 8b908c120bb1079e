"""Plans in files: made in one place, looked at and approved in another, run in a third."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.outcomes import format_time
from orchestrator.plans import PLAN_FORMAT, Job, Plan
from orchestrator.redaction import scrub

#: digits of a digest that are enough to name it
SHORTEST_DIGEST = 12
_DIGEST = re.compile(rf"(?:sha256:)?([0-9a-f]{{{SHORTEST_DIGEST},64}})")
_ANEW = "make it anew with `orchestrate plan --out FILE`"
_ENDLESS = "lists within lists without end"


def document(plan: Plan, *, operator: str, sql: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The format `orchestrate.plan/1`, whole; who made it when, and its SQL, are no part of the digest."""
    return {
        **plan.to_json(),
        "digest": plan.digest,
        "made_at": format_time(datetime.datetime.now(datetime.UTC)),
        "made_by": operator,
        "sql": list(sql),
    }


def text(document: Mapping[str, Any]) -> str:
    """The document as JSON, a line for each target: ten thousand are written at once, and two plans can be compared."""
    return "{\n" + ",\n".join(_members(document)) + "\n}\n"


def _members(data: Mapping[str, Any]) -> list[str]:
    return [f"{json.dumps(key)}: {_value(value)}" for key, value in data.items()]


def _value(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(map(_item, value)) + "\n]"
    return json.dumps(value)


def _item(data: Mapping[str, Any]) -> str:
    return f"{{{', '.join(_members(data))}}}" if "jobs" in data else json.dumps(data)


def sql_of(job: Job, targets: int, text: str | None, flaw: str | None) -> dict[str, Any]:
    """One path of the key `sql`: what it does to how many targets, and why the text is not whole."""
    return {
        "section": job.section,
        "found": list(job.found),
        "wanted": list(job.wanted),
        "path": list(job.path),
        "first": job.target,
        "targets": targets,
        "text": None if text is None else scrub(text),
        "flaw": None if flaw is None else scrub(flaw),
    }


def read(path: Path) -> Plan:
    """The plan in a file, just as it was made.

    Raises `UsageError`, with the place, for a file that cannot be read, that is cut short, or that somebody changed.
    """
    data = _parsed(path)
    if not isinstance(data, dict) or data.get("format") != PLAN_FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise UsageError(f"{path}: not a plan of format {PLAN_FORMAT}{f', but {found}' if found else ''}; {_ANEW}")
    try:
        plan = Plan.from_json(data)
        digest = plan.digest
        _check_words(plan)
    except RecursionError:
        raise UsageError(f"{path}: {_ENDLESS}; {_ANEW}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not a whole plan ({type(error).__name__}: {error}); {_ANEW}") from None
    if data.get("digest") != digest:
        raise UsageError(
            f"{path}: key `digest`: it does not fit what the file says ({digest}), so somebody changed the file after "
            f"it was made; {_ANEW}"
        )
    return plan


def _check_words(plan: Plan) -> None:
    """The plan is asked for again in these."""
    for name in ("project", "environment", "asked", "strategy"):
        if not isinstance(getattr(plan, name), str):
            raise TypeError(f"`{name}` is no text")


def _parsed(path: Path) -> Any:
    try:
        text = path.read_bytes().decode("utf-8")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; `orchestrate plan --out {path}` writes a plan") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text at byte {error.start}; {_ANEW}") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}:{error.colno}: {error.msg}; the file is not whole: {_ANEW}") from None
    except RecursionError:
        raise UsageError(f"{path}: {_ENDLESS}; {_ANEW}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}; {_ANEW}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a key that stands there twice: who reads the first would approve what the last does."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key `{twice}` stands there twice")
    return made


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def parse_digest(text: str) -> str:
    """The hex digits of an approved digest, whole or its first twelve and more; raises ValueError for anything else."""
    found = _DIGEST.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"`{text}` is no digest; it is sha256: and at least {SHORTEST_DIGEST} hex digits")
    return found[1]


def is_approved(plan: Plan, digest: str) -> bool:
    """Whether this is the plan of that digest, whole or its beginning."""
    return plan.digest.removeprefix("sha256:").startswith(parse_digest(digest))

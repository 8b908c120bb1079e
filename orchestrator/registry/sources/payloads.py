"""JSON that carries tenants, from a command or a service; none of it is echoed, it may hold passwords."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.registry.problems import Mistake

LARGEST_PAYLOAD = 64 * 1024 * 1024


def read_json(payload: bytes) -> Any:
    """The JSON of an answer."""
    if len(payload) > LARGEST_PAYLOAD:
        raise Mistake("the answer is too large", f"at most {LARGEST_PAYLOAD // 1024 // 1024} MiB are read")
    try:
        return json.loads(payload)
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Mistake(
            f"the answer is not JSON{where}", "give a JSON list of names, or of mappings with `name`"
        ) from None
    except RecursionError:
        raise Mistake(
            "the answer is nested too deep", "give a JSON list of names, or of mappings with `name`"
        ) from None


def tenants_of(answer: Any) -> tuple[list[Any], str | None]:
    """The tenants of one answer, and the address of the next one if it names one."""
    if isinstance(answer, list):
        return answer, None
    if isinstance(answer, dict) and isinstance(answer.get("tenants"), list):
        following = answer.get("next")
        if following is not None and not isinstance(following, str):
            raise Mistake("`next` of the answer is no URL", "give a URL, or null on the last page")
        return answer["tenants"], following or None
    raise Mistake("the answer holds no list of tenants", 'give a JSON list, or {"tenants": […], "next": URL}')

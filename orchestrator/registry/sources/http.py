"""Tenants as JSON from an HTTP service, page by page."""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from orchestrator.redaction import remember
from orchestrator.registry.models import HttpSource
from orchestrator.registry.problems import Mistake
from orchestrator.registry.sources.payloads import LARGEST_PAYLOAD, read_json, tenants_of
from orchestrator.registry.targets import Surroundings

MOST_PAGES = 10_000


def read(source: HttpSource, surroundings: Surroundings) -> list[Any]:
    """All pages of the service; headers go to its own host only."""
    text = surroundings.variables.text
    start = text(source.url)
    headers = {name: text(value) for name, value in source.headers.items()}
    remember(*headers.values(), *(word for value in headers.values() for word in value.split()))
    deadline = time.monotonic() + source.timeout
    found: list[Any] = []
    seen: set[str] = set()
    address: str | None = start
    while address is not None:
        if address in seen or len(seen) >= MOST_PAGES:
            raise Mistake("its pages go in a circle", "mend `next` of the service: null on the last page")
        seen.add(address)
        sent = headers if _origin(address) == _origin(start) else {}
        page, following = tenants_of(read_json(_get(address, sent, deadline)))
        found += page
        address = urllib.parse.urljoin(address, following) if following else None
    return found


def _get(address: str, headers: dict[str, str], deadline: float) -> bytes:
    _check_scheme(address)
    request = urllib.request.Request(address, headers={"Accept": "application/json", **headers})  # noqa: S310 - checked
    seconds = max(deadline - time.monotonic(), 0.01)
    try:
        with contextlib.closing(_OPENER.open(request, timeout=seconds)) as response:
            return bytes(response.read(LARGEST_PAYLOAD + 1))
    except urllib.error.HTTPError as error:
        error.close()
        raise Mistake(f"the service answered with status {error.code}", "mend it, its `url` or its `headers`") from None
    except urllib.error.URLError as error:
        raise Mistake(f"the service cannot be reached: {_reason(error.reason)}", "mend it or its `url`") from None
    except TimeoutError:
        raise Mistake("the service did not answer in time", "mend it, or raise `timeout`") from None
    except (OSError, HTTPException, ValueError) as error:
        raise Mistake(f"the service cannot be read: {type(error).__name__}", "mend it or its `url`") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but takes no header to another host and never leaves HTTPS."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The request to follow a redirect with."""
        _check_scheme(newurl)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise Mistake("the service redirects from https to http", "write its real address as `url`")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and _origin(newurl) != _origin(req.full_url):
            request.headers = {"Accept": "application/json"}
        return request


_OPENER = urllib.request.build_opener(_Redirects)


def _check_scheme(address: str) -> None:
    try:
        parts = urllib.parse.urlsplit(address)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_fine = False
    if not is_fine:
        raise Mistake("the address is no HTTP URL", "write it like https://host/path")


def _origin(address: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urllib.parse.urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        raise Mistake("the address is no HTTP URL", "write it like https://host/path") from None


def _reason(reason: object) -> str:
    return str(getattr(reason, "strerror", None) or getattr(reason, "reason", None) or type(reason).__name__)

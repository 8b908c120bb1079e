"""Tenants as JSON from an HTTP service, page by page."""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from orchestrator.redaction import remember_headers
from orchestrator.registry.addresses import check_address, origin_of
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
    remember_headers(source.headers, headers)
    deadline = time.monotonic() + source.timeout
    found: list[Any] = []
    seen: set[str] = set()
    address: str | None = start
    while address is not None:
        if address in seen or len(seen) >= MOST_PAGES:
            raise Mistake("its pages go in a circle", "mend `next` of the service: null on the last page")
        seen.add(address)
        sent = headers if origin_of(address) == origin_of(start) else {}
        page, following = tenants_of(read_json(_get(address, sent, deadline)))
        found += page
        address = urllib.parse.urljoin(address, following) if following else None
    return found


def _get(address: str, headers: dict[str, str], deadline: float) -> bytes:
    check_address(address)
    request = urllib.request.Request(address, headers={"Accept": "application/json", **headers})  # noqa: S310 - checked
    seconds = max(deadline - time.monotonic(), 0.01)
    try:
        with contextlib.closing(_OPENER.open(request, timeout=seconds)) as response:
            return bytes(response.read(LARGEST_PAYLOAD + 1))
    except urllib.error.HTTPError as error:
        error.close()
        raise Mistake(f"the service answered with status {error.code}", "mend it, its `url` or its `headers`") from None
    except urllib.error.URLError as error:
        raise Mistake(f"the service cannot be reached: {reason_of(error.reason)}", "mend it or its `url`") from None
    except TimeoutError:
        raise Mistake("the service did not answer in time", "mend it, or raise `timeout`") from None
    except (OSError, HTTPException, ValueError) as error:
        raise Mistake(f"the service cannot be read: {type(error).__name__}", "mend it or its `url`") from None


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but takes no header to another host and never leaves HTTPS."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The request to follow a redirect with."""
        check_address(newurl)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise Mistake("the service redirects from https to http", "write its real address as `url`")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and origin_of(newurl) != origin_of(req.full_url):
            request.headers = {"Accept": "application/json"}
        return request


_OPENER = urllib.request.build_opener(Redirects)


def reason_of(reason: object) -> str:
    """Why a service cannot be reached, without its address."""
    return str(getattr(reason, "strerror", None) or getattr(reason, "reason", None) or type(reason).__name__)

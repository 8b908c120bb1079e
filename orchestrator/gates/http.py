"""A gate that is an HTTP service: its status, or a value in its JSON, is the verdict."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO, Any

from orchestrator.gates.questions import Finding, Question, aside
from orchestrator.outcomes import Verdict
from orchestrator.redaction import remember_headers
from orchestrator.registry.addresses import check_address
from orchestrator.registry.sources.http import Redirects, reason_of

#: bytes of an answer that are read
LARGEST_ANSWER = 1024 * 1024


def ask(question: Question) -> Finding:
    """GET the address, headers to its own host only, and look at the answer."""
    address = question.text(question.rule.http or "")
    check_address(address)
    headers = {name: question.text(value) for name, value in question.rule.headers.items()}
    remember_headers(question.rule.headers, headers)
    request = urllib.request.Request(address, headers={"Accept": "application/json", **headers})  # noqa: S310 - checked
    call = _Call(question)
    finding = aside(lambda: call.make(request), question.patience, call.end)
    return question.patience.over() if finding is None else finding


class _Call:
    """One request, which another thread can end."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._sockets: list[socket.socket] = []

    def make(self, request: urllib.request.Request) -> Finding:
        """Send it and judge the answer."""
        opener = urllib.request.build_opener(Redirects, _Handler(self._sockets), _SecureHandler(self._sockets))
        # A little longer than anybody waits: who waits says what the time was.
        seconds = self._question.patience.left + 1
        try:
            with contextlib.closing(opener.open(request, timeout=seconds)) as response:
                return self._judged(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return self._judged(error.code, error)
        except urllib.error.URLError as error:
            return Finding(Verdict.INCONCLUSIVE, f"the service cannot be reached: {reason_of(error.reason)}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Finding(Verdict.INCONCLUSIVE, f"the service cannot be read: {type(error).__name__}")

    def end(self) -> None:
        """Hang up."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _judged(self, status: int, body: IO[bytes]) -> Finding:
        expected, path = self._question.rule.status, self._question.rule.path
        if status != expected if expected is not None else not 200 <= status <= 299:
            return Finding(Verdict.FAILED, f"answered with status {status}")
        if path is None:
            return Finding(Verdict.PASSED, f"answered with status {status}")
        return _judged_value(body.read(LARGEST_ANSWER + 1), path)


def _judged_value(payload: bytes, path: str) -> Finding:
    if len(payload) > LARGEST_ANSWER:
        return Finding(Verdict.INCONCLUSIVE, f"the answer is larger than {LARGEST_ANSWER // 1024} KiB")
    try:
        value = functools.reduce(_below, path.split("."), json.loads(payload))
    except (ValueError, RecursionError):
        return Finding(Verdict.INCONCLUSIVE, "the answer is not JSON")
    except (LookupError, TypeError):
        return Finding(Verdict.INCONCLUSIVE, f"the answer has no `{path}`")
    if isinstance(value, bool):
        return Finding(Verdict.PASSED if value else Verdict.FAILED, f"`{path}` is {str(value).lower()}")
    return Finding(Verdict.INCONCLUSIVE, f"`{path}` is neither true nor false")


def _below(value: Any, key: str) -> Any:
    """What stands at a key of a mapping, or at a number of a list; raises LookupError or TypeError for neither."""
    if isinstance(value, list):
        if not key.isdecimal():
            raise LookupError(key)
        return value[int(key)]
    if not isinstance(value, dict):
        raise LookupError(key)
    return value[key]


class _Connection(http.client.HTTPConnection):
    """Tells of its socket, which urllib takes away from it."""

    def __init__(self, *arguments: Any, sockets: list[socket.socket], **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._sockets = sockets

    def connect(self) -> None:
        """As usual."""
        super().connect()
        self._sockets.append(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    """The same with TLS, which verifies whom it talks to."""

    def __init__(self, *arguments: Any, sockets: list[socket.socket], **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._sockets = sockets

    def connect(self) -> None:
        """As usual."""
        super().connect()
        self._sockets.append(self.sock)


class _Handler(urllib.request.HTTPHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._opened: Callable[..., Any] = functools.partial(_Connection, sockets=sockets)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._opened, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._opened: Callable[..., Any] = functools.partial(_SecureConnection, sockets=sockets)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._opened, req)

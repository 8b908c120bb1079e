"""Notifications to a URL, as the JSON body of a POST."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO

from orchestrator.notifications.rules import Message, Undelivered

#: seconds before the second try and those after it
WAITS = (0.5, 1.0, 2.0)
TOO_MANY_REQUESTS = 429
SIGNATURE = "X-Orchestrate-Signature"
EVENT = "X-Orchestrate-Event"
DELIVERY = "X-Orchestrate-Delivery"


class _Passing(Exception):  # noqa: N818 - never leaves this module
    """Another try may do better; not before `wait` seconds, where the receiver has said so."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        self.wait = wait
        super().__init__(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Webhook:
    """A service that takes a POST: anything but a status of 2xx means that it has not taken it."""

    name: str
    url: str = dataclasses.field(repr=False)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    #: key of the signature, None for none
    secret: str | None = dataclasses.field(default=None, repr=False)

    def flaw(self) -> str | None:
        """Nothing that could be known before it is asked."""
        return None

    def send(self, message: Message, seconds: float) -> None:
        """Post it; a lost connection, a status of 5xx and 429 are tried again while there is time."""
        deadline = time.monotonic() + seconds
        request = self._request(message)
        for number, wait in enumerate((*WAITS, None), start=1):
            try:
                _post(request, max(deadline - time.monotonic(), 0.01))
            except _Passing as error:
                pause = max(wait or 0.0, error.wait)
                if wait is None or time.monotonic() + pause >= deadline:
                    tries = f" ({number} tries)" if number > 1 else ""
                    raise Undelivered(f"{error}{tries}") from None
                time.sleep(pause)
            else:
                return

    def stop(self) -> None:
        """Nothing to do: its connection ends with its time."""

    def _request(self, message: Message) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "User-Agent": "orchestrate", **self.headers}
        headers |= {EVENT: str(message.body["event"]), DELIVERY: message.id}
        if self.secret is not None:
            headers[SIGNATURE] = f"sha256={hmac.new(self.secret.encode(), message.data, hashlib.sha256).hexdigest()}"
        # The scheme was checked when the URL was filled in.
        return urllib.request.Request(self.url, data=message.data, headers=headers, method="POST")  # noqa: S310


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected becomes a GET without its body, at a host that nobody wrote down."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """None makes the redirect an error."""
        del req, fp, code, msg, headers, newurl


def _post(request: urllib.request.Request, seconds: float) -> None:
    try:
        with contextlib.closing(urllib.request.build_opener(_NoRedirects).open(request, timeout=seconds)):
            return
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error) from None
    except urllib.error.URLError as error:
        raise _lost(error.reason) from None
    except OSError as error:
        raise _lost(error) from None
    except HTTPException as error:
        # What these say quotes the URL, or what the receiver sent.
        raise _Passing(f"its answer is no HTTP ({type(error).__name__})") from None
    except ValueError as error:
        raise Undelivered(f"it cannot be sent ({type(error).__name__}); mend its `headers` or its URL") from None


def _refusal(error: urllib.error.HTTPError) -> Exception:
    text = f"it answered with status {error.code}"
    if error.code >= 500 or error.code == TOO_MANY_REQUESTS:
        after = error.headers.get("Retry-After", "")
        return _Passing(text, float(after) if after.isascii() and after.isdecimal() else 0.0)
    if 300 <= error.code < 400:
        return Undelivered(f"{text}; redirects are not followed, write its real address")
    return Undelivered(text)


def _lost(reason: object) -> Exception:
    if isinstance(reason, TimeoutError):
        return Undelivered("it did not answer in time")
    words = str(getattr(reason, "strerror", None) or getattr(reason, "reason", None) or type(reason).__name__)
    if getattr(reason, "verify_code", None) is not None:
        return Undelivered(f"its certificate is not trusted: {getattr(reason, 'verify_message', words)}")
    return _Passing(f"it cannot be reached: {words}")

"""Notifications to whatever Apprise reaches: chat, mail, pagers. Needs the extra `notify`."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import threading
from typing import Any, Self

from orchestrator.notifications.rules import Message, Moment, Undelivered
from orchestrator.redaction import first_line, scrub

MISSING = "Apprise is not installed"
UNKNOWN = "Apprise does not understand this URL; see its list of services"
REMEDY = "pip install 'alembic-orchestrator[notify]'"
_TYPES = {
    Moment.SUCCEEDED: "success",
    Moment.PAUSED: "warning",
    Moment.GATE_FAILED: "failure",
    Moment.HALTED: "failure",
    Moment.FAILED: "failure",
    Moment.INTERRUPTED: "warning",
}
_ENDS = {"succeeded": "success", "failed": "failure", "halted": "failure"}
_LOGGER = logging.getLogger("apprise")


def is_installed() -> bool:
    """Whether Apprise could be imported; importing it takes a quarter of a second."""
    return importlib.util.find_spec("apprise") is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppriseAddress:
    """One Apprise URL."""

    name: str
    url: str = dataclasses.field(repr=False)

    def flaw(self) -> str | None:
        """That Apprise does not understand the URL."""
        with _Overheard():
            return None if self._plugin() is not None else UNKNOWN

    def _plugin(self) -> Any:
        """What Apprise makes of the URL: None where it makes nothing of it."""
        import apprise  # noqa: PLC0415 - an extra; that it is there was seen when the URL was filled in

        return apprise.Apprise.instantiate(self.url)

    def send(self, message: Message, seconds: float) -> None:  # noqa: ARG002 - Apprise keeps times of its own
        """Send the text, and what to type next, as a short message."""
        with _Overheard() as overheard:
            plugin = self._plugin()
            if plugin is None:
                raise Undelivered(UNKNOWN)
            try:
                sent = plugin.notify(body=_text(message), title=_title(message), notify_type=_type(message))
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and quote its URL
                raise Undelivered(f"Apprise failed: {type(error).__name__}") from None
        if not sent:
            raise Undelivered(f"Apprise could not send it{overheard.words}")

    def stop(self) -> None:
        """Nothing to do: Apprise's own timeouts end it."""


class _Overheard(logging.Handler):
    """What Apprise logs of one message: it says why there, and nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first complaint of this thread."""
        if record.thread == self._thread and not self.words:
            self.words = f": {scrub(first_line(record.getMessage()))}".removesuffix(": ")

    def __enter__(self) -> Self:
        _LOGGER.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LOGGER.removeHandler(self)


def _title(message: Message) -> str:
    return f"{message.body['project']} {message.body['environment']}: {message.body['event']}"


def _text(message: Message) -> str:
    return "\n".join(part for part in (message.body["text"], message.body.get("next")) if part)


def _type(message: Message) -> str:
    if message.moment is Moment.FINISHED:
        return _ENDS.get(str(message.body.get("status")), "warning")
    return _TYPES.get(message.moment, "info")

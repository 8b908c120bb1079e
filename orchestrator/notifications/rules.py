"""Who is told of what: the words of `notifications` in tenants.yaml, and what a receiver must be able to do."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
from collections.abc import Mapping
from typing import Any, Protocol


class Moment(enum.StrEnum):
    """What somebody may want to hear of, as `on` names it."""

    STARTED = "started"
    WAVE_FINISHED = "wave_finished"
    #: the run waits for somebody, or for its time to come; the pauses of a strategy that end by themselves are not told
    PAUSED = "paused"
    CONTINUED = "continued"
    GATE_FAILED = "gate_failed"
    #: nothing new starts, though what is in flight still ends
    HALTED = "halted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: by a signal, by `orchestrate abort`, or by an error of the runner itself
    INTERRUPTED = "interrupted"
    #: any end
    FINISHED = "finished"


#: what is told where `on` is not written
USUAL_MOMENTS = frozenset({Moment.PAUSED, Moment.HALTED, Moment.FAILED, Moment.SUCCEEDED, Moment.INTERRUPTED})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRule:
    """One entry of `notifications`, as written: variables are filled in when a run begins."""

    #: `tenants.yaml:12:5`
    place: str
    on: frozenset[Moment] = USUAL_MOMENTS
    #: program and arguments; of this, `webhook` and `apprise` one is given
    program: tuple[str, ...] = ()
    webhook: str | None = dataclasses.field(default=None, repr=False)
    apprise: str | None = dataclasses.field(default=None, repr=False)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    #: key of the signature of a webhook's body
    secret: str | None = dataclasses.field(default=None, repr=False)
    #: seconds for one notification, all its tries together
    timeout: float = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """One notification, ready to be sent: the same body to everybody."""

    moment: Moment
    #: the same for every try and every receiver, so that nobody need take one twice
    id: str
    #: `orchestrate.notification/1`, without secrets
    body: Mapping[str, Any]

    @functools.cached_property
    def data(self) -> bytes:
        """The body as JSON, in ASCII: no locale of a program and no proxy can spoil it."""
        return json.dumps(self.body).encode()


class Undelivered(Exception):  # noqa: N818 - named for what happened
    """A receiver did not take a notification; the text says why, without secrets."""


class Receiver(Protocol):
    """Whoever can be told something."""

    @property
    def name(self) -> str:
        """How output, logs and checks call it: no secret in it."""

    def flaw(self) -> str | None:
        """What can be seen to be wrong with it without sending anything, None for nothing."""

    def send(self, message: Message, seconds: float) -> None:
        """Hand it over within that time; raises `Undelivered`."""

    def stop(self) -> None:
        """End what `send` has begun, from another thread: nobody waits for it any more."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A receiver, and what it is told."""

    receiver: Receiver
    on: frozenset[Moment] = USUAL_MOMENTS
    #: seconds for one notification
    timeout: float = 10.0
    #: where it is written
    place: str = ""

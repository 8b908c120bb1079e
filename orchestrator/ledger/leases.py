"""How the lease changes hands, whatever it is written on."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.errors import LeaseHeld, LeaseLost
from orchestrator.ledger.holders import is_alive, is_dead
from orchestrator.ledger.protocol import HEARTBEAT_SECONDS, LEASE_SECONDS, Holder, Lease, StopRequest

#: seconds between two looks at a lease that somebody elsewhere holds
_LOOK_SECONDS = 0.2
#: seconds that a silent process of this machine has to say that it lives
_WAKING_SECONDS = 2 * HEARTBEAT_SECONDS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The lease of one project and environment, as it is written down at this moment."""

    #: of the latest holder, 0 before the first
    token: int
    holder: Holder
    run: str | None
    acquired_at: datetime.datetime
    renewed_at: datetime.datetime
    #: of the clock that wrote the other two
    now: datetime.datetime
    stop: StopRequest | None
    released: bool

    @property
    def lease(self) -> Lease:
        """What its holder was given, and the run that is live under it."""
        return Lease(token=self.token, holder=self.holder, run=self.run)

    @property
    def beat(self) -> tuple[int, datetime.datetime]:
        """Changes whenever the holder, or another one, says that it lives."""
        return self.token, self.renewed_at

    @property
    def may_wake(self) -> bool:
        """Whether its process is still there: silent though it may be, perhaps this whole machine has been asleep."""
        return not self.released and is_alive(self.holder)

    @property
    def is_free(self) -> bool:
        """Whether nobody alive holds it: it was given back, its holder is gone, or has been silent for too long."""
        silent = (self.now - self.renewed_at).total_seconds()
        return self.released or is_dead(self.holder) or silent >= LEASE_SECONDS


class Leases(Protocol):
    """Where the lease of one project and environment is written down."""

    #: `billing/production`
    scope: str

    def read(self) -> Entry | None:
        """The lease as it is now, None before the first holder."""

    def take(self, seen: Entry | None, holder: Holder) -> Lease | None:
        """Write a new holder down if nothing has changed since that was read; None when something has."""


def acquire(leases: Leases, holder: Holder, pause: Callable[[float], None] | None = None) -> Lease:
    """Take the lease once nobody alive holds it; `LeaseHeld` as soon as it is known that somebody does.

    `pause` waits between two looks; what it raises ends the waiting.

    What cannot be known yet is watched by this process's own clock, so that a clock that was set back while the lease
    was held does not keep it for ever.
    """
    watched: Entry | None = None
    deadline = 0.0
    while True:
        seen = leases.read()
        has_beaten = seen is not None and watched is not None and seen.beat != watched.beat
        overdue = watched is not None and not has_beaten and time.monotonic() >= deadline
        if seen is None or overdue or (seen.is_free and not seen.may_wake):
            lease = leases.take(seen, holder)
            if lease is not None:
                return lease
            continue
        if not seen.is_free and (has_beaten or is_alive(seen.holder)):
            raise held(seen, leases.scope)
        if watched is None or has_beaten:
            patience = _WAKING_SECONDS if seen.may_wake else LEASE_SECONDS + HEARTBEAT_SECONDS
            watched, deadline = seen, time.monotonic() + patience
        (pause or time.sleep)(_LOOK_SECONDS)


def live(leases: Leases) -> Entry | None:
    """The lease if somebody alive holds it."""
    seen = leases.read()
    return None if seen is None or seen.is_free else seen


def held(entry: Entry, scope: str) -> LeaseHeld:
    """Somebody else runs: who, where, since when, and what can be done."""
    holder, run = entry.holder, entry.run
    who = f"{holder.operator} on {holder.host}, pid {holder.pid}, since {entry.acquired_at:%Y-%m-%d %H:%M:%S} UTC"
    if run is None:
        return LeaseHeld(f"another run of {scope} is about to begin, by {who}; `orchestrate runs list` shows it then")
    return LeaseHeld(
        f"run {run} of {scope} is live, by {who}; watch it with `orchestrate runs show {run}`, "
        f"or end it with `orchestrate abort {run}`"
    )


def lost(entry: Entry | None, token: int, scope: str) -> LeaseLost:
    """This process has the lease no more."""
    if entry is None or entry.token == token:
        return LeaseLost(f"the lease of {scope} has been given back, so nothing more is written under it")
    holder = entry.holder
    return LeaseLost(
        f"the lease of {scope} was taken over by {holder.operator} on {holder.host}, pid {holder.pid}, at "
        f"{entry.acquired_at:%Y-%m-%d %H:%M:%S} UTC, while this process was silent; it writes nothing more: see "
        "`orchestrate runs list`"
    )

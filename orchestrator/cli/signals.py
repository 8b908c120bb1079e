"""Ctrl-C and SIGTERM during a run: the first drains it, the second stops it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from orchestrator.cli import deferred
from orchestrator.cli.tallies import Tally

if TYPE_CHECKING:
    from orchestrator.rollout import StopSignal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def draining(stop: StopSignal, tally: Tally, say: Callable[[str], None]) -> Iterator[None]:
    """Hand both signals to the run while it lasts; only the main thread of a process may do that.

    `say` is called by the handler, and so in the middle of anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    causes = deferred.rollout.StopCause

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        first = stop.cause is None
        stop.request(causes.TERMINATED if number == signal.SIGTERM else causes.INTERRUPTED)
        say(announcement(tally, number, first=first))

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def announcement(tally: Tally, number: int, *, first: bool) -> str:
    """`draining: 12 running, 9,431 not started; Ctrl-C again to stop them`."""
    if not first:
        return f"stopping {tally.running:,} running now"
    again = "a second SIGTERM stops them" if number == signal.SIGTERM else "Ctrl-C again to stop them"
    return f"draining: {tally.running:,} running, {tally.not_started:,} not started; {again}"

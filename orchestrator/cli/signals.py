"""Ctrl-C and SIGTERM during a run, where the first drains it and the second stops it, and after its end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestrator.cli import deferred
from orchestrator.cli.tallies import Tally

if TYPE_CHECKING:
    from orchestrator.rollout import StopSignal

SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: what `signal.signal` takes and gives back
Handler: TypeAlias = "Callable[[int, FrameType | None], Any] | int | None"


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

    with _handled(handle):
        yield


@contextlib.contextmanager
def finishing() -> Iterator[Callable[[], None]]:
    """Let a run that is over write its report: the first signal after its end is spared it, another one is not.

    Gives what is to be called when the run begins.
    """
    previous: dict[signal.Signals, Handler] = {}

    def restore(*_: object) -> None:
        while previous:
            signal.signal(*previous.popitem())

    def spare() -> None:
        if threading.current_thread() is threading.main_thread():
            previous.update({number: signal.signal(number, restore) for number in SIGNALS})

    try:
        yield spare
    finally:
        restore()


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Let the first signal raise `KeyboardInterrupt`, whichever it is: to end a wait, and not the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        for each in SIGNALS:
            signal.signal(each, lambda _number, _frame: None)
        raise KeyboardInterrupt

    with _handled(handle):
        yield


@contextlib.contextmanager
def _handled(handle: Handler) -> Iterator[None]:
    """Have both signals handled so while the body runs, and then as before."""
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

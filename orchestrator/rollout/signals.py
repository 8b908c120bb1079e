"""How a run is asked to stop."""

from __future__ import annotations

import contextlib
import enum
import signal
import threading
from collections.abc import Callable, Iterator

from orchestrator.errors import ExitCode, LedgerError


class StopCause(enum.StrEnum):
    """Who asked a run to stop."""

    #: Ctrl-C
    INTERRUPTED = "interrupted"
    #: SIGTERM
    TERMINATED = "terminated"
    #: `orchestrate abort`, from another process
    ABORTED = "aborted"

    @property
    def exit_code(self) -> ExitCode:
        """130 or 143, as shells say it; 1 for a run that was aborted."""
        return {"interrupted": ExitCode.INTERRUPTED, "terminated": ExitCode.TERMINATED}.get(self, ExitCode.FAILURES)


class StopSignal:
    """Asks a run to stop, from a signal handler or from any thread; it takes no lock, so a handler may call it.

    `drain` lets jobs in flight finish and starts no more; `now` cancels those in flight as well. `request` is for
    signal handlers: the first call drains, the next one stops at once.
    """

    def __init__(self) -> None:
        #: who asked first, None while nobody has; whoever aborts a run has the last word on how it ends
        self.cause: StopCause | None = None
        #: why nothing may be written any more
        self.error: LedgerError | None = None
        #: whether jobs in flight are to be cancelled
        self.immediate = False
        self._wakes: list[Callable[[], None]] = []

    def drain(self, cause: StopCause = StopCause.INTERRUPTED) -> None:
        """Start nothing more; the first cause counts, unless the run is aborted."""
        self._note(cause)
        self._wake()

    def now(self, cause: StopCause = StopCause.INTERRUPTED) -> None:
        """Start nothing more and cancel what is in flight."""
        self._note(cause)
        self.immediate = True
        self._wake()

    def fail(self, error: LedgerError) -> None:
        """Start nothing more: another runner has the lease, so this one may not write down what it does."""
        self.error = self.error or error
        self._wake()

    def request(self, cause: StopCause = StopCause.INTERRUPTED) -> None:
        """Drain at the first call, stop at once at the second."""
        if self.cause is None:
            self.drain(cause)
        else:
            self.now(cause)

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever somebody asks; at once when somebody has already."""
        self._wakes.append(wake)
        if self.cause is not None or self.error is not None:
            wake()

    def _note(self, cause: StopCause) -> None:
        self.cause = cause if cause is StopCause.ABORTED else self.cause or cause

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()


@contextlib.contextmanager
def draining_on_interrupt(stop: StopSignal) -> Iterator[None]:
    """Let Ctrl-C drain where it would raise KeyboardInterrupt in the middle of the bookkeeping.

    A program that has a handler of its own keeps it.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: stop.request(StopCause.INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

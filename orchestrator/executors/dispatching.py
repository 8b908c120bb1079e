"""The thread between an executor and its lanes: it alone touches them, so nothing here needs a lock."""

from __future__ import annotations

import enum
import itertools
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Collection
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from queue import Empty, SimpleQueue
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.executors import endings
from orchestrator.executors.lanes import GRACE, Ending, Errand, Lane, State, context
from orchestrator.executors.serving import Said

logger = logging.getLogger(__name__)

#: workers in a row that may die before they are ready, before no more are started
MISFIRES = 3
#: waiting jobs that are looked through for one of the same database
LOOK_AHEAD = 64


class Wish(enum.Enum):
    """What the executor may ask for besides running a job."""

    #: leave when every job has an outcome
    CLOSE = enum.auto()
    #: give every job an outcome now, and leave
    CANCEL = enum.auto()


class Dispatcher(threading.Thread):
    """Gives errands to lanes, hears what comes back, replaces what dies, and ends what takes too long."""

    def __init__(self, limit: int, order: bytes, preload: Collection[str]) -> None:
        # A daemon, so that an executor that nobody closed does not keep the interpreter from ending.
        super().__init__(name="orchestrate-dispatcher", daemon=True)
        self._limit = limit
        self._order = order
        self._context = context()
        if isinstance(self._context, ForkServerContext):
            self._context.set_forkserver_preload([*preload])
        self._inbox: SimpleQueue[Errand | Wish] = SimpleQueue()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._lanes: list[Lane] = []
        self._waiting: deque[Errand] = deque()
        self._closing = False
        #: why no worker can start
        self._error: OrchestratorError | None = None
        #: workers in a row that died before they were ready
        self._misfires = 0

    def tell(self, message: Errand | Wish) -> None:
        """Pass an errand or a wish to the thread."""
        self._inbox.put(message)
        try:
            os.write(self._wake_writer, b"!")
        except BlockingIOError:
            # The pipe is full of earlier calls: the thread will wake up anyhow.
            pass

    def release(self) -> None:
        """Close what `tell` needs, once the thread has ended."""
        for descriptor in (self._wake_reader, self._wake_writer):
            if descriptor >= 0:
                os.close(descriptor)
        self._wake_reader = self._wake_writer = -1

    def run(self) -> None:
        """Work until told to close."""
        # Signals are for the thread that drives the run, and workers inherit this mask until they have handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._work()
        except Exception as error:
            logger.exception("the dispatcher failed")
            self._abandon(OrchestratorError(f"internal error while running jobs in processes: {error!r}"))
            self._dismiss()
            while not self._closing:
                self._ready_lanes(None)
                self._read_inbox()
        self._dismiss()

    def _work(self) -> None:
        while True:
            self._read_inbox()
            self._assign()
            if self._closing and not self._waiting and not any(lane.errand for lane in self._lanes):
                return
            for lane in self._ready_lanes(self._patience()):
                self._listen(lane)
            for lane in self._lanes:
                lane.enforce()

    def _ready_lanes(self, patience: float | None) -> list[Lane]:
        """Wait for news from the executor or from lanes; the lanes that have some."""
        ready = wait([self._wake_reader, *(lane.pipe for lane in self._lanes)], patience)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 65536)
        return [lane for lane in self._lanes if lane.pipe in ready]

    def _dismiss(self) -> None:
        """End the workers: those that still get ready at once, the others at their leisure."""
        for lane in self._lanes:
            if lane.state is State.STARTING:
                lane.kill()
            lane.release()
        deadline = time.monotonic() + GRACE
        for lane in self._lanes:
            lane.close(patience=max(0.0, deadline - time.monotonic()))
        self._lanes.clear()

    def _patience(self) -> float | None:
        deadlines = [lane.deadline for lane in self._lanes if lane.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    # -- what the executor says ---------------------------------------------------------------------------------

    def _read_inbox(self) -> None:
        while True:
            try:
                message = self._inbox.get_nowait()
            except Empty:
                return
            if isinstance(message, Errand):
                self._queue(message)
                continue
            self._closing = True
            if message is Wish.CANCEL:
                self._cancel()

    def _queue(self, errand: Errand) -> None:
        if self._error:
            errand.future.set_exception(self._error)
        else:
            self._waiting.append(errand)

    def _cancel(self) -> None:
        for lane in self._lanes:
            if lane.errand:
                lane.end(Ending.CANCEL)
        while self._waiting:
            errand = self._waiting.popleft()
            errand.future.set_result(endings.never_begun(errand.job))

    # -- giving errands to lanes --------------------------------------------------------------------------------

    def _assign(self) -> None:
        while self._waiting:
            lane = self._free_lane()
            if lane is None:
                return
            lane.give(self._errand_for(lane))

    def _free_lane(self) -> Lane | None:
        place = self._waiting[0].place
        idle = [lane for lane in self._lanes if lane.state is State.IDLE]
        if idle:
            return min(idle, key=lambda lane: (lane.place != place, lane.place is not None))
        return self._new_lane() if len(self._lanes) < self._limit else None

    def _new_lane(self) -> Lane | None:
        for tries_left in reversed(range(MISFIRES)):
            try:
                lane = Lane(self._context, self._order)
            except Exception as error:
                # No memory, no processes left, not allowed to have children; or the server that workers are forked
                # from was killed just now: the next try starts another one.
                if tries_left:
                    logger.warning("a worker process could not be started", exc_info=True)
                    continue
                self._give_up(f"no worker process can be started: {type(error).__name__}: {error}")
                return None
            self._lanes.append(lane)
            return lane
        return None

    def _errand_for(self, lane: Lane) -> Errand:
        for index, errand in enumerate(itertools.islice(self._waiting, LOOK_AHEAD)):
            if errand.place == lane.place:
                del self._waiting[index]
                return errand
        return self._waiting.popleft()

    # -- what the lanes say -------------------------------------------------------------------------------------

    def _listen(self, lane: Lane) -> None:
        try:
            while True:
                self._note(lane, *lane.hear())
                if not lane.pipe.poll():
                    return
        except EOFError:
            self._bury(lane)
        except Exception:
            # What cannot be read cannot be trusted: the job is lost with its worker.
            logger.exception("a worker process sent something unreadable")
            lane.kill()

    def _note(self, lane: Lane, said: Said, about: Any) -> None:
        if said is Said.READY:
            self._misfires = 0
        elif said is Said.UNUSABLE:
            type_name, text = about
            self._give_up(f"a worker process cannot start: {text or type_name}")
        elif said in {Said.DONE, Said.RAISED} and lane.errand:
            future = lane.errand.future
            future.set_result(lane.outcome(said, about))

    def _bury(self, lane: Lane) -> None:
        stillborn = lane.state is State.STARTING
        self._lanes.remove(lane)
        errand, outcome, exit_code = lane.bury()
        if errand and outcome:
            errand.future.set_result(outcome)
        elif errand:
            # Its worker died before it had read the job, so giving it to another one repeats nothing.
            errand.misfires += 1
            self._waiting.appendleft(errand)
        self._misfires += stillborn
        if self._misfires >= MISFIRES or (errand and errand.misfires >= MISFIRES):
            self._give_up(f"worker processes die before they can work ({endings.name_exit(exit_code)})")
        if self._error:
            self._refuse_waiting(self._error)

    # -- when it cannot go on -----------------------------------------------------------------------------------

    def _give_up(self, text: str) -> None:
        """Start no more workers; jobs that run keep running."""
        advice = "see the log of the run, or try the inline executor to see the cause"
        self._error = self._error or OrchestratorError(f"{text}; {advice}")
        self._refuse_waiting(self._error)

    def _refuse_waiting(self, error: OrchestratorError) -> None:
        while self._waiting:
            self._waiting.popleft().future.set_exception(error)

    def _abandon(self, error: OrchestratorError) -> None:
        """Leave no future unfinished though this thread is broken."""
        self._error = error
        self._read_inbox()
        self._refuse_waiting(error)
        for lane in self._lanes:
            lane.kill()
            errand, lane.errand = lane.errand, None
            if errand:
                errand.future.set_exception(error)

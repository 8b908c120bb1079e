"""A listener that sends notifications without ever holding up the run: one thread for each receiver."""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from orchestrator.events import Event, RunStarted
from orchestrator.notifications.rules import Message, Moment, Receiver, Subscription, Undelivered
from orchestrator.notifications.stories import Story
from orchestrator.redaction import scrub

logger = logging.getLogger(__name__)

#: seconds that the end of a run waits for all that is not sent yet
PATIENCE = 15.0
#: notifications that wait for one receiver; the oldest gives way to a new one
MOST_WAITING = 50
#: deliveries to one receiver that never came back, before nothing more is tried
MOST_HANGING = 3
#: seconds after its own time that a delivery may still say why it failed
GRACE = 0.5


class Notifier:
    """Tells each receiver what it wants to hear; an event costs the run no more than writing it down.

    A notification that cannot be delivered is logged and told by `close`, and changes nothing else.
    """

    def __init__(
        self, subscriptions: Sequence[Subscription], *, operator: str = "unknown", complaints: Sequence[str] = ()
    ) -> None:
        #: receivers that cannot be told anything, and why
        self.complaints = tuple(complaints)
        self._operator = operator
        self._lanes = tuple(_Lane(subscription) for subscription in subscriptions)
        self._story: Story | None = None

    def __call__(self, event: Event) -> None:
        """Hear an event of a run."""
        if not self._lanes:
            return
        if isinstance(event, RunStarted):
            self._story = Story(event, self._operator)
        if self._story is not None:
            self._tell(self._story, self._story.hear(event), event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, seconds: float = PATIENCE) -> tuple[str, ...]:
        """Wait for what is not sent yet, all in all so long; a line for each receiver that something was lost for.

        A run that has begun, and has not said how it ended, has been interrupted.
        """
        story, self._story = self._story, None
        if story is not None and not story.is_over:
            self._tell(story, (Moment.INTERRUPTED, Moment.FINISHED), None)
        until = time.monotonic() + seconds
        for lane in self._lanes:
            lane.end(until)
        for lane in self._lanes:
            lane.join(until)
        return tuple(scrub(line) for lane in self._lanes for line in lane.losses())

    def _tell(self, story: Story, moments: Sequence[Moment], event: Event | None) -> None:
        identifier = uuid.uuid4().hex
        messages: dict[Moment, Message] = {}
        for lane in self._lanes:
            moment = next((moment for moment in moments if moment in lane.subscription.on), None)
            if moment is None:
                continue
            if moment not in messages:
                messages[moment] = story.message(moment, event, identifier)
            lane.put(messages[moment])


class _Lane:
    """One receiver, its thread, and what waits for it: one that hangs keeps no other waiting."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self._waiting: collections.deque[Message] = collections.deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._current: Message | None = None
        #: when the run waits no longer
        self._until: float | None = None
        self._hanging: list[threading.Thread] = []
        #: moments of what was lost, and why the latest one was
        self._lost: list[Moment] = []
        self._reason = ""

    def put(self, message: Message) -> None:
        """Add a notification; never waits."""
        with self._news:
            if len(self._waiting) >= MOST_WAITING:
                self._lose(self._waiting.popleft(), f"more than {MOST_WAITING} were waiting for it")
            self._waiting.append(message)
            if self._thread is None:
                name = f"orchestrate-notify-{self.subscription.receiver.name}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
            self._news.notify()

    def end(self, until: float) -> None:
        """Send what waits, and end; after `until` there is no time for it any more."""
        with self._news:
            self._until = until
            self._news.notify()

    def join(self, until: float) -> None:
        """Wait for the end, and give up what is not sent by then."""
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        with self._news:
            rest = [*([self._current] if self._current else []), *self._waiting]
            self._current, self._thread, self._until = None, None, None
            self._waiting.clear()
            for message in rest:
                self._lose(message, "there was no time left at the end of the run")
            # One that hung until now must not wait for ever for more.
            self._news.notify_all()
        if rest:
            self.subscription.receiver.stop()

    def losses(self) -> Iterator[str]:
        """What to say about what was lost, once."""
        with self._news:
            lost, self._lost = self._lost, []
        if lost:
            words = ", ".join(dict.fromkeys(moment.value for moment in lost))
            number = "a notification" if len(lost) == 1 else f"{len(lost)} notifications"
            yield f"{number} ({words}) not delivered to {self.subscription.receiver.name}: {self._reason}"

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._until is not None or self._is_given_up())
                if not self._waiting or self._is_given_up():
                    return
                message = self._current = self._waiting.popleft()
                seconds = self._seconds()
            try:
                self._deliver(message, seconds)
            except Undelivered as error:
                reason: str | None = str(error)
            else:
                reason = None
            self._settle(message, reason)

    def _is_given_up(self) -> bool:
        """Whether the run has ended without waiting for this thread."""
        return self._thread is not threading.current_thread()

    def _seconds(self) -> float:
        left = self.subscription.timeout if self._until is None else self._until - time.monotonic()
        return max(0.0, min(self.subscription.timeout, left))

    def _settle(self, message: Message, reason: str | None) -> None:
        with self._news:
            if self._current is not message:
                return  # given up meanwhile, and told
            self._current = None
            if reason is not None:
                self._lose(message, reason)
        if reason is None:
            where = self.subscription.receiver.name
            logger.info("told %s that the run has %s", where, message.moment, extra={"run": message.body["run"]})

    def _lose(self, message: Message, reason: str) -> None:
        self._lost.append(message.moment)
        self._reason = reason
        where = self.subscription.receiver.name
        text = "notification %s not delivered to %s: %s"
        logger.warning(text, message.moment, where, reason, extra={"run": message.body["run"]})

    def _deliver(self, message: Message, seconds: float) -> None:
        """In a thread that may be left behind: no library that is asked here can be trusted to come back in time."""
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise Undelivered("it hangs")
        thread = deliver(self.subscription.receiver, message, seconds)
        if thread is not None:
            self._hanging.append(thread)
            raise Undelivered(f"it did not answer within {seconds:.3g} s")


def deliver(receiver: Receiver, message: Message, seconds: float) -> threading.Thread | None:
    """Send within that time; raises `Undelivered`, and gives the thread that has not come back, if it has not."""
    failures: list[Undelivered] = []

    def send() -> None:
        with _as_undelivered(failures.append):
            receiver.send(message, seconds)

    thread = threading.Thread(target=send, name="orchestrate-notification", daemon=True)
    thread.start()
    thread.join(seconds + GRACE)
    if thread.is_alive():
        return thread
    if failures:
        raise failures[0]
    return None


@contextlib.contextmanager
def _as_undelivered(note: Callable[[Undelivered], None]) -> Iterator[None]:
    try:
        yield
    except Undelivered as error:
        note(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread without a word
        note(Undelivered(f"failed: {type(error).__name__}"))

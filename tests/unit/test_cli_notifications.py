"""Notifications on the command line: told beside the run, never instead of it."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from orchestrator.cli import signals
from orchestrator.notifications import Message, Moment, Notifier, Subscription, Undelivered
from orchestrator.outcomes import Status
from orchestrator.plans import Command
from orchestrator.selectors import Selection
from tests.unit.cli_fakes import FakeProject
from tests.unit.cli_runs import Invoke, interrupted, invoke, project

__all__ = ["interrupted", "invoke", "project"]


class Receiver:
    name = "webhook hooks.internal:443"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        self.heard: list[Message] = []

    def flaw(self) -> str | None:
        return None

    def send(self, message: Message, seconds: float) -> None:
        if self.reason is not None:
            raise Undelivered(self.reason)
        self.heard.append(message)

    def stop(self) -> None:
        pass


def test_every_command_that_runs_something_tells(invoke: Invoke, project: FakeProject) -> None:
    receiver = Receiver()
    project.subscriptions = (Subscription(receiver=receiver, on=frozenset({Moment.FINISHED})),)
    project.runs.left = project.plan("head", command=Command.UPGRADE, selection=Selection(everything=True))

    codes = [invoke(*line.split()).exit_code for line in ("upgrade --all", "resume", "retry", "rollback --yes")]

    assert codes == [0, 0, 0, 0]
    assert [message.body["event"] for message in receiver.heard] == ["finished"] * 4


@pytest.mark.parametrize(("ends", "exit_code"), [({}, 0), ({"globex": Status.FAILED}, 1)])
def test_what_was_not_delivered_is_said_after_the_report_and_changes_no_exit_code(
    invoke: Invoke, project: FakeProject, ends: dict[str, Status], exit_code: int
) -> None:
    project.ends = ends
    project.subscriptions = (Subscription(receiver=Receiver("it answered with status 503")),)

    result = invoke("upgrade", "--all", "-o", "json")

    assert result.exit_code == exit_code
    assert json.loads(result.stdout)["exit_code"] == exit_code
    word = "failed" if exit_code else "succeeded"
    last = result.stderr.splitlines()[-1]
    assert last == (f"a notification ({word}) not delivered to webhook hooks.internal:443: it answered with status 503")
    quiet = invoke("upgrade", "--all", "-q")
    assert quiet.stderr.splitlines() == [last]


def test_a_receiver_that_cannot_be_told_anything_is_said_at_once(invoke: Invoke, project: FakeProject) -> None:
    project.complaints = ("tenants.yaml:6:5: variable `HOOK` is not set; export HOOK",)
    result = invoke("upgrade", "--all")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == (
        "no notification: tenants.yaml:6:5: variable `HOOK` is not set; export HOOK"
    )


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_ends_the_wait_and_not_the_command(
    invoke: Invoke, project: FakeProject, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    hanging = threading.Event()

    class Hanging(Receiver):
        def send(self, message: Message, seconds: float) -> None:
            hanging.wait(60)

    project.subscriptions = (Subscription(receiver=Hanging(), timeout=60),)
    close = Notifier.close

    def interrupted(self: Notifier, seconds: float = 15) -> tuple[str, ...]:
        os.kill(os.getpid(), number)
        return close(self, seconds)

    monkeypatch.setattr(Notifier, "close", interrupted)
    result = invoke("upgrade", "--all")
    hanging.set()
    assert result.exit_code == 0
    assert "3  upgraded" in result.stdout
    assert "no time left at the end of the run" in result.stderr
    assert "interrupted" not in result.stderr


def test_an_error_in_the_middle_of_a_run_is_told(invoke: Invoke, project: FakeProject) -> None:
    receiver = Receiver()
    project.subscriptions = (Subscription(receiver=receiver),)

    def burn(_: FakeProject) -> None:
        raise RuntimeError("the house is on fire")

    project.during = burn
    assert invoke("upgrade", "--all").exit_code == 70
    assert [message.body["event"] for message in receiver.heard] == ["interrupted"]


def test_the_doctor_can_be_asked_for_a_trial(invoke: Invoke, project: FakeProject) -> None:
    assert invoke("doctor").exit_code == 0
    assert not project.tried
    assert invoke("doctor", "--notify").exit_code == 0
    assert project.tried

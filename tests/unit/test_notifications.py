"""Notifications: what is told when, to whom, and what becomes of it when nobody takes it."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator import redaction
from orchestrator.errors import ExitCode
from orchestrator.events import (
    Event,
    GateAnswered,
    JobFinished,
    JobsAdded,
    RunContinued,
    RunFinished,
    RunHalted,
    RunPaused,
    RunStarted,
    WaveFinished,
    WaveStarted,
)
from orchestrator.notifications import Message, Moment, Notifier, Subscription, Undelivered, notifier
from orchestrator.notifications.apprises import AppriseAddress
from orchestrator.notifications.stories import LARGEST_BODY, Story, trial
from orchestrator.notifications.webhooks import Webhook
from orchestrator.outcomes import GateResult, Outcome, Report, RunStatus, Status, Verdict, WaveSummary
from orchestrator.testing import a_failure, a_job, a_plan, a_wave, an_outcome
from tests.unit import cli_fakes
from tests.unit.receivers import (
    DRIP,
    DROP,
    HANG,
    Service,
    is_running,
    program,
    self_signed,
    send,
    service,
    wait_for,
)

EVERYTHING = frozenset(Moment)
RUN = "r-20261122-120000-4f2a"


@pytest.fixture
def site() -> Iterator[Service]:
    with service() as made:
        yield made


class Ears:
    """A receiver that only listens; one that is `away` takes nothing."""

    name = "ears"

    def __init__(self, *, away: str | None = None) -> None:
        self.heard: list[Message] = []
        self.away = away

    def flaw(self) -> str | None:
        return None

    def send(self, message: Message, seconds: float) -> None:
        if self.away is not None:
            raise Undelivered(self.away)
        self.heard.append(message)

    def stop(self) -> None:
        pass


class Stuck(Ears):
    """A receiver that never comes back."""

    name = "stuck"

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.tries = 0
        self.stopped = False

    def send(self, message: Message, seconds: float) -> None:
        self.tries += 1
        self.released.wait(60)

    def stop(self) -> None:
        self.stopped = True


def report(status: RunStatus = RunStatus.SUCCEEDED, *outcomes: Outcome, **fields: Any) -> Report:
    return cli_fakes.report(*outcomes, status=status, **{"run": RUN, "environment": "test", **fields})


def heard(events: Sequence[Event], on: frozenset[Moment] = EVERYTHING) -> list[Message]:
    ears = Ears()
    with Notifier([Subscription(receiver=ears, on=on)], operator="ann@build7") as told:
        for event in events:
            told(event)
    return ears.heard


def words(events: Sequence[Event], on: frozenset[Moment] = EVERYTHING) -> list[str]:
    return [message.moment.value for message in heard(events, on)]


STARTED = RunStarted(run=RUN, plan=a_plan("acme", "globex"))
GATE = GateResult(kind="command", verdict=Verdict.FAILED, text="./smoke ended with status 1")


def halted(cause: str) -> RunHalted:
    return RunHalted(cause=cause, text="3 failures, more than 2", in_flight=1, not_started=5)


# -- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([WaveStarted(wave="all", jobs=2), WaveFinished(wave="all")], ["wave_finished"]),
        ([RunPaused(cause="person", text="x"), RunContinued(text="ann")], ["paused", "continued"]),
        ([RunPaused(cause="gate", text="x")], ["paused"]),
        ([RunPaused(cause="bake", text="x", seconds=600), RunContinued(text="over")], []),
        ([GateAnswered(wave="all", result=GATE), halted("gate")], ["gate_failed", "halted"]),
        ([halted("budget"), RunFinished(report=report(RunStatus.HALTED))], ["halted", "finished"]),
        ([RunFinished(report=report(RunStatus.HALTED))], ["halted"]),
        ([halted("interrupted"), RunFinished(report=report(RunStatus.INTERRUPTED))], ["interrupted"]),
        ([halted("interrupted"), RunFinished(report=report(RunStatus.ABORTED))], ["interrupted"]),
        ([halted("deferred"), RunFinished(report=report(RunStatus.PAUSED))], ["paused"]),
        (
            [RunPaused(cause="person", text="x"), halted("paused"), RunFinished(report=report(RunStatus.PAUSED))],
            ["paused", "finished"],
        ),
        ([RunFinished(report=report())], ["succeeded"]),
        ([RunFinished(report=report(RunStatus.FAILED))], ["failed"]),
    ],
)
def test_each_event_is_told_by_its_most_exact_word(events: list[Event], told: list[str]) -> None:
    ended = events if isinstance(events[-1], RunFinished) else [*events, RunFinished(report=report())]
    end = [] if ended is events else ["succeeded"]
    assert words([STARTED, *ended]) == ["started", *told, *end]


def test_only_what_was_asked_for_is_told() -> None:
    events = [STARTED, halted("budget"), RunFinished(report=report(RunStatus.HALTED))]
    assert words(events, frozenset({Moment.FINISHED})) == ["finished"]
    assert words(events, frozenset({Moment.HALTED})) == ["halted"]
    assert words(events, frozenset({Moment.SUCCEEDED, Moment.STARTED})) == ["started"]


def test_a_run_that_never_said_how_it_ended_was_interrupted() -> None:
    (message,) = heard([STARTED, JobFinished(outcome=an_outcome("acme"))], frozenset({Moment.INTERRUPTED}))
    assert message.body["status"] == "interrupted"
    assert message.body["next"] == f"orchestrate resume {RUN}"
    assert "interrupted: its runner ended before the run did; 1 upgraded" in message.body["text"]


def test_what_is_known_in_the_middle_of_a_run() -> None:
    plan = a_plan(a_wave("acme", "globex", name="canary"), a_wave("initech", name="rest"), settled=[an_outcome("old")])
    events = [
        RunStarted(run=RUN, plan=plan),
        WaveStarted(wave="canary", jobs=2),
        JobFinished(outcome=an_outcome(a_job("acme", wave="canary"))),
        JobFinished(outcome=an_outcome(a_job("globex", wave="canary"), Status.FAILED)),
        JobsAdded(wave="late", jobs=(a_job("hooli", wave="late"),)),
        halted("budget"),
    ]
    body = next(message.body for message in heard(events) if message.moment is Moment.HALTED)
    assert body["format"] == "orchestrate.notification/1"
    assert (body["run"], body["project"], body["environment"], body["operator"]) == (
        RUN,
        "billing",
        "test",
        "ann@build7",
    )
    assert (body["command"], body["revision"], body["status"], body["exit_code"]) == (
        "upgrade",
        ["r002"],
        "halted",
        None,
    )
    assert body["targets"] == 5
    assert {name: number for name, number in body["counts"].items() if number} == {"upgraded": 2, "failed": 1}
    assert body["waves"] == [{"name": "canary", "status": "running", "counts": {"upgraded": 1, "failed": 1}}]
    (cause,) = body["failures"]
    assert (cause["code"], cause["targets"], cause["count"], cause["fingerprint"]) == (
        "23505",
        ["globex"],
        1,
        "23505:r002",
    )
    assert body["text"] == f"billing test: upgrade to r002 halted: 3 failures, more than 2 (run {RUN})"
    assert body["next"] == f"orchestrate retry {RUN}"


def test_the_end_of_a_run_has_its_report() -> None:
    failed = [an_outcome(f"t{number}", Status.FAILED) for number in range(7)]
    lost = an_outcome("lost", Status.LOST, failure=None)
    waves = (WaveSummary(name="all", status="failed", counts={"failed": 7, "lost": 1, "upgraded": 0}),)
    ended = report(RunStatus.FAILED, *failed, lost, waves=waves, operator="eve@ci", exit_code=ExitCode.FAILURES)
    *_, message = heard([STARTED, RunFinished(report=ended)])
    body = message.body
    assert (body["operator"], body["status"], body["exit_code"]) == ("eve@ci", "failed", 1)
    assert body["failures"][0]["targets"] == ["t0", "t1", "t2", "t3", "t4"]
    assert (body["failures"][0]["count"], body["failures"][1]["count"], body["causes"]) == (7, 1, 2)
    assert body["waves"] == [{"name": "all", "status": "failed", "counts": {"failed": 7, "lost": 1}}]
    assert "failed: 7 failed, 1 lost; t0, t1: could not create unique index" in body["text"]
    assert body["next"] == f"orchestrate retry {RUN}"


def test_a_huge_run_has_a_small_notification() -> None:
    long = "ü" * 5000
    outcomes = [
        an_outcome(
            f"{number}-{'x' * 90}", Status.FAILED, failure=a_failure(message=long, fingerprint=str(number % 400))
        )
        for number in range(50_000)
    ]
    waves = tuple(WaveSummary(name=f"w{n}-{'y' * 90}", status="failed", counts={"failed": n}) for n in range(300))
    ended = report(RunStatus.FAILED, *outcomes, waves=waves, revision=("z" * 3000,) * 50)
    before = time.monotonic()
    *_, message = heard([STARTED, RunFinished(report=ended)])
    assert time.monotonic() - before < 2
    assert len(message.data) <= LARGEST_BODY
    assert message.body["causes"] == 400
    assert message.body["failures"]
    assert message.body["counts"]["failed"] == 50_000


def test_no_secret_and_no_second_line_is_told() -> None:
    redaction.remember("sesame-4711")
    try:
        failure = a_failure(message="password=sesame-4711 refused\nDETAIL: row of a customer", advice="ask sesame-4711")
        ended = report(RunStatus.FAILED, an_outcome("acme", Status.FAILED, failure=failure))
        texts = [message.data.decode() for message in heard([STARTED, halted("budget"), RunFinished(report=ended)])]
    finally:
        redaction.forget()
    assert "refused" in texts[-1]
    assert not [text for text in texts if "sesame" in text or "customer" in text]


# -- webhooks ---------------------------------------------------------------------------------------------------------


def test_a_webhook_is_posted_json(site: Service) -> None:
    send(Webhook(name="w", url=site.url, headers={"Authorization": "Bearer t0ken"}, secret="key"))
    (taken,) = site.taken
    headers = {name.lower(): value for name, value in taken.headers.items()}
    assert taken.path == "/hook"
    assert taken.body["text"].startswith("billing test: upgrade to r002 started: 2 targets in 1 wave")
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer t0ken"
    assert (headers["x-orchestrate-event"], headers["x-orchestrate-delivery"]) == ("started", taken.body["id"])
    signature = hmac.new(b"key", taken.data, hashlib.sha256).hexdigest()
    assert headers["x-orchestrate-signature"] == f"sha256={signature}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.notifications.webhooks.WAITS", (0.01, 0.01, 0.01))


@pytest.mark.parametrize("answers", [[503, 500], [429], [DROP, DROP, DROP]])
def test_what_may_pass_is_tried_again(site: Service, quick: None, answers: list[int | str]) -> None:
    site.answers = list(answers)
    send(Webhook(name="w", url=site.url))
    assert len(site.taken) == len(answers) + 1
    assert len({taken.body["id"] for taken in site.taken}) == 1


@pytest.mark.parametrize(
    ("answers", "reason", "tries"),
    [
        ([500, 502, 503, 504], "it answered with status 504 (4 tries)", 4),
        ([DROP] * 4, "it cannot be reached: RemoteDisconnected (4 tries)", 4),
        ([403], "it answered with status 403", 1),
        ([302], "it answered with status 302; redirects are not followed, write its real address", 1),
        ([307], "it answered with status 307; redirects are not followed, write its real address", 1),
    ],
)
def test_what_does_not_pass_is_told(
    site: Service, quick: None, answers: list[int | str], reason: str, tries: int
) -> None:
    site.answers, site.sends = list(answers), {"Location": f"http://127.0.0.1:{site.port}/elsewhere"}
    with pytest.raises(Undelivered) as caught:
        send(Webhook(name="w", url=site.url, headers={"Authorization": "Bearer t0ken"}))
    assert str(caught.value) == reason
    assert [taken.path for taken in site.taken] == ["/hook"] * tries


def test_a_receiver_that_asks_for_patience_is_given_it_while_there_is_time(site: Service, quick: None) -> None:
    site.answers, site.sends = [429], {"Retry-After": "1"}
    before = time.monotonic()
    send(Webhook(name="w", url=site.url))
    assert 1 <= time.monotonic() - before < 3
    site.answers, site.sends = [429], {"Retry-After": "3600"}
    with pytest.raises(Undelivered, match="status 429"):
        send(Webhook(name="w", url=site.url), seconds=2)
    assert time.monotonic() - before < 4


def test_nobody_at_home(quick: None) -> None:
    with service() as gone:
        url = gone.url
    with pytest.raises(Undelivered, match="it cannot be reached: Connection refused \\(4 tries\\)"):
        send(Webhook(name="w", url=url))


def test_a_hanging_webhook_has_its_time_and_no_more(site: Service) -> None:
    site.answers = [HANG]
    before = time.monotonic()
    with pytest.raises(Undelivered, match="it did not answer in time"):
        send(Webhook(name="w", url=site.url), seconds=0.5)
    assert time.monotonic() - before < 2


@pytest.mark.parametrize("value", ["line\nbreak-s3cret", "λ-s3cret"])
def test_a_header_that_cannot_be_sent_is_not_shown(site: Service, value: str) -> None:
    with pytest.raises(Undelivered, match="it cannot be sent") as caught:
        send(Webhook(name="w", url=site.url, headers={"X-Token": value}))
    assert "s3cret" not in str(caught.value)


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    with service(certificate) as site:
        hook = Webhook(name="w", url=site.url)
        with pytest.raises(Undelivered, match="its certificate is not trusted"):
            send(hook)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        send(hook)
        assert site.events == ["started"]


# -- Apprise ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Apprise looks for modules that Python is about to lose
def test_apprise_sends_a_short_message(site: Service, capfd: pytest.CaptureFixture[str]) -> None:
    address = AppriseAddress(name="apprise json", url=f"json://127.0.0.1:{site.port}/hook")
    story = Story(STARTED, "ann")
    assert address.flaw() is None
    send(address, message=story.message(Moment.HALTED, halted("budget"), "id-1"))
    body = site.taken[0].body
    assert (body["title"], body["type"]) == ("billing test: halted", "failure")
    assert body["message"].splitlines()[1] == f"orchestrate resume {RUN}"
    send(address, message=trial("billing", "test"))
    assert (site.taken[1].body["type"], site.taken[1].body["title"]) == ("info", "billing test: trial")
    site.answers = [500]
    with pytest.raises(Undelivered, match=r"Apprise could not send it: .*500"):
        send(address)
    unknown = AppriseAddress(name="apprise nosuch", url="nosuch://h0st-secret")
    assert unknown.flaw() == "Apprise does not understand this URL; see its list of services"
    with pytest.raises(Undelivered, match="does not understand"):
        send(unknown)
    assert capfd.readouterr() == ("", "")


# -- never in the way -------------------------------------------------------------------------------------------------


def test_a_receiver_that_hangs_holds_up_neither_the_run_nor_other_receivers() -> None:
    stuck, ears = Stuck(), Ears()
    told = Notifier(
        [Subscription(receiver=stuck, on=EVERYTHING, timeout=60), Subscription(receiver=ears, on=EVERYTHING)]
    )
    before = time.monotonic()
    told(STARTED)
    wait_for(lambda: stuck.tries)
    for number in range(200):
        told(WaveFinished(wave="all"))
        wait_for(lambda number=number: len(ears.heard) > number)
    told(RunFinished(report=report()))
    assert time.monotonic() - before < 10
    wait_for(lambda: ears.heard and ears.heard[-1].moment is Moment.SUCCEEDED)
    (line,) = told.close(0.3)
    assert line.startswith("202 notifications (wave_finished, started, succeeded) not delivered to stuck: ")
    assert [message.moment for message in ears.heard].count(Moment.WAVE_FINISHED) == 200
    assert line.endswith("there was no time left at the end of the run")
    assert stuck.stopped
    assert told.close(0.3) == ()
    stuck.released.set()


def test_a_receiver_that_always_hangs_is_left_alone_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "GRACE", 0.0)
    stuck = Stuck()
    told = Notifier([Subscription(receiver=stuck, on=EVERYTHING, timeout=0.05)])
    told(STARTED)
    for _ in range(9):
        told(WaveFinished(wave="all"))
    told(RunFinished(report=report()))
    (line,) = told.close(5)
    assert line == "11 notifications (started, wave_finished, succeeded) not delivered to stuck: it hangs"
    assert stuck.tries == notifier.MOST_HANGING
    stuck.released.set()


def test_a_drip_of_bytes_does_not_stretch_the_time(site: Service) -> None:
    site.answers = [DRIP]
    told = Notifier([Subscription(receiver=Webhook(name="drip", url=site.url), timeout=0.3)])
    before = time.monotonic()
    told(STARTED)
    told(RunFinished(report=report()))
    (line,) = told.close()
    assert time.monotonic() - before < 3
    assert line == "a notification (succeeded) not delivered to drip: it did not answer within 0.3 s"


def test_what_is_lost_is_told_once_for_each_receiver() -> None:
    away = Ears(away="it is closed")
    told = Notifier([Subscription(receiver=away, on=EVERYTHING), Subscription(receiver=Ears(), on=EVERYTHING)])
    for event in (STARTED, RunFinished(report=report())):
        told(event)
    assert told.close() == ("2 notifications (started, succeeded) not delivered to ears: it is closed",)


def test_a_command_is_ended_when_the_run_waits_no_longer(tmp_path: Path) -> None:
    page = program(tmp_path, "echo $$ > self\nexec sleep 60")
    told = Notifier([Subscription(receiver=page, on=EVERYTHING, timeout=50)])
    told(STARTED)
    wait_for(lambda: (tmp_path / "self").exists() and (tmp_path / "self").read_text())
    told(RunFinished(report=report()))
    (line,) = told.close(0.2)
    assert "there was no time left" in line
    wait_for(lambda: not is_running(int((tmp_path / "self").read_text())))


def test_a_command_that_may_not_be_ended_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = program(tmp_path, "echo $$ > started.new; mv started.new started; exec sleep 30")
    teller = Notifier([Subscription(receiver=sleeper, on=EVERYTHING)])
    kill = os.killpg

    def refuse(group: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    try:
        teller(RunStarted(run="r-1", plan=a_plan("a")))
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        (line,) = teller.close(0)
        assert "there was no time left at the end of the run" in line
    finally:
        kill(int((tmp_path / "started").read_text()), signal.SIGKILL)


def test_a_notifier_serves_several_runs() -> None:
    ears = Ears()
    with Notifier([Subscription(receiver=ears)]) as told:
        for _ in range(2):
            told(STARTED)
            told(RunFinished(report=report()))
    told(STARTED)
    told(RunFinished(report=report(RunStatus.FAILED)))
    assert told.close() == ()
    assert [message.moment.value for message in ears.heard] == ["succeeded", "succeeded", "failed"]


def test_nobody_to_tell_starts_no_thread() -> None:
    before = threading.active_count()
    told = Notifier([])
    told(STARTED)
    assert threading.active_count() == before
    assert told.close() == ()

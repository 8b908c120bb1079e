"""`notifications` of tenants.yaml: what may be written, what is wrong at which place, and what stays hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import redaction, registry
from orchestrator.notifications import USUAL_MOMENTS, Moment, Subscription
from tests.unit.registries import Folder

TENANTS = 'defaults: {url: "sqlite:///{tenant}.db"}\ntenants: {acme: {}}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def written(*entries: str) -> str:
    return TENANTS + "notifications:\n" + "".join(f"  - {entry}\n" for entry in entries)


def receivers(folder: Folder, *entries: str) -> tuple[list[Subscription], list[str]]:
    """Who is told, and what is wrong with the others."""
    rules = folder.load(written(*entries)).notifications
    subscriptions, problems = registry.subscribe(rules, folder.path)
    return subscriptions, [str(problem) for problem in problems]


def test_what_is_not_written_has_its_usual_value(folder: Folder) -> None:
    usual, other = folder.load(
        written('{exec: ["./page"]}', "{on: finished, webhook: https://h/x, timeout: 2s}")
    ).notifications
    assert (usual.on, usual.program, usual.timeout) == (USUAL_MOMENTS, ("./page",), 10.0)
    assert (other.on, other.webhook, other.timeout) == ({Moment.FINISHED}, "https://h/x", 2.0)
    assert other.place == "tenants.yaml:6:5"
    assert folder.load(TENANTS).notifications == ()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{on: finishd, exec: [x]}", "5:10: `on` cannot be `finishd`; did you mean `finished` or `wave_finished`?"),
        ("{on: [halted, now], exec: [x]}", "5:19: `on` cannot be `now`"),
        ("{on: [], exec: [x]}", "5:10: `on` must not be empty"),
        ("{exec: []}", "5:12: `exec` must not be empty"),
        ("{exec: ./page}", "5:12: `exec` must be a list; write it like [one, two]"),
        ("{on: halted}", "a notification is one of `exec`, `webhook` and `apprise`; keep one"),
        ("{exec: [x], webhook: https://h}", "a notification is one of `exec`, `webhook` and `apprise`; keep one"),
        ("{exec: [x], headers: {A: b}}", "`headers` and `secret` belong to a `webhook`; remove them"),
        ("{webhok: https://h}", "5:6: unknown key `webhok`; did you mean `webhook`?"),
        ("{webhook: [https://s3cret]}", "5:15: `webhook` must be text"),
        ("{exec: [x], timeout: soon}", "5:26: `timeout`: not a duration"),
        ("{webhook: 'https://h/${}'}", "5:15: `${…}` holds no variable"),
        ("{exec: [x, 'y{tenant}']}", "5:16: placeholder `{tenant}` outside `defaults` and `profiles`"),
    ],
)
def test_a_mistake_is_told_at_its_place(folder: Folder, entry: str, problem: str) -> None:
    (told, *_) = folder.problems(written(entry))
    assert told.startswith("tenants.yaml:5:")
    assert problem in told
    assert "s3cret" not in told


def test_variables_are_asked_for_when_somebody_is_to_be_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "team-db")
    monkeypatch.setenv("OFF", "")
    entries = ['{exec: ["./page", "${PAGER}"]}', "{webhook: 'https://h/${NOT_SET}'}", "{webhook: '${OFF:-}'}"]
    (one,), problems = receivers(folder, *entries)
    assert one.receiver.name == "`./page`"
    assert vars(one.receiver)["arguments"] == ("./page", "team-db")
    assert problems == ["tenants.yaml:6:5: variable `NOT_SET` is not set; export NOT_SET, or write ${NOT_SET:-default}"]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("ftp://h/s3cret99", "`webhook` is no HTTP URL; write it like https://host/path"),
        ("https:///s3cret99", "`webhook` is no HTTP URL"),
        ("https://h:s3cret99/x", "`webhook` is no HTTP URL"),
        ("https://h/s3cret 99", "`webhook` is no HTTP URL"),
        ("https://me:s3cret99@h/x", "`webhook` holds a user or a password; send it in `headers`, as Authorization"),
    ],
)
def test_an_address_that_cannot_be_used_is_not_shown(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    monkeypatch.setenv("HOOK", address)
    for entry in ("{webhook: '${HOOK}'}", f"{{webhook: '{address}'}}"):
        subscriptions, (told,) = receivers(folder, entry)
        assert not subscriptions
        assert problem in told
        assert "s3cret" not in told


def test_an_apprise_address_is_shown_by_its_kind(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK", "T0KEN12345/B0KEN12345/abcdef0123456789abcdef01")
    (one,), problems = receivers(folder, "{apprise: 'slack://${SLACK}'}", "{apprise: 'no url s3cret'}")
    assert one.receiver.name == "apprise slack"
    assert [problem.partition(" ")[2] for problem in problems] == [
        "`apprise` is no Apprise URL; write it like slack://…, see Apprise's list of services"
    ]


def test_the_host_of_an_apprise_address_is_no_secret_where_it_is_an_ip_address(folder: Folder) -> None:
    try:
        receivers(folder, "{apprise: 'json://10.20.30.40:8080/hook-0123456789'}")
        shown = redaction.scrub('server at "10.20.30.40", hook-0123456789')
    finally:
        redaction.forget()
    assert shown == 'server at "10.20.30.40", ***'


def test_an_apprise_address_without_apprise_says_what_to_install(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.notifications.apprises.is_installed", lambda: False)
    subscriptions, (told,) = receivers(folder, "{apprise: 'slack://a/b/c'}")
    assert not subscriptions
    assert told.endswith("Apprise is not installed; pip install 'alembic-orchestrator[notify]'")


def test_what_opens_a_door_is_remembered(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "T024BE7LD/B0FOO4711/x9y8z7")
    monkeypatch.setenv("KEY", "signing-k3y")
    monkeypatch.setenv("ROOM", "back-room-7")
    try:
        (one,), _ = receivers(
            folder,
            "{webhook: 'https://hooks.internal/services/${HOOK}', secret: '${KEY}', headers: {X-Room: '${ROOM}'}}",
        )
        texts = ["https://hooks.internal/services/T024BE7LD/B0FOO4711/x9y8z7", "B0FOO4711 it is", "signing-k3y"]
        hidden = [redaction.scrub(text) for text in [*texts, "back-room-7", "hooks.internal/services is away"]]
    finally:
        redaction.forget()
    assert hidden == ["***", "*** it is", "***", "***", "hooks.internal/services is away"]
    assert one.receiver.name == "webhook hooks.internal:443"
    assert "FOO" not in repr(one)
    assert "k3y" not in repr(one)

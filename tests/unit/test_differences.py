"""What has changed between two plans is told once for all targets, whatever it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import testing
from orchestrator.differences import Difference, Kind, compare
from orchestrator.outcomes import Outcome, Reason, Status
from orchestrator.plans import Command, Files, Job, Plan, Question
from orchestrator.tenants import Transaction
from tests.unit.test_plans import DECISIVE, GATE, changed, full_plan

HERE = "db:5432/saas schema tenant_acme"


def job(name: str = "acme", **fields: Any) -> Job:
    return testing.a_job(name, **{"location": HERE, **fields})


def settled(name: str, status: Status, code: str, **fields: Any) -> Outcome:
    return testing.a_job(name).outcome(status, reason=Reason(code=code, text=code), **fields)


def plan(*parts: Any, **fields: Any) -> Plan:
    files = {"alembic": Files(env="e", revisions={"r002": "2"})}
    return testing.a_plan(*parts, **{"files": files, **fields})


def told(then: Plan, now: Plan) -> list[str]:
    return [difference.text for difference in compare(then, now)]


def files(env: str = "e", **revisions: str) -> dict[str, Files]:
    return {"alembic": Files(env=env, revisions=revisions)}


UNREAD = settled("acme", Status.FAILED, "unreachable")
QUARANTINED = settled("acme", Status.SKIPPED, "quarantined")
ABSENT = settled("acme", Status.NOT_PROVISIONED, "absent")
AT_HEAD = settled("acme", Status.UNCHANGED, "at_head", found=("r002",), at=("r002",))


def test_equal_plans_differ_in_nothing() -> None:
    assert compare(plan(job()), plan(job())) == ()
    # The cores of a machine are no difference, nor is how somebody asked.
    wave = testing.a_wave(job(), auto=True, concurrency=4)
    question = Question(concurrency=3)
    assert compare(plan(wave), plan(dataclasses.replace(wave, concurrency=64), question=question)) == ()


@pytest.mark.parametrize("value", [None, 5, [], {}, "x", [[1]], {"a": [1]}])
def test_a_plan_of_wrong_types_is_another_plan_or_none(value: object) -> None:
    """Whoever knows how to reckon a digest can write such a file."""
    now = full_plan()
    compared = 0
    for path in DECISIVE:
        data = json.loads(json.dumps(now.to_json()))
        here = data
        for step in path[:-1]:
            here = here[step]
        here[path[-1]] = value
        try:
            then = Plan.from_json(data)
            digest = then.digest
        except (AttributeError, KeyError, TypeError, ValueError):
            continue  # the file is refused when it is read
        compared += 1
        assert bool(compare(then, now)) is (digest != now.digest)
    assert compared > 10


@pytest.mark.parametrize(
    ("then", "now", "texts"),
    [
        (plan(job()), plan(job(), project="shop"), ["the project is shop now, and was billing"]),
        (plan(job()), plan(job(), environment="production"), ["the environment is production now, and was test"]),
        (plan(job()), plan(job(), command=Command.DOWNGRADE), ["the command is downgrade now, and was upgrade"]),
        (plan(job()), plan(job(), asked="r002"), ["what is asked for is r002 now, and was head"]),
        (plan(job()), plan(job(), revision=("r003",)), ["the goal is r003 now, and was r002"]),
        (plan(job()), plan(job(), files=files("f", r002="2")), ["env.py changed"]),
        (plan(job()), plan(job(transaction=Transaction.REVISION)), ["1 target goes another way: acme"]),
        (plan(job()), plan(job(), files=files(r002="3")), ["revision file r002 changed"]),
        (
            plan(job()),
            plan(job(path=("r002", "r003"), wanted=("r003",)), files=files(r002="2", r003="3")),
            ["r003 was added", "1 target goes another way: acme"],
        ),
        (
            plan(settled=[AT_HEAD]),
            plan(job(found=("r002",), path=("r003",)), files=files(r003="3")),
            ["r003 was added", "1 target has another part in it: acme at head -> to do"],
        ),
        (
            plan(job(path=("x1", "x2", "r002"))),
            plan(job(path=("r002",))),
            ["x1, x2 were taken away", "1 target goes another way: acme"],
        ),
        (
            plan(job()),
            plan(
                job(path=("s1",), section="analytics"),
                files=files() | {"analytics": Files(env="e", revisions={"s1": "1"})},
            ),
            [
                "[analytics] s1 was added",
                "[analytics] r002 was taken away",
                f"1 target has moved: acme {HERE} [alembic] -> {HERE} [analytics]",
            ],
        ),
        # Who joins behind the others needs more files, and whoever is done fewer: they are no news.
        (
            plan(job()),
            plan(job(), job("b", found=(), path=("r001", "r002")), files=files(r001="1", r002="2")),
            ["1 target joined: b"],
        ),
        (plan(job("a")), plan(*(job(name) for name in "abcde")), ["4 targets joined: b, c, d and 1 more"]),
        (plan(job("a"), job("b")), plan(job("a")), ["1 target left: b"]),
        (
            plan(job()),
            plan(job(location="db:5432/other schema tenant_acme")),
            [f"1 target has moved: acme {HERE} [alembic] -> db:5432/other schema tenant_acme [alembic]"],
        ),
        (
            plan(settled=[AT_HEAD]),
            plan(settled=[dataclasses.replace(AT_HEAD, server="db2:5432")]),
            ["1 target has moved: acme db.internal:5432 -> db2:5432"],
        ),
        (plan(job()), plan(settled=[QUARANTINED]), ["1 target is quarantined now, and was active: acme"]),
        (plan(settled=[QUARANTINED]), plan(job()), ["1 target is active now, and was quarantined: acme"]),
        (plan(job()), plan(settled=[UNREAD]), ["1 target cannot be read now: acme"]),
        (plan(settled=[UNREAD]), plan(job()), ["1 target can be read now: acme"]),
        (plan(job()), plan(settled=[ABSENT]), ["1 target is not there now: acme"]),
        (plan(settled=[ABSENT]), plan(job(found=())), ["1 target is there now: acme"]),
        (plan(job()), plan(job(provision=True)), ["1 target is not there now: acme"]),
        (
            plan(job(), job("b")),
            plan(job(found=("r001a",)), job("b", found=())),
            ["2 targets are elsewhere than then: acme r001 -> r001a, b r001 -> base"],
        ),
        (plan(job()), plan(settled=[AT_HEAD]), ["1 target is elsewhere than then: acme r001 -> r002"]),
        (
            plan(settled=[settled("acme", Status.SKIPPED, "unversioned", found=())]),
            plan(settled=[settled("acme", Status.UNCHANGED, "at_head", found=())]),
            ["1 target has another part in it: acme unversioned -> at head"],
        ),
        (plan(job()), plan(job(path=("r1b", "r002"))), ["r1b was added", "1 target goes another way: acme"]),
        (plan(job()), plan(job(labels={"tier": "free"})), ["1 target has other labels: acme"]),
        (plan(job()), plan(job(after=("shared",))), ["1 target comes after others than then: acme"]),
        (plan(job()), plan(job(window=("22:00-04:00",))), ["1 target has another window: acme"]),
        (plan(job()), plan(job(), strategy="fast"), ["the strategy is fast now, and was default"]),
        (plan(job()), plan(job(), max_failures=None), ["strategy default changed: failures allowed 0 -> any number"]),
        (
            plan(job()),
            plan(job(), deadline=60.0, freeze=("2026-12-24",), allow_ahead=True),
            [
                (
                    "strategy default changed: deadline none -> 60s; freeze none -> 2026-12-24; "
                    "targets ahead of the code not allowed -> allowed"
                ),
            ],
        ),
        (
            plan(job(), server_caps={"*": 8}),
            plan(job(), server_caps={"*": 4, "db:5432": 1}),
            ["strategy default changed: at once on each other server 8 -> 4; at once on db:5432 as others -> 1"],
        ),
    ],
)
def test_what_changed_is_told_in_one_sentence(then: Plan, now: Plan, texts: list[str]) -> None:
    assert told(then, now) == texts


def test_waves_that_changed_are_told_with_what_changed() -> None:
    then = plan(testing.a_wave(job(wave="canary"), name="canary", max_failures=0, pause=600.0))
    gated = testing.a_wave(job(wave="canary"), name="canary", max_failures=3, pause="until-continued", gate=GATE)
    assert told(then, plan(gated)) == [
        "wave canary changed: failures allowed 0 -> 3; pause 600s -> until-continued; gate none -> command ./smoke"
    ]
    other = dataclasses.replace(gated, gate=dataclasses.replace(GATE, digest="cd"))
    assert told(plan(gated), plan(other)) == ["wave canary changed: gate command ./smoke asks for something else"]
    assert told(then, plan(testing.a_wave(job(wave="early"), name="early"))) == [
        "1 target is in another wave: acme canary -> early",
        "wave canary is gone",
        "wave early is new",
    ]
    one, two = testing.a_wave(job("a", wave="1"), name="1"), testing.a_wave(job("b", wave="2"), name="2")
    assert told(plan(one, two), plan(two, one)) == ["the waves have another order: 2, 1"]


def test_a_percentage_of_other_targets_is_no_change_of_the_strategy() -> None:
    names = ("a", "b", "c", "d")
    then = plan(testing.a_wave(*map(job, names), max_failures=2), max_failures=2)
    now = plan(testing.a_wave(job("a"), job("b"), max_failures=1), max_failures=1)
    assert told(then, now)[1:] == [
        "failures allowed in the run are 1 of 2 now, and were 2 of 4",
        "failures allowed in wave all are 1 of 2 now, and were 2 of 4",
    ]


def test_a_wave_that_is_done_has_not_gone_from_the_strategy() -> None:
    canary = testing.a_wave(job("a", wave="canary"), name="canary")
    rest = testing.a_wave(job("b", wave="rest"), name="rest")
    done = settled("a", Status.UNCHANGED, "at_head", found=("r002",))
    assert told(plan(canary, rest), plan(rest, settled=[done])) == [
        "1 target is elsewhere than then: a r001 -> r002",
        "wave canary has nothing to do now",
    ]


def test_a_limit_chooses_others_and_nobody_has_joined() -> None:
    limited = Question(selection={"limit": "1"})
    assert told(plan(job("a"), question=limited), plan(job("b"), question=limited)) == [
        "1 target was not chosen: b",
        "1 target is not chosen any more: a",
    ]


@pytest.mark.parametrize("path", DECISIVE, ids=lambda path: ".".join(map(str, path)))
def test_whatever_is_in_the_digest_can_be_told(path: tuple[Any, ...]) -> None:
    then = full_plan()
    differences = compare(then, Plan.from_json(changed(then.to_json(), path)))
    assert differences
    # What follows from the name of a target, or from its place, has no words of its own.
    known = path[-1] in ("tenant", "database", "server", "schema") or path[2:3] in (("to",), ("at",))
    assert known or not any(difference.kind is Kind.OTHER for difference in differences), differences


def test_ten_thousand_targets_are_told_in_few_lines() -> None:
    def fleet(change: Callable[[int], dict[str, Any]]) -> Plan:
        return plan(*(job(f"t{n:05d}", **change(n)) for n in range(10_000)))

    then = fleet(lambda _: {})
    now = fleet(lambda n: {"found": (f"r{n}",)} if n % 2 else {"labels": {"tier": "free"}})
    heads, labels = compare(then, now)
    assert heads.text == (
        "5,000 targets are elsewhere than then: t00001 r001 -> r1, t00003 r001 -> r3, t00005 r001 -> r5 and 4,997 more"
    )
    assert (len(heads.targets), labels.kind, len(labels.targets)) == (5_000, Kind.LABELS, 5_000)


def test_a_difference_is_data_too() -> None:
    assert Difference(kind=Kind.JOINED, text="1 target joined: a", targets=("a",)).to_json() == {
        "kind": "joined",
        "text": "1 target joined: a",
        "targets": ["a"],
    }

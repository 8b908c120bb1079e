"""A plan's digest is over what it decides, and over nothing else; what it rests on survives JSON."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import Project, redaction, testing
from orchestrator.outcomes import Reason, Status
from orchestrator.plans import Files, Gate, Job, Plan, Question, Wave
from orchestrator.selectors import Selection
from orchestrator.strategy import GateRule, Strategy
from orchestrator.waves import spread

QUARANTINED = Reason(code="quarantined", text="restoring a backup")
DOWN = Reason(code="server_down", text="connection refused after 10.2 s")
GATE = Gate(kind="command", text="./smoke", timeout=30.0, interval=10.0, count=1, digest="ab")


def full_plan(**fields: Any) -> Plan:
    """A plan in which every part of the format holds something."""
    canary = testing.a_wave(
        testing.a_job("acme", wave="canary", location="db.internal:5432/saas", labels={"tier": "free"}),
        name="canary",
        max_failures=0,
        pause=600.0,
        gate=GATE,
        order_by="tier",
    )
    rest = testing.a_wave(
        *(testing.a_job(name, wave="rest", location=f"db.internal:5432/{name}") for name in ("globex", "initech")),
        name="rest",
        auto=True,
        concurrency=8,
        window=("22:00-04:00 UTC",),
    )
    settled = [
        testing.an_outcome("hooli", Status.SKIPPED, reason=QUARANTINED),
        testing.an_outcome("umbrella", Status.DEFERRED, reason=DOWN),
    ]
    defaults: dict[str, Any] = {
        "max_failures": 3,
        "server_caps": {"*": 8},
        "freeze": ("2026-12-24",),
        "deadline": 3600.0,
        "sweep": {"labels": "tier=free"},
        "files": {"alembic": Files(env="e0", revisions={"r002": "f0"})},
        "question": Question(selection={"labels": "tier=free"}, max_failures="2%"),
    }
    return testing.a_plan(canary, rest, settled=settled, **{**defaults, **fields})


def with_waves(plan: Plan, **fields: Any) -> Plan:
    return dataclasses.replace(plan, waves=tuple(dataclasses.replace(wave, **fields) for wave in plan.waves))


def test_a_plan_survives_json() -> None:
    plan = full_plan()
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.to_json() == plan.to_json()
    assert again.digest == plan.digest
    assert again.question == plan.question


@pytest.mark.parametrize("kind", [Job, Wave, Plan, Question])
def test_every_field_is_in_the_format(kind: type) -> None:
    left_out = {Job: {"resumed"}, Plan: {"notes", "_digest"}}
    plan = full_plan()
    made = {Job: next(plan.jobs), Wave: plan.waves[0], Plan: plan, Question: plan.question}[kind]
    names = {field.name for field in dataclasses.fields(kind)} - left_out.get(kind, set())
    assert names <= made.to_json().keys()


def test_a_plan_of_an_earlier_version_is_read() -> None:
    data = full_plan().to_json()
    for key in ("files", "question", "freeze", "deadline", "sweep"):
        del data[key]
    for wave in data["waves"]:
        for key in ("auto", "order_by", "gate", "window"):
            del wave[key]
        for job in wave["jobs"]:
            del job["location"], job["window"]
    plan = Plan.from_json(data)
    assert next(plan.jobs).location is None
    assert (plan.files, plan.question) == ({}, None)


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list) and data:
        for number, value in enumerate(data):
            yield from leaves(value, (*path, number))
    else:
        yield path


def changed(data: Any, path: tuple[Any, ...]) -> Any:
    """A copy with another value at the end of the path."""
    data = json.loads(json.dumps(data))
    here = data
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = another(here[path[-1]])
    return data


def another(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case {}:
            return {"x": "y"}
        case []:
            return ["x"]
        case _:
            return f"{value}x"


def is_decisive(path: tuple[Any, ...]) -> bool:
    """Whether another value would be another plan; names of commands and statuses have no other spelling."""
    if path[0] in ("question", "format", "command") or path[-1] in ("command", "transaction"):
        return False
    if path[0] == "settled":
        words = {"text", "failure", "attempts", "applied", "started_at", "duration_ms", "mode", "wave", "status"}
        # Which target of a server that is down was looked at, and what was said of it, is chance.
        chance = {"reason", "from", "at"} if path[1] == 1 else set()
        return not {path[2], path[-1]} & (words | chance)
    return path not in (("waves", 1, "concurrency"), ("waves", 1, "gate"), ("waves", 0, "gate", "text"))


#: every value of the format that the digest depends on
DECISIVE = [path for path in leaves(full_plan().to_json()) if is_decisive(path)]


@pytest.mark.parametrize("path", DECISIVE, ids=lambda path: ".".join(map(str, path)))
def test_another_value_is_another_plan(path: tuple[Any, ...]) -> None:
    plan = full_plan()
    assert Plan.from_json(changed(plan.to_json(), path)).digest != plan.digest


def test_cores_order_words_and_spelling_of_numbers_are_not_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = full_plan()
    other = with_waves(plan, pause=600)
    assert with_waves(plan, pause=600.0).digest == other.digest
    shuffled = [
        dataclasses.replace(wave, jobs=tuple(random.Random(1).sample(wave.jobs, len(wave.jobs)))) for wave in plan.waves
    ]
    reworded = dataclasses.replace(QUARANTINED, text="another word")
    settled = [
        dataclasses.replace(plan.settled[1], reason=dataclasses.replace(DOWN, text="after 9.9 s")),
        dataclasses.replace(plan.settled[0], reason=reworded),
    ]
    alike = dataclasses.replace(
        plan, waves=tuple(shuffled), settled=tuple(settled), question=None, notes=("something",)
    )
    assert alike.digest == plan.digest
    digests = set()
    for cores in (1, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        digests.add(testing.a_plan(*spread(Strategy(), [testing.a_job()])).digest)
    assert len(digests) == 1


def test_secrets_that_only_one_machine_knows_are_not_in_the_digest() -> None:
    def digest() -> str:
        gate = GateRule(command=("./smoke", "--only-canary")).described()
        return testing.a_plan(testing.a_wave(testing.a_job(), gate=gate)).digest

    there = digest()
    redaction.remember("canary")
    try:
        assert digest() == there
    finally:
        redaction.forget()


def test_a_file_is_called_by_its_path_from_the_registry() -> None:
    def place(root: str, path: str) -> str:
        return testing.a_target(url=f"sqlite:///{path}", root=root).place

    assert place("/home/ann/shop", "/home/ann/shop/var/acme.db") == "var/acme.db"
    assert place("/builds/shop", "/builds/shop/var/acme.db") == "var/acme.db"
    assert place("/builds/shop", "/var/lib/acme.db") == "/var/lib/acme.db"
    server = testing.a_target(url="postgresql+psycopg://app:secret@db/saas?application_name=x", schema="t", root="/b")
    assert server.place == "db:5432/saas schema t"


@pytest.mark.parametrize(
    "selection",
    [
        Selection(everything=True),
        Selection(names=("acme", "eu-*"), exclude=("x",), labels="a=b", database="core", limit="10%"),
        Selection(listed=("acme",)),
        Selection(failed=()),
    ],
)
def test_a_selection_survives_json(selection: Selection) -> None:
    data = json.loads(json.dumps(selection.to_json()))
    assert Selection.from_json(data) == selection


def test_nothing_and_everything_are_asked_for_alike() -> None:
    assert Selection().to_json() == Selection(everything=True).to_json() == {}
    assert Selection.from_json({}).everything


@pytest.mark.parametrize("data", [{"everything": True}, {"names": "acme"}, {"limit": ["1"]}, {"labels": 3}])
def test_what_is_no_selection_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="no part of a selection"):
        Selection.from_json(data)


def test_the_question_holds_everything_that_a_plan_is_asked_with() -> None:
    keywords = set(inspect.signature(Project.plan).parameters)
    others = {"self", "revision", "command", "tenants", "selector"}  # in the plan, or in the selection
    others |= {"accept_shrink"}  # about the fleet at that moment, and not about the plan
    assert set(Question.__slots__) == keywords - others


@pytest.mark.parametrize("data", [{"each": "yes"}, {"concurrency": "4"}, {"selection": []}, {"strategy": 1}])
def test_a_question_of_another_kind_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Question.from_json(data)

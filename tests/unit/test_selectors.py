"""Targeting: a truth table of the flags and their intersections, and what each says when it finds nothing."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import random
from collections.abc import Callable

import pytest
from sqlalchemy import URL

from orchestrator.errors import UsageError
from orchestrator.selectors import Selection, limited, parse_labels, select
from orchestrator.tenants import Target, Tenant


def target(name: str, database: str | None = None, **labels: str) -> Target:
    return Target(
        tenant=Tenant(name=name, labels=labels), database=database, url=URL.create("sqlite", database=f"/{name}")
    )


FLEET = (
    target("acme", region="eu", tier="enterprise"),
    target("acorn", region="us", tier="free"),
    target("globex", "core", region="eu", tier="free"),
    target("globex", "analytics", region="eu", tier="free"),
    target("hooli", "core", region="us"),
    target("initech"),
)

Keeps = Callable[[Target], bool]

#: for each flag, values with the plainest reading of what they keep
NAMES: list[tuple[tuple[str, ...], Keeps]] = [
    ((), lambda t: True),
    (("acme", "globex"), lambda t: t.tenant.name in ("acme", "globex")),
    (("ac*,hooli",), lambda t: t.tenant.name.startswith("ac") or t.tenant.name == "hooli"),
    (("globex/core",), lambda t: t.name == "globex/core"),
    (("*/core", "initech"), lambda t: t.database == "core" or t.tenant.name == "initech"),
    (("g?ob[e]x",), lambda t: t.tenant.name == "globex"),
]
EXCLUDE: list[tuple[tuple[str, ...], Keeps]] = [
    ((), lambda t: True),
    (("acme",), lambda t: t.tenant.name != "acme"),
    (("*/analytics", "ac*"), lambda t: t.database != "analytics" and not t.tenant.name.startswith("ac")),
]
LABELS: list[tuple[str | None, Keeps]] = [
    (None, lambda t: True),
    ("region=eu", lambda t: t.labels.get("region") == "eu"),
    ("region==eu,tier!=free", lambda t: t.labels.get("region") == "eu" and t.labels.get("tier") != "free"),
    ("tier in (free, enterprise)", lambda t: t.labels.get("tier") in ("free", "enterprise")),
    ("region notin (us),!tier", lambda t: t.labels.get("region") != "us" and "tier" not in t.labels),
    ("tier", lambda t: "tier" in t.labels),
]
DATABASE: list[tuple[str | None, Keeps]] = [(None, lambda t: True), ("core", lambda t: t.database == "core")]
LISTED: list[tuple[tuple[str, ...] | None, Keeps]] = [
    (None, lambda t: True),
    (("globex", "acme"), lambda t: t.tenant.name in ("globex", "acme")),
]
FAILED: list[tuple[tuple[str, ...] | None, Keeps]] = [
    (None, lambda t: True),
    (("globex/core", "acorn", "gone"), lambda t: t.name in ("globex/core", "acorn")),
]

TABLE = list(itertools.product(NAMES, EXCLUDE, LABELS, DATABASE, LISTED, FAILED))


def test_the_table_is_whole() -> None:
    assert len(TABLE) == 6 * 3 * 6 * 2 * 2 * 2


def test_every_intersection_of_flags_agrees_with_the_plain_reading() -> None:
    kept_some = 0
    for row in TABLE:
        (names, _), (exclude, _), (labels, _), (database, _), (listed, _), (failed, _) = row
        selection = Selection(
            names=names, exclude=exclude, labels=labels, database=database, listed=listed, failed=failed
        )
        expected = tuple(one for one in FLEET if all(keeps(one) for _, keeps in row))
        if expected:
            kept_some += 1
            assert select(FLEET, selection) == expected, selection
        else:
            with pytest.raises(UsageError, match="no target is left after"):
                select(FLEET, selection)
    assert kept_some > 100


def test_no_flag_and_all_mean_everything() -> None:
    assert select(FLEET, Selection()) == FLEET
    assert select(FLEET, Selection(everything=True)) == FLEET


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (
            Selection(names=("acmee", "globx", "acme")),
            ["`acmee`; did you mean `acme`", "`globx`; did you mean `globex`"],
        ),
        (Selection(names=("zzz*",)), ["`zzz*` matches no tenant"]),
        (Selection(exclude=("hoooli",)), ["unknown tenant `hoooli`; did you mean `hooli`"]),
        (Selection(exclude=("zzz*",)), ["`zzz*` matches no tenant"]),
        (Selection(listed=("acme", "nobody")), ["unknown tenant `nobody`"]),
        (Selection(listed=("ac*",)), ["unknown tenant `ac*`"]),
        (Selection(database="cores"), ["unknown database `cores`; did you mean `core`?"]),
        (Selection(names=("acme",), labels="region=us"), ["no target is left after `-l region=us`", "none of the 1"]),
        (Selection(names=("acme",), exclude=("ac*",)), ["no target is left after `--exclude ac*`"]),
        (Selection(failed=()), ["no target is left after `--failed`", "none of the 6"]),
        (Selection(listed=()), ["no target is left after `--from-file`"]),
    ],
)
def test_what_finds_nothing_says_so(selection: Selection, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        select(FLEET, selection)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_list_of_another_fleet_is_told_in_a_few_lines() -> None:
    listed = tuple(f"nobody-{number}" for number in range(2000))
    with pytest.raises(UsageError) as caught:
        select(FLEET, Selection(listed=(*listed, "acme")))
    lines = str(caught.value).splitlines()
    assert lines[9:11] == ["unknown tenant `nobody-9`", "and 1,990 more names that nobody bears"]
    assert len(lines) == 12


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(UsageError, match="holds no tenants"):
        select((), Selection(everything=True))


@pytest.mark.parametrize("text", ["", " ", "a=b,", ",a", "a b", "a in b", "a in (b", "a===b", "!", "a=(b)", "in (x)"])
def test_label_selectors_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="label selector"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("a=", {"a": ""}, True),
        ("a!=b", {}, True),
        ("a notin (b)", {}, True),
        ("a in (b,c) , d", {"a": "c", "d": ""}, True),
        ("  ! a ", {}, True),
        ("app.kubernetes.io/name = x-1_y.z", {"app.kubernetes.io/name": "x-1_y.z"}, True),
        ("in=x", {"in": "x"}, True),
        ("a in (b)", {"a": "bb"}, False),
    ],
)
def test_label_selectors(text: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_labels(text)(labels) is matches


def test_a_limit_is_stable_and_makes_progress() -> None:
    fleet = [target(f"t{number}") for number in range(100)]
    shuffled = random.Random(7).sample(fleet, len(fleet))
    first = limited(fleet, "10")
    assert {one.name for one in limited(shuffled, "10%")} == {one.name for one in first}
    assert list(first) == [one for one in fleet if one in first]
    seen: set[str] = set()
    while due := [one for one in fleet if one.name not in seen]:
        chosen = {one.name for one in limited(due, "30")}
        assert len(chosen) == min(30, len(due))
        seen |= chosen


def test_a_limit_chooses_none_before_its_turn() -> None:
    fleet = [
        dataclasses.replace(target(f"t{number}"), after=(f"t{number - 1}",) if number % 4 else ())
        for number in range(40)
    ]
    done: set[str] = set()
    while due := [one for one in fleet if one.name not in done]:
        chosen = {one.name for one in limited(due, "3")}
        assert len(chosen) == min(3, len(due))
        assert all(set(one.after) <= chosen | done for one in due if one.name in chosen)
        done |= chosen


def test_a_limit_keeps_at_least_one_and_at_most_all() -> None:
    assert len(limited(FLEET, "1%")) == 1
    assert limited(FLEET, "100%") == limited(FLEET, "99") == limited(FLEET, None) == FLEET
    assert limited([], "10%") == ()


@pytest.mark.parametrize("limit", ["0", "-1", "x", "101%", "0%", "1.5", "", "10%%"])
def test_limits_that_are_none(limit: str) -> None:
    with pytest.raises(UsageError, match="--limit"):
        limited(FLEET, limit)


def test_globs_mean_what_they_mean_in_a_shell() -> None:
    for pattern in ("*", "a*", "[!a]*", "?????", "globex/*"):
        expected = tuple(
            one
            for one in FLEET
            if fnmatch.fnmatchcase(one.name, pattern) or fnmatch.fnmatchcase(one.tenant.name, pattern)
        )
        assert select(FLEET, Selection(names=(pattern,))) == expected

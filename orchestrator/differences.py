"""What has changed between two plans that answer the same question, told in few lines at any size. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from orchestrator.outcomes import Outcome, Status
from orchestrator.plans import Files, Gate, Job, Plan, Wave

#: names in one sentence
FIRST_NAMES = 3
_STATES = frozenset({"quarantined", "suspended"})

Item: TypeAlias = Job | Outcome


class Kind(enum.StrEnum):
    """What has changed."""

    #: project, environment, command or revision
    GOAL = "goal"
    #: env.py or a revision file
    FILES = "files"
    JOINED = "joined"
    LEFT = "left"
    #: another server, database, schema or chain
    MOVED = "moved"
    #: quarantined, suspended, or no longer so
    STATE = "state"
    UNREADABLE = "unreadable"
    #: absent, or no longer so
    EXISTENCE = "existence"
    #: at other revisions than then
    HEADS = "heads"
    #: other revisions would run
    PATH = "path"
    #: what becomes of targets, for another reason than those above
    DECISION = "decision"
    #: targets in other waves
    WAVE = "wave"
    LABELS = "labels"
    #: what must be done first
    ORDER = "order"
    #: maintenance windows of tenants
    WINDOW = "window"
    #: how it is rolled out
    STRATEGY = "strategy"
    OTHER = "other"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that has changed, for all targets alike."""

    kind: Kind
    #: one sentence, with the first few names
    text: str
    #: all names
    targets: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As in `orchestrate.plan_diff/1`."""
        return {"kind": self.kind.value, "text": self.text, "targets": list(self.targets)}


def compare(then: Plan, now: Plan) -> tuple[Difference, ...]:
    """What the later plan decides differently, () for equal digests.

    Of a target the first thing that differs is told: what else differs mostly follows from it.
    """
    if then.digest == now.digest:
        return ()
    try:
        found = [*_goal(then, now), *_files(then, now), *_targets(then, now), *_strategy(then, now)]
    except (AttributeError, TypeError, ValueError):
        found = []  # a file may hold values of any kind, and a digest that fits them: it is another plan all the same
    return tuple(found) or (_unexplained(then, now),)


def _unexplained(then: Plan, now: Plan) -> Difference:
    before, after = then.decided(), now.decided()
    keys = [key for key in after if before.get(key) != after[key]]
    return Difference(kind=Kind.OTHER, text=f"another version of the program decides otherwise: {', '.join(keys)}")


# -- what is run ----------------------------------------------------------------------------------------------------


def _goal(then: Plan, now: Plan) -> Iterator[Difference]:
    for name, before, after in (
        ("the project", then.project, now.project),
        ("the environment", then.environment, now.environment),
        ("the command", then.command.value, now.command.value),
        ("what is asked for", then.asked, now.asked),
        ("the goal", _heads(then.revision), _heads(now.revision)),
    ):
        if before != after:
            yield Difference(kind=Kind.GOAL, text=f"{name} is {after} now, and was {before}")


def _files(then: Plan, now: Plan) -> Iterator[Difference]:
    several = len({*then.files, *now.files}) > 1
    added, gone = _rerouted(then, now)
    for section in dict.fromkeys([*then.files, *now.files]):
        changed = [*_changed_files(then.files.get(section), now.files.get(section))]
        changed += [
            f"{_some(revisions)} {_plural(len(revisions), 'was', 'were')} {verb}"
            for revisions, verb in ((added.get(section), "added"), (gone.get(section), "taken away"))
            if revisions
        ]
        for text in changed:
            yield Difference(kind=Kind.FILES, text=f"[{section}] {text}" if several else text)


def _changed_files(before: Files | None, after: Files | None) -> Iterator[str]:
    if before is None or after is None:
        return
    if before.env != after.env:
        yield "env.py changed"
    changed = [name for name, digest in after.revisions.items() if before.revisions.get(name, digest) != digest]
    if changed:
        yield f"revision {_plural(len(changed), 'file')} {_some(changed)} changed"


def _rerouted(then: Plan, now: Plan) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Revisions, by section, that lie newly, or no longer, before targets that have not moved.

    Which revisions the plans know does not tell: it changes with the targets that need them.
    """
    added: dict[str, dict[str, None]] = {}
    gone: dict[str, dict[str, None]] = {}
    before = _items(then)
    seen: set[tuple[object, ...]] = set()
    for name, item in _items(now).items():
        old = before.get(name)
        job = item if isinstance(item, Job) else old
        if (
            old is None
            or not isinstance(job, Job)
            or old.found != item.found
            or not (_is_sound(old) and _is_sound(item))
        ):
            continue
        paths = (_revisions(old), _revisions(item))
        if paths[0] != paths[1] and (job.section, *paths) not in seen:
            seen.add((job.section, *paths))
            added.setdefault(job.section, {}).update(dict.fromkeys(one for one in paths[1] if one not in paths[0]))
            gone.setdefault(job.section, {}).update(dict.fromkeys(one for one in paths[0] if one not in paths[1]))
    return ({key: list(one) for key, one in added.items()}, {key: list(one) for key, one in gone.items()})


def _is_sound(item: Item) -> bool:
    return isinstance(item, Job) or item.status is Status.UNCHANGED


def _revisions(item: Item) -> tuple[str, ...]:
    return item.path if isinstance(item, Job) else ()


# -- to whom --------------------------------------------------------------------------------------------------------


def _targets(then: Plan, now: Plan) -> Iterator[Difference]:
    before, after = _items(then), _items(now)
    chosen = any(plan.question is not None and "limit" in plan.question.selection for plan in (then, now))
    joined, left = ("was not chosen", "is not chosen any more") if chosen else ("joined", "left")
    yield from _named(Kind.JOINED, (joined, joined.replace("was", "were")), [n for n in after if n not in before])
    yield from _named(Kind.LEFT, (left, left.replace("is", "are")), [n for n in before if n not in after])
    groups: dict[tuple[Kind, str, str], dict[str, str]] = {}
    for name, item in before.items():
        change = _change(item, after[name]) if name in after else None
        if change is not None:
            groups.setdefault(change[0], {})[name] = change[1]
    for kind in Kind:
        for (own, *verbs), details in groups.items():
            if own is kind:
                told = [f"{name} {detail}".rstrip() for name, detail in details.items()]
                yield from _named(kind, (verbs[0], verbs[1]), list(details), told)


def _items(plan: Plan) -> dict[str, Item]:
    return {**{job.target: job for job in plan.jobs}, **{outcome.target: outcome for outcome in plan.settled}}


def _named(
    kind: Kind, verbs: tuple[str, str], names: Sequence[str], told: Sequence[str] | None = None
) -> Iterator[Difference]:
    if names:
        head = f"{len(names):,} {_plural(len(names), 'target')} {_plural(len(names), *verbs)}"
        yield Difference(kind=kind, text=f"{head}: {_some(told or names)}", targets=tuple(names))


def _change(before: Item, after: Item) -> tuple[tuple[Kind, str, str], str] | None:
    """The first thing in which two decisions about one target differ: its kind and verbs, and what to say of it."""
    for kind, value, verbs, is_told in _ASPECTS:
        old, new = value(before), value(after)
        if old != new and (kind is not Kind.MOVED or _has_moved(before, after)):
            singular, plural = (verb.format(old=old, new=new) for verb in verbs)
            return (kind, singular, plural), f"{old} -> {new}" if is_told else ""
    return None


def _has_moved(before: Item, after: Item) -> bool:
    """Outcomes do not say in which database, or chain, a target was; nor do jobs of earlier versions."""
    if isinstance(before, Job) and isinstance(after, Job) and None not in (before.location, after.location):
        return True
    return (before.server, before.schema) != (after.server, after.schema)


def _place(item: Item) -> str:
    if isinstance(item, Job) and item.location is not None:
        return f"{item.location} [{item.section}]"
    schema = f" schema {item.schema}" if item.schema else ""
    return f"{item.server}{schema}"


def _state(item: Item) -> str:
    code = item.reason.code if isinstance(item, Outcome) and item.reason else ""
    return code if code in _STATES else "active"


def _reading(item: Item) -> str:
    return "cannot be read" if isinstance(item, Outcome) and item.is_unread else "can be read"


def _existence(item: Item) -> str:
    absent = item.provision if isinstance(item, Job) else item.status is Status.NOT_PROVISIONED
    return "not there" if absent else "there"


def _found(item: Item) -> str:
    return _heads(item.found) if item.found is not None else "unknown"


def _path(item: Item) -> str:
    if isinstance(item, Outcome):
        return ""
    held = "" if item.transaction is None else f", a transaction for each {item.transaction}"
    return f"{' '.join(item.path) or 'nothing'} to {_heads(item.wanted)}{held}"


def _decision(item: Item) -> str:
    if isinstance(item, Job):
        return "to do"
    return item.reason.code.replace("_", " ") if item.reason else item.status.value


def _labels(item: Item) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(item.labels.items()))


#: in this order: kind, what is compared, what is said of one target and of several, and whether both values are shown
_ASPECTS: Sequence[tuple[Kind, Callable[[Item], str], tuple[str, str], bool]] = (
    (Kind.MOVED, _place, ("has moved", "have moved"), True),
    (Kind.STATE, _state, ("is {new} now, and was {old}", "are {new} now, and were {old}"), False),
    (Kind.UNREADABLE, _reading, ("{new} now", "{new} now"), False),
    (Kind.EXISTENCE, _existence, ("is {new} now", "are {new} now"), False),
    (Kind.HEADS, _found, ("is elsewhere than then", "are elsewhere than then"), True),
    (Kind.DECISION, _decision, ("has another part in it", "have another part in it"), True),
    (Kind.PATH, _path, ("goes another way", "go another way"), False),
    (Kind.WAVE, lambda item: item.wave or "none", ("is in another wave", "are in another wave"), True),
    (Kind.LABELS, _labels, ("has other labels", "have other labels"), False),
    (
        Kind.ORDER,
        lambda item: ", ".join(item.after) if isinstance(item, Job) else "",
        ("comes after others than then", "come after others than then"),
        False,
    ),
    (
        Kind.WINDOW,
        lambda item: ", ".join(item.window) if isinstance(item, Job) else "",
        ("has another window", "have another window"),
        False,
    ),
)


# -- how ------------------------------------------------------------------------------------------------------------


def _strategy(then: Plan, now: Plan) -> Iterator[Difference]:
    if then.strategy != now.strategy:
        yield _rolled(f"the strategy is {now.strategy} now, and was {then.strategy}")
    sizes = [sum(1 for _ in plan.jobs) for plan in (then, now)]
    scaled = _scaled("the run", (then.max_failures, now.max_failures), sizes)
    if scaled:
        yield scaled
    changes = [
        *([] if scaled else _differing("failures allowed", _budget(then.max_failures), _budget(now.max_failures))),
        *_differing("deadline", _seconds(then.deadline), _seconds(now.deadline)),
        *_differing("freeze", _listed(then.freeze), _listed(now.freeze)),
        *_differing("targets ahead of the code", _allowed(then), _allowed(now)),
        *(["retries"] if then.retries != now.retries else []),
        *(["who is taken in at the end"] if then.sweep != now.sweep else []),
    ]
    for server in dict.fromkeys([*then.server_caps, *now.server_caps]):
        place = "each other server" if server == "*" else server
        old, new = then.server_caps.get(server), now.server_caps.get(server)
        changes += _differing(f"at once on {place}", str(old or "as others"), str(new or "as others"))
    if changes:
        yield _rolled(f"strategy {now.strategy} changed: {'; '.join(changes)}")
    yield from _waves(then, now)


def _waves(then: Plan, now: Plan) -> Iterator[Difference]:
    before, after = ({wave.name: wave for wave in plan.waves} for plan in (then, now))
    if not before or not after:
        # Where nothing is to be done there are none, and why is told of the targets.
        return
    due = {job.target for job in now.jobs}
    for name, wave in before.items():
        if name not in after:
            is_over = due.isdisjoint(job.target for job in wave.jobs)
            yield _rolled(f"wave {name} has nothing to do now" if is_over else f"wave {name} is gone")
    for name, wave in after.items():
        if name not in before:
            yield _rolled(f"wave {name} is new")
        else:
            yield from _kept_wave(before[name], wave)
    common = [name for name in before if name in after]
    if common != [name for name in after if name in before]:
        yield _rolled(f"the waves have another order: {', '.join(after)}")


def _kept_wave(before: Wave, after: Wave) -> Iterator[Difference]:
    budgets = (before.max_failures, after.max_failures)
    scaled = _scaled(f"wave {after.name}", budgets, [len(before.jobs), len(after.jobs)])
    if scaled:
        yield scaled
        before = dataclasses.replace(before, max_failures=after.max_failures)
    if changes := list(_changed_wave(before, after)):
        yield _rolled(f"wave {after.name} changed: {'; '.join(changes)}")


def _scaled(whose: str, budgets: tuple[int | None, int | None], sizes: Sequence[int]) -> Difference | None:
    """Budgets that differ as the numbers of targets do: whoever wrote a percentage has changed nothing."""
    then, now = budgets
    if then is None or now is None or then == now or sizes[0] == sizes[1]:
        return None
    return _rolled(f"failures allowed in {whose} are {now:,} of {sizes[1]:,} now, and were {then:,} of {sizes[0]:,}")


def _changed_wave(before: Wave, after: Wave) -> Iterator[str]:
    yield from _differing("at once", _at_once(before), _at_once(after))
    yield from _differing("failures allowed", _budget(before.max_failures), _budget(after.max_failures))
    yield from _differing("strict", str(before.strict).lower(), str(after.strict).lower())
    yield from _differing("ordered by", before.order_by or "nothing", after.order_by or "nothing")
    yield from _differing("pause", _seconds(before.pause), _seconds(after.pause))
    yield from _differing("window", _listed(before.window), _listed(after.window))
    if before.gate != after.gate:
        told = _differing("gate", _gate(before.gate), _gate(after.gate))
        yield told[0] if told else f"gate {_gate(after.gate)} asks for something else"


def _rolled(text: str) -> Difference:
    return Difference(kind=Kind.STRATEGY, text=text)


def _differing(name: str, before: str, after: str) -> list[str]:
    return [f"{name} {before} -> {after}"] if before != after else []


def _at_once(wave: Wave) -> str:
    return "auto" if wave.auto else str(wave.concurrency)


def _gate(gate: Gate | None) -> str:
    return "none" if gate is None else f"{gate.kind} {gate.text}"


def _budget(max_failures: int | None) -> str:
    return "any number" if max_failures is None else str(max_failures)


def _seconds(value: float | str | None) -> str:
    return "none" if value is None else value if isinstance(value, str) else f"{value:g}s"


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts) or "none"


def _allowed(plan: Plan) -> str:
    return "allowed" if plan.allow_ahead else "not allowed"


def _heads(heads: Sequence[str]) -> str:
    return ", ".join(heads) or "base"


def _plural(number: int, one: str, many: str | None = None) -> str:
    return one if number == 1 else many or f"{one}s"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - FIRST_NAMES
    shown = ", ".join(names[:FIRST_NAMES])
    return f"{shown} and {rest:,} more" if rest > 0 else shown

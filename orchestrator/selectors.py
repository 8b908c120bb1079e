"""Which targets a command is about: names, globs and label selectors, which intersect."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from orchestrator.errors import UsageError
from orchestrator.tenants import Target

#: fields of a selection that hold names
_LISTS = frozenset({"names", "exclude", "listed", "failed"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The targeting flags of one command; what is given intersects."""

    #: `--all`
    everything: bool = False
    #: `-t`: names or globs of tenants or targets
    names: tuple[str, ...] = ()
    #: `--exclude`: names or globs
    exclude: tuple[str, ...] = ()
    #: `-l`: a label selector in Kubernetes syntax
    labels: str | None = None
    #: `--database`: key of one database of each tenant
    database: str | None = None
    #: `--from-file`: exact names, one a line
    listed: tuple[str, ...] | None = None
    #: `--failed`, `--failed-in`: names of targets that the ledger gave
    failed: tuple[str, ...] | None = None
    #: `--limit`: `N` or `N%` of the targets that are due, by stable hash
    limit: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether any flag says which targets are meant; commands that write demand it."""
        return (
            self.everything
            or bool(self.names or self.labels or self.database)
            or (self.listed is not None or self.failed is not None)
        )

    @property
    def may_grow(self) -> bool:
        """Whether a tenant that joins may be meant: not where single ones were named, or so many of them."""
        named = any(not _is_glob(name) for name in _split(self.names))
        return not named and self.listed is None and self.failed is None and self.limit is None

    def to_json(self) -> dict[str, Any]:
        """What is given, as in a plan; `everything` is left out, since it says nothing beside the rest."""
        values = ((field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self))
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value, default in values
            if value != default and name != "everything"
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """Undo `to_json`; raises TypeError for what is no selection."""
        texts = {"labels", "database", "limit"}
        given: dict[str, Any] = {}
        for name, value in data.items():
            is_fit = isinstance(value, str) if name in texts else name in _LISTS and isinstance(value, list)
            if not is_fit:
                raise TypeError(f"`{name}` is no part of a selection, or of another kind")
            given[name] = value if name in texts else tuple(map(str, value))
        selection = cls(**given)
        return dataclasses.replace(selection, everything=not selection.is_given)


class Named(Protocol):
    """Anything with the name of a target, and the names of those that must be done first."""

    @property
    def name(self) -> str:
        """Name of the target."""

    @property
    def after(self) -> tuple[str, ...]:
        """Names of targets that must be done first."""


#: wrong names that one message tells
MOST_TOLD = 10

N = TypeVar("N", bound=Named)
Labels: TypeAlias = Mapping[str, str]
#: one flag as typed, and which targets it keeps
Filter: TypeAlias = tuple[str, Callable[[Target], bool]]

_REQUIREMENT = re.compile(
    r"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>[\w./-]+)
      | (?P<key>[\w./-]+)\s*
        (?: (?P<set>in|notin)\s*\(\s*(?P<values>[^()]*?)\s*\)
          | (?P<sign>==|=|!=)\s*(?P<value>[^\s,()=!]*)
          |
        )
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def select(targets: Sequence[Target], selection: Selection) -> tuple[Target, ...]:
    """Targets that every given flag keeps, in their order; a name nobody bears and an empty choice are errors."""
    if not targets:
        raise UsageError("the registry holds no tenants; add some to tenants.yaml")
    _check_names(targets, selection)
    kept = tuple(targets)
    for flag, keeps in _filters(selection):
        left = tuple(target for target in kept if keeps(target))
        if not left:
            raise UsageError(f"no target is left after {flag}: it keeps none of the {len(kept)} chosen until there")
        kept = left
    return kept


def limited(items: Sequence[N], limit: str | None) -> tuple[N, ...]:
    """The first `N` or `N%` of the items by a hash of their names, at least one of them, in their own order.

    Given what is due, the same limit makes progress each time: those that are done are not due any more. An item comes
    behind those of its `after` that are due as well, so that none is chosen before its turn.
    """
    if limit is None:
        return tuple(items)
    by_name = {item.name: item for item in items}
    turns: dict[str, None] = {}
    for item in sorted(items, key=lambda item: stable_hash(item.name)):
        _take_turn(item, by_name, turns, frozenset())
    chosen = set(list(turns)[: _count_of(limit, len(items))])
    return tuple(item for item in items if item.name in chosen)


def _take_turn(item: N, by_name: Mapping[str, N], turns: dict[str, None], waiting: frozenset[str]) -> None:
    """Put the item behind those that must be done first; a circle, which the registry refuses, is cut."""
    for name in item.after:
        if name in by_name and name not in turns and name not in waiting:
            _take_turn(by_name[name], by_name, turns, waiting | {item.name})
    turns.setdefault(item.name)


def stable_hash(name: str) -> bytes:
    """A hash that is the same on every machine and in every process."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def parse_labels(text: str) -> Callable[[Labels], bool]:
    """A predicate over labels from a Kubernetes selector: `a=b`, `a!=b`, `a in (x,y)`, `a notin (x)`, `a`, `!a`."""
    checks: list[Callable[[Labels], bool]] = []
    end = 0
    while end < len(text) or not checks:
        match = _REQUIREMENT.match(text, end)
        if not match or match.end() == end:
            rest = text[end:].strip() or text
            raise UsageError(f"label selector `{text}`: cannot read `{rest}`; write a=b, a!=b, 'a in (x,y)', a or !a")
        checks.append(_requirement(match))
        end = match.end()
    if text.rstrip().endswith(","):
        raise UsageError(f"label selector `{text}`: nothing follows the last comma; remove it")
    return lambda labels: all(check(labels) for check in checks)


def _requirement(match: re.Match[str]) -> Callable[[Labels], bool]:
    if match["absent"]:
        return lambda labels: match["absent_key"] not in labels
    key = match["key"]
    if match["set"]:
        values = frozenset(value.strip() for value in match["values"].split(","))
    elif match["sign"]:
        values = frozenset([match["value"]])
    else:
        return lambda labels: key in labels
    if match["set"] == "notin" or match["sign"] == "!=":
        return lambda labels: labels.get(key) not in values
    return lambda labels: labels.get(key) in values


def _filters(selection: Selection) -> Iterator[Filter]:
    """What each given flag keeps."""
    names, exclude = _split(selection.names), _split(selection.exclude)
    if names:
        yield f"`-t {','.join(names)}`", _named(names)
    if selection.listed is not None:
        yield "`--from-file`", _named(selection.listed, globs=False)
    if selection.failed is not None:
        failed = frozenset(selection.failed)
        yield "`--failed`", lambda target: target.name in failed
    if selection.database is not None:
        yield f"`--database {selection.database}`", lambda target: target.database == selection.database
    if selection.labels is not None:
        matches = parse_labels(selection.labels)
        yield f"`-l {selection.labels}`", lambda target: matches(target.labels)
    if exclude:
        excluded = _named(exclude)
        yield f"`--exclude {','.join(exclude)}`", lambda target: not excluded(target)


def _named(patterns: Sequence[str], *, globs: bool = True) -> Callable[[Target], bool]:
    """Whether a target, or its tenant, bears one of the names or matches one of the globs."""
    exact = frozenset(pattern for pattern in patterns if not (globs and _is_glob(pattern)))
    expressions = [re.compile(fnmatch.translate(pattern)) for pattern in patterns if globs and _is_glob(pattern)]

    def matches(target: Target) -> bool:
        names = (target.name, target.tenant.name)
        return any(name in exact for name in names) or any(
            expression.match(name) for expression in expressions for name in names
        )

    return matches


def _check_names(targets: Sequence[Target], selection: Selection) -> None:
    """Refuse names, globs and database keys that nothing in the registry answers to, all of them at once."""
    known = dict.fromkeys(name for target in targets for name in (target.tenant.name, target.name))
    complaints = _complaints([*_split(selection.names), *_split(selection.exclude)], known, globs=True)
    complaints += _complaints(selection.listed or (), known, globs=False)
    databases = dict.fromkeys(target.database for target in targets if target.database is not None)
    if selection.database is not None and selection.database not in databases:
        hint = _nearest(selection.database, databases) or "; no tenant has `databases`" * (not databases)
        complaints.append(f"unknown database `{selection.database}`{hint}")
    if complaints:
        raise UsageError("\n".join(dict.fromkeys(complaints)) + "\n`orchestrate tenants list` shows all of them")


def _complaints(names: Sequence[str], known: Mapping[str, None], *, globs: bool) -> list[str]:
    """What is wrong with names; of a list that fits another registry only the first few, looking for likes is slow."""
    unknown = [name for name in dict.fromkeys(names) if not _is_borne(name, known, globs=globs)]
    told = [
        f"`{name}` matches no tenant" if globs and _is_glob(name) else f"unknown tenant `{name}`{_nearest(name, known)}"
        for name in unknown[:MOST_TOLD]
    ]
    rest = len(unknown) - len(told)
    return [*told, f"and {rest:,} more names that nobody bears"] if rest else told


def _is_borne(name: str, known: Mapping[str, None], *, globs: bool) -> bool:
    if not (globs and _is_glob(name)):
        return name in known
    return any(map(re.compile(fnmatch.translate(name)).match, known))


def _nearest(name: str, known: Mapping[str, None]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return "; did you mean " + " or ".join(f"`{match}`" for match in close) + "?" if close else ""


def _is_glob(name: str) -> bool:
    return any(character in name for character in "*?[")


def _split(names: Sequence[str]) -> tuple[str, ...]:
    """`-t a,b` means the same as `-t a -t b`."""
    return tuple(part.strip() for name in names for part in name.split(",") if part.strip())


def _count_of(limit: str, total: int) -> int:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)(%?)\s*", limit)
    number = float(match[1]) if match else 0.0
    if not match or number <= 0 or (match[2] and number > 100) or (not match[2] and not number.is_integer()):
        raise UsageError(f"--limit {limit}: not a limit; write it like 10 or 10%")
    return max(1, int(total * number / 100)) if match[2] else int(number)

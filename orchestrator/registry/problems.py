"""Mistakes in the registry, gathered so that the user sees all of them in one go."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from orchestrator.errors import Problem, RegistryError
from orchestrator.registry.documents import Document, Path, Position

#: characters of a problem that are told
LONGEST_TEXT = 300


class Mistake(Exception):  # noqa: N818 - the user's, not the program's
    """One thing that is wrong; whoever knows the place in the file turns it into a `Problem`."""

    def __init__(self, text: str, remedy: str = "", *, is_general: bool = False) -> None:
        self.text = text
        self.remedy = remedy
        #: wrong in the same way for every tenant that inherits the value
        self.is_general = is_general
        super().__init__(text)


class Problems:
    """Problems in the order of the file, each of them once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[Problem, tuple[int, int]] = {}
        self._sources: dict[Path, Path] = {}

    def came_from(self, path: Path, source: Path) -> None:
        """Say that what would stand at a path (a tenant that is not in the file) came from a source."""
        self._sources[path] = source

    def add(self, path: Path, text: str, remedy: str = "", *, at_key: bool = False) -> None:
        """Note a problem at a path of the document, or at the nearest part of the path that it has."""
        path = self._sources.get(path[:2], path)
        problem = Problem(place=self.place(path, at_key=at_key), text=legible(text), remedy=legible(remedy))
        self._found.setdefault(problem, self._document.position(path, at_key=at_key))

    def add_at(self, position: Position, text: str, remedy: str) -> None:
        """Note a problem of the text itself."""
        line, column = position
        place = f"{self._document.name}:{line}:{column}"
        problem = Problem(place=place, text=legible(text), remedy=legible(remedy))
        self._found.setdefault(problem, position)

    def add_mistake(self, path: Path, mistake: Mistake, prefix: str = "") -> None:
        """Note a mistake at a path of the document."""
        self.add(path, prefix + mistake.text, mistake.remedy)

    def add_elsewhere(self, problem: Problem) -> None:
        """Note a problem of another file; it is told last."""
        self._found.setdefault(problem, (2**31, 0))

    def place(self, path: Path, *, at_key: bool = False) -> str:
        """A path of the document as `tenants.yaml:12:5`."""
        line, column = self._document.position(path, at_key=at_key)
        return f"{self._document.name}:{line}:{column}"

    def raise_if_any(self) -> None:
        """Raise `RegistryError` with all problems so far, in file order."""
        if self._found:
            raise RegistryError(sorted(self._found, key=lambda problem: self._found[problem]))

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)


def legible(text: str) -> str:
    """The text on one line that no name in it can break, cut where a name is absurdly long."""
    cut = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean X?` with the known names most like this one, else what is given."""
    close = close_to(name, known)
    if not close:
        return otherwise
    return "did you mean " + " or ".join(f"`{match}`" for match in close) + "?"


def close_to(name: str, known: Iterable[str]) -> list[str]:
    """The known names that this one may be a misspelling of."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def few(names: Iterable[str], most: int = 5) -> str:
    """The first few names and how many more there are."""
    listed = list(names)
    shown = ", ".join(f"`{name}`" for name in listed[:most])
    return f"{shown} and {len(listed) - most} more" if len(listed) > most else shown

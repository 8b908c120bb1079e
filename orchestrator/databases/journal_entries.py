"""What a journal remembers of a revision in flight, and how a second try follows it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence


class EntryKind(enum.Enum):
    """What an entry stands for."""

    #: rows, in the transaction that the next entry of another kind has committed
    DATA = "data"
    #: rows, in a transaction of their own
    ALONE = "alone"
    #: commits by itself
    DEFINITION = "definition"
    #: what was read; written with the next entry of another kind, so that a second try reads the same
    READ = "read"
    #: the end of a transaction in the middle of the revision
    COMMIT = "commit"
    #: nobody can say what it did
    OTHER = "other"


class State(enum.Enum):
    """How far a statement has come."""

    #: about to run; it ran when another entry of the same try follows
    INTENDED = "intended"
    DONE = "done"
    #: the server refused it; what stands before it is committed all the same
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One statement of a revision in flight."""

    position: int
    kind: EntryKind
    #: SHA-256 of the statement and its parameters
    digest: str
    state: State
    #: the try that wrote it
    attempt: str
    #: first words of the statement, no values
    summary: str = ""
    #: what the driver said of it, for whoever asks a second time
    rowcount: int = -1
    lastrowid: int | None = None
    #: rows that it returned, as text, where it returned any
    answer: str | None = None
    #: what the object looked like before; of a read what it says, whatever its parameters are
    probe: str | None = None

    @property
    def commits(self) -> bool:
        """Whether everything before it is committed."""
        return self.kind not in (EntryKind.DATA, EntryKind.READ)

    @property
    def is_data(self) -> bool:
        """Whether it changed rows."""
        return self.kind in (EntryKind.DATA, EntryKind.ALONE)


#: stands for a statement that an earlier try has committed in another form
NOTHING = Entry(position=0, kind=EntryKind.DATA, digest="", state=State.DONE, attempt="", rowcount=0)


class Strayed(Exception):  # noqa: N818 - named for what it says
    """The second try does something that the first one cannot have done at this place."""


class Replay:
    """The way of an earlier try, followed by the next one. Decides, and touches no database."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = [_settled(entry, entries) for entry in entries]
        #: the next one to be met
        self.at = 0
        #: rows were read since the last commit, so that what follows may depend on them
        self.has_read = False
        #: the revision looked at what there is since the last entry that it met, and may decide by itself
        self.has_looked = False
        #: the commit that has to come, or else what was left out in trust of it was left out wrongly
        self._promised: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether everything that was done is behind us."""
        return self.at >= len(self.entries)

    def look(self, *, at_catalog: bool) -> None:
        """The revision reads something."""
        if at_catalog:
            self.has_looked = True
        else:
            self.has_read = True

    def meet_read(self, digest: str, likeness: str) -> Entry | None:
        """What the earlier try read here, None where it read something else or nothing is left to follow.

        Only with the same answers does the revision go the same way: what it read may be changed, or gone, since then.
        `likeness` is equal for statements whose parameters alone differ, as a random one does.
        """
        if self.is_over:
            return None
        reads = [index for index in range(self.at, self._boundary()) if self.entries[index].kind is EntryKind.READ]
        same = [index for index in reads if self.entries[index].digest == digest]
        alike = [index for index in reads if self.entries[index].probe == likeness]
        for index in (*same, *alike):
            self.at = index + 1
            return self.entries[index]
        return None

    def meet_data(self, digest: str) -> Entry | None:
        """The entry that makes a change of rows superfluous, None when it has yet to run.

        Whatever stands before a commit was committed with it. So a statement that reads differently the second time,
        by a random name or the present time, is the one that was, provided that the same commit follows.
        """
        if self.is_over:
            return None
        boundary = self._boundary()
        last = len(self.entries) - 1 if self.has_looked else boundary
        for index in range(self.at, last + 1):
            entry = self.entries[index]
            if entry.kind is not EntryKind.DEFINITION and entry.digest == digest:
                self._pass(index)
                return entry
        if self.has_looked and not any(entry.is_data for entry in self.entries[self.at :]):
            # What is left are definitions, and the revision has seen that they are there.
            self.at = len(self.entries)
            return None
        return self._trust(boundary)

    def meet_definition(self, digest: str) -> Entry | None:
        """The entry of a definition, done or not; None when it was never begun."""
        return self._meet(digest, EntryKind.DEFINITION)

    def meet_other(self, digest: str) -> Entry | None:
        """The entry of a statement that nobody can judge; None when it was never begun."""
        return self._meet(digest, EntryKind.OTHER)

    def meet_commit(self) -> bool:
        """Whether an earlier try has got over this commit already."""
        if self.is_over:
            return False
        boundary = self._boundary()
        if self.entries[boundary].kind is EntryKind.COMMIT:
            self._pass(boundary)
            self.has_read = False
        return True

    def finish(self) -> None:
        """The revision is at its end."""
        if self._promised is not None:
            raise Strayed("comes before what the first try did next, and without that nobody can tell what was done")

    def _meet(self, digest: str, kind: EntryKind) -> Entry | None:
        for index in range(self.at, len(self.entries)):
            entry = self.entries[index]
            if entry.kind is kind and entry.digest == digest:
                self._pass(index)
                self.has_read = False
                return entry
        if self.is_over or self.has_looked:
            return None
        raise Strayed("is not what the first try did at this place")

    def _trust(self, boundary: int) -> Entry:
        """Take a statement that reads differently for the next one that was committed."""
        while self.entries[self.at].kind is EntryKind.READ:
            self.at += 1
        closing, entry = self.entries[boundary], self.entries[self.at]
        alone = closing.kind is EntryKind.ALONE
        if (self.has_read and (alone or closing.kind is EntryKind.COMMIT)) or (self.has_looked and alone):
            raise Strayed("changes other rows than the first time, after reading what the first time has changed")
        if self.has_looked and self.at == boundary:
            raise Strayed("is not what the first try did at this place")
        if alone:
            self._pass(self.at)
            return entry
        self._promised = boundary
        if not entry.is_data:
            return NOTHING
        self.at += 1
        return entry

    def _pass(self, index: int) -> None:
        if self._promised is not None and index >= self._promised:
            if index > self._promised:
                self.finish()
            self._promised = None
        self.at = index + 1
        self.has_looked = False

    def _boundary(self) -> int:
        """The next entry that committed what stands before it; data without one was committed by its own."""
        for index in range(self.at, len(self.entries)):
            if self.entries[index].commits:
                return index
        return len(self.entries) - 1


def _settled(entry: Entry, entries: Sequence[Entry]) -> Entry:
    """A statement ran when the same try went on to something else."""
    followed = any(other.attempt == entry.attempt and other.position > entry.position for other in entries)
    if entry.state is State.INTENDED and followed and entry.kind is EntryKind.DEFINITION:
        return dataclasses.replace(entry, state=State.DONE)
    return entry

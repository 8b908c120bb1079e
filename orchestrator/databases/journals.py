"""The statement journal: what a revision in flight has done, where a crash would not undo it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class NoJournal:
    """For revisions that a crash undoes as a whole."""

    @contextmanager
    def revision(self, revision: str, *, file: str, direction: str) -> Iterator[None]:
        """Nothing is kept."""
        del revision, file, direction
        yield

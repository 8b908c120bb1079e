"""Which targets a command is about: names, globs and label selectors, which intersect."""

from __future__ import annotations

import dataclasses


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

"""What a database answers that a run has words for; all of them concern one target, none the whole command."""

from __future__ import annotations

from orchestrator.errors import OrchestratorError, Refused, SettingsError


class TargetAbsent(OrchestratorError):  # noqa: N818 - named for what it says
    """The target's database, schema or file does not exist."""


class TenantLocked(OrchestratorError):  # noqa: N818 - named for what it says
    """Somebody else holds the tenant lock, and went on holding it for as long as we may wait."""


class LockLost(OrchestratorError):  # noqa: N818 - named for what it says
    """The tenant lock was not ours any more when we let go of it: somebody else may have migrated at the same time."""


class SecondConnection(OrchestratorError):  # noqa: N818 - named for what it says
    """A revision asked for a connection of its own, which has neither the tenant lock nor the search path."""


class SchemaMismatch(OrchestratorError):  # noqa: N818 - named for what it says
    """The server resolves unqualified names in another schema than the target's."""


class BrokenReferences(OrchestratorError):  # noqa: N818 - named for what it says
    """A transaction would have left rows whose foreign key points at nothing; it was rolled back."""


class JournalMismatch(OrchestratorError):  # noqa: N818 - named for what it says
    """A revision stopped half-way, and what is left of it cannot be continued by the file that is here now."""


class PasswordUnavailable(OrchestratorError):  # noqa: N818 - named for what it says
    """The command that should print a password did not."""


class DriverMissing(SettingsError):  # noqa: N818 - named for what it says
    """The Python driver of a database is not installed, or the kind of database is not supported."""


class PoolerInTheWay(Refused):
    """A pooler hands out server sessions per transaction: locks and search paths would leak between tenants."""

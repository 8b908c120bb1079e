"""The durable history of runs: a protocol, the ledger on SQL, and a fake of it in memory."""

from orchestrator.ledger.addresses import place
from orchestrator.ledger.holders import is_dead, this_process
from orchestrator.ledger.memory import MemoryLedger, MemoryStore
from orchestrator.ledger.opening import open_ledger
from orchestrator.ledger.protocol import (
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    Attempt,
    AuditEntry,
    Holder,
    Lease,
    Ledger,
    News,
    Request,
    RequestKind,
    Run,
    StopRequest,
    WaveMark,
)

__all__ = [
    "HEARTBEAT_SECONDS",
    "LEASE_SECONDS",
    "Attempt",
    "AuditEntry",
    "Holder",
    "Lease",
    "Ledger",
    "MemoryLedger",
    "MemoryStore",
    "News",
    "Request",
    "RequestKind",
    "Run",
    "StopRequest",
    "WaveMark",
    "is_dead",
    "open_ledger",
    "place",
    "this_process",
]

"""The durable history of runs: a protocol, the ledger on SQL, and a fake of it in memory."""

from orchestrator.ledger.addresses import place
from orchestrator.ledger.memory import MemoryLedger, MemoryStore
from orchestrator.ledger.opening import open_ledger
from orchestrator.ledger.protocol import Attempt, Ledger, Run

__all__ = ["Attempt", "Ledger", "MemoryLedger", "MemoryStore", "Run", "open_ledger", "place"]

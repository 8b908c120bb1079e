"""Where jobs run: in this process, or in worker processes that can die without taking anything with them."""

from __future__ import annotations

from orchestrator.executors.inline import InlineExecutor
from orchestrator.executors.processes import ProcessExecutor
from orchestrator.executors.protocol import Executor
from orchestrator.executors.serving import Entry

__all__ = ["Entry", "Executor", "InlineExecutor", "ProcessExecutor"]

"""Every executor passes the contract that is shipped for third parties."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.executors import Executor, InlineExecutor, ProcessExecutor
from orchestrator.executors.contract import SCRIPTED, ExecutorContract, IsolatingExecutorContract, act
from orchestrator.tenants import Target


class TestInlineExecutor(ExecutorContract):
    def open(self, lanes: int, targets: Mapping[str, Target]) -> Executor:
        return InlineExecutor(lambda job: act(job, targets[job.target]))


class TestProcessExecutor(IsolatingExecutorContract):
    def open(self, lanes: int, targets: Mapping[str, Target]) -> Executor:
        return ProcessExecutor(lanes, settings=None, targets=targets, entry=SCRIPTED)

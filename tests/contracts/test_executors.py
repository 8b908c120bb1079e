"""Every executor passes the contract that is shipped for third parties."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from orchestrator import redaction
from orchestrator.executors import Executor, InlineExecutor, ProcessExecutor
from orchestrator.executors.contract import SCRIPTED, ExecutorContract, IsolatingExecutorContract, act
from orchestrator.outcomes import Outcome, Status
from orchestrator.plans import Job
from orchestrator.tenants import Target
from orchestrator.testing import a_job


class TestInlineExecutor(ExecutorContract):
    def open(self, lanes: int, targets: Mapping[str, Target]) -> Executor:
        return InlineExecutor(lambda job: act(job, targets[job.target]))

    def test_what_a_job_prints_goes_aside_without_secrets(self, capsys: pytest.CaptureFixture[str]) -> None:
        redaction.remember("hunter-22-secret")

        def prints(job: Job) -> Outcome:
            print("at hunter-22-secret")
            print("hunter-22-", end="", file=sys.stderr)
            print("secret", end="")
            return job.outcome(Status.UPGRADED)

        outcome = InlineExecutor(prints).submit(a_job("acme")).result()

        assert outcome.status is Status.UPGRADED
        assert capsys.readouterr() == ("", "at ***\n***\n")


class TestProcessExecutor(IsolatingExecutorContract):
    def open(self, lanes: int, targets: Mapping[str, Target]) -> Executor:
        return ProcessExecutor(lanes, settings=None, targets=targets, entry=SCRIPTED)

"""Drives a plan: waves in order, bounded submission, dependencies, budgets, halting.

Knows no Alembic, no SQL and no YAML; whatever runs a job is behind one callable that returns a future.
"""

from __future__ import annotations

from orchestrator.rollout.budgets import is_server_down
from orchestrator.rollout.conclusions import Conclusion, HaltCause, WaveStatus, blames, summarise_waves
from orchestrator.rollout.controls import Controls, Mailbox
from orchestrator.rollout.delays import Clock
from orchestrator.rollout.driving import execute
from orchestrator.rollout.gates import Ask, Measurer, Outside, Sweep
from orchestrator.rollout.jobs import notify
from orchestrator.rollout.signals import StopCause, StopSignal

__all__ = [
    "Ask",
    "Clock",
    "Conclusion",
    "Controls",
    "HaltCause",
    "Mailbox",
    "Measurer",
    "Outside",
    "StopCause",
    "StopSignal",
    "Sweep",
    "WaveStatus",
    "blames",
    "execute",
    "is_server_down",
    "notify",
    "summarise_waves",
]

"""Checked by mypy, never run: what the public API promises to the type checkers of its callers."""

from __future__ import annotations

from typing import assert_type

import orchestrator
from orchestrator import OrchestratorError, Outcome, Plan, Project, Report, Status, Target, Tenant


def roll_out() -> None:
    with Project.load("alembic.ini", x=["key=value"], accept_shrink=True) as project:
        plan = project.plan("head", selector="region=eu", concurrency=4, max_failures="2%")
        assert_type(plan, Plan)
        report = project.upgrade(plan)
        assert_type(report, Report)
        report.raise_for_failures()
        assert_type(report.outcomes, tuple[Outcome, ...])
        assert_type([outcome.status for outcome in report.failures], list[Status])
        assert_type(report.counts, dict[str, int])


def look(project: Project) -> list[str]:
    targets: tuple[Target, ...] = project.registry.targets
    tenants: list[Tenant] = [target.tenant for target in targets]
    return [tenant.name for tenant in tenants]


def catch(project: Project) -> orchestrator.Plan | None:
    try:
        return project.plan("head", tenants=["acme"])
    except OrchestratorError as error:
        print(int(error.exit_code))
        return None

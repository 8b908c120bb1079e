"""How the registry is shown."""

from __future__ import annotations

import dataclasses
import datetime

from orchestrator.cli.render_tenants import tenant_lines, tenants_lines
from orchestrator.tenants import State, Target
from orchestrator.testing import a_target

DAY = datetime.timedelta(days=1)


def quarantined(name: str, until: datetime.date | None) -> Target:
    target = a_target(name)
    tenant = dataclasses.replace(target.tenant, state=State.QUARANTINED, reason="a restore", until=until)
    return dataclasses.replace(target, tenant=tenant)


def test_a_quarantine_that_is_over_is_told_as_over() -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    fleet = [quarantined("acme", today + DAY), quarantined("bix", today - DAY), quarantined("cyb", None)]

    shown = [line.text for line in tenants_lines([*fleet, a_target("dux")])]

    assert [" ".join(line.split()[1:-1]) for line in shown[1:]] == [
        "quarantined",
        "active, was quarantined",
        "quarantined",
        "active",
    ]
    assert "  state   active, was quarantined" in [line.text for line in tenant_lines(fleet[1:2])]

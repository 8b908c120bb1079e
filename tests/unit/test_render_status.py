"""The text of a status: each distinct place once, the odd ones by name."""

from __future__ import annotations

from orchestrator.cli.render_causes import View
from orchestrator.cli.render_status import status_lines
from orchestrator.plans import Condition
from orchestrator.standings import Standing, StatusReport, StatusRow
from orchestrator.tenants import State
from tests.unit.cli_fakes import PASSWORD, UNIQUE, status_row, target


def text(*rows: StatusRow, verbose: bool = False) -> str:
    wanted = {row.found.target.section: row.wanted for row in rows}
    made = StatusReport(project="billing", environment="staging", rows=rows, wanted=wanted)
    return "\n".join(line.text for line in status_lines(made, View(verbose=verbose)))


def test_each_place_is_one_line_with_the_odd_ones_by_name() -> None:
    rows = [status_row(f"t{n}") for n in range(1200)]
    rows += [status_row(f"b{n}", Standing.BEHIND, heads=("r006",), behind_by=1) for n in range(37)]
    rows += [status_row("hooli", Standing.BEHIND, heads=("r006",), behind_by=1, state=State.QUARANTINED)]
    rows += [status_row("new", Standing.EMPTY, heads=(), condition=Condition.EMPTY, behind_by=7)]

    assert text(*rows).splitlines() == [
        "billing staging: 1,239 targets",
        "",
        "head: r007",
        "  targets  revision  state",
        "    1,200  r007      at head",
        "       37  r006      behind, 1 to go               b0, b1, b2 and 34 more",
        "        1  r006      behind, 1 to go, quarantined  hooli",
        "        1  -         empty, 7 to go                new",
        "",
        "38 targets not at head; `orchestrate plan` shows what is due",
    ]


def test_a_fleet_at_head_says_so() -> None:
    assert text(status_row("acme")).endswith("nothing is due")


def test_what_cannot_be_read_says_why() -> None:
    unread = status_row(
        "acme", Standing.UNREACHABLE, heads=(), condition=Condition.UNREACHABLE, failure=UNIQUE, behind_by=None
    )

    shown = text(unread, status_row("globex"))

    assert "1 unreachable: could not create unique index" in shown
    assert "-> remove the duplicates" in shown


def test_each_section_has_its_own_block() -> None:
    analytics = status_row("acme", target=target("acme", section="analytics", database="analytics"))

    shown = text(status_row("globex"), analytics)

    assert "head of [alembic]: r007" in shown
    assert "head of [analytics]: r007" in shown


def test_verbose_lists_every_target_with_its_place_and_no_secret() -> None:
    shown = text(status_row("acme"), status_row("globex"), verbose=True)

    assert "acme    r007      at head  db.internal:5432/saas schema tenant_acme" in shown
    assert PASSWORD not in shown

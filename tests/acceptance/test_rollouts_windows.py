"""Who may not start now, who stays out of runs, and who joins late: what is put off is untouched, and told."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

from tests import checker, histories
from tests.acceptance import rollouts
from tests.acceptance.fleets import outcomes_of, report_of
from tests.acceptance.rollouts import (
    assert_only,
    canary,
    closed_window,
    latest,
    live,
    open_window,
    small,
    statuses,
    until,
    waves,
    write,
)

HERE = ("--executor", "inline")
ONE = "  default: {concurrency: 1}"


def days(first: int, last: int) -> str:
    """A freeze, counted from today."""
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{today + datetime.timedelta(days=first)}/{today + datetime.timedelta(days=last)}"


def test_tenants_that_may_not_be_touched_now(tmp_path: Path) -> None:
    fleet = small(tmp_path / "project", ONE, count=5)
    plain, closed, opened, quarantined, suspended = (member.name for member in fleet.members)
    until_day = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=9)
    keys = {
        plain: "",
        closed: f"window: '{closed_window()}'",
        opened: f"window: ['{closed_window()}', '{open_window()}']",
        quarantined: f"state: quarantined, reason: restoring a backup, owner: ops, until: {until_day}",
        suspended: "state: suspended, reason: unpaid",
    }
    write(fleet, ONE, tenants=keys)

    done = fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE, exit_status=4)

    report, outcomes = report_of(done), outcomes_of(report_of(done))
    assert report["status"] == "paused"
    assert statuses(report) == {
        plain: "upgraded", closed: "deferred", opened: "upgraded", quarantined: "skipped", suspended: "skipped"
    }  # fmt: skip
    assert outcomes[closed]["reason"]["code"] == "window"
    assert outcomes[suspended]["reason"] == {"code": "suspended", "text": "unpaid"}
    reason = outcomes[quarantined]["reason"]
    assert reason["code"] == "quarantined"
    assert all(word in reason["text"] for word in ("restoring a backup", "owner ops", f"until {until_day}"))
    shown = fleet.orchestrate("runs", "show", "-v").output
    assert "restoring a backup" in shown
    assert "its window opens" in shown
    assert_only(fleet, plain, opened)

    # The plan is frozen: a window that was opened since is not its own. A new run has the new one, or none.
    report = report_of(fleet.orchestrate("resume", "-o", "json", *HERE, exit_status=4))
    assert statuses(report)[closed] == "deferred"
    forced = report_of(fleet.orchestrate("upgrade", "--all", "--outside-windows", "-o", "json", *HERE))
    assert statuses(forced)[closed] == "upgraded"
    assert_only(fleet, plain, opened, closed)


def test_a_run_whose_window_is_closed_waits_for_another_runner(tmp_path: Path) -> None:
    closed = f"  default: {{window: '{closed_window()}', waves: [{{name: canary, size: 1}}, {{name: rest}}]}}"
    fleet = small(tmp_path / "project", closed)

    first = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE, exit_status=4))

    assert (first["status"], first["counts"]["deferred"]) == ("paused", 4)
    assert waves(first)["canary"] == "deferred"
    assert {one["reason"]["code"] for one in first["outcomes"]} == {"window"}
    assert_only(fleet)
    # Pressing the button again is no harm, and takes the place of it.
    second = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE, exit_status=4))
    assert latest(fleet.project, first["run"])["status"] == "superseded"
    resumed = report_of(fleet.orchestrate("resume", "-o", "json", *HERE, exit_status=4))
    assert (resumed["run"], resumed["counts"]["deferred"]) == (second["run"], 4)
    assert_only(fleet)


def test_a_freeze_and_what_goes_through_it(tmp_path: Path) -> None:
    fleet = small(tmp_path / "project", f"  default: {{freeze: ['{days(-1, 1)}']}}")
    names = [member.name for member in fleet.members]

    frozen = fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE, exit_status=4)
    assert {one["reason"]["code"] for one in report_of(frozen)["outcomes"]} == {"freeze"}
    assert "before the freeze ends" in frozen.text
    assert_only(fleet)
    write(fleet, f"  default: {{freeze: ['{days(2, 4)}']}}")
    assert report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE))["counts"]["upgraded"] == 4
    assert_only(fleet, *names)


def test_a_deadline(tmp_path: Path) -> None:
    fleet = small(tmp_path / "project", "  default: {concurrency: 1, deadline: 2s}", hold=True)
    first, *others = (member.name for member in fleet.members)
    (fleet.project.folder / "hold").touch()
    with live(fleet.project, "upgrade", "--all", "-o", "json") as runner:
        until((fleet.project.folder / "reached").exists, lambda: runner.text)
        time.sleep(3)
        (fleet.project.folder / "hold").unlink()
        runner.ends(4)

    report = latest(fleet.project)
    assert statuses(report) == {first: "upgraded", **dict.fromkeys(others, "deferred")}
    assert {one["reason"]["code"] for one in report["outcomes"] if one["target"] != first} == {"deadline"}
    assert_only(fleet, first)
    # The next runner has as long again.
    again = report_of(fleet.orchestrate("resume", "-o", "json", *HERE, exit_status=None))
    assert again["counts"]["upgraded"] >= 2


def test_a_halted_canary_is_taken_back_at_once(tmp_path: Path) -> None:
    strategy = (
        "  default: {concurrency: 1, sweep: true, waves: [{name: canary, size: 1, pause: 1s, gate: "
        "{command: ['false'], count: 2, interval: 10m}}, {name: early, size: 1, pause: until-continued}, {name: rest}]}"
    )
    fleet = small(tmp_path / "project", strategy)
    first, _ = canary(fleet)
    halted = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE, exit_status=1))
    assert halted["status"] == "halted"
    assert_only(fleet, first)
    write(fleet, strategy, tenants=dict.fromkeys(statuses(halted), f"window: '{closed_window()}'"))

    back = report_of(fleet.orchestrate("rollback", "--yes", "-o", "json", *HERE))

    assert (back["parent"], statuses(back)) == (halted["run"], {first: "downgraded"})
    assert latest(fleet.project, halted["run"])["status"] == "superseded"
    checker.assert_right([checker.Expected(url=fleet[first].url, heads=(), markers=(), tables=(), marker_table="")])


def test_whoever_joins_while_the_run_is_on(tmp_path: Path) -> None:
    fleet = small(tmp_path / "project", ONE, count=4, hold=True)
    first, second, late, shy = (member.name for member in fleet.members)
    listed = fleet.project.folder / "listed.json"
    source = "sources: [{type: command, run: [cat, listed.json]}]"
    write(fleet, "  default: {concurrency: 1, sweep: true}", source, tenants={first: ""})
    listed.write_text(json.dumps([{"name": second}]))
    (fleet.project.folder / "hold").touch()
    with live(fleet.project, "upgrade", "--all", "-o", "json") as runner:
        until((fleet.project.folder / "reached").exists, lambda: runner.text)
        joined = [{"name": second}, {"name": late}, {"name": shy, "window": closed_window()}]
        listed.write_text(json.dumps(joined))
        (fleet.project.folder / "hold").unlink()
        runner.ends(4)

    report = latest(fleet.project)
    assert statuses(report) == {first: "upgraded", second: "upgraded", late: "upgraded", shy: "deferred"}
    assert {one["target"]: one["wave"] for one in report["outcomes"]}[late] == "sweep"
    assert_only(fleet, first, second, late)


def test_what_comes_after_a_failed_target_in_another_wave(tmp_path: Path) -> None:
    """Whoever others come after is pulled forward to them; mended, all of it is done in its order."""
    strategy = (
        "  default: {max_failures: 9, waves: [{name: canary, selector: tier=canary, max_failures: 1}, {name: rest}]}"
    )
    fleet = small(tmp_path / "project", strategy, start=1)
    base, early, last, other = (member.name for member in fleet.members)
    behind = f"after: [{base}]"
    keys = {early: f"labels: {{tier: canary}}, {behind}", last: behind, base: "", other: ""}
    write(fleet, strategy, tenants=keys)
    fleet.execute(base, [rollouts.POISON])

    report = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE, exit_status=1))

    assert {one["target"]: one["wave"] for one in report["outcomes"]} == {
        base: "canary", early: "canary", last: "rest", other: "rest"
    }  # fmt: skip
    assert statuses(report) == {base: "failed", early: "skipped", last: "skipped", other: "upgraded"}
    assert outcomes_of(report)[last]["reason"]["code"] == "dependency_failed"
    assert_only(fleet, other)
    fleet.execute(base, [rollouts.ANTIDOTE])
    done = report_of(fleet.orchestrate("retry", "-o", "json", *HERE))
    assert done["run"] == report["run"]
    began = {one["target"]: one["started_at"] for one in done["outcomes"]}
    assert began[base] < began[early] < began[last]
    assert_only(fleet, base, early, last, other)


def test_databases_of_a_tenant_stay_together_when_it_is_paused(tmp_path: Path) -> None:
    """The pause falls between two databases of one tenant: the second one still comes, and comes second."""
    fleet = small(tmp_path / "project", ONE, count=4, hold=True)
    names = [member.name for member in fleet.members]
    both = ["core: {{url: 'sqlite:///tenants/{}.db'}}", "events: {{url: 'sqlite:///tenants/{}.db'}}"]
    tenants = {
        "acme": f"databases: {{{both[0].format(names[0])}, {both[1].format(names[1])}}}",
        "globex": f"databases: {{{both[0].format(names[2])}, {both[1].format(names[3])}}}",
    }
    write(fleet, ONE, tenants=tenants)
    (fleet.project.folder / "hold").touch()
    with live(fleet.project, "upgrade", "--all") as runner:
        until((fleet.project.folder / "reached").exists, lambda: runner.text)
        fleet.orchestrate("pause")
        rollouts.heard(fleet.project)
        (fleet.project.folder / "hold").unlink()
        runner.ends(4)
    assert_only(fleet, names[0])
    skipped = fleet.orchestrate("skip", "--target", "globex/core", "--reason", "theirs", "-o", "json").json
    assert skipped["live"] is False

    report = report_of(fleet.orchestrate("continue", "-o", "json", *HERE, exit_status=1))

    assert statuses(report) == {
        "acme/core": "upgraded", "acme/events": "upgraded", "globex/core": "skipped", "globex/events": "skipped"
    }  # fmt: skip
    assert outcomes_of(report)["globex/events"]["reason"]["code"] == "dependency_failed"
    assert_only(fleet, names[0], names[1])
    assert histories.revision_ids(rollouts.SIZE)[-1:] == outcomes_of(report)["acme/events"]["at"]

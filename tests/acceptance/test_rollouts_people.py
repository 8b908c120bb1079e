"""What people ask of a run from another terminal, and what becomes of it when its runner is killed in between."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from tests import histories
from tests.acceptance import fleets, rollouts
from tests.acceptance.fleets import Fleet, outcomes_of, report_of
from tests.acceptance.rollouts import Live, assert_only, canary, heard, latest, live, small, statuses, until, waves
from tests.services.servers import connect_postgres

ONE = "  default: {concurrency: 1}"
STAGED = """
  default:
    concurrency: 2
    waves:
      - {{name: canary, size: 1, {}}}
      - {{name: rest}}
"""
#: what goes on with a run needs no worker processes
HERE = ("--executor", "inline")


def staged(behind: str) -> str:
    """A strategy with that behind its canary wave."""
    return STAGED.format(behind)


@contextlib.contextmanager
def at_work(fleet: Fleet, *words: str, terminal: bool = False) -> Iterator[Live]:
    """A run whose first target is in its last revision until the file `hold` has gone."""
    (fleet.project.folder / "hold").touch()
    with live(fleet.project, "upgrade", "--all", *words, terminal=terminal) as runner:
        until((fleet.project.folder / "reached").exists, lambda: runner.text)
        yield runner


def let_go(fleet: Fleet) -> None:
    (fleet.project.folder / "hold").unlink()


def paused(fleet: Fleet) -> dict[str, Any]:
    """A run that was paused while its first target was at work, and has ended so."""
    with at_work(fleet) as runner:
        asked = fleet.orchestrate("pause", "-o", "json").json
        assert (asked["live"], asked["format"]) == (True, "orchestrate.asked/1")
        heard(fleet.project)
        let_go(fleet)
        runner.ends(4)
    return latest(fleet.project)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


class TestPausing:
    def test_a_paused_run_is_continued_from_anywhere(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", ONE, hold=True)
        first, second, *_ = names = [member.name for member in fleet.members]

        report = paused(fleet)

        assert report["status"] == "paused"
        assert report["counts"] == {**report["counts"], "upgraded": 1, "not_started": 3}
        assert {one["reason"]["code"] for one in report["outcomes"] if one["reason"]} == {"paused"}
        assert_only(fleet, first)
        # Its targets are its own; others are not.
        refused = fleet.orchestrate("upgrade", "-t", second, exit_status=3)
        assert f"orchestrate continue {report['run']}" in refused.errors
        fleet.orchestrate("upgrade", "-t", first)
        # It is meant though another run has ended since, and it is still paused.
        assert "paused by" in fleet.orchestrate("resume", *HERE, exit_status=4).text
        assert_only(fleet, first)

        done = report_of(fleet.orchestrate("continue", "-o", "json", *HERE))

        assert (done["run"], done["status"]) == (report["run"], "succeeded")
        assert done["counts"]["upgraded"] == 4
        assert_only(fleet, *names)

    def test_it_stays_paused_when_its_runner_is_killed(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", ONE, hold=True)
        with at_work(fleet) as runner:
            fleet.orchestrate("pause")
            assert "is paused already" in fleet.orchestrate("pause").output
            runner.kill()
            let_go(fleet)

        assert "is paused" in fleet.orchestrate("upgrade", "--all", exit_status=3).errors
        assert "paused by" in fleet.orchestrate("resume", *HERE, exit_status=4).text
        assert_only(fleet)
        assert "nothing to pause" in fleet.orchestrate("pause", exit_status=2).errors

        done = report_of(fleet.orchestrate("continue", "-o", "json", *HERE))

        assert done["counts"]["upgraded"] == 4
        assert_only(fleet, *(member.name for member in fleet.members))

    def test_on_a_terminal_it_waits_and_goes_on(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", ONE, hold=True)
        with at_work(fleet, "-o", "jsonl", terminal=True) as runner:
            fleet.orchestrate("pause")
            heard(fleet.project)
            let_go(fleet)
            runner.says('"RunPaused"')
            until(lambda: latest(fleet.project)["status"] == "paused")
            assert_only(fleet, fleet.members[0].name)
            assert fleet.orchestrate("continue", "-o", "json").json["live"] is True
            runner.ends(0)
        assert "RunContinued" in runner.text
        assert_only(fleet, *(member.name for member in fleet.members))

    def test_who_has_left_meanwhile_is_left_alone(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", ONE, hold=True)
        first, second, third, fourth = (member.name for member in fleet.members)
        paused(fleet)
        rollouts.write(fleet, ONE, tenants={first: "", second: "", fourth: "state: quarantined, reason: restoring"})

        done = report_of(fleet.orchestrate("continue", "-o", "json", *HERE, exit_status=1))

        assert statuses(done) == {first: "upgraded", second: "upgraded", third: "skipped", fourth: "skipped"}
        assert outcomes_of(done)[third]["reason"]["code"] == "unregistered"
        assert outcomes_of(done)[fourth]["reason"]["code"] == "quarantined"
        assert_only(fleet, first, second)

    def test_until_continued(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", staged("pause: until-continued"))
        first, others = canary(fleet)

        report = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", exit_status=4))
        assert waves(report) == {"canary": "succeeded", "rest": "not_started"}
        assert report["status"] == "paused"
        assert_only(fleet, first)
        assert "is paused" in fleet.orchestrate("upgrade", "--all", exit_status=3).errors

        with live(fleet.project, "resume", "-o", "jsonl", *HERE, terminal=True) as runner:
            runner.says('"RunPaused"')
            assert_only(fleet, first)
            fleet.orchestrate("continue")
            runner.ends(0)
        assert_only(fleet, first, *others)


class TestBaking:
    def test_what_is_left_of_it_is_waited_for_after_a_kill(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", staged("pause: 10m"))
        first, others = canary(fleet)
        with live(fleet.project, "upgrade", "--all", "-o", "jsonl") as runner:
            runner.says('"RunPaused"')
            runner.kill()
        assert_only(fleet, first)
        killed = latest(fleet.project)
        assert killed["status"] == "interrupted"
        (ended,) = [wave["finished_at"] for wave in killed["waves"] if wave["name"] == "canary"]

        with live(fleet.project, "resume", "-o", "jsonl", *HERE) as runner:
            runner.says('"RunPaused"')
            passed = (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(ended)).total_seconds()
            (left,) = [event["seconds"] for event in events(runner.text) if event["type"] == "RunPaused"]
            assert 600 - passed <= left < 600
            # From somewhere else it is cut short.
            fleet.orchestrate("continue")
            runner.ends(0)
        assert latest(fleet.project)["waves"][0]["finished_at"] == ended
        assert_only(fleet, first, *others)

    def test_it_is_aborted(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", staged("pause: 10m"))
        first, _ = canary(fleet)
        with live(fleet.project, "upgrade", "--all", "-o", "jsonl", *HERE) as runner:
            runner.says('"RunPaused"')
            assert fleet.orchestrate("abort", "-o", "json").json["live"] is True
            runner.ends(1)
        report = latest(fleet.project)
        assert report["status"] == "aborted"
        assert_only(fleet, first)
        for verb in ("resume", "continue", "pause", "abort"):
            assert "aborted" in fleet.orchestrate(verb, report["run"], exit_status=2).errors


class TestGatesThatAreAsked:
    def test_it_is_asked_again_after_a_kill_and_not_when_it_has_changed(self, tmp_path: Path) -> None:
        strategy = staged('gate: {{command: ["./smoke"], timeout: 5m}}'.replace("{{", "{").replace("}}", "}"))
        fleet = small(tmp_path / "project", strategy)
        first, others = canary(fleet)
        rollouts.script(fleet, "smoke", "echo asked >>asked; while [ -e hold ]; do sleep 0.1; done; echo all is well")
        hold, asked = fleet.project.folder / "hold", fleet.project.folder / "asked"
        hold.touch()
        with live(fleet.project, "upgrade", "--all", "-o", "jsonl", *HERE) as runner:
            until(asked.exists, lambda: runner.text)
            assert_only(fleet, first)
            runner.kill()
            hold.unlink(missing_ok=True)

        # Whoever has changed it since does not get his way by `resume`; nor does he harm anybody.
        rollouts.write(fleet, strategy.replace("5m", "4m"))
        changed = report_of(fleet.orchestrate("resume", "-o", "json", *HERE, exit_status=4))
        assert rollouts.gate(changed, "canary")["verdict"] == "inconclusive"
        assert "has changed in tenants.yaml" in rollouts.gate(changed, "canary")["text"]
        assert asked.read_text().count("asked") == 1
        assert_only(fleet, first)

        rollouts.write(fleet, strategy)
        done = report_of(fleet.orchestrate("resume", "-o", "json", *HERE))
        assert rollouts.gate(done, "canary")["verdict"] == "passed"
        assert asked.read_text().count("asked") == 2
        assert_only(fleet, first, *others)

    def test_a_run_is_aborted_while_it_is_asked(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", staged('gate: {command: ["./smoke"], timeout: 10m}'))
        first, _ = canary(fleet)
        rollouts.script(fleet, "smoke", "echo $$ >asked; exec sleep 600")
        with live(fleet.project, "upgrade", "--all", *HERE) as runner:
            asked = fleet.project.folder / "asked"
            until(lambda: asked.exists() and asked.read_text().strip(), lambda: runner.text)
            fleet.orchestrate("abort")
            runner.ends(1)
            until(lambda: not Path(f"/proc/{asked.read_text().strip()}").exists(), lambda: "it is still there")
        assert latest(fleet.project)["status"] == "aborted"
        assert_only(fleet, first)


class TestSkipping:
    def test_whoever_goes_on_leaves_it_alone(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", ONE, hold=True)
        first, second, third, fourth = (member.name for member in fleet.members)
        paused(fleet)

        asked = fleet.orchestrate("skip", "--target", third, "--reason", "they have asked to wait", "-o", "json").json
        assert asked["live"] is False
        late = fleet.orchestrate("skip", "--target", first, "--reason", "too late", exit_status=2)
        assert "nothing to skip" in late.errors

        done = report_of(fleet.orchestrate("continue", "-o", "json", *HERE))

        assert statuses(done) == {first: "upgraded", second: "upgraded", third: "skipped", fourth: "upgraded"}
        assert "they have asked to wait" in outcomes_of(done)[third]["reason"]["text"]
        assert_only(fleet, first, second, fourth)

    def test_a_live_run_hears_it(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", ONE, hold=True)
        first, second, third, fourth = (member.name for member in fleet.members)
        with at_work(fleet) as runner:
            assert "at work now" in fleet.orchestrate("skip", "--target", first, "--reason", "late").output
            fleet.orchestrate("skip", "--target", second, "--reason", "early enough")
            heard(fleet.project)
            let_go(fleet)
            runner.ends(0)
        assert statuses(latest(fleet.project))[second] == "skipped"
        assert_only(fleet, first, third, fourth)

    def test_a_failed_canary_that_is_skipped_lets_the_others_pass(self, tmp_path: Path) -> None:
        fleet = small(tmp_path / "project", staged("max_failures: 0"), start=1)
        first, others = canary(fleet)
        fleet.execute(first, [rollouts.POISON])
        fleet.orchestrate("upgrade", "--all", *HERE, exit_status=1)
        assert_only(fleet)

        fleet.orchestrate("skip", "--target", first, "--reason", "a test account")
        done = report_of(fleet.orchestrate("resume", "-o", "json", *HERE))

        assert statuses(done) == {first: "skipped", **dict.fromkeys(others, "upgraded")}
        assert_only(fleet, *others)


def test_a_halted_run_goes_on_with_a_larger_budget(tmp_path: Path) -> None:
    fleet = small(tmp_path / "project", staged("max_failures: 0"), start=1, count=6)
    first, others = canary(fleet)
    for sick in (first, others[0]):
        fleet.execute(sick, [rollouts.POISON])
    halted = report_of(fleet.orchestrate("upgrade", "--all", "-o", "json", *HERE, exit_status=1))
    assert halted["status"] == "halted"
    assert_only(fleet)

    # The budget of the run alone does not lift that of the wave, and the refusal says what does.
    fleet.orchestrate("runs", "budget", "--max-failures", "50%")
    refused = fleet.orchestrate("resume", exit_status=3)
    assert f"runs budget {halted['run']} --wave canary --max-failures" in refused.errors
    fleet.orchestrate("runs", "budget", "--wave", "canary", "--max-failures", "1")
    report = report_of(fleet.orchestrate("resume", "-o", "json", *HERE, exit_status=1))

    assert report["status"] == "failed"
    assert statuses(report) == {first: "failed", others[0]: "failed", **dict.fromkeys(others[1:], "upgraded")}
    assert_only(fleet, *others[1:])
    ended = fleet.orchestrate("runs", "budget", report["run"], "--max-failures", "3", exit_status=2)
    assert "ended already" in ended.errors
    for sick in (first, others[0]):
        fleet.execute(sick, [rollouts.ANTIDOTE])
    assert report_of(fleet.orchestrate("retry", "-o", "json", *HERE))["counts"]["upgraded"] == 6
    assert_only(fleet, first, *others)


def test_a_statement_is_gone_when_its_run_is_aborted_now(postgres_database: URL, tmp_path: Path) -> None:
    fleet = fleets.postgres_schemas(tmp_path / "project", postgres_database, count=3, size=2, starts=(1,))
    histories.edit(
        fleet.project.folder, "r002", "def upgrade():\n", 'def upgrade():\n    op.execute("SELECT pg_sleep(600)")\n'
    )
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(600)%'"
    own = " AND pid <> pg_backend_pid()"
    with contextlib.closing(connect_postgres(postgres_database)) as connection:

        def sleepers() -> int:
            row = connection.execute((asleep + own).encode()).fetchone()
            return int(str(row[0])) if row else 0

        with live(fleet.project, "upgrade", "--all", "--concurrency", "2") as runner:
            until(lambda: sleepers() == 2, lambda: runner.text)
            # Draining, it would wait for ten minutes.
            fleet.orchestrate("abort")
            assert sleepers() == 2
            assert fleet.orchestrate("abort", "--now", "-o", "json").json["live"] is True
            runner.ends(1)
            until(lambda: not sleepers(), lambda: "the statements go on", seconds=15)
    report = latest(fleet.project)
    assert report["status"] == "aborted"
    assert sorted(statuses(report).values()) == ["lost", "lost", "not_started"]
    assert "was aborted" in fleet.orchestrate("resume", report["run"], exit_status=2).errors
    at_start = [member.expected(1) for member in fleet.members]
    rollouts.checker.assert_right(at_start)


def test_a_run_of_which_nothing_is_left_is_not_waited_for(tmp_path: Path) -> None:
    """Paused while the last targets are at work: there is nothing to hold back, and the last gate is still asked."""
    strategy = '  default: {concurrency: 4, waves: [{name: all, gate: {command: ["true"]}}]}'
    fleet = small(tmp_path / "project", strategy, count=2, hold=True)
    with at_work(fleet) as runner:
        until(lambda: len(rollouts.unsettled(fleet.project)) == 2, lambda: runner.text)
        fleet.orchestrate("pause")
        heard(fleet.project)
        let_go(fleet)
        runner.ends(0)
    assert rollouts.gate(latest(fleet.project), "all")["verdict"] == "passed"
    assert_only(fleet, *(member.name for member in fleet.members))

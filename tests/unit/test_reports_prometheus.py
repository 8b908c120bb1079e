"""Gauges for the textfile collector, read by Prometheus' own parser."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import testing
from orchestrator.errors import SettingsError
from orchestrator.events import JobFinished, RunContinued, RunPaused, RunStarted
from orchestrator.outcomes import Report, RunStatus, Status
from orchestrator.reports import prometheus
from orchestrator.reports.prometheus import Gauges
from tests import report_samples as samples

BASE = {"project": "billing", "environment": "production", "command": "upgrade"}
LAST = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


def read(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples by the name of their gauge."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(text: str, name: str, **labels: str) -> float:
    values = [number for own, number in read(text)[f"orchestrate_{name}"] if labels.items() <= own.items()]
    assert len(values) == 1
    return values[0]


@pytest.fixture
def text() -> str:
    return prometheus.render(samples.halted(), ended=1_800_000_000.25, last_success=LAST.timestamp())


def test_the_gauges_of_a_run(text: str) -> None:
    assert read(text)["orchestrate_run_info"] == [
        ({**BASE, "run": samples.RUN, "revision": "r0008", "strategy": "careful"}, 1)
    ]
    assert {labels["status"]: number for labels, number in read(text)["orchestrate_targets"]} == samples.halted().counts
    assert value(text, "wave_targets", wave="early", status="failed") == 8
    assert value(text, "wave_targets", wave="rest", status="not_started") == 860
    assert value(text, "run_duration_seconds") == 645
    assert value(text, "run_status", status="halted") == 1
    assert sum(number for _, number in read(text)["orchestrate_run_status"]) == 1
    assert value(text, "last_run_timestamp_seconds") == 1_800_000_000.25
    assert value(text, "last_success_timestamp_seconds") == LAST.timestamp()


def test_no_label_grows_with_the_fleet(text: str) -> None:
    labels = {key for own in read(text).values() for sample, _ in own for key in sample}

    assert labels == {*BASE, "run", "revision", "strategy", "status", "wave"}
    assert len(prometheus.render(samples.ten_thousand(), ended=1, last_success=None)) < 10_000


def test_every_sample_names_project_environment_and_command(text: str) -> None:
    assert all(BASE.items() <= labels.items() for own in read(text).values() for labels, _ in own)


def test_hostile_text_stays_in_its_label() -> None:
    text = prometheus.render(samples.hostile(), ended=1, last_success=None)

    assert "owned" not in {labels["status"] for labels, _ in read(text)["orchestrate_targets"]}
    assert {labels["wave"] for labels, _ in read(text)["orchestrate_wave_targets"]} >= set(samples.HOSTILE[:7])


def test_what_never_succeeded_has_no_time_of_success() -> None:
    assert "last_success" not in prometheus.render(samples.halted(), ended=1, last_success=None)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_the_file_follows_a_run_every_ten_seconds(tmp_path: Path) -> None:
    file, clock = tmp_path / "run.prom", Clock()
    gauges = Gauges(file, lambda command: LAST if command == "upgrade" else None, clock)
    settled = testing.an_outcome("umbrella", Status.SKIPPED, wave=None)
    plan = testing.a_plan("acme", "globex", "initech", settled=[settled])

    gauges(RunStarted(run="r-1", plan=plan))
    assert value(file.read_text(), "targets", status="not_started") == 3
    assert value(file.read_text(), "targets", status="skipped") == 1
    assert value(file.read_text(), "run_status", status="running") == 1

    clock.now += 9
    gauges(JobFinished(outcome=testing.an_outcome("acme")))
    assert value(file.read_text(), "targets", status="upgraded") == 0

    clock.now += 1
    gauges(JobFinished(outcome=testing.an_outcome("globex", Status.FAILED)))
    text = file.read_text()
    assert [value(text, "targets", status=status) for status in ("upgraded", "failed", "not_started")] == [1, 1, 1]
    assert value(text, "run_duration_seconds") == 10
    assert value(text, "last_success_timestamp_seconds") == LAST.timestamp()
    assert [path.name for path in tmp_path.iterdir()] == ["run.prom"]


def test_a_pause_is_written_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "run.prom"
    gauges = Gauges(file, lambda command: None, Clock())
    gauges(RunStarted(run="r-1", plan=testing.a_plan("acme")))

    gauges(RunPaused(cause="person", text="wave canary is done"))
    assert value(file.read_text(), "run_status", status="paused") == 1

    gauges(JobFinished(outcome=testing.an_outcome("acme", Status.FAILED)))
    assert value(file.read_text(), "targets", status="failed") == 1, "nothing may be written for hours after this"

    gauges(RunContinued(text="ada goes on"))
    assert value(file.read_text(), "run_status", status="running") == 1


@pytest.mark.parametrize(
    ("report", "success"), [(samples.all_well(), 1_000.0), (samples.halted(), LAST.timestamp())], ids=["good", "halted"]
)
def test_only_a_success_moves_the_time_of_the_last_one(tmp_path: Path, report: Report, success: float) -> None:
    file = tmp_path / "run.prom"
    gauges = Gauges(file, lambda command: LAST, Clock())
    gauges(RunStarted(run="r-1", plan=testing.a_plan("acme")))

    gauges.finish(report)

    assert value(file.read_text(), "last_success_timestamp_seconds") == success


def test_a_file_that_cannot_be_written_stops_no_run_and_is_told_at_the_end(tmp_path: Path) -> None:
    gauges = Gauges(tmp_path / "missing" / "run.prom", lambda command: None, Clock())

    gauges(RunStarted(run="r-1", plan=testing.a_plan("acme")))
    with pytest.raises(SettingsError, match=r"--metrics .*run\.prom: No such file or directory"):
        gauges.finish(samples.report([], RunStatus.SUCCEEDED))

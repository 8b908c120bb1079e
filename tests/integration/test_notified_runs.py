"""Real runs that tell real receivers, and what the doctor says of these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import Project
from orchestrator.diagnosis import Check, Verdict
from orchestrator.outcomes import RunStatus
from tests import histories
from tests.unit.receivers import Service, service

TENANTS = 'version: 1\nproject: shop\ndefaults: {url: "sqlite:///db/{tenant}.db"}\ntenants: {acme: {}, globex: {}}\n'


@pytest.fixture
def site() -> Iterator[Service]:
    with service() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=2)
    (tmp_path / "tell").write_text("#!/bin/sh\ncat > told.json\n")
    (tmp_path / "tell").chmod(0o755)
    return tmp_path


def project(folder: Path, *entries: str) -> Project:
    text = TENANTS + "notifications:\n" + "".join(f"  - {entry}\n" for entry in entries)
    (folder / "tenants.yaml").write_text(text)
    return Project.load(folder / "alembic.ini")


def test_a_run_tells_a_command_and_a_webhook(folder: Path, site: Service) -> None:
    histories.edit(folder, "r002", "def upgrade():\n", 'def upgrade():\n    op.execute("SELECT * FROM nowhere")\n')
    told = f"{{on: [started, wave_finished, finished], webhook: '{site.url}'}}"
    with project(folder, told, '{on: failed, exec: ["./tell"]}') as made, made.notifier("ann@build7") as notifier:
        report = made.run(
            made.plan(provision=True, keep_going=True), listeners=[notifier], executor="inline", operator="ann@build7"
        )
    assert report.status is RunStatus.FAILED
    assert (site.events[0], site.events[-1]) == ("started", "finished")
    end = json.loads((folder / "told.json").read_text())
    assert (end["event"], end["operator"], end["exit_code"], end["run"]) == ("failed", "ann@build7", 1, report.run)
    assert end["failures"][0]["count"] == 2
    assert "nowhere" in end["failures"][0]["message"]
    log = [json.loads(line) for line in made.settings.log_file.read_text().splitlines()]
    assert any(f"told webhook 127.0.0.1:{site.port} that" in one["message"] and one["run"] == report.run for one in log)


def test_a_receiver_that_is_away_is_in_the_log(folder: Path, site: Service) -> None:
    site.answers = [403]
    with project(folder, f"{{webhook: '{site.url}'}}") as made:
        notifier = made.notifier()
        report = made.run(made.plan(provision=True), listeners=[notifier], executor="inline")
        (line,) = notifier.close()
    assert report.exit_code == 0
    assert line == (
        f"a notification (succeeded) not delivered to webhook 127.0.0.1:{site.port}: it answered with status 403"
    )
    (record,) = [
        one
        for one in map(json.loads, made.settings.log_file.read_text().splitlines())
        if one["level"] == "WARNING" and one["run"] == report.run
    ]
    assert record["message"].endswith("it answered with status 403")


def notifications(made: Project, *, notify: bool = False) -> list[Check]:
    with made:
        return [check for check in made.doctor(notify=notify) if check.name.startswith("notification")]


def test_the_doctor_looks_at_receivers(folder: Path, site: Service) -> None:
    site.answers = [200, 500, 500, 500, 500]
    hook = f"webhook: '{site.url}'"
    entries = ['{exec: ["./tell"]}', '{exec: ["./absent"]}', "{webhook: '${NOT_SET}'}", f"{{on: failed, {hook}}}",
               f"{{{hook}}}"]  # fmt: skip
    seen = notifications(project(folder, *entries))
    assert [check.verdict for check in seen] == [Verdict.WARNING, Verdict.OK, Verdict.WARNING, Verdict.OK, Verdict.OK]
    assert (seen[0].name, seen[0].text) == ("notification tenants.yaml:8:5", "variable `NOT_SET` is not set")
    assert not site.taken
    assert not (folder / "told.json").exists()

    tried = notifications(project(folder, *entries), notify=True)
    failed, ok = Verdict.FAILED, Verdict.OK
    assert [check.verdict for check in tried] == [failed, ok, failed, ok, failed]
    assert tried[-1].text.startswith(f"webhook 127.0.0.1:{site.port}: it answered with status 500 (")
    trial = json.loads((folder / "told.json").read_text())
    assert (trial["event"], trial["status"], trial["project"]) == ("trial", None, "shop")
    assert site.taken[0].headers["X-Orchestrate-Event"] == "trial"

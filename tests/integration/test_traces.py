"""Runs as OpenTelemetry traces: with a real SDK in this process, and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from orchestrator import Project, rollout, telemetry
from orchestrator.events import GateAnswered, JobDeferred, JobStarted, RunPaused, RunStarted, WaveFinished, WaveStarted
from orchestrator.ledger import MemoryLedger
from orchestrator.outcomes import GateResult, RunStatus, Status, Verdict
from orchestrator.testing import ScriptedExecutor, a_job, a_plan, an_outcome
from tests import histories
from tests.acceptance.fleets import inherited

TENANTS = 'version: 1\nproject: shop\ndefaults: {url: "sqlite:///db/{tenant}.db"}\ntenants: {acme: {}, globex: {}}\n'
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """The one of this process: OpenTelemetry lets it be set once."""
    made = TracerProvider()
    trace.set_tracer_provider(made)
    return made


@pytest.fixture
def exporter(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    processor = SimpleSpanProcessor(made)
    provider.add_span_processor(processor)
    yield made
    processor.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    histories.write(tmp_path, size=2)
    (tmp_path / "tenants.yaml").write_text(TENANTS)
    return tmp_path


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("orchestrate."): value for name, value in (span.attributes or {}).items()}


def above(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_a_run_is_a_trace(folder: Path, exporter: InMemorySpanExporter) -> None:
    with Project.load(folder / "alembic.ini") as project:
        report = project.run(project.plan(provision=True), executor="inline")
    spans = by_name(exporter)
    assert set(spans) == {"orchestrate upgrade", "wave all", "migrate acme", "migrate globex"}
    run, wave, acme = spans["orchestrate upgrade"], spans["wave all"], spans["migrate acme"]
    assert run.parent is None
    assert above(wave) == run.context.span_id
    assert above(acme) == wave.context.span_id
    assert {span.context.trace_id for span in spans.values()} == {run.context.trace_id}
    told = attributes(run)
    assert (told["run"], told["project"], told["command"]) == (report.run, "shop", "upgrade")
    assert (told["plan_digest"], told["status"], told["exit_code"]) == (report.plan_digest, "succeeded", 0)
    assert (told["targets"], told["counts.upgraded"]) == (2, 2)
    told = attributes(acme)
    assert (told["target"], told["tenant"], told["server"]) == ("acme", "acme", "sqlite")
    assert (told["from"], told["to"], told["attempt"], told["status"]) == ((), ("r002",), 1, "upgraded")
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}
    for inner, outer in ((acme, wave), (spans["migrate globex"], wave), (wave, run)):
        assert outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time  # type: ignore[operator]


def test_a_failure_is_an_error_without_secrets(folder: Path, exporter: InMemorySpanExporter) -> None:
    histories.edit(
        folder, "r002", "def upgrade():\n", "def upgrade():\n    raise RuntimeError('token=s3cret-4711 is wrong')\n"
    )
    with Project.load(folder / "alembic.ini") as project:
        project.run(project.plan(provision=True, tenants=["acme"]), executor="inline")
    spans = by_name(exporter)
    acme, run = spans["migrate acme"], spans["orchestrate upgrade"]
    assert acme.status.status_code is StatusCode.ERROR
    assert "is wrong" in (acme.status.description or "")
    assert attributes(acme)["status"] == "failed"
    assert attributes(acme)["error.type"] == "RuntimeError"
    assert attributes(acme)["failure.fingerprint"]
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "failed: 1 failed or lost")
    assert not [span for span in spans.values() if "4711" in span.to_json()]


def test_each_try_and_each_gate_is_a_span_and_each_pause_an_event(exporter: InMemorySpanExporter) -> None:
    job = a_job("acme")
    put_off = an_outcome(job, Status.FAILED)
    with telemetry.traced() as (listen,):
        listen(RunStarted(run="r-1", plan=a_plan(job)))
        listen(WaveStarted(wave="all", jobs=1))
        listen(JobStarted(job=job))
        listen(JobDeferred(outcome=put_off, delay_s=1.0))
        listen(JobStarted(job=job))
        listen(WaveFinished(wave="all"))
        listen(RunPaused(cause="bake", text="60 s", wave="all", seconds=60))
        listen(GateAnswered(wave="all", result=GateResult(kind="sql", verdict=Verdict.FAILED, text="3 errors")))
    first, wave, gate, second, run = exporter.get_finished_spans()
    assert [attributes(span)["attempt"] for span in (first, second)] == [1, 2]
    assert first.status.status_code is StatusCode.ERROR
    assert (second.status.status_code, second.status.description) == (StatusCode.ERROR, "the run ended in an error")
    assert (gate.name, above(gate), attributes(gate)["gate.verdict"]) == ("gate all", run.context.span_id, "failed")
    assert gate.start_time >= wave.end_time  # type: ignore[operator]
    assert [(event.name, dict(event.attributes or {})["orchestrate.cause"]) for event in run.events] == [
        ("paused", "bake")
    ]
    assert run.status.status_code is StatusCode.ERROR


def test_the_callers_span_is_the_parent(
    exporter: InMemorySpanExporter, provider: TracerProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = a_plan("acme")
    monkeypatch.setenv("TRACEPARENT", PARENT)
    for above_it in (True, False):
        ledger = MemoryLedger()
        run = ledger.open_run(plan, operator="ann", fleet=1)
        with telemetry.traced() as listeners:
            if above_it:
                with provider.get_tracer("test").start_as_current_span("deploy"):
                    listeners[0](RunStarted(run=run.id, plan=plan))
            else:
                listeners[0](RunStarted(run=run.id, plan=plan))
            ended = rollout.execute(run.id, plan, ScriptedExecutor({}).submit, ledger, listeners)
            assert ended.status is RunStatus.SUCCEEDED
    spans = exporter.get_finished_spans()
    deploy = next(span for span in spans if span.name == "deploy")
    first, second = (span for span in spans if span.name == "orchestrate upgrade")
    assert above(first) == deploy.context.span_id
    assert f"{second.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{above(second):016x}" == "b7ad6b7169203331"


def test_nothing_is_imported_where_nobody_traces(folder: Path) -> None:
    code = (
        "import sys; from orchestrator import telemetry\n"
        "with telemetry.traced() as more: assert more == ()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "import opentelemetry.trace\n"
        "with telemetry.traced() as more: assert more == (), 'an API without a provider takes no spans'\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=inherited(), capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert ended.returncode == 0


def test_the_command_line_is_traced_by_opentelemetrys_own_launcher(folder: Path) -> None:
    programs = Path(sys.executable).parent
    ended = subprocess.run(
        [programs / "opentelemetry-instrument", programs / "orchestrate", "upgrade", "--all", "--provision",
         "--executor", "inline", "--report", "report.json"],
        cwd=folder,
        env={**inherited(), "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none",
             "OTEL_LOGS_EXPORTER": "none", "OTEL_SERVICE_NAME": "migrations", "TRACEPARENT": PARENT,
             "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    spans = list(documents(ended.stdout))
    assert {span["name"] for span in spans} == {"orchestrate upgrade", "wave all", "migrate acme", "migrate globex"}
    assert {span["context"]["trace_id"] for span in spans} == {"0x0af7651916cd43dd8448eb211c80319c"}
    assert {span["resource"]["attributes"]["service.name"] for span in spans} == {"migrations"}
    assert json.loads((folder / "report.json").read_text())["exit_code"] == 0


def documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects that stand one after the other between lines of text."""
    decoder = json.JSONDecoder()
    start = text.find("{\n")
    while start >= 0:
        found, end = decoder.raw_decode(text, start)
        yield found
        start = text.find("{\n", end)

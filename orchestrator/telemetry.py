"""Runs as OpenTelemetry traces, wherever a tracer provider has been set up; nothing is imported where none has."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.events import (
    Event,
    GateAnswered,
    JobDeferred,
    JobFinished,
    JobStarted,
    Listener,
    RunContinued,
    RunFinished,
    RunHalted,
    RunPaused,
    RunStarted,
    WaveFinished,
    WaveStarted,
)
from orchestrator.outcomes import FAILING, Outcome, RunStatus, Verdict
from orchestrator.redaction import first_line, scrub

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger(__name__)

Attributes: TypeAlias = Mapping[str, str | int | list[str]]

NAME = "orchestrate"
#: names a provider that the API loads by itself when it is first asked
PROVIDER_VARIABLE = "OTEL_PYTHON_TRACER_PROVIDER"
_ENDED_WELL = frozenset({RunStatus.SUCCEEDED, RunStatus.PAUSED})


@contextlib.contextmanager
def traced() -> Iterator[tuple[Listener, ...]]:
    """A listener that makes spans of a run, ended on every way out; none where nobody would take them."""
    tracer = _tracer()
    if tracer is None:
        yield ()
        return
    trace = _Trace(tracer)
    try:
        yield (trace,)
    finally:
        trace.close()


def _tracer() -> Tracer | None:
    """A tracer that leads somewhere: somebody has imported OpenTelemetry and set up a provider, or asks for one."""
    if "opentelemetry.trace" not in sys.modules and PROVIDER_VARIABLE not in os.environ:
        return None
    try:
        from opentelemetry import trace  # noqa: PLC0415 - as above

        provider = trace.get_tracer_provider()
        if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
            return None
        return provider.get_tracer(NAME)
    except Exception:
        logger.warning("OpenTelemetry cannot be used; there will be no traces", exc_info=True)
        return None


class _Trace:
    """The spans of one run: the run, in it its waves and gates, and in a wave each try of a job."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._run: Span | None = None
        self._waves: dict[str, Span] = {}
        self._jobs: dict[str, Span] = {}
        self._tries: dict[str, int] = {}
        #: when somebody began to measure for a gate, at the earliest
        self._since = time.time_ns()

    def __call__(self, event: Event) -> None:
        """Begin and end spans."""
        match event:
            case RunStarted():
                self._begin(event)
            case WaveStarted(wave=wave, jobs=jobs):
                self._waves[wave] = self._span(f"wave {wave}", self._run, {"wave": wave, "jobs": jobs})
            case WaveFinished(wave=wave):
                self._leave(wave)
            case JobStarted():
                self._start(event)
            case JobDeferred(outcome=outcome) | JobFinished(outcome=outcome):
                self._finish(outcome)
            case GateAnswered():
                self._answer(event)
            case RunFinished():
                self._end(event)
            case _:
                self._note(event)

    def close(self) -> None:
        """End what is not ended: an error has ended the run."""
        for span in (*self._jobs.values(), *self._waves.values(), *([self._run] if self._run else [])):
            _fail(span, "the run ended in an error")
            span.end()
        self._jobs, self._waves, self._run = {}, {}, None

    # -- the run ------------------------------------------------------------------------------------------------

    def _begin(self, event: RunStarted) -> None:
        plan = event.plan
        attributes: Attributes = {
            "run": event.run,
            "project": plan.project,
            "environment": plan.environment,
            "command": plan.command.value,
            "revision": list(plan.revision),
            "strategy": plan.strategy,
            "targets": sum(1 for _ in plan.jobs) + len(plan.settled),
        }
        name = f"{NAME} {plan.command.value}"
        self._run = self._tracer.start_span(name, context=_parent(), attributes=_named(attributes))

    def _end(self, event: RunFinished) -> None:
        report = event.report
        if self._run is None:
            return
        for wave in tuple(self._waves):
            self._leave(wave)  # one that was halted never finished
        counts = {f"counts.{name}": number for name, number in report.counts.items() if number}
        # The digest as well only now: the report has it, where the plan of a large fleet would take a second.
        ended: Attributes = {
            "status": report.status.value,
            "exit_code": int(report.exit_code),
            "plan_digest": report.plan_digest,
            **counts,
        }
        self._run.set_attributes(_named(ended))
        if report.status not in _ENDED_WELL:
            _fail(self._run, f"{report.status.value}: {len(report.failures):,} failed or lost")
        self._run.end()
        self._run = None

    def _note(self, event: Event) -> None:
        """What stops a run for a while, or for good, as an event of its span."""
        match event:
            case RunPaused(cause=cause, text=text) | RunHalted(cause=cause, text=text):
                word = "paused" if isinstance(event, RunPaused) else "halted"
                self._say(word, {"cause": cause, "text": scrub(text)})
            case RunContinued(text=text):
                self._say("continued", {"text": scrub(text)})
                self._since = time.time_ns()
            case _:
                pass

    def _say(self, word: str, attributes: Attributes) -> None:
        if self._run is not None:
            self._run.add_event(word, _named(attributes))

    # -- within it ----------------------------------------------------------------------------------------------

    def _span(self, name: str, above: Span | None, attributes: Attributes, since: int | None = None) -> Span:
        from opentelemetry import trace  # noqa: PLC0415 - there is a tracer, so it is there

        context = None if above is None else trace.set_span_in_context(above)
        return self._tracer.start_span(name, context=context, attributes=_named(attributes), start_time=since)

    def _leave(self, wave: str) -> None:
        span = self._waves.pop(wave, None)
        if span is not None:
            span.end()
        self._since = time.time_ns()

    def _start(self, event: JobStarted) -> None:
        job = event.job
        self._tries[job.target] = self._tries.get(job.target, 0) + 1
        attributes: Attributes = {
            "target": job.target,
            "tenant": job.tenant,
            "server": job.server,
            "wave": job.wave,
            "from": list(job.found),
            "to": list(job.wanted),
            "attempt": self._tries[job.target],
        }
        above = self._waves.get(job.wave, self._run)
        self._jobs[job.target] = self._span(f"migrate {job.target}", above, attributes)

    def _finish(self, outcome: Outcome) -> None:
        span = self._jobs.pop(outcome.target, None)
        if span is None:
            return  # it never started
        span.set_attributes(_named({"status": outcome.status.value, "applied": list(outcome.applied)}))
        failure = outcome.failure
        if failure is not None:
            known = {"failure.code": failure.code or "", "failure.fingerprint": failure.fingerprint}
            span.set_attributes({**_named(known), "error.type": failure.type})
            _fail(span, first_line(scrub(failure.message)))
        elif outcome.status in FAILING:
            _fail(span, outcome.reason.text if outcome.reason else outcome.status.value)
        span.end()

    def _answer(self, event: GateAnswered) -> None:
        result = event.result
        attributes: Attributes = {
            "wave": event.wave,
            "gate.kind": result.kind,
            "gate.verdict": result.verdict.value,
            "gate.measurements": result.measurements,
        }
        span = self._span(f"gate {event.wave}", self._run, attributes, self._since)
        if result.verdict is not Verdict.PASSED:
            _fail(span, first_line(scrub(result.text)))
        span.end()
        self._since = time.time_ns()


def _parent() -> Context | None:
    """Where the run belongs: the caller's own span, else what TRACEPARENT says, as CI systems set it."""
    from opentelemetry import propagate, trace  # noqa: PLC0415 - there is a tracer, so it is there

    if trace.get_current_span().get_span_context().is_valid:
        return None
    carrier = {name: os.environ[name.upper()] for name in ("traceparent", "tracestate") if name.upper() in os.environ}
    return propagate.extract(carrier) if carrier else None


def _named(attributes: Attributes) -> dict[str, str | int | list[str]]:
    return {f"{NAME}.{name}": value for name, value in attributes.items()}


def _fail(span: Span, text: str) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - there is a span, so it is there

    span.set_status(StatusCode.ERROR, scrub(text))

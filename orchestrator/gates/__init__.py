"""Gates: what is measured behind a wave, on whose word the next one starts. One module per kind, each with an `ask`."""

from __future__ import annotations

import datetime
import importlib
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.gates.questions import Finding, Patience, Question
from orchestrator.outcomes import GateResult, Outcome, Verdict
from orchestrator.plans import Gate
from orchestrator.redaction import first_line, scrub
from orchestrator.registry.problems import Mistake, legible
from orchestrator.registry.targets import Surroundings
from orchestrator.registry.variables import Variables
from orchestrator.strategy import WaveRule
from orchestrator.tenants import Target
from orchestrator.waves import rule_of

__all__ = ["GateMeasurer"]

logger = logging.getLogger(__name__)

#: seconds that the end of a measurement is waited for: what it has started must not outlive the run
_GRACE = 4.0


class GateMeasurer:
    """Measures gates, one at a time, and never longer than each may take.

    What it runs is on the side of nobody's thread but its own, so that a server that does not answer holds up nothing
    beyond its time.
    """

    def __init__(
        self,
        *,
        rules: Sequence[WaveRule],
        variables: Variables,
        targets: Mapping[str, Target],
        root: Path,
        environment: Mapping[str, str],
        server_caps: Mapping[str, int] | None = None,
    ) -> None:
        """`rules` are the waves as written, `root` is the folder of tenants.yaml, `environment` what
        commands are told of the run, and `server_caps` as in a plan."""
        self._rules = rules
        self._surroundings = Surroundings(root=root, variables=variables, sections=frozenset())
        self._targets = targets
        self._environment = environment
        self._server_caps = server_caps or {}
        self._closed = threading.Event()
        self._idle = threading.Event()
        self._idle.set()

    def measure(self, wave: str, gate: Gate, done: Sequence[Outcome]) -> GateResult:
        """One measurement behind a wave that has brought up these targets; every fault is a verdict."""
        self._idle.clear()
        try:
            finding = self._find(wave, gate, done)
        finally:
            self._idle.set()
        text = legible(scrub(finding.text))
        logger.info("gate of wave %s: %s, %s", wave, finding.verdict, text)
        now = datetime.datetime.now(datetime.UTC)
        return GateResult(kind=gate.kind, verdict=finding.verdict, text=text, at=now)

    def close(self) -> None:
        """End the measurement that is going on, and wait a moment for that; from another thread. None follows it."""
        self._closed.set()
        self._idle.wait(_GRACE)

    def _find(self, wave: str, gate: Gate, done: Sequence[Outcome]) -> Finding:
        origin = rule_of(wave, self._rules)
        rule = None if origin is None else origin.gate
        if rule is None or rule.described().digest != gate.digest:
            text = f"the gate of wave {wave} has changed in tenants.yaml since the plan was made"
            return Finding(Verdict.INCONCLUSIVE, text)
        question = Question(
            rule=rule,
            wave=wave,
            done=done,
            surroundings=self._surroundings,
            targets=self._targets,
            server_caps=self._server_caps,
            environment=self._environment,
            patience=Patience(rule.timeout, self._closed),
        )
        try:
            return _ask(question)
        except Mistake as mistake:
            return Finding(Verdict.INCONCLUSIVE, "; ".join(filter(None, (mistake.text, mistake.remedy))))
        except Exception as error:
            logger.exception("the gate of wave %s", wave)
            said = first_line(scrub(str(error)))
            return Finding(Verdict.INCONCLUSIVE, f"{type(error).__name__}: {said}".removesuffix(": "))


def _ask(question: Question) -> Finding:
    if question.patience.is_over:
        return question.patience.over()
    # Only the kinds that are in use are imported.
    module = importlib.import_module(f"{__name__}.{question.rule.kind}")
    finding: Finding = module.ask(question)
    return finding

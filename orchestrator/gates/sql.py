"""A gate that is a query: one value, true or false, from one database or from each target that the wave brought up."""

from __future__ import annotations

import decimal
import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, TextClause

from orchestrator.gates.questions import Finding, Question
from orchestrator.gates.rounds import Round, hurried
from orchestrator.outcomes import Verdict
from orchestrator.registry.sources.places import place_of, settled
from orchestrator.tenants import Hidden, Target

#: what SQLAlchemy would take for a bound parameter
_PARAMETER = re.compile(r"(?<!:):(?=\w)")
#: names that are told before the rest is only counted
_NAMED = 3


def ask(question: Question) -> Finding:
    """Send the query in a session that cannot write, as the worker connects; nothing of the data is told."""
    query = sqlalchemy.text(_PARAMETER.sub(r"\\:", question.text(question.rule.sql or "")))
    targets, unknown = _targets(question)
    if not targets and not unknown:
        return Finding(Verdict.PASSED, "the wave brought up no target to ask")
    seconds = question.patience.left
    findings = Round(
        [hurried(target, seconds) for target in targets],
        lambda connection: _asked(connection, query),
        patience=question.patience,
        caps=question.server_caps,
        run=question.environment.get("ORCHESTRATE_RUN", "gate"),
    ).findings()
    answers = dict.fromkeys(unknown, Finding(Verdict.INCONCLUSIVE, "is no longer registered"))
    answers |= {name: found or question.patience.over() for name, found in findings.items()}
    return _one(answers) if question.rule.on is None else _all(answers)


def _targets(question: Question) -> tuple[list[Target], list[str]]:
    """Whom to ask, and the names of those that nobody knows any more."""
    rule = question.rule
    if rule.on is None:
        url = settled(rule.url or "", question.surroundings)
        return [place_of(url, Hidden(), rule.timeout)], []
    names = [outcome.target for outcome in question.done]
    known = [question.targets[name] for name in names if name in question.targets]
    return known, [name for name in names if name not in question.targets]


def _asked(connection: Connection, query: TextClause) -> Finding:
    result = connection.execute(query)
    rows = result.fetchmany(2) if result.returns_rows else []
    if len(rows) != 1 or len(rows[0]) != 1:
        return Finding(Verdict.INCONCLUSIVE, f"the query gave {'no row' if not rows else 'more than one value'}")
    return _judged(rows[0][0])


def _judged(value: Any) -> Finding:
    if value is None:
        return Finding(Verdict.INCONCLUSIVE, "the query gave NULL")
    if not isinstance(value, (bool, int, decimal.Decimal)) or value not in (0, 1):
        return Finding(Verdict.INCONCLUSIVE, "the query gave neither true nor false")
    return Finding(Verdict.PASSED, "true") if value else Finding(Verdict.FAILED, "false")


def _one(answers: dict[str, Finding]) -> Finding:
    return next(iter(answers.values()))


def _all(answers: dict[str, Finding]) -> Finding:
    """One target that is not well is enough; else one of which nobody knows."""
    for verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE):
        names = [name for name, finding in answers.items() if finding.verdict is verdict]
        if names:
            return Finding(verdict, f"{answers[names[0]].text}: {_named(names)}, of {_counted(len(answers))}")
    return Finding(Verdict.PASSED, f"true on {_counted(len(answers))}")


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _counted(count: int) -> str:
    return f"{count} target{'' if count == 1 else 's'}"

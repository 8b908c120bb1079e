"""`orchestrate doctor`: everything that a run needs, looked at without changing anything."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator import ledger, notifications, registry
from orchestrator.errors import OrchestratorError
from orchestrator.ledger import Ledger
from orchestrator.notifications import Subscription, Undelivered
from orchestrator.plans import Condition, Found
from orchestrator.redaction import scrub
from orchestrator.registry import Registry
from orchestrator.registry.variables import Variables
from orchestrator.revisions import Scripts
from orchestrator.settings import Settings
from orchestrator.tenants import Target


class Verdict(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


class Patient(Protocol):
    """What of a project is looked at."""

    settings: Settings

    @property
    def registry(self) -> Registry:
        """All tenants."""

    def scripts(self, section: str) -> Scripts:
        """Revisions of a section."""

    def ledger_if_any(self) -> Ledger | None:
        """The ledger, if there is one."""

    def look(self, targets: Sequence[Target]) -> list[Found]:
        """Current heads."""

    def shrinkage(self) -> str | None:
        """What to say about a fleet that shrank."""


def diagnose(project: Patient, *, notify: bool = False) -> list[Check]:
    """All checks, in the order in which a run needs them; a later one is left out where an earlier one failed.

    With `notify` each receiver of notifications is sent a message that says that it is a trial.
    """
    checks = [_tried("tenants.yaml", lambda: _about_registry(project))]
    if checks[-1].verdict is Verdict.FAILED:
        return checks
    if project.registry.exposure is not None:
        # A run says so and goes on: a file's mode is no reason to leave a fleet half migrated at night.
        checks.append(Check(name="secrets", verdict=Verdict.FAILED, text=project.registry.exposure))
    for section in dict.fromkeys(target.section for target in project.registry.targets):
        checks.append(_tried(f"revisions [{section}]", functools.partial(_about_scripts, project, section)))
    checks.append(book := _tried("ledger", lambda: _about_ledger(project)))
    if book.verdict is not Verdict.FAILED:  # it knows how large the fleet was
        checks.append(_about_size(project))
    checks.extend(_about_gates(project))
    checks.extend(_about_servers(project))
    checks.extend(_about_notifications(project, notify=notify))
    return checks


def _tried(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except OrchestratorError as error:
        return Check(name=name, verdict=Verdict.FAILED, text=str(error))


def _about_registry(project: Patient) -> Check:
    fleet = project.registry
    text = f"tenants: {len(fleet.tenants):,}, targets: {len(fleet.targets):,}"
    notes = "; ".join(note for note in fleet.notes if note != fleet.exposure)
    return Check(name="tenants.yaml", verdict=Verdict.WARNING if notes else Verdict.OK, text=text, remedy=notes)


def _about_scripts(project: Patient, section: str) -> Check:
    scripts = project.scripts(section)
    heads = ", ".join(scripts.heads) or "no revision yet"
    if scripts.uses_environment:
        return Check(name=f"revisions [{section}]", verdict=Verdict.OK, text=f"head {heads}")
    return Check(
        name=f"revisions [{section}]",
        verdict=Verdict.WARNING,
        text=f"head {heads}; env.py makes its own connections: one database per tenant only, no lock when run by hand",
        remedy="`orchestrate init` shows the few lines to change",
    )


def _about_ledger(project: Patient) -> Check:
    url = project.settings.ledger or project.registry.ledger
    place = ledger.place(url)
    book = project.ledger_if_any()
    if book is None:
        return Check(name="ledger", verdict=Verdict.OK, text=f"{place}: the first run will make it")
    latest = next(iter(book.runs(limit=1)), None)
    return Check(name="ledger", verdict=Verdict.OK, text=f"{place}: latest run {latest.id if latest else 'none'}")


def _about_size(project: Patient) -> Check:
    shrinkage = project.shrinkage()
    if shrinkage is None:
        return Check(name="fleet size", verdict=Verdict.OK, text="as in the last run, or larger")
    return Check(name="fleet size", verdict=Verdict.WARNING, text=shrinkage)


def _about_gates(project: Patient) -> Iterator[Check]:
    """A program that is not there would be noticed when a wave is done, and hold up the run until somebody comes."""
    variables = Variables(project.settings.root)
    for strategy in project.registry.strategies.values():
        for wave in strategy.waves:
            if wave.gate is not None and wave.gate.command is not None:
                program = wave.gate.command[0]
                found = shutil.which(_placed(variables.text(program), project.settings.root))
                yield Check(
                    name=f"gate {strategy.name}/{wave.name}",
                    verdict=Verdict.OK if found else Verdict.FAILED,
                    text=f"`{program}` can be run" if found else f"there is no program `{program}` that can be run",
                    remedy="" if found else "mend its path, which starts at tenants.yaml, or make it executable",
                )


def _placed(program: str, root: Path) -> str:
    """The program as it will be looked for: by its path from the folder of tenants.yaml, or by its name in PATH."""
    return str(root / program) if os.sep in program else program


def _about_servers(project: Patient) -> Iterator[Check]:
    """One target of each server: a fleet of thousands has few servers."""
    first: dict[str, Target] = {}
    for target in project.registry.targets:
        first.setdefault(target.server, target)
    for found in project.look(list(first.values())):
        name = f"server {found.target.server}"
        if found.condition is Condition.UNREACHABLE and found.failure is not None:
            yield Check(name=name, verdict=Verdict.FAILED, text=found.failure.message, remedy=found.failure.advice)
        else:
            yield Check(name=name, verdict=Verdict.OK, text=f"{found.target.name} is {found.condition.value}")


def _about_notifications(project: Patient, *, notify: bool) -> Iterator[Check]:
    """A run goes on without a receiver that cannot be told anything: a failure only for who asks for a trial."""
    bad = Verdict.FAILED if notify else Verdict.WARNING
    fleet = project.registry
    subscriptions, problems = registry.subscribe(fleet.notifications, project.settings.root)
    for problem in problems:
        yield Check(name=f"notification {problem.place}", verdict=bad, text=problem.text, remedy=problem.remedy)
    for subscription in subscriptions:
        receiver, name = subscription.receiver, f"notification {subscription.place}"
        flaw = receiver.flaw() or (_trial(fleet, subscription) if notify else None)
        words = ", ".join(sorted(subscription.on))
        if flaw is not None:
            yield Check(name=name, verdict=bad, text=scrub(f"{receiver.name}: {flaw}"))
        else:
            told = "has taken a trial message" if notify else f"is told of {words}"
            yield Check(name=name, verdict=Verdict.OK, text=scrub(f"{receiver.name} {told}"))


def _trial(fleet: Registry, subscription: Subscription) -> str | None:
    """Why the receiver did not take a message, None when it did."""
    message = notifications.trial(fleet.project, fleet.environment)
    try:
        hanging = notifications.deliver(subscription.receiver, message, subscription.timeout)
    except Undelivered as error:
        return str(error)
    return None if hanging is None else "it did not answer in time"

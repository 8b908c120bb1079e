"""What `abort` and the keeping of the ledger have to say: as JSON, and as text made from it."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.cli.render import blocks, counted, headed_table, heads_text, some
from orchestrator.cli.render_causes import View
from orchestrator.cli.render_runs import run_row
from orchestrator.cli.terminals import Line, Mood
from orchestrator.outcomes import Outcome, Status, count, format_time

if TYPE_CHECKING:
    from orchestrator.ledger.protocol import AuditEntry, Lease
    from orchestrator.records import Reconciliation
    from orchestrator.runs import Aborted

#: targets that `runs reconcile` names; `-v` names them all
NAMED = 5
#: enough of it to tell two apart
LENGTH_OF_DIGEST = 19


def aborted_document(aborted: Aborted, lease: Lease | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Who ends the run, or where its targets are."""
    holder = lease.holder if lease else None
    return {
        "format": "orchestrate.abort/1",
        "run": run_row(aborted.run),
        "live": aborted.live,
        "runner": {"operator": holder.operator, "host": holder.host, "pid": holder.pid} if holder else None,
        "targets": [_standing(outcome) for outcome in outcomes],
    }


def _standing(outcome: Outcome) -> dict[str, Any]:
    at = None if outcome.at is None else list(outcome.at)
    return {"target": outcome.target, "status": outcome.status.value, "at": at}


def aborted_lines(document: Mapping[str, Any], *, now: bool) -> Iterator[Line]:
    """The same as text; `now` says that what is at work was not to be waited for."""
    run = document["run"]["run"]
    if document["live"]:
        how = "stop at once: what is at work is cancelled" if now else "stop: nothing new starts in it"
        yield Line(f"run {run} is asked to {how}", Mood.WARNING)
        runner = document["runner"]
        if runner is not None:
            where = f"process {runner['pid']} on {runner['host']}"
            when = "after that" if now else "when what is at work has ended"
            yield Line(f"  {runner['operator']} ends it {when}: {where}")
        yield Line(f"see how it ended: orchestrate runs show {run}")
        return
    yield Line(f"run {run} is aborted; nobody was running it", Mood.WARNING)
    places = collections.Counter((target["status"], _at(target["at"])) for target in document["targets"])
    cells = [("targets", "outcome", "at")]
    cells += [(f"{number:,}", status.replace("_", " "), at) for (status, at), number in places.most_common()]
    if places:
        yield from headed_table(cells, right=frozenset({0}))
    if any(target["status"] == Status.UPGRADED for target in document["targets"]):
        yield Line(f"to take it back: orchestrate rollback {run}")


def _at(heads: Sequence[str] | None) -> str:
    return "unknown" if heads is None else heads_text(heads)


def reconciled_document(reconciliation: Reconciliation, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was read, what differs, and what was settled."""
    return {
        "format": "orchestrate.reconciliation/1",
        "run": run_row(reconciliation.run),
        "counts": count(outcomes),
        "differing": [
            {"target": one.target, "recorded": _listed(one.recorded), "found": _listed(one.found)}
            for one in reconciliation.differing
        ],
        "settled": list(reconciliation.settled),
        "unreadable": [outcome.target for outcome in outcomes if outcome.status is Status.FAILED],
    }


def _listed(heads: Sequence[str] | None) -> list[str] | None:
    return None if heads is None else list(heads)


def reconciled_lines(document: Mapping[str, Any], view: View) -> Iterator[Line]:
    """The same as text."""
    return blocks([list(_read(document)), list(_differing(document["differing"], view)), list(_settled(document))])


def _read(document: Mapping[str, Any]) -> Iterator[Line]:
    total = sum(document["counts"].values())
    unreadable = document["unreadable"]
    yield Line(f"{counted(total - len(unreadable), 'target')} of {total:,} read", Mood.STRONG)
    if unreadable:
        run = document["run"]["run"]
        yield Line(f"{counted(len(unreadable), 'target')} could not be read: {some(unreadable)}", Mood.BAD)
        yield Line(f"  see why: orchestrate runs show {run}")
    absent = document["counts"][Status.NOT_PROVISIONED]
    if absent:
        yield Line(f"{counted(absent, 'target')} of them not provisioned", Mood.WARNING)


def _differing(differing: Sequence[Mapping[str, Any]], view: View) -> Iterator[Line]:
    if not differing:
        yield Line("none is elsewhere than the ledger said", Mood.GOOD)
        return
    yield Line(f"{counted(len(differing), 'target')} elsewhere than the ledger said:", Mood.WARNING)
    shown = differing if view.verbose else differing[:NAMED]
    cells = [("target", "ledger", "database")]
    cells += [(one["target"], _recorded(one["recorded"]), _at(one["found"])) for one in shown]
    yield from headed_table(cells)
    if len(differing) > len(shown):
        yield Line(f"  and {len(differing) - len(shown):,} more; -v shows them", Mood.FAINT)


def _recorded(heads: Sequence[str] | None) -> str:
    return "nothing" if heads is None else heads_text(heads)


def _settled(document: Mapping[str, Any]) -> Iterator[Line]:
    for run in document["settled"]:
        yield Line(f"run {run} had no runner left: what became of its targets is written down now")


def pruned_lines(runs: Sequence[str]) -> Iterator[Line]:
    """Which runs are gone."""
    if not runs:
        yield Line("nothing to prune")
        return
    yield Line(f"{counted(len(runs), 'run')} deleted from the ledger; the audit table keeps who ran them")
    yield from (Line(f"  {run}") for run in runs)


def audit_row(entry: AuditEntry) -> dict[str, Any]:
    """One row of the audit table as JSON."""
    return {
        "at": format_time(entry.at),
        "operator": entry.operator,
        "host": entry.host,
        "action": entry.action,
        "run": entry.run,
        "detail": dict(entry.detail),
    }


def audit_lines(entries: Sequence[AuditEntry]) -> Iterator[Line]:
    """A line per action."""
    if not entries:
        yield Line("nothing was done yet")
        return
    cells = [("at", "operator", "action", "run", "detail")]
    for entry in entries:
        detail = ", ".join(f"{key} {_plain(value)}" for key, value in entry.detail.items() if value is not None)
        at = (format_time(entry.at) or "")[:19] + "Z"
        cells.append((at, entry.operator, entry.action, entry.run or "-", detail))
    yield from headed_table(cells)


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return some([str(part) for part in value])
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text[:LENGTH_OF_DIGEST] if text.startswith("sha256:") else text

"""The report as one page that needs nothing else: no script, no address outside, and small at ten thousand targets."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import jinja2
import markupsafe

from orchestrator.errors import ExitCode
from orchestrator.outcomes import DONE, FAILING, Outcome, Report, RunStatus, Status
from orchestrator.redaction import scrub
from orchestrator.reports import advice, causes, figures, heatmap, words

#: bytes for names, messages and tables: with style sheet and squares ten thousand targets stay below 400 kB
ROOM = 250_000
#: causes and reasons that are told in full
GROUPS = 25
REVISIONS = 20
MESSAGE_LENGTH, STATEMENT_LENGTH = 600, 1500
#: names that stand in the open; all of them are folded away behind
NAMES = 5
#: length of every bar of a picture, in its own unit
BAR = 1000
_LEAST = 4.0
#: bytes of a row of a table beside its text
_ROW = 40
_POLICY = "default-src 'none'; style-src 'sha256-{digest}'; img-src 'none'; base-uri 'none'; form-action 'none'"
_MOODS = {
    RunStatus.SUCCEEDED: "good",
    RunStatus.FAILED: "bad",
    RunStatus.HALTED: "bad",
    RunStatus.ABORTED: "bad",
}
_EXITS = {
    ExitCode.OK: "done, or nothing was due",
    ExitCode.FAILURES: "something failed",
    ExitCode.USAGE: "usage, settings or scripts",
    ExitCode.REFUSED: "refused",
    ExitCode.PAUSED: "paused or deferred: to be continued",
    ExitCode.DUE: "something is due",
    ExitCode.INTERNAL: "internal error",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated",
}


def render(report: Report) -> str:
    """The page of a report."""
    room = _Room(ROOM)
    # What matters most takes of the room first.
    failures = list(_failures(report, room))
    left_alone = list(_left_alone(report, room))
    slow = [_row(outcome) for outcome in figures.slowest(report.outcomes)]
    return _page(
        title=f"{words.goal_text(report.command, report.revision)} {report.status.value}",
        report=report,
        head=_head(report),
        counters=_counters(report),
        waves=_waves(report),
        failures=failures,
        other_failures=_others(causes.failure_groups(report.outcomes)),
        revisions=_revisions(report),
        pictures=list(heatmap.pictures(report.outcomes)),
        slowest=slow,
        quantiles=[_took(milliseconds) for milliseconds in figures.quantiles(report.outcomes) or ()],
        left_alone=left_alone,
        other_left_alone=_others(causes.left_alone_groups(report.outcomes)),
        table=_table(report, room),
    )


def nothing(text: str) -> str:
    """The page of a command that had nothing to do."""
    return _page(title=text, report=None)


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = lambda value: f"{value:,}"
    made.filters["words"] = lambda value: str(value).replace("_", " ")
    made.filters["seen"] = _seen
    made.filters["marked"] = _marked
    return made


def _page(**content: Any) -> str:
    style = resources.files("orchestrator.reports").joinpath("templates", "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    template = _environment().get_template("report.html")
    # Our own file, and as it is: the policy allows these bytes and no others.
    return template.render(style=markupsafe.Markup(style), policy=_POLICY.format(digest=digest), **content)  # noqa: S704


class _Room:
    """Bytes that are left for text whose length nobody knows beforehand."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, *texts: str, beside: int = 0) -> bool:
        """Whether the texts fit; they take their room when they do."""
        size = sum(len(markupsafe.escape(text).encode()) for text in texts) + beside
        if size > self._left:
            return False
        self._left -= size
        return True


def _seen(text: str) -> str:
    """Text from elsewhere: without secrets, and with its control characters as escapes, line by line."""
    return "\n".join(words.visible(line) for line in scrub(text).splitlines())


def _marked(text: str) -> markupsafe.Markup:
    """Text in which what stands between backticks is to be typed."""
    parts = markupsafe.escape(text).split("`")
    if len(parts) % 2 == 0:
        return markupsafe.escape(text)
    return markupsafe.Markup("").join(
        markupsafe.Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _cut(text: str, limit: int, room: _Room) -> str:
    shown = _seen(text)
    shown = shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
    return shown if room.take(shown) else "…"


# -- head -------------------------------------------------------------------------------------------------------


def _head(report: Report) -> dict[str, Any]:
    ended = figures.finished_at(report)
    facts = [
        ("run", report.run),
        ("exit code", f"{int(report.exit_code)}: {_EXITS[report.exit_code]}"),
        ("operator", report.operator),
        ("strategy", report.strategy),
        ("started", _time(report.started_at)),
        ("ended", "not yet" if ended is None else _time(ended)),
        ("plan", report.plan_digest),
    ]
    if report.parent:
        facts.insert(1, ("takes back", report.parent))
    return {
        "place": " · ".join(part for part in (report.project, report.environment) if part),
        "goal": words.goal_text(report.command, report.revision),
        "ending": advice.ending(report),
        "mood": _MOODS.get(report.status, "warning"),
        "why": advice.stop_text(report),
        "facts": facts,
        "next": [step.partition(": ")[::2] for step in advice.next_steps(report)],
    }


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _counters(report: Report) -> list[dict[str, Any]]:
    """Each status that there is, with its part of a bar over all."""
    total = len(report.outcomes)
    made, x = [], 0.0
    for name, number in report.counts.items():
        if number:
            width = BAR * number / total
            made.append({"status": name, "count": number, "x": _short(x), "width": _short(width)})
            x += width
    return made


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# -- waves ------------------------------------------------------------------------------------------------------


def _waves(report: Report) -> list[dict[str, Any]]:
    """A row for each wave: its bar, and behind it the time until the next wave began."""
    spans = figures.spans(report)
    known = [span for span in spans if span.started_at and span.finished_at]
    begin = min((span.started_at for span in known if span.started_at), default=report.started_at)
    end = max((span.finished_at for span in known if span.finished_at), default=begin)
    scale = BAR / max((end - begin).total_seconds(), 0.001)
    rows = []
    for span in spans:
        row: dict[str, Any] = {"span": span, "bar": None, "pause": None, "counts": _told(span.counts)}
        row["took"] = words.duration(span.seconds) if span.started_at else ""
        row["paused"] = words.duration(span.pause_s) if span.pause_s >= 1 else ""
        if span.started_at is not None:
            x = (span.started_at - begin).total_seconds() * scale
            width = max(span.seconds * scale, _LEAST)
            x = min(x, BAR - width)
            row["bar"] = (_short(x), _short(width))
            if span.pause_s:
                row["pause"] = (_short(x + width), _short(max(0.0, span.pause_s * scale)))
        rows.append(row)
    return rows


def _told(counts: Any) -> str:
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items() if number)


# -- causes -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Names of a group: the first in the open, all of them folded as far as there is room."""

    first: str
    folded: str = ""
    missing: int = 0


def _names(group: Sequence[Outcome], room: _Room) -> _Names:
    names = [words.visible(outcome.target) for outcome in group]
    first = words.some(names, NAMES)
    if len(names) <= NAMES or not room.take(first):
        return _Names(first=first)
    fitting = [name for name in names if room.take(name, beside=2)]
    return _Names(first=first, folded=", ".join(fitting), missing=len(names) - len(fitting))


def _failures(report: Report, room: _Room) -> Iterator[dict[str, Any]]:
    groups = causes.failure_groups(report.outcomes)[:GROUPS]
    told = [_cause(group, room) for group in groups]
    # First what went wrong with each, then who they are: names fill whatever is left.
    for group, cause in zip(groups, told, strict=True):
        yield {**cause, "names": _names(group, room)}


def _cause(group: Sequence[Outcome], room: _Room) -> dict[str, Any]:
    first = group[0]
    failure = first.failure
    if failure is None:
        text = first.reason.text if first.reason else causes.LOST
        told = {"cause": "", "message": _cut(text, MESSAGE_LENGTH, room), "statement": "", "advice": ""}
    else:
        told = {
            "cause": _cut(causes.cause_text(failure), MESSAGE_LENGTH, room),
            "message": _cut(failure.message, MESSAGE_LENGTH, room),
            "statement": _cut(failure.statement or "", STATEMENT_LENGTH, room),
            "advice": _cut(failure.advice, MESSAGE_LENGTH, room),
        }
    return {
        "count": len(group),
        "status": first.status.value,
        "target": words.typed(first.target),
        "where": _where(group),
        **told,
    }


def _where(group: Sequence[Outcome]) -> str:
    """`in wave canary, on db1:5432 and 3 more`."""
    waves = sorted({outcome.wave for outcome in group if outcome.wave})
    servers = sorted({outcome.server for outcome in group if outcome.server})
    parts = [f"in wave {words.some(waves)}"] if waves else []
    return words.visible(", ".join([*parts, f"on {words.some(servers)}"] if servers else parts))


def _others(groups: Sequence[Sequence[Outcome]]) -> dict[str, int] | None:
    rest = groups[GROUPS:]
    return {"groups": len(rest), "targets": sum(map(len, rest))} if rest else None


def _left_alone(report: Report, room: _Room) -> Iterator[dict[str, Any]]:
    waiting = [outcome for outcome in report.outcomes if outcome.status is Status.NOT_STARTED]
    groups = causes.left_alone_groups(report.outcomes)[:GROUPS]
    for group in [*groups, waiting] if waiting else groups:
        reasons = {outcome.reason.text for outcome in group if outcome.reason}
        code = group[0].reason.code.replace("_", " ") if group[0].reason else ""
        told = {"count": len(group), "status": group[0].status.value, "code": code}
        if len(reasons) <= 1:
            text = _cut(next(iter(reasons), ""), MESSAGE_LENGTH, room)
            yield {**told, "text": text, "names": _names(group, room), "rows": [], "missing": 0}
            continue
        # Who quarantined it, why and until when differs from one to the next.
        rows = [(one.target, _seen(one.reason.text if one.reason else "")) for one in group]
        fitting = [row for row in rows if room.take(*row, beside=_ROW)]
        yield {**told, "text": "", "names": None, "rows": fitting, "missing": len(rows) - len(fitting)}


# -- where they stand, and the rest -----------------------------------------------------------------------------


def _revisions(report: Report) -> list[dict[str, Any]]:
    found = figures.standings(report.outcomes)
    shown, rest = found[:REVISIONS], found[REVISIONS:]
    if rest:
        shown = [*shown, (f"{len(rest):,} others", sum(number for _, number in rest))]
    most = max((number for _, number in shown), default=1)
    wanted = ", ".join(report.revision)
    return [
        {
            "at": at,
            "count": number,
            "width": _short(max(BAR * number / most, _LEAST)),
            "mood": "wanted" if at == wanted else "unknown" if at == figures.UNKNOWN else "other",
        }
        for at, number in shown
    ]


def _row(outcome: Outcome) -> dict[str, Any]:
    found = words.heads_text(outcome.found) if outcome.found is not None else "?"
    at = words.heads_text(outcome.at) if outcome.at is not None else "?"
    return {
        "target": words.visible(outcome.target),
        "server": words.visible(outcome.server),
        "wave": words.visible(outcome.wave or ""),
        "status": outcome.status.value,
        "way": words.visible(at if found == at else f"{found} → {at}"),
        "attempts": outcome.attempts,
        "took": "" if outcome.duration_ms is None else _took(outcome.duration_ms),
    }


def _took(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else words.duration(milliseconds / 1000)


def _table(report: Report, room: _Room) -> dict[str, Any]:
    """A row for each target, what went wrong first, as far as there is room."""
    rows = []
    for outcome in sorted(report.outcomes, key=_urgency):
        row = _row(outcome)
        if not room.take(row["target"], row["server"], row["wave"], row["way"], row["took"], beside=2 * _ROW):
            break
        rows.append(row)
    return {"rows": rows, "missing": len(report.outcomes) - len(rows)}


def _urgency(outcome: Outcome) -> tuple[int, str]:
    rank = 0 if outcome.status in FAILING else 2 if outcome.status in DONE else 1
    return rank, outcome.target

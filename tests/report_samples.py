"""Reports of fleets as they are met: all well, halted behind a canary, ten thousand targets, names by an enemy."""

from __future__ import annotations

import dataclasses
import datetime
import random
from collections.abc import Callable, Mapping, Sequence

from orchestrator.errors import ExitCode
from orchestrator.outcomes import (
    Failure,
    FailureKind,
    GateResult,
    Outcome,
    Reason,
    Report,
    RunStatus,
    Status,
    Verdict,
    WaveSummary,
    count,
)

MORNING = datetime.datetime(2026, 11, 22, 7, 31, tzinfo=datetime.UTC)
RUN = "r-20261122-073100-4f2a"
#: what an enemy would call a tenant, or have a server say
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>*{display:none}</style>",
    "</title></svg><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "[click](https://evil.example) ![](https://evil.example/x.png) www.evil.example @admin",
    "| a | b |\n| --- | --- |\n# heading `code` ``` *bold* <!-- -->",
    "::error::owned\r\n::stop-commands::x",
    "##[add-mask]e",
    "]]><failure/>&amp;&#0;\x00\x1b[31m\ufffe\udc80",
    "\u202egnp.exe\u200b\u2028",
    'x"} 1\norchestrate_targets{status="owned',
    "a" * 300,
)

UNIQUE = Failure(
    kind=FailureKind.PERMANENT,
    code="23505",
    type="UniqueViolation",
    message='could not create unique index "uq_users_email"',
    revision="r0007",
    statement='CREATE UNIQUE INDEX "uq_users_email" ON users (email)',
    advice="Remove the duplicate rows of this tenant, then run `orchestrate retry`.",
    fingerprint="1c9f0e5a7b42",
)
LOCKED = Failure(
    kind=FailureKind.TRANSIENT,
    code="55P03",
    type="LockNotAvailable",
    message="canceling statement due to lock timeout",
    revision="r0008",
    statement='ALTER TABLE "orders" ADD COLUMN "currency" VARCHAR(3) DEFAULT \'EUR\' NOT NULL',
    advice="Somebody held a lock on the table for longer than `timeouts: lock`; see who, then run `orchestrate retry`.",
    fingerprint="88ab03c1d9ee",
)


def outcome(name: str, status: Status = Status.UPGRADED, **fields: object) -> Outcome:
    """A target on its way from r0006 to r0008."""
    at = ("r0008",) if status in (Status.UPGRADED, Status.UNCHANGED) else None if status is Status.LOST else ("r0006",)
    given: dict[str, object] = {
        "target": name,
        "tenant": name,
        "server": "db1.internal:5432",
        "schema": f"tenant_{name}",
        "found": ("r0006",),
        "wanted": ("r0008",),
        "at": at,
        **fields,
    }
    return Outcome(status=status, **given)  # type: ignore[arg-type]


def report(outcomes: Sequence[Outcome], status: RunStatus = RunStatus.SUCCEEDED, **fields: object) -> Report:
    """A report of an upgrade, whose waves are those of the outcomes unless they are given."""
    given: dict[str, object] = {
        "run": RUN,
        "command": "upgrade",
        "revision": ("r0008",),
        "project": "billing",
        "environment": "production",
        "operator": "deploy@ci-7",
        "strategy": "careful",
        "plan_digest": "sha256:7c0c3e5a1d2f4b6897a0c3e5a1d2f4b6",
        "exit_code": ExitCode.OK if status is RunStatus.SUCCEEDED else ExitCode.FAILURES,
        "started_at": MORNING,
        "duration_s": 12.4,
        "waves": (),
        **fields,
    }
    return Report(status=status, outcomes=tuple(outcomes), **given)  # type: ignore[arg-type]


def wave(name: str, status: str, own: Sequence[Outcome], begin: float, end: float, **fields: object) -> WaveSummary:
    """A wave that ran from `begin` to `end`, seconds after the run began."""
    return WaveSummary(
        name=name,
        status=status,
        counts=count(own),
        started_at=MORNING + datetime.timedelta(seconds=begin),
        finished_at=MORNING + datetime.timedelta(seconds=end),
        **fields,  # type: ignore[arg-type]
    )


def timed(one: Outcome, begin: float, milliseconds: float) -> Outcome:
    """That outcome, begun so many seconds after the run."""
    started = MORNING + datetime.timedelta(seconds=begin)
    return dataclasses.replace(one, started_at=started, duration_ms=milliseconds, attempts=1)


def all_well() -> Report:
    """A small fleet without a failure."""
    dice = random.Random(1)
    done = [timed(outcome(f"tenant-{n:03}", wave="all"), n / 20, dice.lognormvariate(3.5, 0.6)) for n in range(240)]
    rest = [outcome(f"early-{n}", Status.UNCHANGED, reason=Reason(code="at_head", text="is at head")) for n in range(9)]
    return report([*done, *rest], waves=(wave("all", "succeeded", done, 0, 12.2),), strategy="default")


def halted() -> Report:
    """A canary that passed its gate, a second wave that halted the run, and what came of the rest."""
    dice = random.Random(2)
    servers = ["db1.internal:5432", "db2.internal:5432", "maria1.internal:3306"]
    canary = [timed(outcome(f"canary-{n}", wave="canary"), n / 5, 45 + n) for n in range(5)]
    early = [
        timed(outcome(f"tenant-{n:03}", wave="early", server=servers[n % 3]), 602 + n / 20, dice.lognormvariate(4, 1))
        for n in range(120)
    ]
    for n in (17, 31, 44, 58, 73, 90, 101):
        early[n] = dataclasses.replace(early[n], status=Status.FAILED, at=("r0006",), failure=UNIQUE)
    early[40] = dataclasses.replace(early[40], status=Status.FAILED, at=("r0007",), failure=LOCKED, attempts=4)
    early[77] = dataclasses.replace(early[77], status=Status.LOST, at=None)
    text = "wave early has more failures than it may: 9, and 0 are tolerated"
    waiting = Reason(code="halted", text=text)
    rest = [
        outcome(f"rest-{n:04}", Status.NOT_STARTED, wave="rest", server=servers[n % 3], reason=waiting, at=None)
        for n in range(860)
    ]
    quarantined = [
        outcome(
            "hooli",
            Status.SKIPPED,
            reason=Reason(code="quarantined", text="restoring a backup (ops, until 2026-12-01)"),
        ),
        outcome("stark", Status.SKIPPED, reason=Reason(code="quarantined", text="moving to another region (ann)")),
    ]
    down = Reason(code="server_down", text="maria2.internal:3306 is down: connection refused")
    deferred = [
        outcome(f"m-{n}", Status.DEFERRED, server="maria2.internal:3306", reason=down, wave="early", at=None)
        for n in range(14)
    ]
    absent = [
        outcome(
            "newcomer", Status.NOT_PROVISIONED, at=None, reason=Reason(code="absent", text="its schema does not exist")
        )
    ]
    passed = GateResult(kind="command", verdict=Verdict.PASSED, text="./smoke ended with 0", measurements=3)
    return report(
        [*canary, *early, *rest, *quarantined, *deferred, *absent],
        RunStatus.HALTED,
        duration_s=645.0,
        waves=(
            wave("canary", "succeeded", canary, 0, 1.3, gate=passed),
            wave("early", "halted", [*early, *deferred], 602, 645),
            WaveSummary(name="rest", status="not_started", counts=count(rest)),
        ),
    )


def ten_thousand(fail: Callable[[int], bool] = lambda n: n % 97 == 0, size: int = 10_000) -> Report:
    """A large fleet on some servers, with failures of several causes spread over it."""
    dice = random.Random(3)
    causes = [UNIQUE, LOCKED, *(dataclasses.replace(UNIQUE, type=f"Odd{n}", fingerprint=str(n)) for n in range(5))]
    made = []
    for n in range(size):
        server = f"db{n % 12 + 1}.eu-central-1.internal:5432"
        one = timed(
            outcome(f"customer-{n * 7919 % 100_003:06}", wave="rest", server=server), n / 50, dice.lognormvariate(4, 1)
        )
        if fail(n):
            one = dataclasses.replace(one, status=Status.FAILED, at=("r0006",), failure=dice.choice(causes))
        elif n % 31 == 0:
            reason = Reason(code="unversioned", text="has tables, but no version")
            one = dataclasses.replace(one, status=Status.SKIPPED, reason=reason, at=(), duration_ms=None)
        made.append(one)
    return report(made, RunStatus.FAILED, duration_s=201.0, waves=(wave("rest", "failed", made, 0, 201),))


def hostile(size: int = 1) -> Report:
    """Text by an enemy wherever a report has text that is not ours."""
    made = []
    for n, text in enumerate(HOSTILE * size):
        failure = dataclasses.replace(
            UNIQUE, message=text, statement=text, advice=text, code=text, type=text, revision=text, fingerprint=str(n)
        )
        fields: Mapping[str, object] = {"server": text, "wave": text, "found": (text,), "at": (text,)}
        made.append(timed(outcome(f"{text}{n}", Status.FAILED, failure=failure, **fields), 0, 5))
        made.append(outcome(f"s{n}{text}", Status.SKIPPED, reason=Reason(code=text, text=text), **fields))
    gate = GateResult(kind="command", verdict=Verdict.FAILED, text=HOSTILE[0])
    waves = tuple(wave(text, "failed", [], 0, 1, gate=gate) for text in HOSTILE)
    same = dict.fromkeys(("run", "project", "environment", "operator", "strategy", "plan_digest"), HOSTILE[1])
    return report(made, RunStatus.FAILED, waves=waves, revision=HOSTILE, **same)


SAMPLES: Mapping[str, Callable[[], Report]] = {
    "all_well": all_well,
    "halted": halted,
    "ten_thousand": ten_thousand,
    "hostile": hostile,
}

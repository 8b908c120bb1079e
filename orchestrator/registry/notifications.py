"""Notifications as written to rules, and rules to receivers once a run needs them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from orchestrator.errors import Problem
from orchestrator.notifications.rules import USUAL_MOMENTS, NotificationRule, Receiver, Subscription
from orchestrator.redaction import remember, remember_headers
from orchestrator.registry.documents import Path as Place
from orchestrator.registry.models import NotificationEntry
from orchestrator.registry.problems import Mistake, Problems
from orchestrator.registry.variables import Variables, take_apart

#: pieces of an address that are taken for a secret: long enough, and no word
_PIECE = re.compile(r"[^/:@?&=#]{8,}")
_IP = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


Fill: TypeAlias = Callable[[str], str]


def read_notifications(entries: Sequence[NotificationEntry], problems: Problems) -> tuple[NotificationRule, ...]:
    """The rules; what is wrong with the writing of variables in them is noted, their values are not asked for yet."""
    rules = []
    for number, entry in enumerate(entries):
        path: Place = ("notifications", number)
        for key, text in _texts(entry):
            try:
                take_apart(text, placeholders=False)
            except Mistake as mistake:
                problems.add_mistake((*path, *key), mistake)
        rules.append(_rule(entry, problems.place(path)))
    return tuple(rules)


def _texts(entry: NotificationEntry) -> Iterator[tuple[Place, str]]:
    yield from ((("exec", number), text) for number, text in enumerate(entry.exec or ()))
    yield from ((("headers", name), text) for name, text in entry.headers.items())
    for key in ("webhook", "apprise", "secret"):
        text = getattr(entry, key)
        if text is not None:
            yield (key,), text


def _rule(entry: NotificationEntry, place: str) -> NotificationRule:
    return NotificationRule(
        place=place,
        on=USUAL_MOMENTS if entry.on is None else frozenset(entry.on),
        program=tuple(entry.exec or ()),
        webhook=entry.webhook,
        apprise=entry.apprise,
        headers=dict(entry.headers),
        secret=entry.secret,
        timeout=entry.timeout,
    )


def subscribe(rules: Sequence[NotificationRule], root: Path) -> tuple[list[Subscription], list[Problem]]:
    """Who is told, variables filled in, and why others cannot be: no run waits for somebody to mend that.

    A receiver whose address is empty, as that of `${HOOK:-}` may be, is told nothing.
    """
    variables = Variables(root)
    subscriptions, problems = [], []
    for rule in rules:
        try:
            receiver = _receiver(rule, variables.text, root)
        except Mistake as mistake:
            problems.append(Problem(place=rule.place, text=mistake.text, remedy=mistake.remedy))
        else:
            if receiver is not None:
                subscriptions.append(
                    Subscription(receiver=receiver, on=rule.on, timeout=rule.timeout, place=rule.place)
                )
    return subscriptions, problems


# What a receiver is made of is imported when there is one: most commands send nothing.


def _receiver(rule: NotificationRule, fill: Fill, root: Path) -> Receiver | None:
    if rule.webhook is not None:
        return _webhook(rule, fill)
    if rule.apprise is not None:
        return _apprise(rule.apprise, fill)
    from orchestrator.notifications.programs import Program  # noqa: PLC0415 - see above

    arguments = tuple(fill(argument) for argument in rule.program)
    if not arguments[0]:
        return None
    return Program(name=f"`{rule.program[0]}`", arguments=arguments, folder=root)


def _webhook(rule: NotificationRule, fill: Fill) -> Receiver | None:
    from orchestrator.notifications.webhooks import Webhook  # noqa: PLC0415 - see above

    url = fill(rule.webhook or "").strip()
    if not url:
        return None
    parts = _split(url)
    _remember_address(url, f"{parts.path}?{parts.query}".removesuffix("?"))
    headers = {name: fill(value) for name, value in rule.headers.items()}
    remember_headers(rule.headers, headers)
    secret = None if rule.secret is None else fill(rule.secret)
    remember(secret)
    return Webhook(name=f"webhook {_host(parts)}", url=url, headers=headers, secret=secret or None)


def _split(url: str) -> SplitResult:
    """The URL in its parts; raises `Mistake` for one that nothing can be posted to."""
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_fine = False
    if not is_fine or not (url.isascii() and url.isprintable()) or " " in url:
        raise Mistake("`webhook` is no HTTP URL", "write it like https://host/path")
    if "@" in parts.netloc:
        raise Mistake("`webhook` holds a user or a password", "send it in `headers`, as Authorization")
    return parts


def _host(parts: SplitResult) -> str:
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return f"[{parts.hostname}]:{port}" if ":" in (parts.hostname or "") else f"{parts.hostname}:{port}"


def _apprise(raw: str, fill: Fill) -> Receiver | None:
    from orchestrator.notifications import apprises  # noqa: PLC0415 - see above

    url = fill(raw).strip()
    if not url:
        return None
    scheme, separator, _ = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise Mistake("`apprise` is no Apprise URL", "write it like slack://…, see Apprise's list of services")
    _remember_address(url, url.partition("://")[2])
    if not apprises.is_installed():
        raise Mistake(apprises.MISSING, apprises.REMEDY)
    return apprises.AppriseAddress(name=f"apprise {scheme}", url=url)


def _remember_address(url: str, path: str) -> None:
    """Addresses of chats are passwords in effect: the whole of it, and what in its path is no word.

    The address of a host is none, though: others may be reached there as well, and are shown by it.
    """
    pieces = (path, *(piece for piece in _PIECE.findall(path) if not _IP.fullmatch(piece)))
    remember(url, *(piece for piece in pieces if any(one.isdigit() for one in piece)))

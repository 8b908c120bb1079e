"""The current heads of many targets, in bulk: threads across databases, few statements within one."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import random
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor

from orchestrator import databases
from orchestrator.outcomes import Failure, FailureKind
from orchestrator.plans import Condition, Found
from orchestrator.tenants import Target

#: threads that look into one server at once
PER_SERVER = 8
#: SQLite files have no server to spare; more threads than this only wait for Python
_SQLITE_BATCH = 50

#: the server refused this user's password: it would refuse it for the other databases, and lock the user out
_REFUSED_CODES = frozenset({"28P01", "1045", "1698"})
#: too many connections, perhaps our own: it passes when some of them end
_CROWDED_CODES = frozenset({"53300", "1040", "1203", "1226"})
#: a lock, a lost connection: nothing was in flight but the look
_PASSING = frozenset({FailureKind.TRANSIENT, FailureKind.AMBIGUOUS})
#: seconds between looks at what could not be read
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Targets that one connection can look at, with their positions in what was asked for."""

    server: str
    user: str | None
    positions: tuple[int, ...]
    targets: tuple[Target, ...]


@dataclasses.dataclass(slots=True, kw_only=True)
class _Server:
    """What we know about one server while looking."""

    waiting: collections.deque[_Group]
    #: threads that may look into it at once
    cap: int
    running: list[_Group] = dataclasses.field(default_factory=list)
    #: users that the server let in
    proved: set[str | None] = dataclasses.field(default_factory=set)
    #: what ended looking at the whole server, or for one user of it
    down: Failure | None = None
    refused: dict[str | None, Failure] = dataclasses.field(default_factory=dict)

    def reason_against(self, group: _Group) -> Failure | None:
        """The failure that makes a look at this group pointless."""
        return self.down or self.refused.get(group.user)

    def may_start(self, group: _Group) -> bool:
        """One look at a time until the server, and the user, have proved good: a dead server costs one timeout."""
        if not self.proved:
            return not self.running
        if group.user not in self.proved and any(other.user == group.user for other in self.running):
            return False
        return len(self.running) < self.cap


def read(targets: Sequence[Target], concurrency: int, server_caps: Mapping[str, int] | None = None) -> list[Found]:
    """What a look at each target found, in the order of the targets; writes nothing and takes no lock.

    `server_caps` lowers the number of looks into a server at once, by `Target.server`.
    """
    found: dict[int, Found] = {}
    servers = _servers(targets, server_caps or {})
    with ThreadPoolExecutor(max_workers=max(1, concurrency), thread_name_prefix="heads") as pool:
        pending: dict[Future[list[Found]], _Group] = {}
        while True:
            for server in servers.values():
                _start(server, pool, pending, found, room=max(1, concurrency))
            if not pending:
                return [found[position] for position in range(len(targets))]
            done, _ = concurrent.futures.wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                group = pending.pop(future)
                _settle(servers[group.server], group, future.result(), found)


def _servers(targets: Sequence[Target], server_caps: Mapping[str, int]) -> dict[str, _Server]:
    """Groups of targets by server, in the order in which they first appear."""
    members: dict[tuple[str, Hashable], list[int]] = {}
    for position, target in enumerate(targets):
        members.setdefault((target.server, _group_key(position, target)), []).append(position)
    servers: dict[str, _Server] = {}
    for (server, _key), positions in members.items():
        group = _Group(
            server=server,
            user=targets[positions[0]].url.username,
            positions=tuple(positions),
            targets=tuple(targets[position] for position in positions),
        )
        cap = min(PER_SERVER, server_caps.get(server, PER_SERVER))
        servers.setdefault(server, _Server(waiting=collections.deque(), cap=cap)).waiting.append(group)
    return servers


def _group_key(position: int, target: Target) -> Hashable:
    return position // _SQLITE_BATCH if target.backend == "sqlite" else databases.connection_key(target)


def _start(
    server: _Server,
    pool: ThreadPoolExecutor,
    pending: dict[Future[list[Found]], _Group],
    found: dict[int, Found],
    *,
    room: int,
) -> None:
    """Start as many of the server's groups as may run now; settle without a look what is known to fail."""
    while server.waiting and len(pending) < room:
        group = server.waiting[0]
        against = server.reason_against(group)
        if against is None and not server.may_start(group):
            return
        server.waiting.popleft()
        if against is not None:
            found.update(zip(group.positions, _not_tried(group.targets, against), strict=True))
            continue
        server.running.append(group)
        pending[pool.submit(_look, group)] = group


def _settle(server: _Server, group: _Group, looked: list[Found], found: dict[int, Found]) -> None:
    server.running.remove(group)
    found.update(zip(group.positions, looked, strict=True))
    failure = looked[0].failure
    if failure is None or (failure.kind is not FailureKind.SERVER and failure.code not in _REFUSED_CODES):
        server.proved.add(group.user)
    elif failure.code in _REFUSED_CODES:
        server.refused.setdefault(group.user, failure)
    elif group.server != "sqlite":
        server.down = server.down or failure


def _look(group: _Group) -> list[Found]:
    """Look, and look again at what only a passing fault kept from being read: a look changes nothing."""
    found = _look_once(group.targets)
    for pause in _PAUSES:
        unread = [position for position, one in enumerate(found) if _may_pass(one.failure)]
        if not unread:
            break
        time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not a secret
        for position, one in zip(unread, _look_once([group.targets[position] for position in unread]), strict=True):
            found[position] = one
    first = found[0].failure
    # Where nobody could be looked at for one reason, only the first one tells it.
    if first is not None and all(one.failure is first for one in found):
        return [found[0], *_not_tried(group.targets[1:], first)]
    return found


def _look_once(targets: Sequence[Target]) -> list[Found]:
    """Total: targets that cannot be looked at are unreachable, all with the same failure."""
    try:
        return list(databases.backend_of(targets[0]).look(targets))
    except Exception as error:  # noqa: BLE001 - becomes the target's failure
        failure = databases.classify(error, targets[0])
    return [Found(target=target, condition=Condition.UNREACHABLE, failure=failure) for target in targets]


def _may_pass(failure: Failure | None) -> bool:
    return failure is not None and (failure.kind in _PASSING or failure.code in _CROWDED_CODES)


def _not_tried(targets: Sequence[Target], first: Failure) -> list[Found]:
    return [
        Found(target=target, condition=Condition.UNREACHABLE, failure=_server_down(target, first)) for target in targets
    ]


def _server_down(target: Target, first: Failure) -> Failure:
    failure = Failure(
        kind=FailureKind.SERVER,
        code="server_down",
        type="ServerDown",
        message=f"not tried, since {target.server} failed for another target: {first.message}",
        advice=first.advice,
    )
    return dataclasses.replace(failure, fingerprint=databases.fingerprint(failure, target))

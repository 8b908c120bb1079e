"""A history that is wrong is refused before any tenant is asked, with the place and what to do."""

from __future__ import annotations

import dataclasses
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import Project
from orchestrator.errors import ExitCode, ScriptsError
from tests import histories

Spoil = Callable[[Path], object]


@dataclasses.dataclass(frozen=True)
class History:
    """What was done to a good history, and what is said of it."""

    name: str
    spoil: Spoil
    says: str
    asked: str = "head"


def edited(revision: str, old: str, new: str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = histories.file_of(folder, revision)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return spoil


def encoded(folder: Path) -> None:
    path = histories.file_of(folder, "r004")
    path.write_bytes(path.read_bytes().replace(b"an index", "für Müller".encode("latin-1"), 1))


def with_a_zero_byte(folder: Path) -> None:
    path = histories.file_of(folder, "r004")
    path.write_bytes(path.read_bytes() + b"\0")


def without_scripts(folder: Path) -> None:
    (folder / "alembic").rename(folder / "elsewhere")


def labelled_twice(folder: Path) -> None:
    for revision in ("r003", "r004"):
        edited(revision, "branch_labels = None", "branch_labels = ('billing',)")(folder)


HISTORIES = [
    History("file-missing", histories.lose_revision, "r004.*restore the file"),
    History("dependency-missing", edited("r004", "depends_on = None", "depends_on = 'r404'"), "r404"),
    History("cycle", histories.make_cycle, "(?i)cycle"),
    History("own-parent", edited("r004", "down_revision = 'r003'", "down_revision = 'r004'"), "r004"),
    History("several-heads", histories.add_head, "heads.*alembic merge heads"),
    History("two-bases", edited("r004", "down_revision = 'r003'", "down_revision = None"), "heads"),
    History("no-python", histories.break_syntax, r"r004_\w+\.py:\d+"),
    History(
        "raises-on-import", edited("r004", "import sqlalchemy", "import no_such_module\nimport sqlalchemy"), "r004_"
    ),
    History(
        "exits-on-import",
        edited("r004", "import sqlalchemy", "import sys; sys.exit(0)\nimport sqlalchemy"),
        r"r004_\w+\.py:\d+: `sys.exit`",
    ),
    History("zero-byte", with_a_zero_byte, r"^/.*r004_\w+\.py: "),
    History("not-utf-8", encoded, "r004_|utf-8|codec"),
    History("one-id-twice", edited("r006", "revision = 'r006'", "revision = 'r003'"), "r003.*another id"),
    History("id-too-long", edited("r006", "revision = 'r006'", f"revision = {'r' * 33!r}"), "33 characters"),
    History("no-id", edited("r006", "revision = 'r006'", "identifier = 'r006'"), "r006_"),
    History(
        "parent-is-a-number",
        edited("r004", "down_revision = 'r003'", "down_revision = 3"),
        r"r004_\w+\.py:\d+: `down_revision`",
    ),
    History("empty-id", edited("r006", "revision = 'r006'", "revision = ''"), r"r006_\w+\.py: .*id is empty"),
    History("id-is-none", edited("r006", "revision = 'r006'", "revision = None"), r"r006_\w+\.py:\d+: `revision`"),
    History("coroutine", edited("r004", "def upgrade", "async def upgrade"), r"r004_\w+\.py:\d+: `upgrade`"),
    History(
        "generator",
        edited("r004", "def downgrade():\n", "def downgrade():\n    yield\n"),
        r"r004_\w+\.py:\d+: `downgrade`",
    ),
    History("no-upgrade", edited("r004", "def upgrade", "def upgrad"), "r004_.*no function `upgrade`"),
    History("label-twice", labelled_twice, "billing"),
    History("unknown-revision", lambda _: None, "r999", asked="r999"),
    History("ambiguous-revision", lambda _: None, "r00", asked="r00"),
    History("folder-missing", without_scripts, "alembic"),
]


class Server:
    """Counts who comes."""

    def __init__(self, listening: socket.socket) -> None:
        self.visitors = 0
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                self._listening.accept()[0].close()
            except OSError:
                return
            self.visitors += 1


@pytest.fixture
def server() -> Iterator[Server]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield Server(listening)
        listening.shutdown(socket.SHUT_RDWR)


def load(folder: Path, server: Server) -> Project:
    address = f"fleet@127.0.0.1:{server.port}"
    (folder / "tenants.yaml").write_text(
        "version: 1\nproject: shop\ntenants:\n"
        f'  acme: {{url: "postgresql+psycopg://{address}/acme"}}\n  globex: {{url: "mysql+pymysql://{address}/globex"}}\n'
    )
    return Project.load(folder / "alembic.ini")


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
def test_a_bad_history_is_refused_before_anybody_is_asked(tmp_path: Path, server: Server, history: History) -> None:
    histories.write(tmp_path, size=6)
    history.spoil(tmp_path)
    with pytest.raises(ScriptsError) as refusal, load(tmp_path, server) as project:
        project.plan(revision=history.asked)
    assert re.search(history.says, str(refusal.value)), str(refusal.value)
    assert refusal.value.exit_code is ExitCode.USAGE
    assert server.visitors == 0


def test_a_good_history_does_ask(tmp_path: Path, server: Server) -> None:
    histories.write(tmp_path, size=6)
    with load(tmp_path, server) as project:
        project.plan()
    assert server.visitors > 0

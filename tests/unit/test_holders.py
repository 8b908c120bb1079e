"""Whether the process that holds the lease lives, as far as this machine can tell."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.ledger import Holder, holders, is_dead, this_process
from orchestrator.ledger.holders import is_alive

PRINT = "from orchestrator.ledger.holders import this_process as t; h = t('x'); print(h.pid, h.birth, flush=True); "


def test_this_process_lives() -> None:
    me = this_process("ann@build7")
    assert (me.operator, me.pid) == ("ann@build7", os.getpid())
    assert me == this_process("ann@build7")
    assert (is_alive(me), is_dead(me)) == (True, False)


def test_a_process_is_dead_from_its_end_on() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PRINT + "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    pid, birth = child.stdout.readline().split()
    holder = dataclasses.replace(this_process("x"), pid=int(pid), birth=birth)
    assert (is_alive(holder), is_dead(holder)) == (True, False)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert (is_alive(holder), is_dead(holder)) == (False, True)
    child.communicate()
    assert (is_alive(holder), is_dead(holder)) == (False, True)


def test_a_pid_that_is_used_again_is_another_process() -> None:
    me = this_process("x")
    earlier = dataclasses.replace(me, birth=f"{me.birth.rpartition('/')[0]}/1")
    assert (is_alive(earlier), is_dead(earlier)) == (False, True)


@pytest.mark.parametrize(
    "elsewhere",
    [{"host": "build7"}, {"birth": ""}, {"birth": "other-boot/4026531836/1"}, {"pid": 0}, {"pid": -1}, {"pid": 2**40}],
)
def test_nobody_knows_of_a_process_elsewhere(elsewhere: dict[str, object]) -> None:
    holder: Holder = dataclasses.replace(this_process("x"), **elsewhere)  # type: ignore[arg-type]
    assert (is_alive(holder), is_dead(holder)) == (False, False)


def test_a_process_that_may_not_be_looked_at_may_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of another user, on a system that hides those."""
    me = this_process("x")

    def deny(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(holders.os, "kill", deny)
    assert is_alive(me)
    monkeypatch.setattr(holders, "_stat", lambda _pid: None)
    assert (is_alive(me), is_dead(me)) == (False, False)


def test_where_the_system_tells_nothing_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holders, "_BOOT", tmp_path / "boot_id")
    me = this_process("x")
    assert me.birth == ""
    assert (is_alive(me), is_dead(me)) == (False, False)


THREAD = (
    PRINT + "import ctypes, threading; threading.Thread(target=input).start(); ctypes.CDLL(None).pthread_exit(None)"
)


def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    """Its first thread is a zombie then, the process is not."""
    child = subprocess.Popen([sys.executable, "-c", THREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid, birth = child.stdout.readline().split()
    holder = dataclasses.replace(this_process("x"), pid=int(pid), birth=birth)
    pause = threading.Event()
    while "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        pause.wait(0.01)
    assert (is_alive(holder), is_dead(holder)) == (True, False)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert (is_alive(holder), is_dead(holder)) == (False, True)
    child.communicate()

"""What worker processes owe beyond the contract: nothing leaks, nothing runs twice, nothing reaches the terminal."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.executors import Entry, ProcessExecutor, dispatching, lanes
from orchestrator.executors.contract import (
    PATIENCE,
    SCRIPTED,
    make_job,
    make_target,
    wait_until,
)
from orchestrator.outcomes import Outcome, Status
from orchestrator.tenants import Target


@pytest.fixture
def barrier(tmp_path: Path) -> Path:
    return tmp_path / "go"


@pytest.fixture
def opened() -> Iterator[Any]:
    executors = []

    def open_executor(*targets: Target, lanes: int = 1, entry: Entry = SCRIPTED, **fields: Any) -> ProcessExecutor:
        named = {target.name: target for target in targets or (make_target("acme"),)}
        executors.append(ProcessExecutor(lanes, settings=fields.get("settings"), targets=named, entry=entry))
        return executors[-1]

    yield open_executor
    for executor in executors:
        executor.close(cancel=True)


def answer(executor: ProcessExecutor, target: str, variable: str = "") -> tuple[str, str]:
    """Process id of the worker that took the job, and what a variable of its environment holds."""
    outcome = executor.submit(make_job(target, f"answer:{variable}")).result(PATIENCE)
    assert outcome.at is not None
    pid, value = outcome.at
    return pid, value


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("orchestrate-")]


class TestCleanliness:
    @pytest.mark.parametrize("ending", ["upgrade", "kill", "cancel"])
    def test_nothing_is_left_after_closing(self, opened: Any, barrier: Path, ending: str) -> None:
        self._use(opened(make_target("acme")), barrier, "upgrade")  # starts the forkserver, which stays
        before = sorted(Path("/proc/self/fd").iterdir())
        self._use(opened(make_target("acme")), barrier, ending)
        assert sorted(Path("/proc/self/fd").iterdir()) == before
        assert threads_of_ours() == []
        assert multiprocessing.active_children() == []

    def _use(self, executor: ProcessExecutor, barrier: Path, ending: str) -> None:
        action = {"kill": "kill", "cancel": f"wait:{barrier}"}.get(ending, "")
        future = executor.submit(make_job("acme", action))
        if ending == "cancel":
            wait_until(Path(f"{barrier}.acme.runs").exists)
        else:
            future.result(PATIENCE)
        executor.close(cancel=ending == "cancel")
        assert future.done()

    def test_an_executor_that_is_not_used_starts_nothing(self) -> None:
        executor = ProcessExecutor(4, settings=None, targets={})
        assert threads_of_ours() == []
        executor.close()

    def test_workers_leave_when_the_parent_is_gone(self, tmp_path: Path) -> None:
        script = """
            import os, signal
            from orchestrator.executors import ProcessExecutor
            from orchestrator.executors.contract import SCRIPTED, make_job, make_target
            executor = ProcessExecutor(1, settings=None, targets={"acme": make_target("acme")}, entry=SCRIPTED)
            print(executor.submit(make_job("acme", "answer:")).result().at[0], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
        pid = run_script(tmp_path, script, returncode=-signal.SIGKILL).stdout.strip()
        wait_until(lambda: not Path("/proc", pid).exists())

    def test_a_program_that_forgets_to_close_ends_all_the_same(self, tmp_path: Path) -> None:
        script = """
            from orchestrator.executors import ProcessExecutor
            from orchestrator.executors.contract import SCRIPTED, make_job, make_target
            executor = ProcessExecutor(1, settings=None, targets={"acme": make_target("acme")}, entry=SCRIPTED)
            print(executor.submit(make_job("acme", "answer:")).result().status)
        """
        assert run_script(tmp_path, script).stdout == "upgraded\n"


def run_script(folder: Path, text: str, returncode: int = 0) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == returncode, done.stderr
    return done


class TestTheCallersProgram:
    @pytest.mark.parametrize("method", ["forkserver", "spawn"])
    def test_a_script_without_a_main_guard_runs_once(self, tmp_path: Path, method: str) -> None:
        script = f"""
            import multiprocessing
            multiprocessing.get_all_start_methods = lambda: [{method!r}]
            print("the script runs", flush=True)
            from orchestrator.executors import ProcessExecutor
            from orchestrator.executors.contract import SCRIPTED, make_job, make_target
            targets = {{name: make_target(name) for name in ("acme", "globex")}}
            executor = ProcessExecutor(2, settings=None, targets=targets, entry=SCRIPTED)
            futures = [executor.submit(make_job(name, "print")) for name in targets]
            print(*(future.result().status.value for future in futures), flush=True)
            executor.close()
            import sys
            assert sys.modules["__main__"].targets is targets
        """
        done = run_script(tmp_path, script)
        assert done.stdout == "the script runs\nupgraded upgraded\n"
        assert done.stderr.count("printed by a job") == 2
        assert done.stderr.count("written by a job") == 2

    def test_the_main_module_is_back_when_two_executors_start_at_once(self, opened: Any) -> None:
        main = sys.modules["__main__"]
        executors = [opened() for _ in range(3)]
        for future in [executor.submit(make_job("acme")) for executor in executors]:
            assert future.result(PATIENCE).status is Status.UPGRADED
        assert sys.modules["__main__"] is main

    def test_workers_see_the_environment_of_now(self, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        answer(opened(), "acme")  # the forkserver runs from here on
        monkeypatch.setenv("ORCHESTRATE_TEST_NOW", "now")
        assert answer(opened(), "acme", "ORCHESTRATE_TEST_NOW")[1] == "now"

    def test_secrets_stand_in_no_command_line(self, opened: Any) -> None:
        pid, _ = answer(opened(), "acme")
        assert b"s3cret" not in Path("/proc", pid, "cmdline").read_bytes()
        assert b"s3cret" not in Path("/proc", pid, "environ").read_bytes()


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_from_elsewhere_does_not_disturb_a_job(
        self, opened: Any, barrier: Path, number: signal.Signals
    ) -> None:
        executor = opened(make_target("acme"), make_target("next"))
        pid, _ = answer(executor, "acme")
        future = executor.submit(make_job("acme", f"wait:{barrier}"))
        wait_until(Path(f"{barrier}.acme.runs").exists)
        os.kill(int(pid), number)
        after = executor.submit(make_job("next"))
        barrier.touch()
        assert future.result(PATIENCE).status is Status.UPGRADED
        assert after.result(PATIENCE).status is Status.UPGRADED

    def test_workers_are_out_of_reach_of_the_terminal(self, opened: Any) -> None:
        pid, _ = answer(opened(), "acme")
        assert os.getsid(int(pid)) != os.getsid(0)
        assert os.getpgid(int(pid)) != os.getpgid(0)

    def test_a_worker_that_dies_idle_is_replaced_unnoticed(self, opened: Any) -> None:
        executor = opened()
        pid, _ = answer(executor, "acme")
        os.kill(int(pid), signal.SIGKILL)
        other, _ = answer(executor, "acme")
        assert other != pid

    @pytest.mark.parametrize("limit", [0.2, 7200.0])
    def test_a_job_that_clings_is_killed(
        self, opened: Any, barrier: Path, monkeypatch: pytest.MonkeyPatch, limit: float
    ) -> None:
        monkeypatch.setattr(lanes, "GRACE", 0.2)
        executor = opened(make_target("acme", limit=limit))
        future = executor.submit(make_job("acme", f"cling:{barrier}"))
        wait_until(Path(f"{barrier}.acme.runs").exists)
        if limit > 1:
            executor.close(cancel=True)
        outcome = future.result(PATIENCE)
        assert outcome.status is Status.LOST
        assert outcome.failure is not None
        assert outcome.failure.code == ("job_timeout" if limit < 1 else "cancelled")
        assert outcome.started_at is not None
        assert outcome.duration_ms is not None


class TestTheServerOfTheWorkers:
    """The process that workers are forked from may be killed like any other."""

    @staticmethod
    def kill_it() -> None:
        pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path("/proc", str(pid)).exists() or "Z" in Path("/proc", str(pid), "stat").read_text())

    def test_jobs_in_flight_finish_and_new_workers_start(self, opened: Any, barrier: Path) -> None:
        executor = opened(make_target("acme"), make_target("globex"), lanes=2)
        held = executor.submit(make_job("acme", f"wait:{barrier}"))
        wait_until(Path(f"{barrier}.acme.runs").exists)
        self.kill_it()
        assert executor.submit(make_job("globex")).result(PATIENCE).status is Status.UPGRADED
        barrier.touch()
        assert held.result(PATIENCE).status is Status.UPGRADED

    @pytest.mark.parametrize("limit", [0.2, 7200.0])
    def test_a_job_that_clings_is_killed_all_the_same(
        self, opened: Any, barrier: Path, monkeypatch: pytest.MonkeyPatch, limit: float
    ) -> None:
        monkeypatch.setattr(lanes, "GRACE", 0.2)
        executor = opened(make_target("acme", limit=limit), make_target("globex"), lanes=2)
        future = executor.submit(make_job("acme", f"cling:{barrier}"))
        wait_until(Path(f"{barrier}.acme.runs").exists)
        self.kill_it()
        executor.submit(make_job("globex")).result(PATIENCE)  # multiprocessing notices that all workers "ended"
        if limit > 1:
            executor.close(cancel=True)
        assert future.result(PATIENCE).status is Status.LOST

    def test_a_worker_killed_after_it_is_lost_at_once(self, opened: Any, barrier: Path) -> None:
        executor = opened()
        pid, _ = answer(executor, "acme")
        future = executor.submit(make_job("acme", f"wait:{barrier}"))
        wait_until(Path(f"{barrier}.acme.runs").exists)
        self.kill_it()
        os.kill(int(pid), signal.SIGKILL)
        assert future.result(lanes.GRACE).status is Status.LOST


BROKEN_MODULES = {
    "missing": ("no_such_module_anywhere:prepare", "No module named"),
    "no_function": ("orchestrator.executors.contract:nothing_there", "nothing_there"),
    "raises": ("tests.contracts.test_executor_processes:refuse", "env.py of this project is broken"),
    "dies": ("tests.contracts.test_executor_processes:die", "exit status 9"),
}


def refuse(settings: object) -> None:
    raise OrchestratorError("env.py of this project is broken: postgresql://app:s3cret@db/x")


def rest() -> None:
    Path(os.environ["ORCHESTRATE_TEST_RESTED"]).touch()
    raise OSError("the connection is gone already")


def die(settings: object) -> None:
    os._exit(9)


class TestStarting:
    @pytest.mark.parametrize("name", BROKEN_MODULES)
    def test_workers_that_cannot_start_are_an_error_that_says_why(self, opened: Any, name: str) -> None:
        prepare, text = BROKEN_MODULES[name]
        executor = opened(lanes=2, entry=Entry(prepare=prepare, run=SCRIPTED.run, finish=None))
        futures = [executor.submit(make_job("acme")) for _ in range(5)]
        for future in futures:
            error = future.exception(PATIENCE)
            assert isinstance(error, OrchestratorError)
            assert text in str(error)
            assert "s3cret" not in str(error)
        late = executor.submit(make_job("acme")).exception(PATIENCE)
        assert isinstance(late, OrchestratorError)

    def test_settings_that_cannot_be_sent_are_an_error(self, opened: Any) -> None:
        error = opened(settings=threading.Lock()).submit(make_job("acme")).exception(PATIENCE)
        assert isinstance(error, OrchestratorError)
        assert "settings" in str(error)

    def test_no_worker_can_be_started(self, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object) -> None:
            raise OSError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(dispatching, "Lane", fail)
        error = opened().submit(make_job("acme")).exception(PATIENCE)
        assert isinstance(error, OrchestratorError)
        assert "temporarily unavailable" in str(error)

    def test_a_fault_in_the_dispatcher_leaves_no_future_open(
        self, opened: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(dispatching.Dispatcher, "_assign", fail)
        executor = opened()
        assert isinstance(executor.submit(make_job("acme")).exception(PATIENCE), OrchestratorError)
        assert isinstance(executor.submit(make_job("acme")).exception(PATIENCE), OrchestratorError)
        executor.close()

    def test_at_least_one_lane(self) -> None:
        with pytest.raises(UsageError, match="at least 1"):
            ProcessExecutor(0, settings=None, targets={})


class TestLanes:
    def test_where_there_is_no_forkserver(self, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn", "fork"])
        executor = opened()
        lost, done = executor.submit(make_job("acme", "kill")), executor.submit(make_job("acme"))
        assert lost.result(PATIENCE).status is Status.LOST
        assert done.result(PATIENCE).status is Status.UPGRADED

    def test_no_more_processes_than_lanes(self, opened: Any) -> None:
        executor = opened(lanes=2)
        futures = [executor.submit(make_job("acme", "answer:")) for _ in range(20)]
        pids = {future.result(PATIENCE).at[0] for future in futures}
        assert 1 <= len(pids) <= 2

    def test_a_job_goes_where_its_database_is_known(self, opened: Any, barrier: Path) -> None:
        one = [make_target(name, database="one") for name in ("a", "b")]
        two = [make_target(name, database="two") for name in ("x", "y")]
        executor = opened(*one, *two, lanes=2)
        held = executor.submit(make_job("a", f"wait:{barrier}"))
        wait_until(Path(f"{barrier}.a.runs").exists)
        second, _ = answer(executor, "x")
        barrier.touch()
        held.result(PATIENCE)
        first, _ = answer(executor, "b")
        assert first != second
        assert [answer(executor, name)[0] for name in ("y", "a", "x", "b")] == [second, first, second, first]

    def test_a_worker_that_got_no_connection_is_not_taken_for_one_that_has_one(
        self, opened: Any, barrier: Path
    ) -> None:
        executor = opened(*(make_target(name) for name in "abc"), lanes=2)
        held = executor.submit(make_job("a", f"wait:{barrier}"))
        wait_until(Path(f"{barrier}.a.runs").exists)
        second, _ = answer(executor, "b")
        barrier.touch()
        held.result(PATIENCE)
        assert executor.submit(make_job("c", "crowd")).result(PATIENCE).status is Status.FAILED
        assert [answer(executor, name)[0] for name in "cab"] == [second] * 3

    def test_a_worker_without_work_lets_go_of_what_it_keeps(
        self, opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ORCHESTRATE_TEST_RESTED", str(tmp_path / "rested"))
        rest = "tests.contracts.test_executor_processes:rest"
        executor = opened(entry=dataclasses.replace(SCRIPTED, rest=rest))
        pid, _ = answer(executor, "acme")
        wait_until((tmp_path / "rested").exists)
        assert answer(executor, "acme")[0] == pid, "it works on, though letting go has failed"

    def test_a_job_of_an_unknown_target_fails(self, opened: Any) -> None:
        outcome = opened().submit(make_job("stranger")).result(PATIENCE)
        assert_not_sent(outcome)

    def test_a_target_that_cannot_be_sent_fails_untouched(self, opened: Any) -> None:
        target = make_target("acme")
        target.connect_args["handle"] = threading.Lock()  # type: ignore[index]
        with pytest.raises(TypeError):
            pickle.dumps(target)
        executor = opened(target, make_target("globex"))
        assert_not_sent(executor.submit(make_job("acme")).result(PATIENCE))
        assert executor.submit(make_job("globex")).result(PATIENCE).status is Status.UPGRADED


def assert_not_sent(outcome: Outcome) -> None:
    assert outcome.status is Status.FAILED
    assert outcome.at == outcome.found
    assert outcome.failure is not None
    assert outcome.failure.code == "internal"

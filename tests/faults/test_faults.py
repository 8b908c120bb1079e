"""The scenarios in their short forms; each asserts itself what must hold, and returns figures.

Where the two servers can hardly differ, one of them stands for both here; the long forms have both.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.faults import cuts, ledgers, orphans, outages, pooling, rivals
from tests.faults.stage import Stage

both = pytest.mark.parametrize("kind", ["postgresql", "mariadb"])


class TestConnectionsThatBreak:
    @both
    def test_a_commit_whose_answer_is_lost_is_settled_by_reading_the_version(self, stage: Stage, kind: str) -> None:
        figures = cuts.ambiguous_commits(stage, kind, before=2, after=3)
        assert figures["told to be upgraded"] == 10

    def test_a_lost_answer_is_no_failure_even_without_another_try(self, stage: Stage) -> None:
        figures = cuts.ambiguous_commits(stage, "postgresql", before=0, after=3, again=False)
        assert figures["settled by reading the version"] == 3

    @both
    def test_random_resets_are_lived_through(self, stage: Stage, kind: str) -> None:
        figures = cuts.random_resets(stage, kind, count=12, statements=0.02)
        assert figures["at head"] == 12
        assert figures["resets"]

    def test_a_job_that_is_stuck_in_the_network_ends_at_its_limit(self, stage: Stage) -> None:
        assert cuts.stalls(stage, "postgresql", seconds=60, limit=6)["ended at the limit"] == 1


class TestServersInTrouble:
    def test_too_few_connections_fail_nobody(self, stage: Stage) -> None:
        assert outages.crowded(stage, "postgresql", count=10, slots=8, jobs=8)["failed"] == 0

    def test_one_server_down_holds_up_its_own_targets_only(self, stage: Stage) -> None:
        figures = outages.one_of_five_down(stage, each=3)
        assert figures["its targets deferred"]

    def test_a_server_that_comes_back_in_time_is_finished_by_the_run(self, stage: Stage) -> None:
        assert outages.comes_back(stage, each=3, seconds=0.5)["refused"]

    def test_a_server_that_is_killed_and_comes_back(self, stage: Stage) -> None:
        assert outages.server_dies(stage, "mariadb", count=5, at=3, down=0.5)["tried more than once"]


class TestLedgersInTrouble:
    def test_nothing_is_begun_that_an_unreachable_ledger_does_not_know(self, stage: Stage) -> None:
        assert ledgers.unreachable(stage, count=6, after=3)["resume ended with"] == 0

    def test_nothing_is_begun_that_a_full_disk_does_not_know(self, stage: Stage) -> None:
        may_mount = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], check=False).returncode
        if may_mount:
            pytest.skip("a disk of a few pages needs user namespaces, which this machine does not grant")
        assert ledgers.full(stage, count=24)["resume ended with"] == 0


class TestOrphans:
    @pytest.mark.parametrize(("kind", "end"), [("mariadb", False), ("postgresql", True)], ids=["waited for", "ended"])
    def test_a_statement_of_a_dead_runner_is_never_joined(self, stage: Stage, kind: str, end: bool) -> None:
        assert orphans.long_statement(stage, kind, end=end)["begun beside it"] == 0

    def test_the_lock_of_a_dead_runner_ends_by_itself(self, stage: Stage) -> None:
        assert orphans.stale_lock(stage, "postgresql")["rounds"] == 1

    def test_the_lock_of_a_dead_worker_ends_by_itself(self, stage: Stage) -> None:
        assert orphans.worker_dies(stage, "postgresql", count=2)["most attempts"] == 2


class TestRivals:
    def test_orchestrators_of_one_ledger_work_one_at_a_time(self, stage: Stage) -> None:
        assert rivals.same_ledger(stage, "postgresql", rivals=4, count=4)["spans"] == 12

    def test_orchestrators_of_different_ledgers_never_overlap(self, stage: Stage) -> None:
        assert rivals.different_ledgers(stage, "postgresql", rivals=3, count=4)["told upgraded"] == 4

    def test_hands_and_orchestrator_never_overlap(self, stage: Stage) -> None:
        assert rivals.by_hand(stage, "mariadb", hands=2, count=4)["spans"] == 12

    def test_concurrent_index_builds_survive_those_who_wait(self, stage: Stage) -> None:
        assert rivals.concurrently(stage, rivals=3, count=4)["concurrent builds"] == 4

    def test_schemas_of_one_database_are_not_in_each_others_way(self, stage: Stage) -> None:
        assert rivals.many_schemas(stage, count=16, jobs=4, compare=False)["told to be locked"] == 0

    @both
    def test_a_table_that_an_application_holds_is_waited_for(self, stage: Stage, kind: str) -> None:
        assert rivals.locked_table(stage, kind, seconds=3, busy="[1s, 2s, 4s]", count=3)["tries of the tenant"] > 1


class TestPoolers:
    @pytest.mark.parametrize(("pool_size", "clients"), [(1, 0), (20, 6)])
    def test_a_transaction_pooler_is_refused_before_anything_is_done(
        self, stage: Stage, pool_size: int, clients: int
    ) -> None:
        assert pooling.refused(stage, pool_size=pool_size, clients=clients, rounds=20, commands=1)

    def test_a_session_pooler_is_accepted(self, stage: Stage) -> None:
        assert pooling.accepted(stage, pool_size=4, count=3)["at head"] == 3

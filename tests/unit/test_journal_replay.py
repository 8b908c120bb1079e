"""How a second try follows the journal of the first, without a database."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import uuid

import pytest

from orchestrator.databases import journal_answers
from orchestrator.databases.journal_entries import NOTHING, Entry, EntryKind, Replay, State, Strayed
from orchestrator.databases.revision_files import traits_of
from orchestrator.databases.statements import Dialect, StatementKind, read, unquoted


def entries(*given: str, intended: bool = True) -> list[Entry]:
    """`data:a`, `definition:b` …; the last definition is only announced."""
    made = []
    for position, text in enumerate(given, start=1):
        kind, _, digest = text.partition(":")
        last = position == len(given) and kind == "definition" and intended
        made.append(
            Entry(
                position=position,
                kind=EntryKind(kind),
                digest=digest,
                state=State.INTENDED if last or kind == "definition" else State.DONE,
                attempt="first",
                rowcount=position,
            )
        )
    return made


def test_a_definition_is_done_when_its_try_went_on() -> None:
    replay = Replay(entries("definition:a", "data:b", "definition:c"))
    first, last = replay.meet_definition("a"), replay.meet_definition("c")
    assert first is not None
    assert last is not None
    assert (first.state, last.state) == (State.DONE, State.INTENDED)
    assert replay.is_over


def test_equal_statements_are_met_one_by_one() -> None:
    replay = Replay(entries("data:a", "data:a", "definition:d"))
    counts = [replay.meet_data("a").rowcount for _ in range(2)]  # type: ignore[union-attr]
    assert counts == [1, 2]


def test_data_that_reads_differently_is_trusted_until_its_commit_comes() -> None:
    replay = Replay(entries("data:a", "data:b", "definition:d"))
    met = replay.meet_data("x")
    assert met is not None
    assert met.rowcount == 1
    assert replay.meet_data("y") is not None
    assert replay.meet_data("z") is NOTHING
    assert replay.meet_definition("d") is not None
    replay.finish()
    assert replay.meet_data("after") is None


def test_data_left_out_in_trust_of_a_commit_that_never_comes_is_noticed() -> None:
    replay = Replay(entries("data:a", "definition:d"))
    replay.look(at_catalog=False)
    assert replay.meet_data("x") is not None
    with pytest.raises(Strayed):
        replay.finish()


def test_a_definition_that_passes_over_a_promised_one_is_noticed() -> None:
    replay = Replay(entries("data:a", "definition:d", "definition:e"))
    assert replay.meet_data("x") is not None
    with pytest.raises(Strayed):
        replay.meet_definition("e")


def test_a_revision_that_looks_may_leave_out_what_is_there() -> None:
    replay = Replay(entries("definition:a", "data:b", "definition:c"))
    replay.look(at_catalog=True)
    assert replay.meet_data("b") is not None
    replay.look(at_catalog=True)
    assert replay.meet_data("new") is None
    replay.finish()


def test_a_revision_that_looks_does_not_get_away_with_what_may_be_either() -> None:
    replay = Replay(entries("definition:a", "data:b", "definition:c"))
    replay.look(at_catalog=True)
    with pytest.raises(Strayed):
        replay.meet_data("new")


def test_batches_that_were_chosen_by_reading_are_not_guessed_at() -> None:
    replay = Replay(entries("data:a", "commit:", "data:b", "commit:"))
    replay.look(at_catalog=False)
    with pytest.raises(Strayed):
        replay.meet_data("c")


def test_a_commit_is_passed_where_the_first_try_committed() -> None:
    replay = Replay(entries("data:a", "commit:", "definition:d"))
    assert replay.meet_data("x") is not None
    assert replay.meet_commit()
    assert replay.meet_definition("d") is not None
    assert not replay.meet_commit()


def test_an_unknown_definition_is_refused_unless_the_revision_looked() -> None:
    replay = Replay(entries("definition:a"))
    with pytest.raises(Strayed):
        replay.meet_definition("other")
    replay.look(at_catalog=True)
    assert replay.meet_definition("other") is None


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("INSERT INTO `a b` (x) VALUES ('; DROP TABLE c')", StatementKind.DATA, "a b"),
        ("/* note */ -- more\n UPDATE IGNORE accounts SET a = 1", StatementKind.DATA, "accounts"),
        ("/*!50001 CREATE TABLE x (a int) */", StatementKind.DEFINITION, "x"),
        ("WITH c AS (SELECT 1) SELECT * FROM c FOR UPDATE", StatementKind.READ, None),
        ("WITH c AS (SELECT 1) DELETE FROM a", StatementKind.DATA, None),
        ("CREATE TABLE t (id int, INDEX (id), at TIMESTAMP ON UPDATE now())", StatementKind.DEFINITION, "t"),
        ("CREATE TEMPORARY TABLE t (a int)", StatementKind.SESSION, "t"),
        (
            "CREATE TRIGGER g BEFORE INSERT ON a FOR EACH ROW BEGIN SET x=1; SET y=2; END",
            StatementKind.DEFINITION,
            None,
        ),
        ("DROP TABLE a; DROP TABLE b", StatementKind.OTHER, "a"),
        ("SET autocommit = 1", StatementKind.COMMIT, None),
        ("ROLLBACK TO SAVEPOINT a", StatementKind.SESSION, None),
        ("CALL work()", StatementKind.OTHER, None),
    ],
)
def test_statements_are_told_apart(text: str, kind: StatementKind, name: str | None) -> None:
    statement = read(text, Dialect.MYSQL)
    assert (statement.kind, statement.object and unquoted(statement.object)) == (kind, name)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('CREATE UNIQUE INDEX CONCURRENTLY "i" ON t (a)', StatementKind.DEFINITION),
        ("CREATE INDEX i ON t (a)", StatementKind.DATA),
        ("DO $$ BEGIN PERFORM 1; END $$", StatementKind.DATA),
        ("SELECT * INTO copy FROM t", StatementKind.DATA),
        ("VACUUM t", StatementKind.SESSION),
        ("CALL work()", StatementKind.OTHER),
    ],
)
def test_most_statements_fit_into_a_transaction_on_postgresql(text: str, kind: StatementKind) -> None:
    assert read(text, Dialect.POSTGRESQL).kind is kind


def test_no_value_gets_into_a_summary() -> None:
    assert read("UPDATE accounts SET token = 'S3cret', n = 5", Dialect.MYSQL).summary == "UPDATE accounts SET token"


@pytest.mark.parametrize(
    ("source", "commits"),
    [
        ("from alembic import op\nop.add_column('a', None)", False),
        ("with op.get_context().autocommit_block(): pass", True),
        ("op.get_bind().execution_options(isolation_level='AUTOCOMMIT')", True),
        ("op.execute('COMMIT')", True),
        ("from billing.helpers import concurrently", True),
        ("def upgrade(:", True),
    ],
)
def test_a_file_shows_whether_it_may_commit(source: str, commits: bool) -> None:
    assert traits_of(source.encode()).may_commit is commits


def test_a_file_that_asks_for_the_database_may_rebuild_on_another() -> None:
    rebuild = "with op.batch_alter_table('a', recreate='always') as batch: pass"
    assert traits_of(rebuild.encode()).rebuilds == (1,)
    assert traits_of(f"if bind.dialect.name == 'sqlite':\n    {rebuild}".encode()).rebuilds == ()


def test_what_was_read_is_read_again_in_its_order_up_to_where_the_try_was_cut_off() -> None:
    replay = Replay(entries("read:a", "data:b", "read:a", "definition:d", "read:c", "definition:e"))
    positions = []
    for digest in ("a", "a"):
        met = replay.meet_read(digest, "")
        assert met is not None
        positions.append(met.position)
    assert positions == [1, 3]
    assert replay.meet_read("c", "") is None
    assert replay.meet_definition("d") is not None
    assert replay.meet_read("c", "") is not None
    assert replay.meet_definition("e") is not None
    assert replay.meet_read("c", "") is None


def test_a_read_whose_parameters_differ_is_the_one_that_was() -> None:
    read_once = dataclasses.replace(entries("read:a")[0], probe="like a")
    replay = Replay([read_once, *entries("definition:d")])
    assert replay.meet_read("with another number", "like another") is None
    assert replay.meet_read("with another number", "like a") is read_once


def test_what_was_read_is_no_data_that_may_be_left_out_in_trust() -> None:
    replay = Replay(entries("read:a", "data:b", "read:c", "definition:d"))
    met = replay.meet_data("reads differently")
    assert met is not None
    assert met.position == 2
    assert replay.meet_data("one too many") is NOTHING


VALUES = (
    None, True, 7, 1.5, "ü", b"\x00\xff", decimal.Decimal("1.50"), uuid.UUID(int=7), datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC), datetime.time(1, 2, 3), datetime.timedelta(-1, 5, 7),
    [1, "two", [decimal.Decimal(3)]], {"list": [1], "decimal": "no"}, {"a", "b"}, (1, (2,)),
)  # fmt: skip


def test_an_answer_comes_back_with_its_types() -> None:
    text = journal_answers.written([("one", 3, None), ("two", "text", None)], [(value, value) for value in VALUES])
    kept = journal_answers.read(text)
    assert kept == ([("one", 3), ("two", None)], [(value, value) for value in VALUES])
    assert [type(row[0]) for row in kept[1]] == [type(value) for value in VALUES]


@pytest.mark.parametrize("rows", [[("x" * 1_000_001,)], [(1,)] * 20_001, [(object,)]])
def test_of_an_answer_that_cannot_be_kept_only_what_it_was_is_known(rows: list[tuple[object, ...]]) -> None:
    text = journal_answers.written([("one", None)], rows)
    assert journal_answers.read(text) is None
    assert text == journal_answers.written([("one", None)], rows)
    assert text != journal_answers.written([("one", None)], [*rows, *rows])

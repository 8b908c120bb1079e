"""Windows and freezes: what may be written, when they are open, and what a change of the clock does to them."""

from __future__ import annotations

import datetime
import re
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import windows
from orchestrator.windows import Freeze, Window

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Beirut")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTE = datetime.timedelta(minutes=1)


def utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


def opening(text: str, moment: str) -> str:
    return f"{Window.parse(text).next_opening(utc(moment)):%Y-%m-%d %H:%M}"


def open_minutes(text: str, begin: str, minutes: int) -> list[str]:
    """Each minute, in UTC, at which the window is open."""
    window = Window.parse(text)
    moments = (utc(begin) + number * MINUTE for number in range(minutes))
    return [f"{moment:%H:%M}" for moment in moments if window.contains(moment)]


# What may be written


@pytest.mark.parametrize(
    ("text", "days", "begin", "end"),
    [
        ("Sat 02:00-04:00 Europe/Berlin", {5}, 120, 240),
        ("Mon-Fri 22:00-06:00 UTC", {0, 1, 2, 3, 4}, 1320, 360),
        ("Sat,Sun 01:00-05:00", {5, 6}, 60, 300),
        ("Fri-Mon,Wed 1:00-5:00", {4, 5, 6, 0, 2}, 60, 300),
        ("02:00-04:00", set(range(7)), 120, 240),
        ("saturday, SUNDAY 02:00 - 24:00 utc", {5, 6}, 120, 1440),
        ("Sat", {5}, 0, 1440),
        ("Sat America/New_York", {5}, 0, 1440),
    ],
)
def test_a_window_may_be_written_so(text: str, days: set[int], begin: int, end: int) -> None:
    window = Window.parse(text)

    assert (window.days, window.begin, window.end) == (days, begin, end)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no window; write it like"),
        ("Europe/Berlin", "is no window; write it like"),
        ("Sat 02:00", "`Sat 02:00` is no window"),
        ("Sat 02:00-04:00 Europe/Berlin twice", "is no window"),
        ("Sat-Fun 02:00-04:00", "`Sat-Fun` names no days; write Mon, Tue"),
        ("Mon-Wed-Fri", "`Mon-Wed-Fri` names no days"),
        ("Samstag 02:00-04:00", "`Samstag 02:00-04:00` is no window"),
        ("02:00-25:00", "`02:00-25:00` are no times of a day"),
        ("24:00-02:00", "`24:00-02:00` are no times of a day"),
        ("02:60-03:00", "`02:60-03:00` are no times of a day"),
        ("24:30-02:00", "are no times of a day"),
        ("02:00-02:00", "begins when it ends; write 00:00-24:00"),
        ("02:00-04:00 Europe/Berln", "unknown time zone `Europe/Berln`; did you mean `Europe/Berlin`"),
        ("02:00-04:00 ../../etc/passwd", "is no window"),
        ("02:00-04:00 Europe/../../passwd", "unknown time zone"),
        ("02:00-04:00 Europe", "unknown time zone `Europe`"),
        ("02:00-04:00 XQ!", "unknown time zone `XQ!`; write it like Europe/Berlin"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Window.parse(text)


def test_a_machine_without_zone_files_says_so_and_still_knows_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(key: str) -> zoneinfo.ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(key)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    monkeypatch.setattr(windows, "_known_zones", tuple)

    assert Window.parse("Sat 02:00-04:00 UTC").zone is datetime.UTC
    with pytest.raises(ValueError, match="no time zones on this machine: install the package tzdata"):
        Window.parse("Sat 02:00-04:00 Europe/Berlin")


# When it is open


def test_a_window_holds_its_beginning_and_not_its_end() -> None:
    assert open_minutes("Sat 02:00-02:03", "2026-11-28 00:00", 1440) == ["02:00", "02:01", "02:02"]


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    assert open_minutes("Fri 23:58-00:02", "2026-11-27 12:00", 1440) == ["23:58", "23:59", "00:00", "00:01"]
    assert open_minutes("Fri 23:58-00:02", "2026-11-26 12:00", 1440) == []


def test_a_day_alone_is_the_whole_of_it() -> None:
    assert len(open_minutes("Sat", "2026-11-27 00:00", 3 * 1440)) == 1440


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        ("Sat 02:00-04:00", "2026-11-28 03:00", "2026-11-28 03:00"),
        ("Sat 02:00-04:00", "2026-11-28 04:00", "2026-12-05 02:00"),
        ("Sat 02:00-04:00", "2026-11-30 04:00", "2026-12-05 02:00"),
        ("Sat 02:00-04:00 Europe/Berlin", "2026-11-30 04:00", "2026-12-05 01:00"),
        ("Sat 02:00-04:00 Europe/Berlin", "2026-07-01 04:00", "2026-07-04 00:00"),
        ("22:00-06:00 America/New_York", "2026-11-30 12:00", "2026-12-01 03:00"),
    ],
)
def test_the_next_opening_is_in_utc(text: str, moment: str, expected: str) -> None:
    assert opening(text, moment) == expected


# Berlin leaves out 02:00 to 03:00 on 29 March 2026 (01:00 UTC) and has it twice on 25 October (00:00 to 02:00 UTC).


def test_a_window_within_the_hour_that_is_left_out_does_not_happen_on_that_day() -> None:
    assert open_minutes("Sun 02:00-03:00 Europe/Berlin", "2026-03-28 22:00", 1440) == []
    assert opening("Sun 02:00-03:00 Europe/Berlin", "2026-03-28 22:00") == "2026-04-05 00:00"


def test_a_window_that_begins_in_the_hour_that_is_left_out_opens_behind_it() -> None:
    assert opening("Sun 02:30-04:00 Europe/Berlin", "2026-03-28 22:00") == "2026-03-29 01:00"
    assert len(open_minutes("Sun 02:30-04:00 Europe/Berlin", "2026-03-28 22:00", 1440)) == 60


def test_a_window_within_the_hour_that_comes_twice_happens_twice() -> None:
    text = "Sun 02:10-02:12 Europe/Berlin"

    assert open_minutes(text, "2026-10-24 22:00", 1440) == ["00:10", "00:11", "01:10", "01:11"]
    assert opening(text, "2026-10-25 00:12") == "2026-10-25 01:10"


def test_a_window_that_ended_in_the_hour_that_comes_twice_opens_again_with_it() -> None:
    # New York has 01:00 to 02:00 twice on 1 November 2026 (05:00 to 07:00 UTC).
    assert opening("Sun 00:30-01:30 America/New_York", "2026-11-01 05:30") == "2026-11-01 06:00"


def test_a_window_opens_behind_a_midnight_that_is_left_out() -> None:
    # Beirut leaves out 00:00 to 01:00 on 29 March 2026 (22:00 UTC the day before).
    assert opening("Sun 00:30-02:00 Asia/Beirut", "2026-03-28 12:00") == "2026-03-28 22:00"


def test_a_window_on_a_day_that_a_zone_leaves_out_opens_a_week_later() -> None:
    # Apia went from 29 to 31 December 2011, over a Friday.
    assert opening("Fri 02:00-04:00 Pacific/Apia", "2011-12-25 12:00") == "2012-01-05 12:00"


spans = st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda span: span[0] != span[1])
some_days = st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(",".join)
texts = st.builds(
    lambda days, span, zone: (
        f"{days} {span[0] // 60:02}:{span[0] % 60:02}-{span[1] // 60:02}:{span[1] % 60:02} {zone}".strip()
    ),
    st.just("") | some_days,
    spans,
    st.sampled_from(ZONES),
)
moments = st.datetimes(datetime.datetime(2026, 1, 1), datetime.datetime(2027, 12, 31)).map(
    lambda moment: moment.replace(tzinfo=datetime.UTC)
)
#: around the changes of the clock in Berlin, New York and Lord Howe
near_changes = st.builds(
    lambda day, minute: utc(day) + minute * MINUTE,
    st.sampled_from(["2026-03-07", "2026-03-28", "2026-10-24", "2026-10-31", "2026-04-04", "2026-10-03"]),
    st.integers(0, 2880),
)


@settings(deadline=None)  # the machine may be busy
@given(text=texts, moment=moments | near_changes)
def test_nothing_lies_between_a_moment_and_the_next_opening(text: str, moment: datetime.datetime) -> None:
    window = Window.parse(text)

    begin = window.next_opening(moment)

    assert begin >= moment
    assert window.contains(begin)
    if begin > moment:
        last = begin - datetime.timedelta(microseconds=1)
        steps = int((last - moment) / (7 * MINUTE))
        between = [moment + number * 7 * MINUTE for number in range(steps + 1)]
        minutes = [begin - number * MINUTE for number in range(1, 130) if begin - number * MINUTE >= moment]
        assert not any(window.contains(one) for one in (last, *between, *minutes))


@settings(deadline=None)  # the machine may be busy
@given(text=texts, moment=moments | near_changes)
def test_a_window_is_open_by_the_clock_on_the_wall(text: str, moment: datetime.datetime) -> None:
    window = Window.parse(text)
    here = moment.astimezone(window.zone)
    clock, day = f"{here:%H:%M}", here.weekday()
    begin, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (window.begin, window.end))
    spans = [(day, begin, "24:00"), (day - 1, "00:00", end)] if begin >= end else [(day, begin, end)]

    assert window.contains(moment) == any(one % 7 in window.days and a <= clock < b for one, a, b in spans)


# Freezes


@pytest.mark.parametrize(
    ("text", "first", "after"),
    [
        ("2026-12-24", "2026-12-24", "2026-12-25"),
        ("2026-12-20/2027-01-03", "2026-12-20", "2027-01-04"),
        (" 2026-12-24  Europe/Berlin ", "2026-12-24", "2026-12-25"),
    ],
)
def test_a_freeze_may_be_written_so(text: str, first: str, after: str) -> None:
    freeze = Freeze.parse(text)

    assert (freeze.first.isoformat(), freeze.after.isoformat()) == (first, after)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no day and no span of days; write it like `2026-12-24`"),
        ("Christmas", "`Christmas` is no day"),
        ("2026-02-30", "`2026-02-30` is no day"),
        ("2026-W52", "`2026-W52` is no day"),
        ("9999-12-31", "is no day"),
        ("2026-12-20/", "is no day"),
        ("2027-01-03/2026-12-20", "ends before it begins"),
        ("2026-12-24 Europe/Berlin too", "is more than days and a zone"),
        ("2026-12-24 Nowhere/Land", "unknown time zone `Nowhere/Land`"),
    ],
)
def test_another_freeze_is_refused_with_what_to_write(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        Freeze.parse(text)


def test_a_freeze_holds_from_midnight_of_its_first_day_to_midnight_after_its_last() -> None:
    freeze = Freeze.parse("2026-12-24/2026-12-25 Europe/Berlin")

    held = [freeze.contains(utc(f"2026-12-{text}")) for text in ("23 22:59", "23 23:00", "25 22:59", "25 23:00")]

    assert held == [False, True, True, False]
    assert freeze.ends(utc("2026-12-24 12:00")) == utc("2026-12-25 23:00")
    assert freeze.ends(utc("2026-12-27 12:00")) == utc("2026-12-27 12:00")


@settings(deadline=None)  # the machine may be busy
@given(days=st.integers(0, 5), moment=near_changes, zone=st.sampled_from(ZONES))
def test_a_freeze_ends_when_it_no_longer_holds_and_not_before(days: int, moment: datetime.datetime, zone: str) -> None:
    first = moment.astimezone(datetime.UTC).date()
    freeze = Freeze.parse(f"{first}/{first + datetime.timedelta(days=days)} {zone}")

    end = freeze.ends(moment)

    assert not freeze.contains(end)
    if end > moment:
        assert freeze.contains(end - datetime.timedelta(microseconds=1))


# Several together


def test_any_window_admits_and_none_means_always() -> None:
    both = ("Sat 02:00-04:00", "Sun 02:00-04:00")

    assert windows.is_open((), utc("2026-11-30 03:00"))
    assert windows.is_open(both, utc("2026-11-29 03:00"))
    assert not windows.is_open(both, utc("2026-11-30 03:00"))
    assert windows.next_opening((), utc("2026-11-30 03:00")) == utc("2026-11-30 03:00")
    assert windows.next_opening(both[::-1], utc("2026-11-30 03:00")) == utc("2026-12-05 02:00")


def test_freezes_that_follow_upon_each_other_end_together() -> None:
    freezes = ("2026-12-26/2026-12-31", "2026-12-24/2026-12-26", "2027-01-01", "2027-01-05")

    assert windows.frozen_until(freezes, utc("2026-12-23 23:59")) is None
    assert windows.frozen_until(freezes, utc("2026-12-24 10:00")) == utc("2027-01-02 00:00")
    assert windows.frozen_until((), utc("2026-12-24 10:00")) is None

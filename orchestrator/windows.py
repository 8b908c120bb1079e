"""When jobs may start: weekly windows and freezes, by the clock on the wall of their zone.

A change to or from summer time needs no rule of its own: a window is open while that clock shows a time in it. What
lies in the hour that is left out does not happen, and what lies in the hour that comes twice happens twice.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import itertools
import re
import zoneinfo
from collections.abc import Iterator, Sequence

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WHOLE_DAY = 24 * 60
_SECOND = datetime.timedelta(seconds=1)
_HOUR = datetime.timedelta(hours=1)

_BLANKS = re.compile(r"\s*([,-])\s*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")

_EXAMPLE = "write it like `Sat 02:00-04:00 Europe/Berlin`, `Mon-Fri 22:00-06:00` or `02:00-04:00`"
_FREEZE_EXAMPLE = "write it like `2026-12-24` or `2026-12-20/2027-01-03 Europe/Berlin`"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Times that come back every week; its end is no part of it."""

    #: on which it begins, 0 for Monday
    days: frozenset[int]
    #: minutes of the day
    begin: int
    #: minutes of the day, up to 24:00; of the next day where it is not after `begin`
    end: int
    zone: datetime.tzinfo

    @classmethod
    def parse(cls, text: str) -> Window:
        """`Sat 02:00-04:00 Europe/Berlin`, each of the three may be left out; raises ValueError for anything else."""
        words = _BLANKS.sub(r"\1", text.strip()).split()
        days, times = None, None
        if words and (days := _days(words[0])) is not None:
            words.pop(0)
        if words and (times := _times(words[0])) is not None:
            words.pop(0)
        if (days is None and times is None) or len(words) > 1 or not all(word[0].isalpha() for word in words):
            raise ValueError(f"`{text}` is no window; {_EXAMPLE}")
        begin, end = times or (0, _WHOLE_DAY)
        return cls(days=days or frozenset(range(7)), begin=begin, end=end, zone=_zone(words))

    def contains(self, moment: datetime.datetime) -> bool:
        """Whether the window is open at a moment, which has a zone."""
        here = moment.astimezone(self.zone)
        minute = here.hour * 60 + here.minute
        today, yesterday = here.weekday(), (here.weekday() - 1) % 7
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        return (today in self.days and minute >= self.begin) or (yesterday in self.days and minute < self.end)

    def next_opening(self, moment: datetime.datetime) -> datetime.datetime:
        """The first moment from this one on at which the window is open, in UTC."""
        now = moment.astimezone(datetime.UTC)
        if self.contains(now):
            return now
        return next(begin for begin in self._beginnings(now) if begin > now and self.contains(begin))

    def _beginnings(self, now: datetime.datetime) -> Iterator[datetime.datetime]:
        """In order, every moment at which the window may open: its beginning, and each change of the clock."""
        clock = datetime.time(self.begin // 60, self.begin % 60)
        first = now.astimezone(self.zone).date() - datetime.timedelta(days=1)
        # Not for a week only: a change of the clock may leave a window out.
        for number in itertools.count():
            day = first + datetime.timedelta(days=number)
            begin = datetime.datetime.combine(day, clock, self.zone)
            # The same time again, an hour later, where the clock is put back; the same moment on other days.
            both = {begin.astimezone(datetime.UTC), begin.replace(fold=1).astimezone(datetime.UTC)}
            yield from sorted(both | set(_changes(self.zone, day)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Days on which nothing is started, the first and the last included."""

    first: datetime.date
    #: the day after the last
    after: datetime.date
    zone: datetime.tzinfo

    @classmethod
    def parse(cls, text: str) -> Freeze:
        """`2026-12-24` or `2026-12-20/2027-01-03`, with or without a zone behind it; raises ValueError for others."""
        span, *zone = text.split() or [""]
        first, slash, last = span.partition("/")
        try:
            begin = _date(first)
            after = _date(last if slash else first) + datetime.timedelta(days=1)
        except (ValueError, OverflowError):
            raise ValueError(f"`{text}` is no day and no span of days; {_FREEZE_EXAMPLE}") from None
        if len(zone) > 1:
            raise ValueError(f"`{text}` is more than days and a zone; {_FREEZE_EXAMPLE}")
        if after <= begin:
            raise ValueError(f"`{text}` ends before it begins; {_FREEZE_EXAMPLE}")
        return cls(first=begin, after=after, zone=_zone(zone))

    def contains(self, moment: datetime.datetime) -> bool:
        """Whether nothing is started at a moment, which has a zone."""
        return self.first <= moment.astimezone(self.zone).date() < self.after

    def ends(self, moment: datetime.datetime) -> datetime.datetime:
        """The first moment from this one on that the freeze does not hold, in UTC."""
        if not self.contains(moment):
            return moment.astimezone(datetime.UTC)
        return datetime.datetime.combine(self.after, datetime.time(), self.zone).astimezone(datetime.UTC)


def is_open(windows: Sequence[str], moment: datetime.datetime) -> bool:
    """Whether any of the windows admits a moment; where there is none, every moment is admitted."""
    return not windows or any(_window(text).contains(moment) for text in windows)


def next_opening(windows: Sequence[str], moment: datetime.datetime) -> datetime.datetime:
    """The first moment from this one on that any of the windows admits, in UTC."""
    return min((_window(text).next_opening(moment) for text in windows), default=moment.astimezone(datetime.UTC))


def frozen_until(freezes: Sequence[str], moment: datetime.datetime) -> datetime.datetime | None:
    """When a freeze that holds at a moment ends, and every other one that follows upon it; None where none holds."""
    until = moment.astimezone(datetime.UTC)
    while ends := [freeze.ends(until) for freeze in map(_freeze, freezes) if freeze.contains(until)]:
        until = max(ends)
    return None if until == moment else until


@functools.lru_cache(maxsize=4096)
def _window(text: str) -> Window:
    return Window.parse(text)


@functools.lru_cache(maxsize=256)
def _freeze(text: str) -> Freeze:
    return Freeze.parse(text)


def _days(word: str) -> frozenset[int] | None:
    """The days that `Mon-Fri` or `Sat,Sun` names; None for a word that names a time or a zone."""
    parts = [[_day(name) for name in part.split("-")] for part in word.split(",")]
    named = [day for part in parts for day in part]
    if not any(day is not None for day in named):
        return None
    if any(day is None for day in named) or any(len(part) > 2 for part in parts):
        raise ValueError(f"`{word}` names no days; write Mon, Tue, Wed, Thu, Fri, Sat or Sun, `Mon-Fri` or `Sat,Sun`")
    spans = [[day for day in part if day is not None] for part in parts]
    return frozenset(day % 7 for span in spans for day in range(span[0], span[0] + (span[-1] - span[0]) % 7 + 1))


def _day(name: str) -> int | None:
    """0 for `Mon` or `Monday`."""
    lowered = name.lower()
    return next((number for number, day in enumerate(_DAYS) if lowered in (day, day[:3])), None)


def _times(word: str) -> tuple[int, int] | None:
    """Minutes of the day of `22:00-06:00`; None for a word that is something else."""
    match = _TIMES.fullmatch(word)
    if match is None:
        return None
    hours, minutes = (int(match[1]), int(match[3])), (int(match[2]), int(match[4]))
    begin, end = (hour * 60 + minute for hour, minute in zip(hours, minutes, strict=True))
    if max(minutes) > 59 or begin >= _WHOLE_DAY or end > _WHOLE_DAY:
        raise ValueError(f"`{word}` are no times of a day; {_EXAMPLE}")
    if begin == end:
        raise ValueError(f"`{word}` begins when it ends; write 00:00-24:00 for a whole day")
    return begin, end


def _date(text: str) -> datetime.date:
    if not _DATE.fullmatch(text):
        raise ValueError("a week, or a date without hyphens")
    return datetime.date.fromisoformat(text)


def _zone(words: Sequence[str]) -> datetime.tzinfo:
    """The zone of that name; UTC for none, which needs no zone files."""
    if not words or words[0].upper() == "UTC":
        return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(words[0])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone `{words[0]}`; {_zone_remedy(words[0])}") from None


def _zone_remedy(name: str) -> str:
    known = _known_zones()
    if not known:
        return "there are no time zones on this machine: install the package tzdata, or write the window in UTC"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    written = " or ".join(f"`{match}`" for match in close)
    return f"did you mean {written}?" if close else "write it like Europe/Berlin, America/New_York or UTC"


@functools.cache
def _known_zones() -> tuple[str, ...]:
    return tuple(sorted(zoneinfo.available_timezones()))


def _changes(zone: datetime.tzinfo, day: datetime.date) -> Iterator[datetime.datetime]:
    """The moment of a day, in UTC, at which the clock of a zone is put forward or back."""
    # From before midnight, which may itself be the moment.
    begin = datetime.datetime.combine(day, datetime.time(), zone).astimezone(datetime.UTC) - _HOUR
    end = begin + 26 * _HOUR
    before = begin.astimezone(zone).utcoffset()
    if end.astimezone(zone).utcoffset() == before:
        return
    while end - begin > _SECOND:
        middle = begin + (end - begin) // (2 * _SECOND) * _SECOND
        begin, end = (middle, end) if middle.astimezone(zone).utcoffset() == before else (begin, middle)
    yield end

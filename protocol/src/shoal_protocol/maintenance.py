"""Spans of the week in which a device may be disturbed: their text form, and whether one is open.

``Mon-Fri 22:00-04:00``, ``Sat,Sun 00:00-24:00 utc``, ``02:00-05:00``; several are separated by ``;``. A span whose end
is not after its beginning ends on the next day, and belongs to the day on which it begins. Without ``utc`` the times
are those of the device's own time zone (``device`` says so explicitly). Servers check plans with it, devices act by it.

Pure: which day and second it is comes from the caller. No windows at all means always.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from shoal_protocol.errors import ContentError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S: Final = 86_400
WEEK_S: Final = 7 * DAY_S
MAX_WINDOWS: Final = 32

_FORM: Final = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:\s*[,-]\s*[a-z]{3})*|daily)\s+)?"
    r"(?P<begin>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})(?:\s+(?P<zone>utc|device))?"
)
_EXPECTED: Final = "expected e.g. 'Mon-Fri 22:00-04:00', 'Sat,Sun 00:00-24:00 utc' or '02:00-05:00'"


class MaintenanceWindow(msgspec.Struct, frozen=True):
    """One span of the week.

    Attributes:
        days: On which it begins: 0 is Monday.
        begin_s: Seconds after midnight.
        length_s: Seconds, above 0, at most a day.
        utc: Whether its times are UTC; else they are of the device's time zone.
    """

    days: frozenset[int]
    begin_s: int
    length_s: int
    utc: bool = False

    def __str__(self) -> str:
        days = "" if len(self.days) == len(DAYS) else f"{_day_names(self.days)} "
        end_s = self.begin_s + self.length_s
        end = "24:00" if end_s == DAY_S else _clock(end_s % DAY_S)
        return f"{days}{_clock(self.begin_s)}-{end}{' utc' if self.utc else ''}"

    def closed_s(self, instant: Instant) -> int:
        """Return the seconds until it opens; 0: it is open."""
        now_s = instant.utc_s if self.utc else instant.local_s
        waits = []
        for day in self.days:
            since_s = (now_s - day * DAY_S - self.begin_s) % WEEK_S
            if since_s < self.length_s:
                return 0
            waits.append(WEEK_S - since_s)
        return min(waits)


class Instant(msgspec.Struct, frozen=True):
    """A moment, as seconds since the last Monday's midnight.

    Attributes:
        local_s: By the clock on the device's wall.
        utc_s: In UTC.
    """

    local_s: int
    utc_s: int


def parse_windows(text: str) -> tuple[MaintenanceWindow, ...]:
    """Parse windows that are separated by ``;``.

    >>> [str(window) for window in parse_windows("mon-wed 22:00-04:00; 12:00-13:00 utc")]
    ['Mon-Wed 22:00-04:00', '12:00-13:00 utc']

    Raises:
        ContentError: Names the part that does not parse, and what was expected.
    """
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if len(parts) > MAX_WINDOWS:
        raise ContentError(f"{len(parts)} windows are more than {MAX_WINDOWS}")
    return tuple(_parse(part) for part in parts)


def closed_s(windows: Sequence[MaintenanceWindow], instant: Instant) -> int:
    """Return the seconds until one of several windows opens, by clocks that run on evenly; 0: one is open."""
    return min((window.closed_s(instant) for window in windows), default=0)


def _parse(text: str) -> MaintenanceWindow:
    found = _FORM.fullmatch(text.lower())
    if found is None:
        raise ContentError(f"{text!r:.80} is no window: {_EXPECTED}")
    begin_s, end_s = _seconds(found["begin"], text), _seconds(found["end"], text)
    if begin_s == DAY_S:
        raise ContentError(f"{text!r:.80} begins at 24:00; a day begins at 00:00")
    if begin_s == end_s:
        raise ContentError(f"{text!r:.80} begins and ends at one time: the whole day is 00:00-24:00")
    return MaintenanceWindow(
        days=_days(found["days"], text),
        begin_s=begin_s,
        length_s=end_s - begin_s if end_s > begin_s else end_s + DAY_S - begin_s,
        utc=found["zone"] == "utc",
    )


def _days(text: str | None, whole: str) -> frozenset[int]:
    if text is None or text == "daily":
        return frozenset(range(len(DAYS)))
    days: set[int] = set()
    for part in re.sub(r"\s", "", text).split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            wrong = last if first in DAYS else first
            raise ContentError(f"{whole!r:.80}: {wrong!r} is no day; days are {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last)
        days.update(day % len(DAYS) for day in range(begin, end + 1 if end >= begin else end + 1 + len(DAYS)))
    return frozenset(days)


def _day_names(days: frozenset[int]) -> str:
    """Return ``Mon-Fri,Sun`` for the days of one week; runs of three and more by their ends."""
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    names = [[DAYS[day].title() for day in run] for run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(run) for run in names)


def _seconds(text: str, whole: str) -> int:
    hours, minutes = (int(part) for part in text.split(":"))
    if minutes > 59 or hours * 60 + minutes > 24 * 60:
        raise ContentError(f"{whole!r:.80}: {text} is no time of a day, 00:00 to 24:00")
    return hours * 3600 + minutes * 60


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}"

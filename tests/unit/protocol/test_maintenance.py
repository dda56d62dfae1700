"""Windows of the week: what parses, when they are open, and how long until the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_protocol.errors import ContentError
from shoal_protocol.maintenance import DAY_S, WEEK_S, Instant, MaintenanceWindow, closed_s, parse_windows

HOUR = 3600


def at(day: int, hour: float, *, utc_offset_h: float = 0.0) -> Instant:
    local = int(day * DAY_S + hour * HOUR)
    return Instant(local_s=local, utc_s=int(local - utc_offset_h * HOUR) % WEEK_S)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Mon-Fri 22:00-04:00", "Mon-Fri 22:00-04:00"),
        ("sat,sun 0:00-24:00 UTC", "Sat,Sun 00:00-24:00 utc"),
        ("02:00-05:30", "02:00-05:30"),
        ("daily 02:00 - 05:30 device", "02:00-05:30"),
        ("fri-mon 23:00-01:00; Wed 12:00-13:00", "Mon,Fri-Sun 23:00-01:00; Wed 12:00-13:00"),
        (" ; ", ""),
    ],
)
def test_forms_that_people_write(text, form):
    windows = parse_windows(text)
    assert "; ".join(map(str, windows)) == form
    assert parse_windows(form) == windows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Mo-Fr 22:00-04:00", "no window"),
        ("Mon-Frd 22:00-04:00", "'frd' is no day"),
        ("Mon-Foo 22:00-04:00", "'foo' is no day"),
        ("22:00", "no window"),
        ("10pm-4am", "no window"),
        ("22:00-25:00", "25:00 is no time"),
        ("22:60-23:00", "22:60 is no time"),
        ("24:00-01:00", "begins at 24:00"),
        ("04:00-04:00", "00:00-24:00"),
        ("22:00-04:00 cet", "no window"),
        ("; ".join(["01:00-02:00"] * 33), "more than 32"),
    ],
)
def test_a_mistake_is_named(text, told):
    with pytest.raises(ContentError, match=told):
        parse_windows(text)


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins():
    night = parse_windows("Fri 22:00-04:00")
    assert closed_s(night, at(4, 22)) == 0
    assert closed_s(night, at(5, 3.99)) == 0
    assert closed_s(night, at(5, 4)) == WEEK_S - 6 * HOUR
    assert closed_s(night, at(4, 3)) == 19 * HOUR
    sunday = parse_windows("Sun 22:00-04:00")
    assert closed_s(sunday, at(0, 1)) == 0  # the week's end is no end


def test_a_window_in_utc_does_not_follow_the_wall():
    window = parse_windows("12:00-13:00 utc")
    assert closed_s(window, at(2, 14.5, utc_offset_h=2)) == 0
    assert closed_s(window, at(2, 12.5, utc_offset_h=2)) == int(1.5 * HOUR)


def test_of_several_windows_the_next_counts_and_none_is_always():
    windows = parse_windows("Mon 01:00-02:00; Mon 04:00-05:00")
    assert closed_s(windows, at(0, 2)) == 2 * HOUR
    assert closed_s((), at(0, 2)) == 0


@given(
    days=st.frozensets(st.integers(0, 6), min_size=1),
    begin=st.integers(0, 1439),
    length=st.integers(1, 1440),
    now=st.integers(0, WEEK_S - 1),
)
def test_after_the_time_that_is_told_a_window_is_open(days, begin, length, now):
    window = MaintenanceWindow(days, begin * 60, length * 60)
    wait = window.closed_s(Instant(now, now))
    assert 0 <= wait < WEEK_S
    then = (now + wait) % WEEK_S
    assert window.closed_s(Instant(then, then)) == 0
    if wait:
        assert window.closed_s(Instant((then - 1) % WEEK_S, 0)) == 1

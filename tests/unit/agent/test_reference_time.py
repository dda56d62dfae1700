"""Which signed times are believed without anybody else's word."""

from __future__ import annotations

import pytest

from shoal_agent.domain.reference_time import believable

DAY = 86_400_000
NOW = 20_000 * DAY


@pytest.mark.parametrize(
    ("time", "clock", "floor", "expected"),
    [
        (NOW, NOW, NOW - DAY, True),  # all in order
        (NOW - 9 * DAY, NOW, NOW, True),  # older than the floor: nothing to believe
        (NOW + DAY, NOW, NOW - DAY, True),  # a server's clock that is a little ahead
        (NOW + 2 * DAY, NOW, NOW - DAY, False),  # a jump past a plausible clock
        (NOW, 0, NOW - 200 * DAY, False),  # a device that slept without a clock: the list has to speak
        (NOW, NOW, 0, False),  # the first signed time: a clock alone proves nothing
        (NOW + 500 * DAY, NOW + 500 * DAY, NOW, False),  # an implausible clock speaks for nobody
    ],
)
def test_jumps(time: int, clock: int, floor: int, *, expected: bool) -> None:
    assert believable(time, clock_ms=clock, floor_ms=floor) is expected

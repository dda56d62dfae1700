"""Which time to believe, on devices whose clock may be wrong by decades.

The floor is the newest time that the server signed and this device verified; it never comes from the device's own
clock. A clock that is below it, or a month above it, is implausible, and the floor is used instead; so a device that
wakes in 1970, or in 2099, still installs what was signed for it.

The signed times come from the server's online key, so whoever stole it could sign a far future, and every list would
look expired from then on. Three bounds keep that small:

- A time at most a day past a plausible clock is taken: a server and a device may differ by so much.
- A longer jump is taken only up to the instant until which the release key's newest list is valid: that instant is
  signed away from the server, and a device that slept for months gets a new list before it judges. A thief can so move
  a device without a good clock forward to the end of that list, not further.
- When a root names other online keys, which is what follows a theft, the floor of the old ones is forgotten (as
  The Update Framework specification 1.0, section 5.3.11, does with versions, against fast-forward attacks).
"""

from __future__ import annotations

PLAUSIBLE_AHEAD_MS = 30 * 86_400_000

BUILT_S = 1_767_225_600.0
"""2026-01-01: no clock that shows an earlier time can be right, because this software is younger."""

SKEW_MS = 86_400_000
"""A server's clock may be so far ahead of a device's."""


def plausible(clock_ms: int, floor_ms: int) -> bool:
    """Tell whether a clock can be right, given the newest signed time (0: none is known yet)."""
    return floor_ms == 0 or floor_ms <= clock_ms <= floor_ms + PLAUSIBLE_AHEAD_MS


def reference_ms(clock_ms: int, floor_ms: int) -> int:
    """Return the time to check expiry dates against, milliseconds since the epoch."""
    return clock_ms if plausible(clock_ms, floor_ms) else floor_ms


def believed_clock(clock_s: float) -> float | None:
    """Return a clock that nothing else speaks for, None when it is certainly wrong; seconds since the epoch."""
    return clock_s if clock_s >= BUILT_S else None


def believable(time_ms: int, *, clock_ms: int, floor_ms: int) -> bool:
    """Tell whether a signed time needs nobody else's word.

    Args:
        time_ms: Signed by the online key.
        clock_ms: Of the device.
        floor_ms: Newest time that was signed before; 0: none, and then the clock proves nothing.
    """
    if time_ms <= floor_ms:
        return True
    best = clock_ms if floor_ms and plausible(clock_ms, floor_ms) else floor_ms
    return bool(floor_ms) and time_ms <= best + SKEW_MS

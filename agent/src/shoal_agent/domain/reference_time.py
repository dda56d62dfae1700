"""Which time to believe, on devices whose clock may be wrong by decades.

The floor is the newest time that the server signed and this device verified; it never comes from the device's own
clock. A clock that is below it, or a month above it, is implausible, and the floor is used instead; so a device that
wakes in 1970, or in 2099, still installs what was signed for it.
"""

from __future__ import annotations

PLAUSIBLE_AHEAD_MS = 30 * 86_400_000


def plausible(clock_ms: int, floor_ms: int) -> bool:
    """Tell whether a clock can be right, given the newest signed time (0: none is known yet)."""
    return floor_ms == 0 or floor_ms <= clock_ms <= floor_ms + PLAUSIBLE_AHEAD_MS


def reference_ms(clock_ms: int, floor_ms: int) -> int:
    """Return the time to check expiry dates against, milliseconds since the epoch."""
    return clock_ms if plausible(clock_ms, floor_ms) else floor_ms

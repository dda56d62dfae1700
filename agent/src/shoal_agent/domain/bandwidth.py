"""The cap of a bandwidth, as a token bucket. Pure.

Over any span of T seconds at most ``rate * (T + 1)`` bytes pass, plus one read: a second's worth is saved up while
nothing comes, and no more, so that a stalled line is not made up for by a burst.
"""

from __future__ import annotations

_LARGEST_READ = 1 << 18


class TokenBucket:
    """Tells how long to wait after bytes have come.

    Args:
        bytes_per_s: The cap, above 0.
        now: Monotonic seconds.
    """

    def __init__(self, bytes_per_s: float, *, now: float) -> None:
        self._rate = bytes_per_s
        self._level = bytes_per_s
        self._at = now

    @property
    def read_bytes(self) -> int:
        """How much to read at once, so that no read is worth more than a quarter of a second."""
        return max(1, min(_LARGEST_READ, int(self._rate / 4)))

    def take(self, size: int, now: float) -> float:
        """Count bytes that came; return the seconds to wait before any more are read."""
        self._level = min(self._rate, self._level + (now - self._at) * self._rate) - size
        self._at = now
        return max(0.0, -self._level / self._rate)

"""How long to wait before the next try: exponential growth with full jitter.

Full jitter (a uniform draw from zero to the bound) spreads a fleet that lost its server at one instant; see Brooker,
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """Bounds of the waiting time.

    Attributes:
        base_s: Bound of the first wait, seconds.
        cap_s: Bound that is never exceeded, seconds.
    """

    base_s: float = 1.0
    cap_s: float = 300.0

    def delay_s(self, tries: int, chance: float) -> float:
        """Return the wait after a number of failures.

        Args:
            tries: Failures so far, 1 or more.
            chance: A uniform draw from [0, 1).

        >>> Backoff(base_s=2.0, cap_s=60.0).delay_s(3, 0.5)
        4.0
        """
        bound = min(self.cap_s, self.base_s * 2.0 ** min(max(tries, 1) - 1, 32))
        return bound * chance

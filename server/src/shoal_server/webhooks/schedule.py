"""When a delivery that failed is tried again, set aside, given up; when a webhook is disabled. Pure.

Deliveries to one webhook go out in the order in which they were announced. While the first one fails, the others wait
behind it: most likely the receiver is away. After `HELD_ATTEMPTS` attempts it is set aside, so that one event which the
receiver can't take holds up no other; it is tried again at its own times. The pauses are "full jitter" (Brooker,
*Exponential Backoff And Jitter*, AWS Architecture Blog 2015): a random time up to a bound that doubles.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 3600.0
HELD_ATTEMPTS = 6
GIVE_UP_S = 86_400.0
"""Age at which a delivery that failed is given up."""
DISABLE_S = 3 * 86_400.0
"""A webhook that took nothing for so long is disabled."""
GONE = 410
"""The status by which a receiver says that it wants nothing any more (Standard Webhooks, "Gone")."""

Uniform = Callable[[float, float], float]
"""(low, high) -> a random number between them: `random.uniform`."""


def pause_s(failures: int, uniform: Uniform, *, asked_s: float | None = None) -> float:
    """Return how long to wait after some failures in a row.

    Args:
        failures: At least 1.
        uniform: Source of randomness.
        asked_s: What the receiver asked for (Retry-After); it is waited for, up to the longest pause.

    >>> pause_s(1, max), pause_s(4, max), pause_s(40, max)
    (5.0, 40.0, 3600.0)
    >>> pause_s(1, max, asked_s=60.0)
    60.0
    """
    bound = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20))
    return max(uniform(0.0, bound), min(asked_s or 0.0, LONGEST_PAUSE_S))


def is_given_up(*, created_at: float, now: float) -> bool:
    """Tell whether a delivery that has just failed was tried long enough."""
    return now - created_at >= GIVE_UP_S


def disabling_reason(*, status: int | None, attempts: int, created_at: float, failing_since: float, now: float) -> str:
    """Return why a webhook is to be disabled after an attempt that failed; empty: it isn't.

    Args:
        status: Of the answer; None: none came.
        attempts: Of this delivery.
        created_at: Of this delivery. It must have been tried for some time, so that a webhook that is seldom used is
            not disabled by the first failure after days without an event.
        failing_since: When the first attempt failed after the last that succeeded.
        now: Seconds since the epoch.
    """
    if status == GONE:
        return "the receiver answered 410 Gone: it wants nothing any more"
    tried_enough = attempts >= HELD_ATTEMPTS or is_given_up(created_at=created_at, now=now)
    if tried_enough and now - failing_since >= DISABLE_S:
        return f"nothing was delivered for {(now - failing_since) / 86_400:.1f} days"
    return ""

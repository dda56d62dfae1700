"""What every piece of work is given: a clock, and whether it is given up."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds: UTC for dates, or since an arbitrary instant for durations (monotonic)."""

Cancelled = Callable[[], bool]
"""Tells whether a long piece of work should be given up."""

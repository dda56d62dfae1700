"""How often a quiet fleet may be alarmed, in words, and what that means for the rule. Pure.

The Shiryaev-Roberts rule takes a mean time between false alarms, A, in windows and for each level; people say "once a
year". The translation is exact for what the rule guarantees: at most so many false alarms on average, by all three
levels together, for each model in use (arXiv 2203.03532, corollary 2.4). What is measured is rarer still.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shoal_protocol.errors import CallerError
from shoal_server.drift.monitor_state import Scope

_PERIOD_S = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_629_746.0, "year": 31_556_952.0}
_WORDS = {
    "one": 1,
    "once": 1,
    "two": 2,
    "twice": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "ten": 10,
    "twelve": 12,
}
_FORM = re.compile(r"(\d+|[a-z]+)(?: times?)?\s*(?:/|per|an?|each|every)\s*(hour|day|week|month|year)")
_LEAST_WINDOWS = 100.0


@dataclass(frozen=True)
class FalseAlarms:
    """So many in such a time.

    Attributes:
        number: At least 1.
        period: ``hour``, ``day``, ``week``, ``month`` or ``year``.
    """

    number: int
    period: str

    def __str__(self) -> str:
        return f"{self.number} a {self.period}" if self.period != "hour" else f"{self.number} an hour"

    def windows(self, bucket_ms: int) -> float:
        """Return A for each level: the mean time between its false alarms, in windows, at least a hundred.

        >>> round(FalseAlarms(1, "year").windows(300_000))
        315570
        """
        per_level_s = _PERIOD_S[self.period] / self.number * len(Scope)
        return max(_LEAST_WINDOWS, per_level_s * 1000 / bucket_ms)


def parse_false_alarms(text: str) -> FalseAlarms:
    """Read how often a quiet fleet may be alarmed.

    Raises:
        CallerError: It is not of the form ``NUMBER a PERIOD``.

    >>> str(parse_false_alarms("once a year")), str(parse_false_alarms("2/month"))
    ('1 a year', '2 a month')
    """
    found = _FORM.fullmatch(" ".join(text.casefold().split()))
    number = 0
    if found is not None:
        number = int(found[1]) if found[1].isdecimal() else _WORDS.get(found[1], 0)
    if found is None or not 0 < number <= 1000:
        raise CallerError(f"expected how many false alarms in what time, such as '1 a year', got {text!r:.60}")
    return FalseAlarms(number, found[2])


def promise(mean_time_windows: float, bucket_ms: int) -> str:
    """Say what a setting promises the people who are alarmed.

    >>> promise(315_570, 300_000)
    'At this setting a fleet in which nothing drifts gets at most one false alarm in 1 year on average.'
    """
    rate = in_words(mean_time_windows, bucket_ms)
    return f"At this setting a fleet in which nothing drifts gets {rate} on average."


def in_words(mean_time_windows: float, bucket_ms: int) -> str:
    """Say what a mean time between false alarms means.

    Args:
        mean_time_windows: A, for each level.
        bucket_ms: Length of a window.

    >>> in_words(315_570, 300_000), in_words(10_000, 300_000)
    ('at most one false alarm in 1 year', 'at most one false alarm in 12 days')
    """
    seconds = mean_time_windows * bucket_ms / 1000 / len(Scope)
    units = [unit for unit in _PERIOD_S.items() if seconds >= 0.95 * unit[1] and unit[0] not in {"week", "month"}]
    name, length = units[-1] if units else ("minute", 60.0)
    number = max(1, round(seconds / length))
    return f"at most one false alarm in {number} {name}{'s' if number != 1 else ''}"

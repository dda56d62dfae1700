"""How far a shadow model agrees with the active one: sums of one window, which add up over windows and devices.

A shadow sees a share of the same rows and answers nobody. Owns the form of the comparison and its checks; comparing is
the agent's, adding up the server's. Only counts are here, never a row.
"""

from __future__ import annotations

import math

import msgspec

from shoal_protocol.canonical import parse_digest
from shoal_protocol.errors import ContentError

DIFFERENCE_EDGES = (0.0, *(m * 10.0**e for e in range(-6, 7) for m in (1, 3)))
"""Upper edges of the counts of absolute differences; one more count is for all beyond, the last for NaN."""

DIFFERENCES = len(DIFFERENCE_EDGES) + 2
MAX_PAIRS = 256
MAX_TEXT = 64
MAX_SHADOWS = 8
OTHER, DIFFERENT = "(other)", "(other, different)"
"""Where pairs beyond `MAX_PAIRS` are counted: (OTHER, OTHER) if they agree, else (OTHER, DIFFERENT)."""


class DifferenceSums(msgspec.Struct, array_like=True, frozen=True):
    """Differences shadow minus active, one a row.

    Attributes:
        n: Rows whose difference is finite.
        sum, absolute, square: Sums of the difference, of its absolute value and of its square over those rows.
        counts: Rows by `DIFFERENCE_EDGES` of the absolute difference.
    """

    n: int
    sum: float
    absolute: float
    square: float
    counts: tuple[int, ...]


class ShadowSums(msgspec.Struct, array_like=True, frozen=True):
    """One shadow beside one active model in one window.

    Attributes:
        digest: Of the shadow's bundle.
        rows: Rows that both have answered.
        agreed: Of those, rows whose class is the same, or whose number is equal.
        dropped: Rows that were chosen but not run, because the shadow was behind.
        errors: Calls on which the shadow failed.
        pairs: (class of the active model, class of the shadow, rows); empty for models without classes.
        differences: Of the number, or of the class probabilities (largest of a row); none: there are neither.
        active_latency, shadow_latency: Counts of the compared calls by `LATENCY_EDGES_US` of the codec.
    """

    digest: str
    rows: int
    agreed: int
    dropped: int
    errors: int
    pairs: tuple[tuple[str, str, int], ...]
    differences: DifferenceSums | None
    active_latency: tuple[int, ...]
    shadow_latency: tuple[int, ...]

    @property
    def is_silent(self) -> bool:
        """Whether nothing was compared."""
        return not (self.rows or self.dropped or self.errors)


def check_shadows(shadows: tuple[ShadowSums, ...], *, latencies: int) -> tuple[ShadowSums, ...]:
    """Return sums that are in range.

    Args:
        shadows: As decoded from hostile bytes.
        latencies: Most counts of latency there are.

    Raises:
        ContentError: There are too many, a text is too long, or a number is impossible.
    """
    if len(shadows) > MAX_SHADOWS:
        raise ContentError(f"profile: {len(shadows)} shadows, at most {MAX_SHADOWS}")
    for sums in shadows:
        parse_digest(sums.digest)
        counts = (sums.rows, sums.agreed, sums.dropped, sums.errors, *sums.active_latency, *sums.shadow_latency)
        rows = [count for _, _, count in sums.pairs]
        if min((*counts, *rows)) < 0 or max((*counts, *rows)) >= 2**53 or sums.agreed > sums.rows:
            raise ContentError("profile: a count of a shadow is negative or too large")
        if len(sums.pairs) > MAX_PAIRS + 2 or sum(rows) > sums.rows:
            raise ContentError("profile: a shadow has more pairs than it can have")
        if any(len(text) > MAX_TEXT or not text.isprintable() for pair in sums.pairs for text in pair[:2]):
            raise ContentError(f"profile: a class of a shadow has over {MAX_TEXT} characters, or unprintable ones")
        if max(len(sums.active_latency), len(sums.shadow_latency)) > latencies:
            raise ContentError(f"profile: a shadow has more than {latencies} counts of latency")
        if sums.differences is not None:
            _check_differences(sums.differences)
    return shadows


def _check_differences(sums: DifferenceSums) -> None:
    bounded = all(math.isfinite(x) and abs(x) < 1e300 for x in (sums.sum, sums.absolute, sums.square))
    if not bounded or sums.absolute < 0 or sums.square < 0 or len(sums.counts) > DIFFERENCES:
        raise ContentError("profile: the differences of a shadow are not finite, or too many")
    if not 0 <= sums.n < 2**53 or any(not 0 <= count < 2**53 for count in sums.counts):
        raise ContentError("profile: a count of a shadow's differences is negative or too large")

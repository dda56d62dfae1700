"""How far the share of failed predictions rose on the canary devices, against the control.

Owns the difference in differences: each device against its own earlier windows, then canary against control, device by
device, so that neither a device with many predictions nor a few forgers decide. Pure.

Source: Yuen, "The two-sample trimmed t for unequal population variances", Biometrika 61 (1974), with a share of 0.1
trimmed from each end; the variance is never taken to be smaller than that of as many coin tosses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from shoal_server.rollouts.gates import CONFIDENCE, Difference

TRIMMED = 0.1


@dataclass(frozen=True)
class Tally:
    """Predictions of one device in a span of time, and how many of them failed."""

    n: int = 0
    errors: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Count both."""
        return Tally(self.n + other.n, self.errors + other.errors)

    @property
    def rate(self) -> float:
        """Share that failed."""
        return self.errors / self.n


@dataclass(frozen=True)
class Group:
    """Devices of one kind: what they did since the stage was opened, and before.

    Attributes:
        now: By device.
        before: By device; a device may be missing, then the group's whole rate before stands in.
    """

    now: Mapping[str, Tally]
    before: Mapping[str, Tally]


def errors_difference(canary: Group, control: Group, *, against: str) -> Difference | None:
    """Return how far the rate of errors rose on the canary devices beyond the control's rise.

    Args:
        canary: Windows of the new bundle now, of the bundle before it before.
        control: Concurrent windows; empty: a canary device's own past is all there is to compare with.
        against: What the control is, in words.

    Returns:
        None when no canary device has predicted yet. The bounds are None with a single canary device.
    """
    risen = _rises(canary)
    if not risen:
        return None
    others = _rises(control)
    value, variance, freedom = _centre(risen)
    floor = _toss_variance(canary)
    if others:
        there, variance_there, freedom_there = _centre(others)
        value -= there
        if len(others) > 1:
            freedom = _welch(variance, freedom, variance_there, freedom_there)
            variance += variance_there
        floor += _toss_variance(control)
    n = sum(tally.n for tally in canary.now.values())
    devices = sum(tally.n > 0 for tally in canary.now.values())
    low = high = None
    if len(risen) > 1:
        reach = float(stdtrit(max(freedom, 1.0), CONFIDENCE)) * math.sqrt(max(variance, floor))
        low, high = value - reach, value + reach
    return Difference(value=value, low=low, high=high, n=n, devices=devices, against=against)


def _rises(group: Group) -> list[float]:
    before = sum(group.before.values(), Tally())
    usual = before.rate if before.n else 0.0
    rises: list[float] = []
    for device, tally in sorted(group.now.items()):
        if tally.n:
            own = group.before.get(device, Tally())
            rises.append(tally.rate - (own.rate if own.n else usual))
    return rises


def _centre(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the trimmed mean, the variance of it (Winsorised), and its degrees of freedom."""
    ordered = sorted(values)
    n, cut = len(ordered), int(TRIMMED * len(ordered))
    kept = ordered[cut : n - cut]
    mean = math.fsum(kept) / len(kept)
    if n < 2:
        return mean, 0.0, 1.0
    winsorised = [ordered[cut]] * cut + kept + [ordered[n - cut - 1]] * cut
    middle = math.fsum(winsorised) / n
    spread = math.fsum((value - middle) ** 2 for value in winsorised)
    size = len(kept)
    return mean, spread / (size * (size - 1)) if size > 1 else 0.0, float(max(size - 1, 1))


def _toss_variance(group: Group) -> float:
    """Return the variance of the group's rate if predictions failed independently (Jeffreys' estimate)."""
    total = sum(group.now.values(), Tally())
    rate = (total.errors + 0.5) / (total.n + 1)
    return rate * (1 - rate) / max(total.n, 1)


def _welch(variance: float, freedom: float, variance_there: float, freedom_there: float) -> float:
    """Return the degrees of freedom of the difference of two means (Welch and Satterthwaite)."""
    total = variance + variance_there
    if total == 0:
        return freedom + freedom_there
    return total**2 / (variance**2 / freedom + variance_there**2 / freedom_there)

"""What two samples of one feature suggest as the cause of their difference, in words.

Pure. Only what the values themselves show: another unit, a stuck or saturated sensor, an error code, a missing source,
a new or respelled category, outliers, a shift, noise. Whose change it is needs a fleet, and is the drift room's.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_server.statistics.movements import FITS, gain_or_offset, inner_ratio, spread_ratio
from shoal_server.statistics.movements import distance as ks_distance
from shoal_server.statistics.views import View
from shoal_server.statistics.words import percent

_Numbers = npt.NDArray[np.float64]

_ROUND = (10.0, 100.0, 1e3, 1e6, 60.0, 3600.0)
Units: TypeAlias = tuple[tuple[str, float, float], ...]

UNITS: Units = (
    ("degrees Celsius became Fahrenheit", 1.8, 32.0),
    ("degrees Fahrenheit became Celsius", 1 / 1.8, -32 / 1.8),
    ("degrees Celsius became kelvin", 1.0, 273.15),
    ("kelvin became degrees Celsius", 1.0, -273.15),
    ("the sign is turned round", -1.0, 0.0),
    *((f"values are {factor:g} times as large", factor, 0.0) for factor in _ROUND),
    *((f"values are 1/{factor:g} of what they were", 1 / factor, 0.0) for factor in _ROUND),
    ("m/s became km/h", 3.6, 0.0),
    ("km/h became m/s", 1 / 3.6, 0.0),
    ("inches became centimetres", 2.54, 0.0),
    ("centimetres became inches", 1 / 2.54, 0.0),
    ("inches became millimetres", 25.4, 0.0),
    ("millimetres became inches", 1 / 25.4, 0.0),
    ("metres became feet", 1 / 0.3048, 0.0),
    ("feet became metres", 0.3048, 0.0),
    ("miles became kilometres", 1.609344, 0.0),
    ("kilometres became miles", 1 / 1.609344, 0.0),
    ("kilograms became pounds", 1 / 0.45359237, 0.0),
    ("pounds became kilograms", 0.45359237, 0.0),
    ("psi became kilopascals", 6.894757, 0.0),
    ("kilopascals became psi", 1 / 6.894757, 0.0),
    ("radians became degrees", 180 / math.pi, 0.0),
    ("degrees became radians", math.pi / 180, 0.0),
)
"""Name, factor and offset of the changes of unit that are recognised."""

UNLIKE_AGING: Units = tuple(one for one in UNITS if one[2] or not 0.2 < one[1] < 5)
"""Those that no sensor's own gain comes near to."""

_QUANTILES = np.arange(0.1, 0.91, 0.1)
_LEAST_STUCK = 0.02
_LEAST_OFFSET = 0.75
"""A change of unit with an offset moves values by more than so many times the distance of the outer deciles."""

_AS_WIDE = 1.25
"""An inner half that is wider than this tells of noise, whatever leaves the range."""

_STRAY = 1.5
"""Outliers widen the whole so many times as much as the inner half of the values; noise widens both alike."""

_PLAIN_SHIFT = 0.35
"""Values that spread otherwise have also moved when their mean did by more standard deviations than this."""


def suspected_cause(
    view: View, reference: npt.NDArray[Any], current: npt.NDArray[Any], *, units: Units | None = None
) -> str:
    """Say what the two samples of a feature that drifts suggest.

    Args:
        view: Which says it most plainly.
        reference: Float64 with NaN for missing, or texts of dtype object with "" for missing.
        current: The same.
        units: Changes of unit that are thought of, `UNITS` if none are given.
    """
    texts = reference.dtype.kind == "O"
    shares = [float(np.mean(x == "" if texts else np.isnan(x))) for x in (reference, current)]
    if view is View.MISSING or shares[1] == 1:
        return _missing(shares[0], shares[1])
    if texts:
        return _categories(view, Counter(reference[reference != ""].tolist()), Counter(current[current != ""].tolist()))
    a, b = reference[~np.isnan(reference)], current[~np.isnan(current)]
    return _infinite(a, b) or unit_change(a, b, units=units) or pile(a, b) or _numbers(view, a, b)


def unit_change(a: _Numbers, b: _Numbers, *, units: Units | None = None) -> str:
    """Name the change of unit that turns the reference's deciles into the current ones, or nothing.

    >>> x = np.linspace(10.0, 30.0, 500)
    >>> unit_change(x, x * 1.8 + 32)
    'unit change: degrees Celsius became Fahrenheit'
    """
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(a.size, b.size) < 30:
        return ""
    before, now = np.quantile(a, _QUANTILES), np.quantile(b, _QUANTILES)
    spread = float(before[-1] - before[0])
    if spread <= 0:
        return ""
    noise = 1.5 * math.sqrt(1 / a.size + 1 / b.size) + 0.03

    def distance(factor: float, offset: float) -> float:
        turned = np.sort(before * factor + offset)
        return float(np.sqrt(np.mean((now - turned) ** 2))) / (spread * abs(factor))

    name, factor, offset = min(UNITS if units is None else units, key=lambda unit: distance(unit[1], unit[2]))
    fit = distance(factor, offset)
    shifted = distance(1.0, float(now.mean() - before.mean()))
    if factor < 0 and shifted < max(3 * fit, noise):
        return ""  # values that lie evenly about their mean look alike shifted and with the sign turned round
    if offset and abs(float(now.mean() - before.mean())) < _LEAST_OFFSET * spread:
        return ""  # a sensor that ages moves so far too
    if fit < noise and distance(1.0, 0.0) > 5 * max(fit, noise / 2) and ks_distance(a * factor + offset, b) < FITS:
        return f"unit change: {name}"
    return ""


def pile(a: _Numbers, b: _Numbers) -> str:
    """Tell whether many values are exactly equal now that were not: stuck, saturated, or an error code; or nothing.

    >>> x = np.linspace(0.0, 1.0, 1000)
    >>> pile(x, np.minimum(x, 0.8))
    'saturation: 20 % of values are exactly 0.8, the largest there is now'
    """
    values, counts = np.unique(b, return_counts=True)
    if values.size == 1:
        return f"stuck: every value is {_g(values[0])}"
    before = {value: float(np.mean(a == value)) for value in values[np.argsort(-counts)[:3]]}
    share = {value: float(np.mean(b == value)) for value in before}
    at, rise = max(((value, share[value] - before[value]) for value in before), key=lambda pair: pair[1])
    here = int(np.searchsorted(values, at))
    beside = [counts[i] for i in range(max(0, here - 2), min(len(counts), here + 3)) if i != here]
    if rise < _LEAST_STUCK or before[at] > share[at] / 2 or counts[here] < 5 * np.mean(beside):
        return ""
    if _largest_gone(a, b) > share[at] / 2:
        return ""  # a pile that was there has moved, with all other values or without
    part = f"{percent(share[at])} of values are exactly {_g(at)}"
    cut = float(np.mean(a > at)) if at == values[-1] else float(np.mean(a < at)) if at == values[0] else 0.0
    if before[at] > _LEAST_STUCK and cut < rise / 2:
        return f"pile: {part}, before {percent(before[at])}"
    if at in (values[0], values[-1]):
        extreme = "largest" if at == values[-1] else "smallest"
        gap = abs(at - (values[-2] if extreme == "largest" else values[1]))
        if not a.min() <= at <= a.max() or gap > 0.5 * float(np.ptp(np.delete(values, here))):
            return f"error code: {part}, apart from all others"
        return f"saturation: {part}, the {extreme} there is now"
    return f"stuck: {part}, before {percent(before[at])}"


def _largest_gone(a: _Numbers, b: _Numbers) -> float:
    """Share of the reference's most frequent value that is hardly there now."""
    values, counts = np.unique(a, return_counts=True)
    most = np.argsort(-counts)[:5]
    return max((counts[i] / a.size for i in most if np.mean(b == values[i]) < counts[i] / a.size / 4), default=0.0)


def _infinite(a: _Numbers, b: _Numbers) -> str:
    if np.isfinite(a).all() and not np.isfinite(b).all():
        return f"infinite values: {percent(1 - float(np.isfinite(b).mean()))} of values are not finite"
    return ""


def _numbers(view: View, a: _Numbers, b: _Numbers) -> str:
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    wider, inner = spread_ratio(a, b), inner_ratio(a, b)
    low, high = float(a.min()), float(a.max())
    above, below = float(np.mean(b > high)), float(np.mean(b < low))
    stray = wider > _STRAY * inner and above + below > _LEAST_STUCK
    if stray or (view is View.RANGE and inner <= _AS_WIDE):
        side = "above" if above >= below else "below"
        return f"outliers: {percent(max(above, below))} of values are {side} the reference's {_g(low)} to {_g(high)}"
    before, now = float(a.mean()), float(b.mean())
    spread_a, spread_b = float(a.std()), float(b.std())
    kind, amount = gain_or_offset(a, b)
    if kind == "gain" and abs(before) > spread_a / 2:
        return f"gain: all values are about {amount:.3g} times as large, mean {_g(before)} to {_g(now)}"
    how = f" ({(now - before) / spread_a:+.2g} sd)" if spread_a > 0 else ""
    if kind == "offset" and abs(amount) > (_PLAIN_SHIFT if wider != 1 else 0.1) * spread_a:
        return f"shift: all values moved by about {_g(amount)}, mean {_g(before)} to {_g(now)}{how}"
    if view is View.LOCATION and (wider == 1 or abs(now - before) > _PLAIN_SHIFT * spread_a):
        return f"shift: the mean went from {_g(before)} to {_g(now)}{how}"
    if wider != 1:
        word = "noise: the spread grew" if wider > 1 else "damping: the spread shrank"
        return f"{word} {wider:.3g} times, from {_g(spread_a)} to {_g(spread_b)} sd"
    return "mix: values are spread otherwise than before, with nearly the same mean and spread"


def _missing(before: float, now: float) -> str:
    if now == 1:
        return "missing source: every value is missing"
    if now > before:
        return f"missing source: missing values rose from {percent(before)} to {percent(now)}"
    return f"missing values fell from {percent(before)} to {percent(now)}: another source, or they are filled in now"


def _categories(view: View, before: Counter[str], now: Counter[str]) -> str:
    total_a, total_b = max(before.total(), 1), max(now.total(), 1)
    fresh = [value for value, _ in now.most_common() if value not in before]
    gone = [value for value, count in before.most_common() if value not in now and count / total_a > 0.01]
    folded = {_folded(value): value for value in before}
    respelled = next((value for value in fresh if _folded(value) in folded), None)
    if respelled is not None:
        return f"new spelling: {folded[_folded(respelled)]!r} is now also written {respelled!r}"
    if before and fresh and not before.keys() & now.keys():
        known = _some([value for value, _ in before.most_common()])
        return f"coding: no value is one of before: {_some(fresh)} in place of {known}"
    if fresh and (view is View.RANGE or now[fresh[0]] / total_b > 0.01):
        share = percent(sum(now[value] for value in fresh) / total_b)
        word = "category" if len(fresh) == 1 else "categories"
        return f"new {word}: {_some(fresh)} ({share} of values)"
    if gone:
        return f"missing category: {gone[0]!r} ({percent(before[gone[0]] / total_a)} of the reference) is gone"
    moved = max(before | now, key=lambda value: abs(now[value] / total_b - before[value] / total_a))
    return f"mix: {moved!r} went from {percent(before[moved] / total_a)} to {percent(now[moved] / total_b)}"


def _some(values: list[str]) -> str:
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    return ", ".join(map(repr, values[:3])) + more


def _folded(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _g(value: float) -> str:
    return f"{value:.4g}"

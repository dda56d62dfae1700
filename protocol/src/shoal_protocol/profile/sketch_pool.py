"""The sketches of several devices as one made-up sample: as many rows, distributed as the fleet's first ones were.

Invariants: each device weighs the same, and of three or more none decides alone what numbers there are; what a column
is, the schema says: a sketch of texts tells nothing of numbers, nor one of numbers of texts, whatever device sent it.
The order in which the sketches came changes nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.schema import OutputSpec
from shoal_protocol.profile.derivation import packed_bits, sketch_bits
from shoal_protocol.profile.sketch import LEVELS, LONGEST_TEXT, Sketch, Sketches
from shoal_protocol.profile.streams import MOST_COLUMNS

Array = npt.NDArray[Any]

_LARGEST_WHOLE = 2.0**53
_FEWEST_TO_DOUBT, _FARTHEST = 3, 20.0
_POOLED_ROWS = 2000
_TRUE = 0.5
_MOST_CATEGORIES = 64


class Pool:
    """What the devices told.

    Args:
        told: The sketches of each device, in any order.
    """

    def __init__(self, told: Sequence[Sketches]) -> None:
        self.told = sorted(told, key=msgspec.json.encode)
        """By their content, not in the order in which they came."""
        rows = sum(max((one.n for one in sketches.values()), default=0) for sketches in told)
        self.rows = min(_POOLED_ROWS, max(rows, 1))
        """Of the made-up sample."""

    def of(self, key: str, *, is_text: bool) -> list[Sketch]:
        """Return what devices told of a column of texts, or of numbers; empty ones and those of others are left out."""
        told = [sketches[key] for sketches in self.told if key in sketches]
        return [one for one in told if one.n and is_of_kind(one, is_text=is_text)]

    def width(self, output: OutputSpec) -> int:
        """Return how many columns an output has: as its shape says, else as most devices that told of it saw."""
        sizes = output.shape[1:]
        if all(isinstance(size, int) for size in sizes):
            return min(math.prod(size for size in sizes if isinstance(size, int)), MOST_COLUMNS)
        is_text = output.dtype == "string"
        told = [len(self.of(f"out:{output.name}:{at}", is_text=is_text)) for at in range(MOST_COLUMNS)]
        return sum(2 * devices > max(told) for devices in told)

    def column(self, key: str, *, is_text: bool = False) -> Array | None:
        """Return a sample of a column, shape (rows,): numbers with NaN, or texts with empty ones; none: nobody told."""
        told = self.of(key, is_text=is_text)
        if not told:
            return None
        told = told if is_text else _believed(told)
        shares = np.linspace(0, self.rows, len(told) + 1).round().astype(int)
        part_of = _text_part if is_text else number_part
        return np.concatenate([part_of(one, int(n)) for one, n in zip(told, np.diff(shares), strict=True)])

    def typed_column(self, key: str, dtype: str) -> Array | None:
        """Return the same of a type that the schema names, where all values have a place in it."""
        column = self.column(key, is_text=dtype == "string")
        if column is None or dtype == "string" or dtype.startswith("float"):
            return column
        if dtype == "bool":
            return np.asarray(np.nan_to_num(column) > _TRUE)
        is_whole = np.isfinite(column).all() and np.abs(column).max(initial=0.0) <= _LARGEST_WHOLE
        return np.asarray(np.rint(column).astype(np.int64)) if is_whole else column

    def categories(self, key: str) -> tuple[str, ...]:
        """Return the texts that most rows have, at most 64, sorted."""
        shares: Counter[str] = Counter()
        for one in self.of(key, is_text=True):
            shares.update({str(value): round(1e6 * count / one.n) for value, count in one.values})
        ranked = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_CATEGORIES]
        return tuple(sorted(text for text, _ in ranked))

    def vocabulary(self, key: str) -> str:
        """Return a filter of the words that two devices know, or one in a fleet of fewer than three; empty: none."""
        told = [one.vocabulary for one in self.of(key, is_text=True) if one.vocabulary]
        if not told:
            return ""
        known = np.sum([np.frombuffer(sketch_bits(vocabulary), np.uint8) for vocabulary in told], axis=0, dtype=int)
        bits = known >= (2 if len(told) >= _FEWEST_TO_DOUBT else 1)
        return packed_bits(bits) if bits.any() else ""


def number_part(one: Sketch, rows: int) -> npt.NDArray[np.float64]:
    """Return so many numbers, ascending within their kinds, with the shares that a sketch says; NaN: missing.

    Numbers that neither recurred nor were enough for quantiles are passed over.
    """
    edges = np.cumsum([one.missing, *(count for _, count in one.values)])
    levels = (np.arange(rows) + 0.5) / max(rows, 1) * (one.n if one.quantiles else edges[-1])
    out = np.full(rows, np.nan)
    for at, (value, _) in enumerate(one.values):
        out[(levels >= edges[at]) & (levels < edges[at + 1])] = value
    rest = levels >= edges[-1]
    if one.quantiles and rest.any():
        inside = (levels[rest] - edges[-1]) / max(one.n - edges[-1], 1e-9)
        out[rest] = np.interp(inside, LEVELS, one.quantiles)
    return np.asarray(np.rint(out)) if one.whole else out


def is_of_kind(one: Sketch, *, is_text: bool) -> bool:
    """Tell whether a device can have seen this in a column of texts, or of numbers."""
    texts = [isinstance(value, str) for value, _ in one.values]
    if not is_text:
        return not one.prose and not any(texts)
    return all(texts) and (one.prose or not one.quantiles) and max(one.quantiles, default=0.0) <= LONGEST_TEXT


def _believed(told: list[Sketch]) -> list[Sketch]:
    """Leave out devices whose numbers reach `_FARTHEST` times as far as the median device's: none decides alone."""
    points = [np.array([*one.quantiles, *(float(value) for value, _ in one.values)], dtype=np.float64) for one in told]
    seen = [values for values in points if values.size]
    if len(seen) < _FEWEST_TO_DOUBT:
        return told
    middle = float(np.median([np.median(values) for values in seen]))
    reach = [float(np.abs(values - middle).max(initial=0.0)) for values in points]
    usual = float(np.median([far for far, values in zip(reach, points, strict=True) if values.size]))
    return [one for one, far in zip(told, reach, strict=True) if far <= _FARTHEST * usual or usual == 0]


def _text_part(one: Sketch, rows: int) -> Array:
    levels = (np.arange(rows) + 0.5) / max(rows, 1) * one.n
    edges = np.cumsum([one.missing, *(count for _, count in one.values)])
    out = np.full(rows, "", dtype=object)
    for at, (value, _) in enumerate(one.values):
        out[(levels >= edges[at]) & (levels < edges[at + 1])] = str(value)
    rest = np.flatnonzero(levels >= edges[-1])
    if len(rest) and one.quantiles:  # free text: only its length is known
        lengths = np.interp((np.arange(len(rest)) + 0.5) / len(rest), LEVELS, one.quantiles)
        out[rest] = ["x" * int(length) for length in lengths]
    elif len(rest):
        out[rest] = "\N{REPLACEMENT CHARACTER}"  # what recurred too seldom to be told
    return out

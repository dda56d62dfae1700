"""Learning what to count of a bundle that came without data: sketches on devices, one set of cells for the fleet.

Owns both ends. A device sums up its first rows column by column: quantiles, values that recur, shares. No row leaves
it, of numbers that don't recur only rounded quantiles, of texts only those that recur. The server pools the sketches of
several devices into a made-up sample with the same marginals and fits streams to it as packing does to a real one, see
`streams`. Joint features and digests of wide tensors need rows that belong together and are left out.

Invariants: the result depends on the set of sketches, not on the order in which they came; and what a column is, the
schema says: a sketch of texts tells nothing of numbers, nor one of numbers of texts, whatever device sent it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec
from shoal_protocol.canonical import rounded
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.grid import CategoricalGrid, category_text, fit_integer, unit_interval_grid
from shoal_protocol.profile.profile import ProfileSpec, Stream, summarise
from shoal_protocol.profile.reference import Reference
from shoal_protocol.profile.streams import MOST_COLUMNS, inherited, input_streams, output_streams, uniquely_named

Array = npt.NDArray[Any]

LEARNT = "first windows"
"""What `Reference.sources` says of a profile that was learnt."""

LEAST_ROWS = 200
"""Rows from which on a device tells a sketch."""

MAX_SKETCH_BYTES = 48 * 1024
MOST_COLUMNS_TOLD = 256
_LEVELS = np.concatenate([[0.002, 0.01], np.linspace(0.03, 0.97, 29), [0.99, 0.998]])
_MOST_VALUES = 32
_RECURS = 1 / 64
_LEAST_REPEATS = 8
_MOST_TEXT = 64
_LONGEST_TEXT = 10_000
_LARGEST = 1e30  # counting is float32
_LARGEST_WHOLE = 2.0**53
_FEWEST_TO_DOUBT, _FARTHEST = 3, 20.0
_POOLED_ROWS = 2000
_FREE_TEXTS = ("letters", "digits", "non_ascii")


class Sketch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column of one device's first rows.

    Attributes:
        n: Rows.
        missing: Of them.
        whole: Whether all numbers are whole.
        values: Numbers, or texts, that recur, and how many rows have each.
        quantiles: Of the other numbers; of free texts, of their lengths. At fixed levels, rounded.
        prose: Whether the column is text that hardly recurs.
    """

    n: int
    missing: int = 0
    whole: bool = False
    values: tuple[tuple[str | float, int], ...] = ()
    quantiles: tuple[float, ...] = ()
    prose: bool = False


Sketches = dict[str, Sketch]
"""By ``in:FEATURE``, ``out:OUTPUT`` or ``out:OUTPUT:COLUMN``."""


def sketch(column: Array) -> Sketch:
    """Sum up one column.

    Args:
        column: Shape (rows,), numbers or texts.
    """
    return _texts(column) if column.dtype.kind in "OUS" else _numbers(column)


def sketches_of(schema: ModelSchema, tensors: Mapping[str, Array]) -> Sketches:
    """Sum up all that is one value a row, until `MAX_SKETCH_BYTES` are full.

    Args:
        schema: Of the bundle.
        tensors: Inputs and outputs by name, rows first, equally many.
    """
    found: Sketches = {}
    size = 0
    for key, column in _columns(schema, tensors):
        one = sketch(column)
        size += len(msgspec.json.encode({key: one}))
        if size > MAX_SKETCH_BYTES or len(found) == MOST_COLUMNS_TOLD:
            break
        found[key] = one
    return found


def parse_sketches(document: Any) -> Sketches:
    """Check what a device sent.

    Raises:
        ContentError: It is no set of sketches, or not of the size that devices send.
    """
    try:
        found = msgspec.convert(document, type=Sketches, strict=False)
    except msgspec.ValidationError as error:
        raise ContentError(f"sketches: {error}") from error
    if len(found) > MOST_COLUMNS_TOLD:
        raise ContentError(f"sketches of {len(found)} columns, at most {MOST_COLUMNS_TOLD} are taken")
    for key, one in found.items():
        numbers = [*one.quantiles, *(value for value, _ in one.values if not isinstance(value, str))]
        counts = [count for _, count in one.values]
        sound = 0 <= one.missing <= one.n < 2**40 and min(counts, default=1) > 0 and sum(counts) <= one.n
        small = len(one.values) <= _MOST_VALUES * 2 and len(one.quantiles) in {0, len(_LEVELS)}
        if (
            not sound
            or not small
            or not all(abs(value) <= _LARGEST for value in numbers)
            or sorted(one.quantiles) != [*one.quantiles]
        ):
            raise ContentError(f"the sketch of {key:.60} is not what a device can have seen")
    return found


def learn(schema: ModelSchema, told: Sequence[Sketches], *, parent: ProfileSpec | None = None) -> Reference:
    """Fix what is counted from then on.

    Args:
        schema: Of the bundle.
        told: The sketches of devices, in any order; each device weighs the same.
        parent: Of an earlier version, whose cells are kept where both count the same.

    Returns:
        Streams, and about how the first rows lie on them; `Reference.sources` says ``first windows``.
    """
    pooled = _Pool(told)
    rows = pooled.rows
    tensors: dict[str, Array] = {}
    streams: list[Stream] = []
    for field in schema.inputs:
        column = pooled.column(f"in:{field.name}", is_text=field.dtype == "string")
        if column is not None:
            streams += _input_streams(field, column, pooled)
            _put(tensors, schema, field.tensor, field.column or 0, column)
    for output in schema.outputs:
        found = _output(output, pooled)
        if found is not None:
            streams += output_streams([output], {output.name: found}, rows=rows)
            tensors[output.name] = found
    if parent is not None:
        streams = [inherited(stream, parent) for stream in streams]
    spec = ProfileSpec(tuple(uniquely_named([stream for stream in streams if stream.tensor in tensors])))
    used = {stream.tensor for stream in spec.streams}
    profile = summarise(spec, {name: values for name, values in tensors.items() if name in used})
    return Reference(spec, profile, sources={"profile": LEARNT})


def is_learnt(reference: Reference) -> bool:
    """Tell whether a reference is of the first windows, so that it says nothing of training data."""
    return reference.sources.get("profile") == LEARNT


def _columns(schema: ModelSchema, tensors: Mapping[str, Array]) -> list[tuple[str, Array]]:
    """Return the columns that are one value a row, inputs first."""
    found: list[tuple[str, Array]] = []
    for field in schema.inputs:
        values = tensors.get(field.tensor)
        if values is not None and values.ndim and (field.column is not None or math.prod(values.shape[1:]) == 1):
            rows = values.reshape(len(values), -1)
            if (field.column or 0) < rows.shape[1]:
                found.append((f"in:{field.name}", rows[:, field.column or 0]))
    for output in schema.outputs:
        values = tensors.get(output.name)
        if values is None or not values.ndim:
            continue
        rows = values.reshape(len(values), -1)
        if output.role == "probabilities":
            best = rows[:, 1] if rows.shape[1] == 2 else rows.max(axis=1)
            found.append((f"out:{output.name}", best))
        elif rows.shape[1] <= MOST_COLUMNS:
            found += [(f"out:{output.name}:{at}", rows[:, at]) for at in range(rows.shape[1])]
    return found


def _numbers(column: Array) -> Sketch:
    x = column.astype(np.float64)
    present = x[np.isfinite(x)]
    values, counts = np.unique(present, return_counts=True)
    frequent = np.flatnonzero(counts >= max(_LEAST_REPEATS, _RECURS * len(present)))
    chosen = frequent[np.lexsort((values[frequent], -counts[frequent]))][:_MOST_VALUES]
    rest = present[~np.isin(present, values[chosen])]
    quantiles = np.quantile(rest, _LEVELS) if len(rest) >= _LEAST_REPEATS else []
    return Sketch(
        n=len(x),
        missing=len(x) - len(present),
        whole=bool(len(present)) and bool((present == np.rint(present)).all()),
        values=tuple((rounded(float(values[at]), 9), int(counts[at])) for at in sorted(chosen.tolist())),
        quantiles=tuple(sorted(rounded(float(value)) for value in quantiles)),
    )


def _texts(column: Array) -> Sketch:
    texts = [category_text(value) for value in column.tolist()]
    present = [text for text in texts if text]
    counts = Counter(present)
    recurring = {t: n for t, n in counts.items() if n >= max(_LEAST_REPEATS, _RECURS * len(present))}
    told = sorted(recurring.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_VALUES]
    is_prose = sum(recurring.values()) < len(present) / 2
    lengths = np.quantile([min(len(text), _LONGEST_TEXT) for text in present], _LEVELS) if is_prose and present else []
    return Sketch(
        n=len(texts),
        missing=len(texts) - len(present),
        values=() if is_prose else tuple((text, n) for text, n in told if len(text) <= _MOST_TEXT),
        quantiles=tuple(sorted(rounded(float(value)) for value in lengths)),
        prose=is_prose and bool(present),
    )


class _Pool:
    """The sketches of several devices as one made-up sample."""

    def __init__(self, told: Sequence[Sketches]) -> None:
        self._told = sorted(told, key=msgspec.json.encode)
        rows = sum(max((one.n for one in sketches.values()), default=0) for sketches in told)
        self.rows = min(_POOLED_ROWS, max(rows, 1))

    def of(self, key: str, *, is_text: bool) -> list[Sketch]:
        """Return what devices told of a column of texts, or of numbers; empty ones and those of others are left out."""
        told = [sketches[key] for sketches in self._told if key in sketches]
        return [one for one in told if one.n and _fits(one, is_text=is_text)]

    def width(self, output: OutputSpec) -> int:
        """Return how many columns an output has: as its shape says, else as most devices that told of it saw."""
        sizes = output.shape[1:]
        if all(isinstance(size, int) for size in sizes):
            return min(math.prod(size for size in sizes if isinstance(size, int)), MOST_COLUMNS)
        is_text = output.dtype == "string"
        told = [len(self.of(f"out:{output.name}:{at}", is_text=is_text)) for at in range(MOST_COLUMNS)]
        return sum(2 * devices > max(told) for devices in told)

    def column(self, key: str, *, is_text: bool) -> Array | None:
        """Return a sample of a column, shape (rows,): numbers with NaN, or texts with empty ones; none: nobody told."""
        told = self.of(key, is_text=is_text)
        if not told:
            return None
        told = told if is_text else _believed(told)
        shares = np.linspace(0, self.rows, len(told) + 1).round().astype(int)
        parts = [
            (_text_part if is_text else _number_part)(one, n) for one, n in zip(told, np.diff(shares), strict=True)
        ]
        column = np.concatenate(parts)
        whole = not is_text and all(one.whole and not one.missing for one in told)
        if whole and np.abs(column).max(initial=0.0) <= _LARGEST_WHOLE:
            return np.asarray(np.rint(column).astype(np.int64))
        return column


def _fits(one: Sketch, *, is_text: bool) -> bool:
    """Tell whether a device can have seen this in a column of texts, or of numbers."""
    texts = [isinstance(value, str) for value, _ in one.values]
    if not is_text:
        return not one.prose and not any(texts)
    return all(texts) and (one.prose or not one.quantiles) and max(one.quantiles, default=0.0) <= _LONGEST_TEXT


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


def _number_part(one: Sketch, rows: int) -> Array:
    """Return numbers with the shares that a sketch says, the largest remainders first."""
    levels = (np.arange(rows) + 0.5) / max(rows, 1) * one.n
    edges = np.cumsum([one.missing, *(count for _, count in one.values)])
    out = np.full(rows, np.nan)
    for at, (value, _) in enumerate(one.values):
        out[(levels >= edges[at]) & (levels < edges[at + 1])] = value
    rest = levels >= edges[-1]
    if one.quantiles and rest.any():
        inside = (levels[rest] - edges[-1]) / max(one.n - edges[-1], 1e-9)
        out[rest] = np.interp(inside, _LEVELS, one.quantiles)
    return np.asarray(np.rint(out)) if one.whole else out


def _text_part(one: Sketch, rows: int) -> Array:
    levels = (np.arange(rows) + 0.5) / max(rows, 1) * one.n
    edges = np.cumsum([one.missing, *(count for _, count in one.values)])
    out = np.full(rows, "", dtype=object)
    for at, (value, _) in enumerate(one.values):
        out[(levels >= edges[at]) & (levels < edges[at + 1])] = str(value)
    rest = np.flatnonzero(levels >= edges[-1])
    if len(rest) and one.quantiles:  # free text: only its length is known
        lengths = np.interp((np.arange(len(rest)) + 0.5) / len(rest), _LEVELS, one.quantiles)
        out[rest] = ["x" * int(length) for length in lengths]
    elif len(rest):
        out[rest] = "\N{REPLACEMENT CHARACTER}"  # what recurred too seldom to be told
    return out


def _input_streams(field: FieldSpec, column: Array, pooled: _Pool) -> list[Stream]:
    if column.dtype != object:
        found = input_streams(msgspec.structs.replace(field, column=None), column[:, None])
        return [replace(stream, tensor=field.tensor, column=field.column) for stream in found]
    told = pooled.of(f"in:{field.name}", is_text=True)
    raw = Stream(field.name, "input", CategoricalGrid(()), field.tensor, field.column)
    if 2 * sum(one.prose for one in told) > len(told):
        lengths = fit_integer([len(text) for text in column.tolist() if text])
        shares = unit_interval_grid(bins=24)
        return [
            replace(raw, name=f"{field.name}.length", grid=lengths, derive="length"),
            *(replace(raw, name=f"{field.name}.{derive}", grid=shares, derive=derive) for derive in _FREE_TEXTS),
        ]
    return [replace(raw, grid=CategoricalGrid(_categories(told)))]


def _categories(told: Sequence[Sketch]) -> tuple[str, ...]:
    """Return the texts that most rows have, at most 64, sorted."""
    shares: Counter[str] = Counter()
    for one in told:
        shares.update({str(value): round(1e6 * count / one.n) for value, count in one.values})
    return tuple(sorted(text for text, _ in sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:64]))


def _output(output: OutputSpec, pooled: _Pool) -> Array | None:
    """Return an output of the made-up sample; none: nothing was told of it."""
    if output.role == "probabilities":
        best = pooled.column(f"out:{output.name}", is_text=False)
        width = output.shape[-1] if len(output.shape) == 2 else None
        if best is None or width is None or width < 2:
            return None
        best = np.clip(np.nan_to_num(best.astype(np.float64)), 0.0, 1.0)
        values = np.repeat(((1 - best) / (width - 1))[:, None], width, axis=1)
        values[:, 1] = best
        return values.astype(np.float32)
    keys = [f"out:{output.name}:{at}" for at in range(pooled.width(output))]
    columns = [pooled.column(key, is_text=output.dtype == "string") for key in keys]
    known = [column for column in columns if column is not None]
    if not known or len(known) < len(columns):
        return None
    table = np.stack(known, axis=1)
    return table[:, 0] if len(output.shape) == 1 else table


def _put(tensors: dict[str, Array], schema: ModelSchema, tensor: str, at: int, column: Array) -> None:
    """Put a column into its tensor, whose other columns are missing until they come."""
    width = 1 + max((field.column or 0 for field in schema.inputs if field.tensor == tensor), default=0)
    if tensor not in tensors:
        is_text = column.dtype == object
        tensors[tensor] = np.full((len(column), width), "" if is_text else np.nan, object if is_text else np.float64)
    tensors[tensor][:, at] = column

"""What a device tells of the first rows of a bundle that came without data: a sketch a column.

Owns the sketches and what of a row may go into them: rounded quantiles, values that recur, shares; of numbers side by
side how they correlate; of a wide tensor the same about its digests. No row leaves the device, of numbers that don't
recur only rounded quantiles, of texts only those that recur, and of free texts a filter of the words that do. Leaves
what is made of them to `learning`.

Invariant: a sketch is of bounded size, and all of them together fit one message (`MAX_SKETCH_BYTES`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.schema import FieldSpec, ModelSchema, OutputSpec
from shoal_protocol.canonical import rounded
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.derivation import sketch_bits, text_value, vocabulary_sketch
from shoal_protocol.profile.grid import MISSING, category_text, fit_numeric
from shoal_protocol.profile.streams import MOST_COLUMNS
from shoal_protocol.profile.wide import FirstDigests, Shape, is_digestible

Array = npt.NDArray[Any]

LEAST_ROWS = 200
"""Rows from which on a device tells a sketch."""

MAX_SKETCH_BYTES = 56 * 1024
MOST_COLUMNS_TOLD = 256
MOST_JOINED = 64
"""So many numbers of a row are told how they correlate."""

CORRELATION_UNIT = 10_000
LEVELS = np.concatenate([[0.002, 0.01], np.linspace(0.03, 0.97, 29), [0.99, 0.998]])
"""Of the quantiles of a sketch."""

LONGEST_TEXT = 10_000
SHARES = ("letters", "digits", "non_ascii", "unknown_tokens")
"""What is told of free texts beside their lengths."""

_MOST_VALUES = 32
_RECURS = 1 / 64
_LEAST_REPEATS = 8
_MOST_TEXT = 64
_LARGEST = 1e30  # counting is float32
_ROWS_A_SOURCE = 5
_SURE_OF_ROOM = 128
_NUMBERS = {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"}


class Sketch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column of one device's first rows.

    Attributes:
        n: Rows.
        missing: Of them.
        whole: Whether all numbers are whole.
        values: Numbers, or texts, that recur, and how many rows have each.
        quantiles: Of the other numbers; of free texts, of their lengths. At fixed levels, rounded.
        prose: Whether the column is text that hardly recurs.
        correlations: With each of `joinable` before it, in parts of `CORRELATION_UNIT`; none: it isn't one of them, or
            there were too few rows.
        vocabulary: Of free texts, a filter of the words that recur, see `derivation.vocabulary_sketch`.
    """

    n: int
    missing: int = 0
    whole: bool = False
    values: tuple[tuple[str | float, int], ...] = ()
    quantiles: tuple[float, ...] = ()
    prose: bool = False
    correlations: tuple[int, ...] = ()
    vocabulary: str = ""


Sketches = dict[str, Sketch]
"""By ``in:FEATURE``, ``out:OUTPUT``, ``out:OUTPUT:COLUMN``, ``text:FEATURE:SHARE`` or ``wide:TENSOR:DIGEST``."""


def sketch(column: Array) -> Sketch:
    """Sum up one column.

    Args:
        column: Shape (rows,), numbers or texts.
    """
    return _texts(column) if column.dtype.kind in "OUS" else _numbers(column)


def sketches_of(schema: ModelSchema, tensors: Mapping[str, Array]) -> Sketches:
    """Sum up what is one value a row, and the digests of what is wide, until `MAX_SKETCH_BYTES` are full.

    Args:
        schema: Of the bundle.
        tensors: Inputs and outputs by name, rows first, equally many; of wide ones their `first_columns`.
    """
    found: Sketches = {}
    size = 0
    for key, one in _told(schema, tensors):
        size += len(msgspec.json.encode({key: one}))
        if size > MAX_SKETCH_BYTES or len(found) == MOST_COLUMNS_TOLD:
            break
        found[key] = one
    names = [f"in:{field.name}" for field in joinable(schema)]
    for key, row in zip(names, _correlations([_column(field, tensors) for field in joinable(schema)]), strict=False):
        size += len(msgspec.json.encode({"correlations": row}))
        if size > MAX_SKETCH_BYTES:
            break
        if key in found:
            found[key] = msgspec.structs.replace(found[key], correlations=row)
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
        if not _is_possible(one):
            raise ContentError(f"the sketch of {key:.60} is not what a device can have seen")
    return found


def joinable(schema: ModelSchema) -> list[FieldSpec]:
    """Return the inputs whose correlations are told: the first numbers that are one a row."""
    shapes = {tensor.name: tensor.shape for tensor in schema.tensors}
    fields = [
        f for f in schema.inputs if f.dtype in _NUMBERS and (f.column is not None or _width(shapes[f.tensor]) == 1)
    ]
    return fields[:MOST_JOINED]


def wide_tensors(schema: ModelSchema) -> dict[str, Shape]:
    """Return the shapes of the inputs and outputs of which digests are told, by name.

    Wide are features of several values a row, outputs of more than are counted one by one, and tensors of so many
    columns that there may be no room to tell all of them.
    """
    whole = {field.tensor for field in schema.inputs if field.column is None}
    if len(schema.inputs) > _SURE_OF_ROOM:
        whole |= {field.tensor for field in schema.inputs}
    found = {
        t.name: t.shape for t in schema.tensors if t.name in whole and t.dtype in _NUMBERS and _width(t.shape) != 1
    }
    outputs = [one for one in schema.outputs if one.role in {"value", "other"} and one.dtype in _NUMBERS]
    found |= {o.name: o.shape for o in outputs if len(o.shape) > 2 or (_width(o.shape) or 0) > MOST_COLUMNS}
    return {name: shape for name, shape in found.items() if is_digestible(shape)}


def is_counted_by_largest(output: OutputSpec) -> bool:
    """Tell whether of an output's columns the largest is what counts: a confidence."""
    return output.role == "probabilities" or (output.role == "scores" and _width(output.shape) != 1)


def _width(shape: Shape) -> int | None:
    """Return how many values a row has; none: it varies."""
    sizes = [size for size in shape[1:] if size is not None]
    return math.prod(sizes) if len(sizes) == len(shape[1:]) else None


def _told(schema: ModelSchema, tensors: Mapping[str, Array]) -> Iterator[tuple[str, Sketch]]:
    """Yield what is told, what matters most first: answers, digests, then the inputs in their order."""
    for output in schema.outputs:
        if output.name in tensors:
            yield from ((key, sketch(column)) for key, column in _output_columns(output, tensors[output.name]))
    for name, shape in wide_tensors(schema).items():
        digests = tensors.get(first_columns(name))
        if digests is not None:
            names = FirstDigests(shape).names
            yield from ((f"wide:{name}:{digest}", sketch(digests[:, at])) for at, digest in enumerate(names))
    for field in schema.inputs:
        column = _column(field, tensors)
        if column is None:
            continue
        one = sketch(column)
        if one.prose:
            texts = [text for value in column.tolist() if (text := category_text(value))]
            one = msgspec.structs.replace(one, vocabulary=vocabulary_sketch(texts, least=_LEAST_REPEATS))
            shares = _shares(texts, one.vocabulary)
            yield from ((f"text:{field.name}:{share}", sketch(values)) for share, values in shares)
        yield f"in:{field.name}", one


def first_columns(tensor: str) -> str:
    """Return the name under which a wide tensor's digests, instead of itself, are kept of first rows."""
    return f"wide:{tensor}"


def _column(field: FieldSpec, tensors: Mapping[str, Array]) -> Array | None:
    values = tensors.get(field.tensor)
    if values is None or not values.ndim or (field.column is None and math.prod(values.shape[1:]) != 1):
        return None
    rows = values.reshape(len(values), -1)
    return rows[:, field.column or 0] if (field.column or 0) < rows.shape[1] else None


def _output_columns(output: OutputSpec, values: Array) -> list[tuple[str, Array]]:
    if not values.ndim:
        return []
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    if is_counted_by_largest(output):
        best = rows[:, 1] if rows.shape[1] == 2 and output.role == "probabilities" else rows.max(axis=1)
        return [(f"out:{output.name}", best)]
    if rows.shape[1] > MOST_COLUMNS:
        return []
    return [(f"out:{output.name}:{at}", rows[:, at]) for at in range(rows.shape[1])]


def _numbers(column: Array) -> Sketch:
    x = column.astype(np.float64)
    present = x[np.isfinite(x)]
    values, counts = np.unique(present, return_counts=True)
    frequent = np.flatnonzero(counts >= max(_LEAST_REPEATS, _RECURS * len(present)))
    chosen = frequent[np.lexsort((values[frequent], -counts[frequent]))][:_MOST_VALUES]
    rest = present[~np.isin(present, values[chosen])]
    quantiles = np.quantile(rest, LEVELS) if len(rest) >= _LEAST_REPEATS else []
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
    lengths = np.quantile([min(len(text), LONGEST_TEXT) for text in present], LEVELS) if is_prose and present else []
    return Sketch(
        n=len(texts),
        missing=len(texts) - len(present),
        values=() if is_prose else tuple((text, n) for text, n in told if len(text) <= _MOST_TEXT),
        quantiles=tuple(sorted(rounded(float(value)) for value in lengths)),
        prose=is_prose and bool(present),
    )


def _shares(texts: Sequence[str], vocabulary: str) -> Iterator[tuple[str, Array]]:
    for share in SHARES:
        value_of = text_value(share, {"sketch": vocabulary})
        yield share, np.array([value_of(text) for text in texts], dtype=np.float64)


def _correlations(columns: Sequence[Array | None]) -> list[tuple[int, ...]]:
    """Return how each column correlates with those before it, on cells of its own, so that no row weighs much.

    Args:
        columns: Shape (rows,), numbers; none: nothing is known of it, as of one that never varies.

    Returns:
        Of as many columns as there are rows enough for.
    """
    rows = max((len(column) for column in columns if column is not None), default=0)
    columns = columns[: rows // _ROWS_A_SOURCE]
    standard = np.zeros((rows, len(columns)))
    for at, column in enumerate(columns):
        if column is not None:
            standard[:, at] = _standard(column.astype(np.float64))
    told = np.rint(CORRELATION_UNIT / max(rows, 1) * standard.T @ standard).astype(int)
    return [tuple(told[at, :at].tolist()) for at in range(len(columns))]


def _standard(column: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a column's cells less their mean, divided by their spread; zero where it is missing, or never varies."""
    present = np.isfinite(column)
    if not present.any():
        return np.zeros(len(column))
    low, high = np.quantile(column[present], [0.01, 0.99])
    reach = (high - low) / 2
    held = np.clip(column, low - reach, high + reach)
    cells = fit_numeric(held).cells_of(held).astype(np.float64)
    known = cells != MISSING
    away = np.where(known, cells - cells[known].mean(), 0.0)
    spread = float(np.sqrt((away * away).mean()))
    return away / spread if spread > 0 else away


def _is_possible(one: Sketch) -> bool:
    numbers = [*one.quantiles, *(value for value, _ in one.values if not isinstance(value, str))]
    counts = [count for _, count in one.values]
    try:
        known = not one.vocabulary or bool(sketch_bits(one.vocabulary))
    except ValueError:
        return False
    return (
        known
        and 0 <= one.missing <= one.n < 2**40
        and min(counts, default=1) > 0
        and sum(counts) <= one.n
        and len(one.values) <= _MOST_VALUES * 2
        and len(one.quantiles) in {0, len(LEVELS)}
        and all(abs(value) <= _LARGEST for value in numbers)
        and sorted(one.quantiles) == [*one.quantiles]
        and len(one.correlations) < MOST_JOINED
        and all(abs(part) <= CORRELATION_UNIT for part in one.correlations)
    )

"""Which streams a model has: what is counted of each input and output, by what the sample's values look like.

Owns the choice of kinds. Numbers go on a numeric grid, whole numbers each in a cell of their own where they are few,
booleans, few distinct integers and texts that repeat as categories; points in time as hour and weekday (time itself
moves on, which is no drift); free text, images and other wide tensors as a handful of digests, so that a window stays
small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from shoal_protocol.bundle.schema import FieldSpec, OutputSpec
from shoal_protocol.profile.derivation import tokens, vocabulary_sketch
from shoal_protocol.profile.grid import (
    FEW_VALUES,
    CategoricalGrid,
    NumericGrid,
    fit_categorical,
    fit_few,
    fit_integer,
    fit_numeric,
    unit_interval_grid,
)
from shoal_protocol.profile.profile import ProfileSpec, Stream, derived
from shoal_protocol.profile.wide import sample_digests

Array = npt.NDArray[Any]

MOST_COLUMNS = 16
"""So many columns of an output are counted each by itself."""

_MAX_INTEGER_CATEGORIES = 32
_MAX_CATEGORIES = 64
_TIME_UNITS = (1, 10**3, 10**6, 10**9)
_EARLIEST_S, _LATEST_S = 631_152_000, 4_102_444_800  # 1990 to 2100
_PROSE_TOKENS = 4


def is_scalar(field: FieldSpec, values: Array) -> bool:
    """Tell whether a feature is one value a row."""
    return field.column is not None or math.prod(values.shape[1:]) == 1


def input_streams(field: FieldSpec, values: Array) -> list[Stream]:
    """Return the streams of one input feature.

    Args:
        field: The feature.
        values: Its tensor in the sample, rows first.
    """
    if not is_scalar(field, values):
        return _wide_streams(f"{field.name}.", "input", field.tensor, values)
    column = values.reshape(len(values), -1)[:, field.column or 0]
    raw = Stream(field.name, "input", NumericGrid(0.0, 1.0), field.tensor, field.column)
    if column.dtype.kind in "OUS":
        return _text_streams(raw, column)
    unit = time_unit(column)
    if unit is not None:
        params = {"per_s": unit}
        hours, days = (CategoricalGrid(tuple(sorted(map(str, range(most))))) for most in (24, 7))
        return [
            replace(raw, name=f"{field.name}.hour", grid=hours, derive="hour", params=params),
            replace(raw, name=f"{field.name}.weekday", grid=days, derive="weekday", params=params),
        ]
    is_few = column.dtype.kind in "iu" and len(np.unique(column)) <= _MAX_INTEGER_CATEGORIES
    if is_few or column.dtype.kind == "b":
        return [replace(raw, grid=fit_categorical(column))]
    return [replace(raw, grid=_number_grid(column))]


def uncounted_streams(
    fields: Sequence[FieldSpec], counted: Sequence[FieldSpec], tensors: Mapping[str, Array]
) -> list[Stream]:
    """Return digests of the tensors of which some features are not counted, since there are too many."""
    left = {field.tensor for field in fields} - {f.tensor for f in fields if f in counted and f.column is None}
    if len(fields) == len(counted):
        return []
    wide = sorted(
        name for name in left if math.prod(tensors[name].shape[1:]) > 1 and tensors[name].dtype.kind in "fiub"
    )
    return [stream for name in wide for stream in _wide_streams(f"{name}.", "input", name, tensors[name])]


def output_streams(outputs: Sequence[OutputSpec], found: Mapping[str, Array], *, rows: int) -> list[Stream]:
    """Return the streams of the outputs.

    Args:
        outputs: The schema's.
        found: What the model answers on the sample, by output.
        rows: Of the sample; an output that doesn't lie row by row (the probabilities of several labels) isn't counted.
    """
    streams: list[Stream] = []
    for output in outputs:
        values = found[output.name]
        if len(values) != rows:
            continue
        if output.role == "label":
            streams += _label_streams(output, values)
        elif output.role == "probabilities" and values.ndim == 2:
            streams.append(Stream("confidence", "output", unit_interval_grid(), output.name, None, "row_max"))
            if values.shape[1] == 2:
                streams.append(Stream("score", "output", unit_interval_grid(), output.name, 1))
        elif output.role == "scores" and values.ndim == 2:
            one = values.shape[1] == 1
            streams.append(_numeric("score", output.name, 0 if one else None, "value" if one else "row_max", values))
        elif values.dtype.kind in "fiub" and (values.ndim > 2 or (values.ndim == 2 and values.shape[1] > MOST_COLUMNS)):
            streams += _wide_streams(f"{output.name}.", "output", output.name, values)
        elif output.role in {"value", "other"} and values.dtype.kind in "fiub" and values.ndim in {1, 2}:
            width = math.prod(values.shape[1:])
            names = ["value"] if width == 1 else [f"value{at}" for at in range(width)]
            streams += [_numeric(name, output.name, at, "value", values) for at, name in enumerate(names)]
    return streams


def inherited(stream: Stream, parent: ProfileSpec) -> Stream:
    """Return the stream on the grid, and with the parameters, of an earlier version's, where the two count the same."""
    at = parent.index.get(stream.name)
    if at is None:
        return stream
    old = parent.streams[at]
    same = (old.kind, old.tensor, old.column, old.derive) == (stream.kind, stream.tensor, stream.column, stream.derive)
    if not same or type(old.grid) is not type(stream.grid):
        return stream
    return replace(stream, grid=old.grid, params=old.params)


def uniquely_named(streams: Sequence[Stream]) -> list[Stream]:
    """Give an output's stream another name where a feature has the same."""
    taken: set[str] = set()
    out = []
    for stream in streams:
        name = stream.name
        while name in taken:
            name = f"output.{name}"
        taken.add(name)
        out.append(replace(stream, name=name))
    return out


def _label_streams(output: OutputSpec, values: Array) -> list[Stream]:
    """Return one stream of a label, or one of each where there are several (multi-output, multi-label)."""

    def grid(column: Array) -> CategoricalGrid:
        return CategoricalGrid(tuple(sorted(output.classes))) if output.classes else fit_categorical(column)

    if values.ndim == 1 or values.shape[1] == 1:
        return [Stream("label", "output", grid(values), output.name)]
    most = min(math.prod(values.shape[1:]), MOST_COLUMNS)
    columns = values.reshape(len(values), -1)
    return [Stream(f"label{at}", "output", fit_categorical(columns[:, at]), output.name, at) for at in range(most)]


def _numeric(name: str, tensor: str, column: int | None, derive: str, values: Array) -> Stream:
    return _fitted(Stream(name, "output", NumericGrid(0.0, 1.0), tensor, column, derive), values)


def _fitted(stream: Stream, values: Array) -> Stream:
    found = derived(stream, values)
    return replace(stream, grid=fit_few(found) if len(found) < FEW_VALUES else fit_numeric(found))


def _number_grid(column: Array) -> NumericGrid:
    if len(column) < FEW_VALUES:
        return fit_few(column)
    return fit_integer(column) if _is_whole(column) else fit_numeric(column)


def _is_whole(column: Array) -> bool:
    if column.dtype.kind in "iu":
        return True
    finite = column[np.isfinite(column)]
    return bool(finite.size and (finite == np.rint(finite)).all())


def time_unit(column: Array) -> int | None:
    """Return in what parts of a second a column of whole numbers counts the time since 1970, or none if it doesn't."""
    finite = column[np.isfinite(column)].astype(np.float64) if column.dtype.kind in "iuf" else column[:0]
    if finite.size < 2 or not _is_whole(column):
        return None
    low, high = float(finite.min()), float(finite.max())
    return next((u for u in _TIME_UNITS if _EARLIEST_S * u <= low < high <= _LATEST_S * u), None)


def _text_streams(raw: Stream, column: Array) -> list[Stream]:
    texts = [str(text) for text in column.tolist()]
    if not _is_prose(texts):
        return [replace(raw, grid=fit_categorical(column))]
    sketch = {"sketch": vocabulary_sketch(texts)}
    lengths = fit_integer([len(text) for text in texts])
    shares = [("letters", {}), ("digits", {}), ("non_ascii", {}), ("unknown_tokens", sketch)]
    return [
        replace(raw, name=f"{raw.name}.length", grid=lengths, derive="length"),
        *(
            replace(raw, name=f"{raw.name}.{derive}", grid=unit_interval_grid(bins=24), derive=derive, params=params)
            for derive, params in shares
        ),
    ]


def _is_prose(texts: Sequence[str]) -> bool:
    """Tell whether texts are too many for categories: hardly any twice, or sentences."""
    distinct = len(set(texts))
    if distinct <= _MAX_CATEGORIES:
        return False
    sentences = sum(map(len, map(tokens, texts))) >= _PROSE_TOKENS * len(texts)
    return sentences or 2 * distinct >= len(texts)


def _wide_streams(prefix: str, kind: Any, tensor: str, values: Array) -> list[Stream]:
    return [_fitted(stream, values) for stream in sample_digests(prefix, kind, tensor, values)]

"""Rows that the sample doesn't hold, on which a conversion is compared as well.

A sample of typical rows can't tell an exact model from one that is exact on those rows alone. So rows are made from it:
each feature from another row, numbers halfway between two rows, and texts in other letters. What the source refuses (an
unseen category, say) is left out; where it answers, the ONNX model has to answer alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.frame_columns import MISSING_TEXT
from shoal_converter.sample import Sample

Array = npt.NDArray[Any]

_ROWS = 96


def probes(sample: Sample) -> Iterator[Sample]:
    """Yield samples of rows made from a sample's, the same ones for the same sample."""
    rng = np.random.default_rng(0)
    count = min(_ROWS, max(16, sample.rows))
    first = rng.integers(0, sample.rows, (count, len(sample.columns)))
    if sample.form != "text" and sample.rows > 1:
        yield _built(sample, lambda at, values: values[first[:, at]])
        yield _between(sample, first, rng.integers(0, sample.rows, first.shape))
    free = {at for at, column in enumerate(sample.columns) if column.dtype == "string" and not _is_category(sample, at)}
    if free:  # a column of categories can't hold other texts, so the source has no say about them

        def otherwise(at: int, values: Array) -> Array:
            return _in_other_letters(values[first[:, at]]) if at in free else values[first[:, at]]

        yield _built(sample, otherwise)


def _between(sample: Sample, first: Array, second: Array) -> Sample:
    def halfway(at: int, values: Array) -> Array:
        column = sample.columns[at]
        if not column.dtype.startswith("float") or column.is_boolean or _source_values(sample, at).dtype.kind in "biu":
            return np.asarray(values[first[:, at]])
        fed = sample.values(column)  # halfway between numbers as they are fed, so that both sides get the same
        return np.asarray((fed[first[:, at]] + fed[second[:, at]]) / 2)

    return _built(sample, halfway)


def _in_other_letters(values: Array) -> Array:
    """Return texts in capitals, with other blanks and punctuation, and what is no text unchanged."""
    turns: tuple[Callable[[str], str], ...] = (
        str.upper,
        str.title,
        lambda text: text.replace(" ", "\n\t"),
        lambda text: f"  {text}!? {text}",
        lambda text: text.replace(" ", "-_'"),
        lambda _: "",
    )
    out = values.copy().astype(object)
    for at, text in enumerate(out):
        if isinstance(text, str) and text != MISSING_TEXT:
            out[at] = turns[at % len(turns)](text)
    return out


def _built(sample: Sample, make: Callable[[int, Array], Array]) -> Sample:
    """Return a sample whose every column is made anew from the old one's values, in both forms alike."""
    tensors = {name: [] for name in sample.tensors}  # type: dict[str, list[Array]]
    made: list[Array] = []
    for at, column in enumerate(sample.columns):
        tensors[column.tensor].append(make(at, sample.values(column)))
        made.append(make(at, _source_values(sample, at)))
    joined = {name: np.stack(parts, axis=1).astype(sample.tensors[name].dtype) for name, parts in tensors.items()}
    return replace(sample, source=_as_source(sample, made), tensors=joined)


def _is_category(sample: Sample, at: int) -> bool:
    source = sample.source
    return hasattr(source, "iloc") and source.iloc[:, sample.place(at)].dtype.name == "category"


def _source_values(sample: Sample, at: int) -> Any:
    source = sample.source
    if hasattr(source, "iloc"):
        column = source.iloc[:, sample.place(at)]
        return column.array if column.dtype.kind not in "biufO" else column.to_numpy()
    array = np.asarray(source)
    return array if array.ndim == 1 else array[:, at]


def _as_source(sample: Sample, made: list[Any]) -> Any:
    source = sample.source
    if hasattr(source, "iloc"):
        import pandas as pd  # noqa: PLC0415 - the source is a frame of it

        by_place = {sample.place(at): values for at, values in enumerate(made)}
        rows = np.arange(len(made[0])) % len(source)
        columns = [by_place.get(at, source.iloc[rows, at].array) for at in range(len(source.columns))]
        return pd.DataFrame({label: _typed(columns[at], source.iloc[:, at]) for at, label in enumerate(source.columns)})
    array = np.asarray(source)
    if array.ndim == 1:
        return made[0]
    return np.stack([np.asarray(values) for values in made], axis=1).astype(array.dtype)


def _typed(values: Any, column: Any) -> Any:
    """Return values in the column's own type where they fit it: a category keeps its categories."""
    import pandas as pd  # noqa: PLC0415 - as above

    inferred = None if values.dtype != object else object  # else None among texts would become NaN
    series = pd.Series(values, dtype=inferred)
    if isinstance(column.dtype, pd.CategoricalDtype):
        series = series.where(series.isin(column.dtype.categories))
    try:
        return series.astype(column.dtype)
    except (TypeError, ValueError):
        return series

"""Golden rows: the few rows of the sample that a device computes before it lets a model answer.

Pure choice of row numbers, the same for the same arrays. Every class first; then in turns the least certain rows of
each class, an even spread over every numeric output, and the edges of the inputs: missing values, the ends of each
feature, each category. What room is left goes to rows evenly spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

GOLDEN_ROWS = 48
MOST_BYTES = 1 << 20
_FEWEST = 4
_MOST_CLASSES = 32
_MOST_COLUMNS = 64
_MOST_CATEGORIES = 32
_QUANTILES = 8
_TEXT_BYTES = 64


def golden_rows(inputs: Mapping[str, Array], outputs: Mapping[str, Array], *, most: int = GOLDEN_ROWS) -> Rows:
    """Return ascending row numbers.

    Args:
        inputs: Input tensors, rows first.
        outputs: Outputs with rows first; others are left aside.
        most: At most so many rows, and fewer where they would take more than 1 MiB.
    """
    rows = len(next(iter(inputs.values())))
    room = min(most, rows, max(_FEWEST, MOST_BYTES // max(1, _row_bytes(inputs))))
    chosen: dict[int, None] = {}
    for row in _wanted(inputs, {name: values for name, values in outputs.items() if len(values) == rows}, rows):
        if len(chosen) >= room:
            break
        chosen.setdefault(int(row))
    return np.array(sorted(chosen), dtype=np.int64)


def _row_bytes(inputs: Mapping[str, Array]) -> int:
    return sum(
        (_TEXT_BYTES if values.dtype.kind in "OUS" else values.dtype.itemsize) * int(np.prod(values.shape[1:]))
        for values in inputs.values()
    )


def _wanted(inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int) -> Iterator[int]:
    members = _members(outputs)
    certainty = next((v.reshape(rows, -1).max(axis=1) for n, v in outputs.items() if n != "label"), np.zeros(rows))
    yield from (int(of_class[np.argmax(certainty[of_class])]) for of_class in members)
    unsure = (int(of_class[np.argmin(certainty[of_class])]) for of_class in members)
    for turn in zip_longest(unsure, _quantiles(outputs, rows), _edges(inputs)):
        yield from (row for row in turn if row is not None)
    yield from (int(row) for row in np.linspace(0, rows - 1, GOLDEN_ROWS))


def _members(outputs: Mapping[str, Array]) -> list[Rows]:
    """Return the rows of each predicted class."""
    labels = outputs.get("label")
    if labels is None or labels.ndim != 1:
        return []
    return [np.flatnonzero(labels == label) for label in sorted(set(labels.tolist()), key=str)[:_MOST_CLASSES]]


def _quantiles(outputs: Mapping[str, Array], rows: int) -> Iterator[int]:
    for name, values in outputs.items():
        if name == "label" or values.dtype.kind != "f":
            continue
        for column in values.reshape(rows, -1).T[:_QUANTILES]:
            order = np.argsort(column, kind="stable")
            yield from (int(order[int(at)]) for at in np.linspace(0, rows - 1, _QUANTILES))


def _edges(inputs: Mapping[str, Array]) -> Iterator[int]:
    """Yield rows that hold an edge of a feature: of all features the first edge, then of all the second, and so on."""
    columns = [column for values in inputs.values() for column in values.reshape(len(values), -1).T[:_MOST_COLUMNS]]
    for turn in zip_longest(*(_edges_of(column) for column in columns[:_MOST_COLUMNS])):
        yield from (row for row in turn if row is not None)


def _edges_of(column: Array) -> Iterator[int]:
    if column.dtype.kind in "OUS":
        texts = column.astype(str)
        _, first = np.unique(texts, return_index=True)
        yield from (int(row) for row in first[:_MOST_CATEGORIES])
        return
    missing = np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), dtype=bool)
    if missing.any():
        yield int(np.flatnonzero(missing)[0])
    if not missing.all():
        yield int(np.nanargmax(column))
        yield int(np.nanargmin(column))

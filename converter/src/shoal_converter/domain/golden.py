"""Golden rows: the few rows of the sample that a device computes before it lets a model answer.

Pure choice of row numbers, the same for the same arrays: each class at its most and least certain, the extremes and an
even spread of every numeric output, missing values, the ends of each feature, each category; then rows evenly spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

GOLDEN_ROWS = 32


def golden_rows(inputs: Mapping[str, Array], outputs: Mapping[str, Array], *, most: int = GOLDEN_ROWS) -> Rows:
    """Return ascending row numbers.

    Args:
        inputs: Input tensors [N, width].
        outputs: Outputs with rows first; others are left aside.
        most: At most so many rows.
    """
    rows = len(next(iter(inputs.values())))
    chosen: dict[int, None] = {}
    for row in _wanted(inputs, {name: values for name, values in outputs.items() if len(values) == rows}, rows):
        if len(chosen) >= min(most, rows):
            break
        chosen.setdefault(int(row))
    return np.array(sorted(chosen), dtype=np.int64)


def _wanted(inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int) -> Iterator[int]:
    yield from _by_label(outputs)
    for name, values in outputs.items():
        if name != "label" and values.dtype.kind == "f":
            yield from _spread(values.reshape(rows, -1)[:, 0])
    yield from _edges(inputs)
    yield from (int(row) for row in np.linspace(0, rows - 1, GOLDEN_ROWS))


def _by_label(outputs: Mapping[str, Array]) -> Iterator[int]:
    labels = outputs.get("label")
    if labels is None or labels.ndim != 1:
        return
    certainty = next((v.reshape(len(labels), -1).max(axis=1) for n, v in outputs.items() if n != "label"), None)
    for label in sorted(set(labels.tolist()), key=str)[: GOLDEN_ROWS // 2]:
        members = np.flatnonzero(labels == label)
        if certainty is None:
            yield int(members[0])
        else:
            yield int(members[np.argmax(certainty[members])])
            yield int(members[np.argmin(certainty[members])])


def _spread(values: Array) -> Iterator[int]:
    order = np.argsort(values, kind="stable")
    for at in np.linspace(0, len(order) - 1, 8):
        yield int(order[int(at)])


def _edges(inputs: Mapping[str, Array]) -> Iterator[int]:
    for values in inputs.values():
        for column in values.T[:16]:
            if column.dtype.kind in "OUS":
                texts = column.astype(str)
                yield from (int(np.flatnonzero(texts == text)[0]) for text in sorted(set(texts.tolist()))[:8])
                continue
            missing = np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), dtype=bool)
            if missing.any():
                yield int(np.flatnonzero(missing)[0])
            if not missing.all():
                yield int(np.nanargmax(column))
                yield int(np.nanargmin(column))

"""Counts of true labels that came back late: what a model had said against what was true.

Owns the cells in which a device counts and their limits on the wire. A group belongs to the slot, bundle and window of
the *predictions*, whatever window's message carries it; groups are only ever added up, so their order never matters.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.schema import ModelSchema
from shoal_protocol.errors import ContentError
from shoal_protocol.profile.grid import CategoricalGrid, NumericGrid
from shoal_protocol.profile.profile import ProfileSpec

CONFIDENCE_BINS = 64
"""Equal bins of the largest probability on [0, 1]; 1.0 belongs to the last."""

NO_CONFIDENCE = 255
"""The bin where a model gives no probabilities."""

OTHER_CLASS = 65_535
"""What the model said where it is none of its schema's classes."""

MAX_CLASSES = 4096
ERROR_CELLS = 64
MAX_GROUPS, MAX_CELLS = 4096, 4096
_MAX_COUNT = 2**40
_RESOLUTION = 512.0


class ErrorSums(msgspec.Struct, frozen=True, array_like=True):
    """Sums over labelled rows of a regression; an error is what the model said minus what was true.

    Attributes:
        n: Rows.
        error, absolute, square: Sums of the error, its absolute value, its square.
        truth, truth_square: Sums of the true value and of its square.
    """

    n: int
    error: float
    absolute: float
    square: float
    truth: float
    truth_square: float

    def __add__(self, other: ErrorSums) -> ErrorSums:
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return ErrorSums(*(a + b for a, b in pairs))


class LabelGroup(msgspec.Struct, frozen=True, array_like=True):
    """Labels of the predictions of one bundle in one window.

    Attributes:
        slot: That predicted.
        digest: Of the bundle that predicted.
        start_ms, length_ms: Of the window of the predictions, by the device's clock.
        cells: (true class, predicted class, confidence bin, count), classes by their place in `label_classes`; of a
            regression (0, 0, error cell, count).
        errors: Of a regression.
    """

    slot: str
    digest: str
    start_ms: int
    length_ms: int
    cells: tuple[tuple[int, int, int, int], ...] = ()
    errors: ErrorSums | None = None


def label_classes(schema: ModelSchema, spec: ProfileSpec | None) -> tuple[str, ...]:
    """Return the texts of a classifier's classes in the order by which labels are counted; empty: it has none.

    They are the schema's where it lists them, else the categories of the reference's stream of the label.
    """
    label = schema.output("label")
    if label is None:
        return ()
    probabilities = schema.output("probabilities")
    classes = label.classes or (probabilities.classes if probabilities is not None else None)
    if classes is None and spec is not None:
        grids = [s.grid for s in spec.streams if s.kind == "output" and s.tensor == label.name]
        classes = next((grid.categories for grid in grids if isinstance(grid, CategoricalGrid)), None)
    return tuple(classes or ())[:MAX_CLASSES]


def confidence_bins(confidence: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence, `NO_CONFIDENCE` for NaN.

    >>> confidence_bins([0.5, 0.999, 1.0, float("nan")]).tolist()
    [32, 63, 63, 255]
    """
    x = np.asarray(confidence, dtype=np.float64)
    bins = np.clip(np.nan_to_num(x) * CONFIDENCE_BINS, 0, CONFIDENCE_BINS - 1).astype(np.int64)
    return np.where(np.isnan(x), NO_CONFIDENCE, bins)


def confidence_bin(confidence: float) -> int:
    """Return the bin of one confidence, as `confidence_bins` does."""
    if confidence != confidence:  # noqa: PLR0124 - NaN
        return NO_CONFIDENCE
    return int(min(max(confidence * CONFIDENCE_BINS, 0), CONFIDENCE_BINS - 1))


def error_span(spec: ProfileSpec | None, tensor: str) -> float:
    """Return the range of a regression's reference values, in which errors are counted; 2.0 where there is none."""
    for stream in spec.streams if spec is not None else ():
        if stream.kind == "output" and stream.tensor == tensor and isinstance(stream.grid, NumericGrid):
            edges = stream.grid.fine_edges()
            return float(edges[-1] - edges[0])
    return 2.0


def error_cell(error: float, span: float) -> int:
    """Return the cell of an error: fine about zero, coarser outwards (asinh), the ends take what is beyond.

    Args:
        error: Said minus true.
        span: Of `error_span`.

    >>> error_cell(0.0, 2.0), error_cell(9.0, 2.0), error_cell(-9.0, 2.0)
    (32, 63, 0)
    """
    unit = span / _RESOLUTION
    reach = math.asinh(span / 2 / unit)
    at = ERROR_CELLS / 2 * (1 + math.asinh(error / unit) / reach)
    return int(min(max(at, 0), ERROR_CELLS - 1))


def error_edges(span: float) -> npt.NDArray[np.float64]:
    """Return the inner edges of the error cells, float64 of `ERROR_CELLS` - 1, ascending."""
    unit = span / _RESOLUTION
    reach = math.asinh(span / 2 / unit)
    half = ERROR_CELLS / 2
    return np.sinh((np.arange(1, ERROR_CELLS) / half - 1) * reach) * unit


def check_labels(groups: tuple[LabelGroup, ...]) -> tuple[LabelGroup, ...]:
    """Return groups that are in range.

    Raises:
        ContentError: A number is negative or too large, or there are too many.
    """
    if len(groups) > MAX_GROUPS or sum(len(group.cells) for group in groups) > MAX_CELLS:
        raise ContentError(f"profile: more than {MAX_CELLS} cells of labels")
    for group in groups:
        if not 0 < len(group.slot) <= 64 or not group.slot.isprintable():
            raise ContentError("profile: the slot of labels has no name, or one that can't be printed")
        if not 0 <= group.start_ms < 2**53 or not 0 < group.length_ms < 2**53:
            raise ContentError("profile: labels are of no window")
        for truth, said, cell, count in group.cells:
            if not (0 <= truth <= OTHER_CLASS and 0 <= said <= OTHER_CLASS and 0 <= cell <= NO_CONFIDENCE):
                raise ContentError("profile: a label's cell is out of range")
            if not 0 < count <= _MAX_COUNT:
                raise ContentError(f"profile: a count of labels is not in 1 to {_MAX_COUNT}")
        if group.errors is not None:
            _check_errors(group.errors)
    return groups


def _check_errors(sums: ErrorSums) -> None:
    numbers: tuple[Any, ...] = msgspec.structs.astuple(sums)
    bounded = all(math.isfinite(x) and abs(x) < 1e300 for x in numbers)
    if not bounded or not 0 < sums.n <= _MAX_COUNT or min(sums.absolute, sums.square, sums.truth_square) < 0:
        raise ContentError("profile: sums of errors are not finite, or of no rows")

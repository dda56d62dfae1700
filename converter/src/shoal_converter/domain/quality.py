"""How right a model is on labelled rows: counts for a classifier, errors for a regressor, figures by segment.

Pure. Intervals cover 95 %: Wilson's for a share (Wilson, JASA 1927), the normal one for a mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_protocol.profile.quality import (
    CONFIDENCE_BINS,
    MAX_CLASSES,
    Counts,
    DataKind,
    Figure,
    Quality,
    ScoreCounts,
    Segment,
)

Array = npt.NDArray[Any]

MAX_SEGMENTS = 100
_Z95 = 1.959964
_MOST_VALUES = 20


def classified(
    *, truth: Array, label: Array, classes: Sequence[str], probabilities: Array | None, data: DataKind
) -> Quality | None:
    """Count a classifier's answers.

    Args:
        truth: True labels as texts, shape (N,).
        label: Predicted labels as texts, shape (N,).
        classes: Texts of the classes, in the order of the probabilities' columns.
        probabilities: Shape (N, classes), or none where the model gives none.
        data: Which rows these are.

    Returns:
        None where there are more than 100 classes, whose tables would outweigh the model.
    """
    if not 0 < len(classes) <= MAX_CLASSES:
        return None
    index = {text: at for at, text in enumerate(classes)}
    said = np.array([index.get(text, -1) for text in label.tolist()], dtype=np.int64)
    true = np.array([index.get(text, -1) for text in truth.tolist()], dtype=np.int64)
    known = (said >= 0) & (true >= 0)
    answered: Counts = ()
    correct: Counts = ()
    scores: ScoreCounts | None = None
    if probabilities is not None:
        bins = _bins(probabilities.max(axis=1))
        shape = (len(classes), CONFIDENCE_BINS)
        answered = _table(said[said >= 0], bins[said >= 0], shape)
        right = known & (said == true)
        correct = _table(said[right], bins[right], shape)
        if len(classes) == 2 == probabilities.shape[1]:
            scores = _by_score(_bins(probabilities[true >= 0, 1]), true[true >= 0])
    return Quality(
        data=data,
        n=len(truth),
        classes=tuple(classes),
        answered=answered,
        correct=correct,
        confusion=_table(true[known], said[known], (len(classes), len(classes))),
        scores=scores,
    )


def measured(*, truth: Array, value: Array, data: DataKind) -> Quality:
    """Sum up a regressor's errors; both arrays have shape (N,)."""
    error = value.astype(np.float64) - truth.astype(np.float64)
    return Quality(data=data, n=len(truth), error_mean=float(error.mean()), error_std=float(error.std()))


def segments(
    columns: Mapping[str, Array], groupings: Sequence[Sequence[str]], *, metric: str, scores: Array
) -> tuple[Segment, ...]:
    """Return a figure for each part of the rows; at most 100 parts, the largest.

    Args:
        columns: Values by column name, shape (N,). Numbers with many values are split at their quartiles.
        groupings: Each one or more columns; several together make a part for every combination that occurs.
        metric: Name of the figure: ``accuracy`` for scores of 0 and 1, else a mean such as ``mean_absolute_error``.
        scores: What is averaged, shape (N,).
    """
    found = [part for names in groupings for part in _parts(columns, names, metric, scores)]
    return tuple(sorted(found, key=lambda part: -part.n)[:MAX_SEGMENTS])


def wilson(hits: int, n: int) -> Figure:
    """Return a share with Wilson's interval.

    >>> wilson(8, 10).low < 0.5 < wilson(8, 10).value
    True
    """
    share = hits / n
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * np.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n**2)) / (1 + _Z95**2 / n)
    low, high = float(centre - half), float(centre + half)
    return Figure(value=share, low=low if hits else 0.0, high=high if hits < n else 1.0)


def _parts(columns: Mapping[str, Array], names: Sequence[str], metric: str, scores: Array) -> Iterator[Segment]:
    texts = [_texts(columns[name]) for name in names]
    keys = list(zip(*(text.tolist() for text in texts), strict=True))
    rows: dict[tuple[str, ...], list[int]] = {}
    for at, key in enumerate(keys):
        rows.setdefault(key, []).append(at)
    for key in sorted(rows):
        part = scores[rows[key]]
        figure = wilson(int(part.sum()), len(part)) if metric == "accuracy" else _mean(part)
        yield Segment(by=dict(zip(names, key, strict=True)), n=len(part), metrics={metric: figure})


def _mean(values: Array) -> Figure:
    mean = float(values.mean())
    half = _Z95 * float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else float("inf")
    if not np.isfinite(half):  # one row says nothing of the spread
        return Figure(value=mean, low=mean, high=mean)
    return Figure(value=mean, low=mean - float(half), high=mean + float(half))


def _texts(values: Array) -> Array:
    if values.dtype.kind not in "iuf":
        return np.array(["missing" if v is None or v != v else str(v) for v in values.tolist()])  # noqa: PLR0124 - NaN
    numbers = values.astype(np.float64)
    missing = np.isnan(numbers)
    present = numbers[~missing]
    out = np.full(len(values), "missing", dtype=object)
    if len(np.unique(present)) <= _MOST_VALUES:
        out[~missing] = [f"{value:g}" for value in present]
    elif present.size:
        edges = np.unique(np.quantile(present, [0.25, 0.5, 0.75]))
        names = [f"< {edges[0]:.4g}", *(f"{a:.4g} to {b:.4g}" for a, b in itertools.pairwise(edges))]
        names.append(f">= {edges[-1]:.4g}")
        out[~missing] = [names[at] for at in np.searchsorted(edges, present, side="right")]
    return out.astype(str)


def _bins(probabilities: Array) -> Array:
    return np.clip((probabilities * CONFIDENCE_BINS).astype(np.int64), 0, CONFIDENCE_BINS - 1)


def _by_score(bins: Array, truth: Array) -> ScoreCounts:
    rows = np.bincount(bins, minlength=CONFIDENCE_BINS)
    positive = np.bincount(bins[truth == 1], minlength=CONFIDENCE_BINS)
    return ScoreCounts(rows=tuple(rows.tolist()), positive=tuple(positive.tolist()))


def _table(rows: Array, columns: Array, shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return tuple(tuple(row) for row in counts.tolist())

"""How right a model was on labelled rows: counts, so that a server can weigh and smooth them as it needs.

Owns their form inside ``reference.json``. Where they are made is `shoal-convert pack`; what is concluded from them (an
estimate of accuracy without labels) is the server's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shoal_protocol.canonical import rounded
from shoal_protocol.errors import ContentError

CONFIDENCE_BINS = 64
MAX_CLASSES = 100

DataKind = Literal["sample", "validation"]
Counts = tuple[tuple[int, ...], ...]


class ScoreCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows of a classifier with two classes, by bin of the second one's probability."""

    rows: tuple[int, ...]
    positive: tuple[int, ...]
    """Of them, those that truly are of the second class."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a classifier's answers, or the error of a regressor, on labelled rows."""

    data: DataKind
    n: int
    """Labelled rows."""
    classes: tuple[str, ...] = ()
    """Texts of the classes, the order of every axis below; empty for a regressor."""
    bins: int = CONFIDENCE_BINS
    """Equal bins of the confidence, the largest of the probabilities, on [0, 1]; 1.0 belongs to the last one."""
    answered: Counts = ()
    """Rows by predicted class and bin; empty where the model gives no probabilities."""
    correct: Counts = ()
    """The same, of the rows that were answered rightly."""
    confusion: Counts = ()
    """Rows by true and predicted class; a row of a class that the model lacks is in `n` and `answered` only."""
    scores: ScoreCounts | None = None
    """Of two classes, where the model gives probabilities: what a threshold anywhere on the score does follows."""
    error_mean: float | None = None
    """Of a regressor: mean of value - truth, in the target's unit."""
    error_std: float | None = None
    """Of a regressor: standard deviation (of the population) of value - truth."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A model's figures on a part of the labelled rows."""

    by: dict[str, str]
    """Column -> value that the part has in common."""
    n: int
    metrics: dict[str, Figure]


def rounded_quality(quality: Quality) -> Quality:
    """Return it with derived floats rounded to 6 significant digits."""
    mean, spread = quality.error_mean, quality.error_std
    return msgspec.structs.replace(
        quality,
        error_mean=None if mean is None else rounded(mean),
        error_std=None if spread is None else rounded(spread),
    )


def rounded_segment(segment: Segment) -> Segment:
    """Return it with derived floats rounded to 6 significant digits."""
    metrics = {
        name: Figure(value=rounded(figure.value), low=rounded(figure.low), high=rounded(figure.high))
        for name, figure in segment.metrics.items()
    }
    return msgspec.structs.replace(segment, metrics=metrics)


def check_quality(quality: Quality) -> Quality:
    """Return it if its counts fit each other.

    Raises:
        ContentError: A table has another shape than classes and bins say, a count is negative, or more were right than
            answered.
    """
    size, bins = len(quality.classes), quality.bins
    tables = (
        ("answered", quality.answered, (size, bins)),
        ("correct", quality.correct, (size, bins)),
        ("confusion", quality.confusion, (size, size)),
    )
    for name, table, (rows, columns) in tables:
        if table and (len(table) != rows or any(len(row) != columns for row in table)):
            raise ContentError(f"reference.json: quality.{name} is no table of {rows} x {columns} counts")
        if any(count < 0 for row in table for count in row):
            raise ContentError(f"reference.json: quality.{name} holds a negative count")
    if len(quality.answered) != len(quality.correct):
        raise ContentError("reference.json: quality.answered and quality.correct must be given together")
    pairs = zip(quality.answered, quality.correct, strict=True)
    if any(right > all_ for row, hits in pairs for all_, right in zip(row, hits, strict=True)):
        raise ContentError("reference.json: quality.correct counts more rows than were answered")
    if quality.scores is not None:
        _check_scores(quality.scores, bins)
    return quality


def _check_scores(scores: ScoreCounts, bins: int) -> None:
    if len(scores.rows) != bins or len(scores.positive) != bins:
        raise ContentError(f"reference.json: quality.scores are no two rows of {bins} counts")
    if any(not 0 <= positive <= rows for rows, positive in zip(scores.rows, scores.positive, strict=True)):
        raise ContentError(
            "reference.json: quality.scores.positive counts more rows than there are, or fewer than none"
        )

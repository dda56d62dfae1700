"""What rounding to float32 does to the features of a sample, and to the answers of its model.

Owns the diagnosis of lost precision: which feature loses most, and whether that changes an answer at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.domain.parity import Tolerance, compare
from shoal_converter.sample import Sample
from shoal_converter.sources.estimator import answers

Array = npt.NDArray[Any]

_MOST_SUSPECTS = 16


def lost_precision(sample: Sample) -> str | None:
    """Name the float32 feature that loses most of its spread to rounding; none when float32 holds every number."""
    found = max(_roundings(sample, dtypes=("float32",)), key=lambda loss: loss.share, default=None)
    return None if found is None else found.feature


@dataclass(frozen=True)
class Rounding:
    """What float32 does to one feature.

    Attributes:
        feature: Its name.
        at: Its place among the features.
        error: Largest rounding error, in its unit.
        spread: Its standard deviation.
        rows: Rows that the source model answers otherwise when this feature alone is rounded.
    """

    feature: str
    at: int
    error: float
    spread: float
    rows: int = 0

    @property
    def share(self) -> float:
        """The error as a share of the spread."""
        return self.error / (self.spread or 1.0)

    def sentence(self) -> str:
        """Say it for people."""
        return (
            f"The feature {self.feature!r} loses precision in float32 (it moves by up to {self.error:.2g}, its spread "
            f"is {self.spread:.2g}): rounding it alone changes the source's own answer in {self.rows} rows"
        )


def culprit(model: Any, sample: Sample, source: Mapping[str, Array], tolerance: Tolerance) -> Rounding | None:
    """Return the feature whose rounding to float32 changes most of the source's own answers; none: that is no cause.

    Args:
        model: The source.
        sample: Rows in both forms.
        source: The source's outputs on them.
        tolerance: What counts as a change.
    """
    worst: Rounding | None = None
    for loss in sorted(_roundings(sample), key=lambda loss: -loss.share)[:_MOST_SUSPECTS]:
        try:
            found = {
                answer.name: answer.values
                for answer in answers(model, _with_rounded(sample.source, sample.place(loss.at)))
            }
        except Exception:  # noqa: BLE001 - a diagnosis must not hide the fault that it explains
            return None
        rows = compare(source, found, tolerance).rows_off
        if rows > (worst.rows if worst else 0):
            worst = replace(loss, rows=rows)
    return worst


def _with_rounded(source: Any, at: int) -> Any:
    """Return a copy of the rows with one feature rounded to float32."""
    changed = source.copy()
    if hasattr(changed, "iloc"):
        name = changed.columns[at]
        changed[name] = changed[name].astype(np.float32).astype(np.float64)
    else:
        changed[:, at] = changed[:, at].astype(np.float32)
    return changed


def _roundings(sample: Sample, *, dtypes: tuple[str, ...] = ("float32", "float64")) -> Iterator[Rounding]:
    """Yield every feature that float32 can't hold."""
    for at, column in enumerate(sample.columns):
        if column.dtype not in dtypes:
            continue
        values = _source_column(sample.source, sample.place(at))
        if values is None or values.size == 0:
            continue
        with np.errstate(over="ignore"):
            error = float(np.max(np.abs(values - values.astype(np.float32).astype(np.float64))))
        if error > 0:
            yield Rounding(column.name, at, error, float(np.std(values)))


def _source_column(source: Any, at: int) -> Array | None:
    values = source.iloc[:, at].to_numpy() if hasattr(source, "iloc") else np.asarray(source)[:, at]
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        return None
    return np.asarray(numbers[np.isfinite(numbers)])

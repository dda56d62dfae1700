"""Why a source model refuses rows: the fault in the data, by column and row, in place of the library's own words.

Owns the diagnosis only; it looks at rows after the model has refused them, and never decides whether they fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import SampleError

Array = npt.NDArray[Any]

_MOST_NAMED = 5


def misfit(model: Any, method: str, rows: Any, error: Exception) -> SampleError:
    """Return what is said of rows that a model's method refused.

    Args:
        model: The source model.
        method: Which of its methods refused.
        rows: What it was given: a DataFrame, or an array.
        error: What it raised.
    """
    text = str(error)
    if "NaN" in text or "missing values" in text:
        found = _faulty(rows, _missing)
        if found:
            return SampleError(
                f"the sample has missing values in {found}, and the model takes none ({type(model).__name__}.{method})",
                hint="train with a SimpleImputer before it, which then travels along; or leave these rows out",
            )
    if "infinity" in text or "too large" in text:
        found = _faulty(rows, _infinite)
        if found:
            return SampleError(
                f"the sample has infinite values in {found}, and the model takes none",
                hint="leave these rows out, or clip the values before training and predicting",
            )
    if "convert string to float" in text:
        found = _faulty(rows, _textual)
        if found:
            return SampleError(
                f"the sample has texts in {found}, where the model expects numbers",
                hint="give the columns that it was trained on, as numbers: pd.to_numeric(column, errors='coerce') "
                "turns what is none into a missing value",
            )
    first = (text.strip().splitlines() or [type(error).__name__])[0]
    return SampleError(
        f"the model itself fails on the sample: {type(model).__name__}.{method}: {first}",
        hint="give rows exactly as the model was fitted on: the same columns, types and shape",
    )


def _columns(rows: Any) -> Iterator[tuple[str, Array]]:
    if hasattr(rows, "columns") and hasattr(rows, "iloc"):
        for at, label in enumerate(rows.columns):
            yield str(label), rows.iloc[:, at].to_numpy(dtype=object)
    elif np.ndim(rows) == 2:
        for at, values in enumerate(np.asarray(rows, dtype=object).T):
            yield f"x{at}", values


def _faulty(rows: Any, is_fault: Any) -> str:
    """Name the columns with faulty values, how many there are, and the first one's row."""
    found = []
    for name, values in _columns(rows):
        places = [at for at, value in enumerate(values.tolist()) if is_fault(value)]
        if places:
            found.append(f"{name!r} ({len(places)} of {len(values)} rows, first: row {places[0]})")
    more = f" and {len(found) - _MOST_NAMED} more columns" if len(found) > _MOST_NAMED else ""
    return ", ".join(found[:_MOST_NAMED]) + more


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ in {"NAType", "NaTType"} or _is_float(value, np.isnan)


def _infinite(value: Any) -> bool:
    return _is_float(value, np.isinf)


def _is_float(value: Any, test: Any) -> bool:
    return isinstance(value, (float, np.floating)) and bool(test(value))


def _textual(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False

"""One column of a data frame as devices feed it: its element type, its values, and what stands for a missing one.

Owns the rule by types: whole numbers and truth values become int64, other numbers floats with NaN where they are
missing, texts strings. What has no such form is refused, with the rows that are at fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal_converter.errors import SampleError
from shoal_protocol.bundle.schema import DType

Array = npt.NDArray[Any]

MISSING_TEXT = "__missing__"
"""What stands for a missing text in a tensor of strings, which can't hold one; the schema records it for devices."""


def fed_column(name: str, series: Any, float_dtype: DType) -> tuple[DType, Array]:
    """Return a column's element type and values, shape (N,).

    Args:
        name: For what is said of it.
        series: A pandas Series.
        float_dtype: Element type of floats.

    Raises:
        SampleError: It holds points in time, several types, or the text that stands for a missing one.
    """
    kind = getattr(series.dtype, "kind", "O")
    missing = np.asarray(series.isna(), dtype=bool)
    if kind in "mM":
        raise _in_time(name, series)
    if kind in "biu" and not missing.any():
        return "int64", series.to_numpy(dtype=np.int64)
    if kind in "biuf":
        return float_dtype, series.to_numpy(dtype=float_dtype, na_value=np.nan)
    values = series.to_numpy(dtype=object)
    present = values[~missing]
    if all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in present) and present.size:
        whole = not missing.any() and all(isinstance(value, (bool, int, np.integer, np.bool_)) for value in present)
        if whole:
            return "int64", values.astype(np.int64)
        return float_dtype, np.where(missing, np.nan, values).astype(float_dtype)
    if not all(isinstance(value, str) for value in present):
        raise _mixed(name, values, missing)
    if MISSING_TEXT in present:
        raise SampleError(f"column {name!r} holds the text {MISSING_TEXT!r}, which stands for a missing one on devices")
    if not present.size:
        refuse_missing_texts(name, np.where(missing, np.array(None), values))
    return "string", np.where(missing, MISSING_TEXT, values).astype(object)


def _in_time(name: str, series: Any) -> SampleError:
    column = f"df[{name!r}]"
    ways = (
        f"seconds by {column}.dt.total_seconds()"
        if series.dtype.kind == "m"
        else f"{column}.dt.hour, or seconds by {column}.astype('datetime64[s]').astype('int64')"
    )
    return SampleError(
        f"column {name!r} holds {series.dtype}, which ONNX models don't take",
        hint="derive number columns from it before training, which devices then send as well, for example "
        f"{ways}; leave it out if unused",
    )


def is_boolean(series: Any) -> bool:
    """Tell whether a column holds truth values and nothing else, save missing ones."""
    present = series[~series.isna()]
    return len(present) > 0 and all(isinstance(value, (bool, np.bool_)) for value in present)


def _mixed(name: str, values: Array, missing: Array) -> SampleError:
    """Return what is said of a column of several types: how many of each, and where the rarest begins."""
    kinds: dict[str, list[int]] = {}
    for at, value in enumerate(values.tolist()):
        if not missing[at]:
            kinds.setdefault(type(value).__name__, []).append(at)
    counted = sorted(kinds.items(), key=lambda item: -len(item[1]))
    rarest = counted[-1][1][0]
    parts = " and ".join(f"{len(places)} of type {kind}" for kind, places in counted)
    return SampleError(
        f"column {name!r} mixes types: {parts} (row {rarest} has {str(values[rarest])[:40]!r})",
        hint=f"make it one type before training and here: pd.to_numeric(df[{name!r}], errors='coerce') for numbers "
        f"(what is none becomes missing), df[{name!r}].astype(str) for texts",
    )


def refuse_missing_texts(name: str, values: Array) -> None:
    """Refuse texts of which some are missing, where nothing can stand for them.

    Raises:
        SampleError: With their number and the first one's row.
    """
    missing = [at for at, value in enumerate(values) if value is None or value != value]  # noqa: PLR0124 - NaN
    if missing:
        raise SampleError(
            f"column {name!r} has no text in {len(missing)} of {len(values)} rows (first: row {missing[0]}); "
            "an ONNX text tensor can't hold a missing value",
            hint="give missing text a word before training and predicting, for example fillna('missing')",
        )

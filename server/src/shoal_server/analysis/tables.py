"""Windows as long tables for pandas, Polars and Arrow: a row for each window, feature and bin that is not empty.

The three hold the same columns of the same types; instants say that they are in UTC, and a bin without bounds (missing
values, categories) has none: null, in pandas NaN.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal_protocol.errors import LocalError
from shoal_server.analysis.windows import Windows

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


def columns(windows: Windows) -> dict[str, Any]:
    """Return the columns of the table, all of one length.

    Returns:
        device, start (datetime64[ms], UTC), length_s, n (rows of the window), feature, bin, label, low, high, count.
    """
    spec = windows.reference.spec
    window, cell = np.nonzero(windows.cells)
    stream = np.searchsorted(spec.offsets, cell, side="right") - 1
    labels = np.array([label for name in windows.features for label in windows.labels(name)], dtype=np.str_)
    bounds = np.concatenate([windows.edges(name) for name in windows.features] or [np.zeros((0, 2))])
    return {
        "device": windows.device[window],
        "start": windows.start[window],
        "length_s": windows.length_ms[window] / 1000,
        "n": windows.n[window],
        "feature": np.array(windows.features, dtype=np.str_)[stream],
        "bin": cell - spec.offsets[stream],
        "label": labels[cell],
        "low": bounds[cell, 0],
        "high": bounds[cell, 1],
        "count": windows.cells[window, cell],
    }


def to_pandas(windows: Windows) -> pd.DataFrame:
    """Return a pandas frame; raises `LocalError` where pandas is missing."""
    frame: pd.DataFrame = _library("pandas").DataFrame(columns(windows))
    frame["start"] = frame["start"].dt.tz_localize("UTC")
    return frame


def to_polars(windows: Windows) -> pl.DataFrame:
    """Return a Polars frame; raises `LocalError` where Polars is missing."""
    polars = _library("polars")
    frame: pl.DataFrame = polars.DataFrame(columns(windows))
    return frame.with_columns(polars.col("start").dt.replace_time_zone("UTC"), polars.col("low", "high").fill_nan(None))


def to_arrow(windows: Windows) -> pa.Table:
    """Return an Arrow table; raises `LocalError` where pyarrow is missing."""
    pyarrow = _library("pyarrow")
    found = columns(windows)
    instants = pyarrow.array(found["start"]).cast(pyarrow.timestamp("ms", tz="UTC"))
    bounds = {name: pyarrow.array(found[name], from_pandas=True) for name in ("low", "high")}
    table: pa.Table = pyarrow.table({**found, "start": instants, **bounds})
    return table


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise LocalError(
            f"{name} is not installed", hint=f"pip install {name}, or use the numpy arrays of the windows"
        ) from error

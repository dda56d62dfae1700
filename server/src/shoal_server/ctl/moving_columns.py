"""Columns that say nothing of what is measured: times, row numbers, counters, identifiers. Pure.

They differ between any two files, so comparing them would call every file drifting, and most plainly by them.
"""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np

from shoal_protocol.profile.streams import time_unit
from shoal_server.ctl.sample_columns import Column

_IDENTIFIER = 0.5
_MOST_CATEGORIES = 64
_LOOKED_AT = 20
_FEWEST = 20
_DENSE = 2.0
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_CLOCK = r"(?:[T ,]+\d{1,2}:\d{2}.*)?"
_DATE = re.compile(
    rf"(?:\w{{3,9}},? )?(?:\d{{1,2}}([./-])\d{{1,2}}\1(?:19|20)\d\d|(?:19|20)\d\d([/-])\d{{1,2}}\2\d{{1,2}}"
    rf"|\d{{1,2}}[. -]+{_MONTH}[. -]+(?:19|20)?\d\d|{_MONTH} \d{{1,2}},? (?:19|20)\d\d){_CLOCK}",
    re.IGNORECASE,
)


def why_left_out(before: Column, now: Column) -> str:
    """Say why a column is no feature, to follow "was left out: "; nothing if it may be one.

    Args:
        before: Of the reference: float64, or texts of dtype object.
        now: Of the other file, of the same kind.
    """
    if before.dtype.kind == "O":
        return _of_texts(before)
    if min(before.size, now.size) < _FEWEST:
        return ""
    if time_unit(before) and time_unit(now):
        return (
            "it holds times, as seconds or parts of them since 1970, which only move on. To compare hours or weekdays, "
            "make columns of them."
        )
    if all(_counts_on(side) for side in (before, now)):
        return "from row to row it only counts on, as a row number, a time or a meter does."
    if all(_numbers_rows(side) for side in (before, now)):
        return "it numbers the rows: whole numbers, hardly any left out and none twice, as in an identifier."
    return ""


def _of_texts(column: Column) -> str:
    if _holds_times(column):
        first = next(text for text in column.tolist() if text)
        return (
            f"it holds times, such as {first}, which only move on. To compare hours or weekdays, make columns of them."
        )
    if len(set(column.tolist())) > max(_MOST_CATEGORIES, _IDENTIFIER * column.size):
        return "nearly every value differs, as in a name, time or identifier."
    return ""


def _holds_times(column: Column) -> bool:
    """Tell whether texts are dates or times, by the first of them."""
    some = [text for text in column[:1000].tolist() if text][:_LOOKED_AT]
    return bool(some) and all(_is_time(text) for text in some)


def _is_time(text: str) -> bool:
    if _DATE.fullmatch(text):
        return True
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "-" in text or ":" in text  # 20260105 may be any number


def _counts_on(column: Column) -> bool:
    """Tell whether every row is beyond the one before, in whole numbers or by equal steps."""
    steps = np.diff(column)
    if not np.isfinite(steps).all() or not ((steps > 0).all() or (steps < 0).all()):
        return False
    return bool((column == np.round(column)).all()) or bool(np.ptp(steps) <= 1e-6 * np.abs(column).max())


def _numbers_rows(column: Column) -> bool:
    if not np.isfinite(column).all() or (column != np.round(column)).any():
        return False
    return bool(np.ptp(column) < _DENSE * column.size) and np.unique(column).size == column.size

"""What a file of rows holds before it is known what a column means: numbers, or texts as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Column: TypeAlias = npt.NDArray[Any]
Raw: TypeAlias = "Column | list[str]"

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "<na>", "nat", "#n/a", "#na", "-nan"})
"""Texts that mean that there is no value, in small letters."""


@dataclass(frozen=True)
class Table:
    """Columns of one file, all of one length.

    Attributes:
        columns: Numbers with NaN for missing, or texts.
        notes: What people must know of how they were read.
        first_line: Values that stand where the names of the columns should; empty: they are named.
    """

    columns: dict[str, Raw]
    notes: list[str] = field(default_factory=list)
    first_line: tuple[str, ...] = ()


def number(text: str) -> float | None:
    """Return the number that a text is, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def parsed(texts: Sequence[str]) -> tuple[Column, list[str]]:
    """Return the numbers of texts, NaN for the others, and those that are neither numbers nor missing."""
    values = np.full(len(texts), np.nan)
    odd = []
    for at, text in enumerate(texts):
        if text.lower() in MISSING:
            continue
        found = number(text)
        if found is None:
            odd.append(text)
        else:
            values[at] = found
    return values, odd


def listed(names: Sequence[str]) -> str:
    """Write some names, and how many more there are."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more

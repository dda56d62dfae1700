"""A contract held against columns of raw rows: `shoalctl contract check` without its files. Pure, and exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal_protocol.bundle.contract import Rule
from shoal_protocol.profile.grid import category_text

Column: TypeAlias = npt.NDArray[Any]

MOST_ROWS = 5


_TRUTHS = {"true": 1.0, "false": 0.0}
"""What a feature of true and false is to a model, and so to a rule about its range."""


@dataclass(frozen=True)
class Finding:
    """What the rows say about one rule.

    Attributes:
        rule: The rule.
        rows: Rows checked; 0: the column is not there.
        violations: Rows that break it.
        first: Numbers of the first such rows, from 1.
        example: The first offending value as text.
    """

    rule: Rule
    rows: int
    violations: int
    first: tuple[int, ...]
    example: str

    @property
    def is_broken(self) -> bool:
        """Whether the column is absent, or more rows break the rule than it tolerates."""
        return self.rows == 0 or self.rule.is_broken(self.violations, self.rows)


def check_columns(rules: Sequence[Rule], columns: Mapping[str, Column]) -> list[Finding]:
    """Check every rule.

    Args:
        rules: The contract's.
        columns: Float64 with NaN for missing, or texts of dtype object with "" for missing, by name.
    """
    return [_finding(rule, columns.get(rule.field)) for rule in rules]


def _finding(rule: Rule, column: Column | None) -> Finding:
    if column is None:
        return Finding(rule, 0, 0, (), "")
    at = np.flatnonzero(_broken(rule, column))
    example = repr(column[at[0]].item() if hasattr(column[at[0]], "item") else column[at[0]]) if at.size else ""
    return Finding(rule, len(column), int(at.size), tuple(int(row) + 1 for row in at[:MOST_ROWS]), example)


def _broken(rule: Rule, column: Column) -> npt.NDArray[np.bool_]:
    is_text = column.dtype.kind not in "fiub"
    texts = [category_text(value) for value in column.tolist()] if is_text or rule.check == "categories" else []
    if rule.check == "missing":
        return np.array([text == "" for text in texts]) if is_text else np.isnan(column.astype(np.float64))
    if rule.check == "categories":
        known = {"", *rule.categories}
        return np.array([text not in known for text in texts])
    if rule.check == "range" and is_text:  # a number is wanted, and this column holds other things too
        return np.array([text != "" and not _within(rule, text) for text in texts])
    if rule.check == "range":
        low, high = (-np.inf if rule.low is None else rule.low), (np.inf if rule.high is None else rule.high)
        return np.asarray((column < low) | (column > high))
    return np.zeros(len(column), dtype=np.bool_)


def _within(rule: Rule, text: str) -> bool:
    try:
        value = _TRUTHS[text.lower()] if text.lower() in _TRUTHS else float(text)
    except ValueError:
        return False
    return (rule.low is None or value >= rule.low) and (rule.high is None or value <= rule.high)
